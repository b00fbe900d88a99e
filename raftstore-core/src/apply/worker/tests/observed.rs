//! What observers are asked before writes are executed, and told behind.
#![expect(clippy::disallowed_types, reason = "observers are shared by threads, in tests too")]

use std::sync::{Arc, Mutex};

use super::*;
use crate::observe::{Asked, Observer};

/// Writes values in capitals, and what was meant for one key to one of no region here.
struct Capitals;

impl Observer for Capitals {
    fn name(&self) -> &'static str {
        "capitals"
    }

    fn pre_apply_query(&self, asked: &mut Asked<'_>, operations: &mut Vec<Operation>) {
        assert_eq!(asked.region().id, R1);
        for operation in operations {
            let Operation::Put { key, value, .. } = operation else { continue };
            *value = value.to_ascii_uppercase().into();
            if *key == "d" {
                *key = "zz".into();
            }
        }
    }
}

/// Stops the chain for commands whose first operation is a delete.
struct Gate;

impl Observer for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn pre_apply_query(&self, asked: &mut Asked<'_>, operations: &mut Vec<Operation>) {
        if matches!(operations.first(), Some(Operation::Delete { .. })) {
            asked.bypass();
        }
    }
}

/// Notes what it is told, and what the engine held at that moment.
struct Notes {
    kv: MemEngine,
    told: Mutex<Vec<Told>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Told {
    region: RegionId,
    applied: u64,
    indexes: Vec<u64>,
    c_in_engine: Option<Bytes>,
    state_in_engine: u64,
}

impl Observer for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn applied(&self, batch: &AppliedBatch<'_>) {
        let key = keys::apply_state_key(batch.region.id);
        let state = self.kv.get(Cf::Raft, &key).unwrap().unwrap();
        self.told.lock().unwrap().push(Told {
            region: batch.region.id,
            applied: batch.state.applied,
            indexes: batch.commands.iter().map(|command| command.index).collect(),
            c_in_engine: self.kv.get(Cf::Default, &keys::data_key(b"c")).unwrap(),
            state_in_engine: record::decode_apply_state(batch.region.id, &state).unwrap().applied,
        });
    }
}

fn observed(observers: &Observers) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.worker = fixture.worker.with_observers(observers.clone());
    fixture
}

#[test]
fn observers_change_what_is_executed_and_the_rules_hold_for_what_they_made() {
    let observers = Observers::default().with(1, Arc::new(Capitals));
    let mut fixture = observed(&observers);
    let outcome = fixture.execute(vec![entry(6, &operations(vec![put("c", "small")]))]);
    assert_eq!(answer(&outcome.answers, 6), &ok(vec![OperationResponse::Put]));
    assert_eq!(fixture.data("c"), Some("SMALL".into()));
    let moved = fixture.execute(vec![entry(7, &operations(vec![put("d", "v"), put("e", "v")]))]);
    let refused = answer(&moved.answers, 7);
    assert!(matches!(refused, Err(RegionError::KeyNotInRegion { .. })), "{refused:?}");
    assert_eq!((fixture.data("zz"), fixture.data("e")), (None, None));
}

#[test]
fn a_bypass_leaves_out_those_behind() {
    let observers = Observers::default().with(2, Arc::new(Capitals)).with(1, Arc::new(Gate));
    let mut fixture = observed(&observers);
    let body = vec![delete("f"), put("c", "small")];
    let _ = fixture.execute(vec![entry(6, &operations(body))]);
    assert_eq!(fixture.data("c"), Some("small".into()));
}

#[test]
fn commands_of_another_epoch_are_not_shown() {
    let observers = Observers::default().with(1, Arc::new(Capitals));
    let mut fixture = observed(&observers);
    let mut old = operations(vec![put("c", "v")]);
    old.header.epoch = Some(Epoch { version: EPOCH.version - 1, ..EPOCH });
    let outcome = fixture.execute(vec![entry(6, &old)]);
    let refused = answer(&outcome.answers, 6);
    assert!(matches!(refused, Err(RegionError::EpochNotMatch { .. })), "{refused:?}");
}

#[test]
fn batches_are_told_once_their_data_is_in_the_engine() {
    let kv = MemEngine::new();
    let notes = Arc::new(Notes { kv: kv.clone(), told: Mutex::default() });
    let observers = Observers::default().with(1, Arc::<Notes>::clone(&notes));
    let worker = ApplyWorker::new(kv.clone(), NoHooks).with_observers(observers);
    let mut fixture = Fixture { kv, meta: StoreMeta::default(), worker };
    let _ = fixture.run(vec![task(R1, registration(R1)), task(R2, registration(R2))]);
    let foreign = operations(vec![put("y", "outside of the region")]);
    let hash = command(Body::Admin(AdminCommand::ComputeHash));
    let _ = fixture.execute(vec![
        entry(6, &operations(vec![put("c", "1")])),
        entry(7, &foreign),
        empty(8, TERM),
        entry(9, &hash),
        entry(10, &operations(vec![put("c", "2"), delete("d")])),
    ]);
    let told = std::mem::take(&mut *notes.told.lock().unwrap());
    let one = |applied, indexes: &[u64], c: &'static str| Told {
        region: R1,
        applied,
        indexes: indexes.to_vec(),
        c_in_engine: Some(c.into()),
        state_in_engine: applied,
    };
    // The hash ends a batch. Refused and administrative entries are not told of.
    assert_eq!(told, [one(9, &[6], "1"), one(10, &[10], "2")]);
    let _ = fixture.execute(vec![empty(11, TERM)]);
    assert_eq!(*notes.told.lock().unwrap(), [], "nothing was written");
}
