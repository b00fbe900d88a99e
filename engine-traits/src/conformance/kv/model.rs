//! A map as the model of an engine, random runs of both, and the search for the shortest
//! run that tells them apart.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::super::random::Random;
use super::{Row, scan, supported};
use crate::Direction::{Backward, Forward};
use crate::mem::Op;
use crate::{Cursor, Direction, Durability, KvEngine, Range, Reader, Result, WriteBatch};

/// What an engine should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    families: [BTreeMap<Bytes, Bytes>; Cf::ALL.len()],
}

impl Model {
    pub(super) fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put(cf, key, value) => {
                    self.families[cf.index()].insert(key.clone(), value.clone());
                }
                Op::Delete(cf, key) => {
                    self.families[cf.index()].remove(key);
                }
                Op::DeleteRange(cf, start, end) => {
                    let range = Range::new(start, end);
                    self.families[cf.index()].retain(|key, _| !range.contains(key));
                }
            }
        }
    }

    fn rows(&self, cf: Cf, range: Range<'_>, direction: Direction) -> Vec<Row> {
        let inside = self.families[cf.index()].iter().filter(|(key, _)| range.contains(key));
        let mut rows: Vec<Row> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
        if direction == Backward {
            rows.reverse();
        }
        rows
    }

    /// Everything a reader holds.
    pub(super) fn read(reader: &impl Reader) -> Result<Self> {
        let mut model = Self::default();
        for cf in Cf::ALL {
            let rows = scan(reader, cf, Range::ALL, Forward)?;
            model.families[cf.index()] = rows.into_iter().collect();
        }
        Ok(model)
    }
}

/// Puts the operations into a batch and writes it.
pub(super) fn carry_out<E: KvEngine>(engine: &E, ops: &[Op], durability: Durability) -> Result<()> {
    let mut batch = engine.write_batch();
    for op in ops {
        match op {
            Op::Put(cf, key, value) => batch.put(*cf, key, value),
            Op::Delete(cf, key) => batch.delete(*cf, key),
            Op::DeleteRange(cf, start, end) => batch.delete_range(*cf, Range::new(start, end)),
        }
    }
    engine.write(batch, durability)
}

/// A key out of few, so that operations meet; lengths differ, so that prefixes occur.
fn random_key(random: &mut Random) -> Bytes {
    let length = random.below(4);
    let letters = [0, b'a', b'b', 0xFF];
    (0..length).map(|_| letters[random.below(4).to_le_bytes()[0] as usize]).collect()
}

fn random_cf(random: &mut Random) -> Cf {
    Cf::ALL[usize::from(random.below(4).to_le_bytes()[0])]
}

/// Up to eight operations; every value is unique, so that states are told apart.
pub(super) fn random_ops(random: &mut Random, step: u64) -> Vec<Op> {
    let count = random.below(9);
    let mut ops: Vec<Op> = (0..count)
        .map(|number| {
            let cf = random_cf(random);
            match random.below(10) {
                0 => Op::DeleteRange(cf, random_key(random), random_key(random)),
                1 | 2 => Op::Delete(cf, random_key(random)),
                3 => Op::Put(cf, random_key(random), Bytes::new()),
                _ => {
                    let value = Bytes::from(format!("{step}.{number}"));
                    Op::Put(cf, random_key(random), value)
                }
            }
        })
        .collect();
    if !ops.is_empty() {
        // Makes the state after each write one of its own.
        ops.push(Op::Put(Cf::Raft, Bytes::from("step"), Bytes::from(step.to_string())));
    }
    ops
}

/// Runs `run(seed, steps)` over the seeds. At the first failure it looks for the fewest
/// steps that still fail, and reports seed and steps with that failure.
pub(in crate::conformance) fn over_seeds(
    seeds: u64,
    steps: u64,
    run: impl Fn(u64, u64) -> Verdict,
) -> Verdict {
    for seed in 1..=seeds {
        match run(seed, steps) {
            Ok(()) => {}
            Err(Failure::Failed(message)) => {
                for fewer in 1..steps {
                    if let Err(Failure::Failed(message)) = run(seed, fewer) {
                        let found = format!("seed {seed}, {fewer} steps: {message}");
                        return Err(Failure::Failed(found));
                    }
                }
                return Err(Failure::Failed(format!("seed {seed}, {steps} steps: {message}")));
            }
            Err(skipped) => return Err(skipped),
        }
    }
    Ok(())
}

const STEPS: u64 = 60;

