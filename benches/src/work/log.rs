//! Work of raft logs.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use engine_traits::{Durability, RaftEngine, RaftLogBatch};
use raftstore_proto::{HardState, LocalState, PeerId, RegionId};
use transport_traits::BoxError;

use super::{Case, Run, Values};
use crate::{LogFactory, Numbers, entry};

/// Entries kept per region: a log is cut like a store cuts it.
pub(super) const KEPT: u64 = 64;

/// Entries of one fetch.
const FETCHED: u64 = 32;

/// Regions whose entries are fetched.
const READ_REGIONS: u64 = 256;

/// All of it, for one log.
#[must_use]
pub fn log_cases<F: LogFactory>() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, durability) in [("synced", Durability::Synced), ("buffered", Durability::Buffered)] {
        for regions in [1, 16, 256, 4096] {
            let name = format!("append/{kind}/{regions}");
            cases.push(Case::new(name, regions, move || appends::<F>(regions, durability, KEPT)));
        }
    }
    cases.push(Case::new("append and truncate/256", 256, || {
        appends::<F>(256, Durability::Buffered, 1)
    }));
    cases.push(Case::new("fetch/1", 1, || fetches::<F>(1)));
    cases.push(Case::new(format!("fetch/{FETCHED}"), FETCHED, || fetches::<F>(FETCHED)));
    cases
}

/// One round of a store: an entry at `index` and a state for each region. Every `kept` rounds
/// the older half of what is kept goes.
fn round<E: RaftEngine>(
    log: &E,
    regions: u64,
    index: u64,
    kept: u64,
    values: &mut Values,
) -> E::LogBatch {
    let mut batch = log.log_batch();
    for region in (1..=regions).map(RegionId::must) {
        batch.append(region, &[entry(region, index, values.next())]);
        batch.put_raft_state(region, &state(index));
        if index.is_multiple_of(kept) {
            batch.truncate_prefix(region, index - kept / 2);
        }
    }
    batch
}

fn state(index: u64) -> LocalState {
    let hard_state = HardState { term: 5, vote: 1, commit: index - 1 };
    LocalState { peer: PeerId::must(1), hard_state, last_index: index }
}

fn appends<F: LogFactory>(
    regions: u64,
    durability: Durability,
    kept: u64,
) -> Result<Run, BoxError> {
    let (log, folder) = F::make()?;
    let (mut index, mut values) = (0, Values::new());
    Ok(Box::new(move || {
        let _kept = &folder;
        index += 1;
        Ok(log.write(round(&log, regions, index, kept, &mut values), durability)?)
    }))
}

/// Writes `entries` entries to each of `regions` regions, sixteen of a region in a batch.
fn fill<E: RaftEngine>(log: &E, regions: u64, entries: u64) -> Result<(), BoxError> {
    let mut values = Values::new();
    for first in (1..=entries).step_by(16) {
        let mut batch = log.log_batch();
        for region in (1..=regions).map(RegionId::must) {
            let last = entries.min(first + 15);
            let of_region: Vec<_> =
                (first..=last).map(|index| entry(region, index, values.next())).collect();
            batch.append(region, &of_region);
            batch.put_raft_state(region, &state(last));
        }
        log.write(batch, Durability::Buffered)?;
    }
    Ok(log.sync()?)
}

fn fetches<F: LogFactory>(count: u64) -> Result<Run, BoxError> {
    let (log, folder) = F::make()?;
    fill(&log, READ_REGIONS, KEPT)?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let region = RegionId::must(numbers.draw() % READ_REGIONS + 1);
        let first = numbers.draw() % (KEPT - count + 1) + 1;
        let mut entries = Vec::with_capacity(usize::try_from(count)?);
        log.entries(region, first, first + count, u64::MAX, &mut entries)?;
        super::kv::all_there(black_box(&entries).len() as u64, count)
    }))
}

/// How long a log of `regions` regions with `entries` entries each takes to open, after it was
/// closed in good order. `None` for one that is not on a disk.
///
/// # Errors
/// If the log fails.
pub fn recovery<F: LogFactory>(regions: u64, entries: u64) -> Result<Option<Duration>, BoxError> {
    if !F::ON_DISK {
        return Ok(None);
    }
    let (log, folder) = F::make()?;
    fill(&log, regions, entries)?;
    drop(log);
    let begun = Instant::now();
    let log = F::open(folder.path())?;
    let found = log.regions()?.len() as u64;
    let took = begun.elapsed();
    super::kv::all_there(found, regions)?;
    let last = log.entry(RegionId::must(regions), entries)?;
    super::kv::found(last)?;
    Ok(Some(took))
}
