//! Maps as the model of a log engine, and random runs of both.

use std::collections::BTreeMap;

use raftstore_proto::{Entry, LocalState, RegionId};

use super::super::case::{Verdict, ensure, same};
use super::super::fixture::RaftLogFixture;
use super::super::kv::over_seeds;
use super::super::random::Random;
use super::{entries, state, supported};
use crate::{Durability, RaftEngine, RaftLogBatch, Result};

/// One change of one region.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Append(RegionId, Vec<Entry>),
    TruncatePrefix(RegionId, u64),
    PutRaftState(RegionId, LocalState),
    Clear(RegionId),
}

/// What a log engine should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    logs: BTreeMap<RegionId, BTreeMap<u64, Entry>>,
    states: BTreeMap<RegionId, LocalState>,
}

impl Model {
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Append(region, entries) => {
                    let log = self.logs.entry(*region).or_default();
                    if let Some(first) = entries.first() {
                        log.retain(|index, _| *index < first.index());
                    }
                    log.extend(entries.iter().map(|entry| (entry.index(), entry.clone())));
                }
                Change::TruncatePrefix(region, below) => {
                    if let Some(log) = self.logs.get_mut(region) {
                        log.retain(|index, _| index >= below);
                    }
                }
                Change::PutRaftState(region, state) => {
                    self.states.insert(*region, *state);
                }
                Change::Clear(region) => {
                    self.logs.remove(region);
                    self.states.remove(region);
                }
            }
        }
        self.logs.retain(|_, log| !log.is_empty());
    }

    /// Everything an engine holds below `INDEX_END`, looked at one by one.
    pub(super) fn read(engine: &impl RaftEngine) -> Result<Self> {
        Self::read_at(engine, 0..INDEX_END)
    }

    /// Everything an engine holds at the indexes.
    pub(super) fn read_at(
        engine: &impl RaftEngine,
        indexes: impl Iterator<Item = u64> + Clone,
    ) -> Result<Self> {
        let mut model = Self::default();
        for region in engine.regions()? {
            if let Some(state) = engine.raft_state(region)? {
                model.states.insert(region, state);
            }
            let log = model.logs.entry(region).or_default();
            for index in indexes.clone() {
                if let Some(entry) = engine.entry(region, index)? {
                    log.insert(index, entry);
                }
            }
        }
        model.logs.retain(|_, log| !log.is_empty());
        Ok(model)
    }

    fn bounds(&self, region: RegionId) -> Option<(u64, u64)> {
        let log = self.logs.get(&region)?;
        Some((*log.first_key_value()?.0, *log.last_key_value()?.0))
    }

    fn regions(&self) -> Vec<RegionId> {
        let mut regions: Vec<_> = self.logs.keys().chain(self.states.keys()).copied().collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }
}

/// No index of a case that reads a whole model reaches this one.
const INDEX_END: u64 = 120;
const STEPS: u64 = 60;
const REGIONS: u64 = 3;

/// Puts the changes into a batch and writes it.
pub(super) fn carry_out<E: RaftEngine>(
    engine: &E,
    changes: &[Change],
    durability: Durability,
) -> Result<()> {
    let mut batch = engine.log_batch();
    for change in changes {
        match change {
            Change::Append(region, entries) => batch.append(*region, entries),
            Change::TruncatePrefix(region, index) => batch.truncate_prefix(*region, *index),
            Change::PutRaftState(region, state) => batch.put_raft_state(*region, state),
            Change::Clear(region) => batch.clear_region(*region),
        }
    }
    engine.write(batch, durability)
}

fn random_region(random: &mut Random) -> RegionId {
    RegionId::must(1 + random.below(REGIONS))
}

/// A change that leaves no hole, after the changes already in `model`.
fn random_change(random: &mut Random, model: &Model, step: u64) -> Change {
    let region = random_region(random);
    let bounds = model.bounds(region);
    match (random.below(10), bounds) {
        (0, _) => Change::Clear(region),
        (1 | 2, Some((first, last))) => {
            Change::TruncatePrefix(region, first + random.below(last - first + 3))
        }
        (3, _) => Change::PutRaftState(region, state(step + 1)),
        (_, Some((_, last))) if last > 90 => Change::Clear(region),
        (_, Some((first, last))) => {
            // Mostly at the end, sometimes inside.
            let back = if random.one_in(3) { random.below(last - first + 1) } else { 0 };
            let low = last + 1 - back;
            Change::Append(region, entries(low, low + 1 + random.below(12), step + 1))
        }
        (_, None) => {
            let low = 1 + random.below(20);
            Change::Append(region, entries(low, low + 1 + random.below(12), step + 1))
        }
    }
}

/// Up to five changes and a mark that makes the state after them one of its own.
pub(super) fn random_changes(random: &mut Random, model: &Model, step: u64) -> Vec<Change> {
    let mut model = model.clone();
    let mut changes = Vec::new();
    for _ in 0..random.below(6) {
        let change = random_change(random, &model, step);
        model.apply(std::slice::from_ref(&change));
        changes.push(change);
    }
    changes.push(Change::PutRaftState(RegionId::must(REGIONS + 1), state(step + 1)));
    changes
}

/// Random batches and reads agree with maps.
pub(super) fn random_log_writes_agree_with_maps<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    over_seeds(make().model_seeds(), STEPS, |seed, steps| {
        let mut random = Random::new(seed);
        let mut fixture = make();
        let engine = fixture.open()?;
        let mut model = Model::default();
        for step in 0..steps {
            let changes = random_changes(&mut random, &model, step);
            carry_out(&engine, &changes, Durability::Buffered)?;
            model.apply(&changes);
            same("regions", &engine.regions()?, &model.regions())?;
            let region = random_region(&mut random);
            let low = random.below(INDEX_END);
            let high = low + random.below(30);
            let mut got = Vec::new();
            engine.entries(region, low, high, u64::MAX, &mut got)?;
            let log = model.logs.get(&region);
            let want: Vec<Entry> =
                (low..high).map_while(|index| log?.get(&index).cloned()).collect();
            same("entries", &got, &want)?;
            if step % 8 == 7 {
                same("everything", &Model::read(&engine)?, &model)?;
            }
        }
        same("everything", &Model::read(&engine)?, &model)
    })
}

/// Random runs with syncs and power cuts: what is left is always a prefix that holds
/// everything synced, and the log goes on from it.
pub(super) fn random_power_cuts_leave_log_prefixes<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    over_seeds(make().model_seeds().div_ceil(2), STEPS, |seed, steps| {
        let mut random = Random::new(seed);
        let mut fixture = make();
        let mut engine = fixture.open()?;
        // The states a power cut may leave, oldest first.
        let mut states = vec![Model::default()];
        for step in 0..steps {
            let mut state = states.last().cloned().unwrap_or_default();
            let changes = random_changes(&mut random, &state, step);
            let synced = random.one_in(5);
            let durability = if synced { Durability::Synced } else { Durability::Buffered };
            carry_out(&engine, &changes, durability)?;
            state.apply(&changes);
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