/// Random batches, gets and whole walks agree with a map.
pub(super) fn random_writes_agree_with_a_map<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    over_seeds(make().model_seeds(), STEPS, |seed, steps| {
        let mut random = Random::new(seed);
        let mut fixture = make();
        let engine = fixture.open()?;
        let mut model = Model::default();
        for step in 0..steps {
            let ops = random_ops(&mut random, step);
            carry_out(&engine, &ops, Durability::Buffered)?;
            model.apply(&ops);
            let (cf, key) = (random_cf(&mut random), random_key(&mut random));
            let want = model.families[cf.index()].get(&key).cloned();
            same("get", &engine.get(cf, &key)?, &want)?;
            if step % 8 == 7 {
                same("everything", &Model::read(&engine)?, &model)?;
            }
        }
        same("everything", &Model::read(&engine)?, &model)
    })
}

/// Snapshots held over random writes agree with copies of the map.
pub(super) fn random_snapshots_agree_with_copies<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    over_seeds(make().model_seeds(), STEPS, |seed, steps| {
        let mut random = Random::new(seed);
        let mut fixture = make();
        let engine = fixture.open()?;
        let mut model = Model::default();
        let mut held = Vec::new();
        for step in 0..steps {
            let ops = random_ops(&mut random, step);
            carry_out(&engine, &ops, Durability::Buffered)?;
            model.apply(&ops);
            if random.one_in(6) {
                held.push((engine.snapshot()?, model.clone()));
            }
            if random.one_in(12) && !held.is_empty() {
                let (snapshot, copy) = held.remove(0);
                same("snapshot", &Model::read(&snapshot)?, &copy)?;
            }
        }
        for (snapshot, copy) in held {
            same("snapshot", &Model::read(&snapshot)?, &copy)?;
        }
        Ok(())
    })
}

/// Random walks with seeks, over random ranges and in both directions, agree with a map.
pub(super) fn random_walks_agree_with_a_map<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    over_seeds(make().model_seeds(), STEPS, |seed, steps| {
        let mut random = Random::new(seed);
        let mut fixture = make();
        let engine = fixture.open()?;
        let mut model = Model::default();
        for step in 0..12 {
            let ops = random_ops(&mut random, step);
            carry_out(&engine, &ops, Durability::Buffered)?;
            model.apply(&ops);
        }
        for _ in 0..steps {
            let cf = random_cf(&mut random);
            let (start, end) = (random_key(&mut random), random_key(&mut random));
            let direction = if random.one_in(2) { Forward } else { Backward };
            let range = Range::new(&start, &end);
            let rows = model.rows(cf, range, direction);
            let mut cursor = engine.cursor(cf, range, direction)?;
            walk(&mut *cursor, &rows, direction, &mut random)?;
        }
        Ok(())
    })
}

fn walk(
    cursor: &mut dyn Cursor,
    rows: &[Row],
    direction: Direction,
    random: &mut Random,
) -> Verdict {
    let mut at = 0;
    for _ in 0..random.below(20) {
        if random.one_in(4) {
            let key = random_key(random);
            cursor.seek(&key)?;
            at = rows.partition_point(|(row, _)| match direction {
                Forward => *row < key,
                Backward => *row > key,
            });
        } else {
            let got = cursor.next()?;
            let want = rows.get(at).map(|(key, value)| (key.as_ref(), value.as_ref()));
            same("row", &got, &want)?;
            at = (at + 1).min(rows.len());
        }
    }
    Ok(())
}

/// Random runs with syncs, stops and power cuts: what is left is always a prefix that
/// holds everything synced, and the engine goes on from it.
pub(super) fn random_power_cuts_leave_prefixes<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    over_seeds(make().model_seeds().div_ceil(2), STEPS, |seed, steps| {
        let mut random = Random::new(seed);
        let mut fixture = make();
        let mut engine = fixture.open()?;
        // The states a power cut may leave, oldest first.
        let mut states = vec![Model::default()];
        for step in 0..steps {
            let mut state = states.last().cloned().unwrap_or_default();
            let ops = random_ops(&mut random, step);
            let synced = random.one_in(5);
            let durability = if synced { Durability::Synced } else { Durability::Buffered };
            carry_out(&engine, &ops, durability)?;
            state.apply(&ops);
            if synced {
                states.clear();
            }
            states.push(state);
            if random.one_in(8) {
                engine.sync()?;
                states.drain(..states.len() - 1);
            }
            if random.one_in(10) {
                let keep = usize::from(random.below(6).to_le_bytes()[0]);
                supported(fixture.power_cut(engine, keep))?;
                engine = fixture.open()?;
                let left = Model::read(&engine)?;
                ensure!(states.contains(&left), "step {step}: {left:?} is no prefix");
                states = vec![left];
            }
        }
        Ok(())
    })
}
