//! Raft logs side by side: one entry and one state for each of many regions in one synced
//! batch, which is what a round of a busy store looks like; and reading entries back.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use engine_traits::{Durability, RaftEngine, RaftLogBatch, Result};
use raftstore_benches::{LogFactory, Memory, Numbers, RaftLogFiles, Redb, VALUE_BYTES, entry};
use raftstore_proto::{HardState, LocalState, PeerId, RegionId};

/// Entries kept per region: a log is cut like a store cuts it.
const KEPT: u64 = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    all::<Memory>(&mut criterion);
    all::<Redb>(&mut criterion);
    all::<RaftLogFiles>(&mut criterion);
    criterion.final_summary();
}

fn all<F: LogFactory>(criterion: &mut Criterion) {
    appends::<F>(criterion).expect("the log takes entries");
    reads::<F>(criterion).expect("the log can be read");
}

/// One round: an entry at `index` and a state for each region.
fn round<E: RaftEngine>(log: &E, regions: u64, index: u64, numbers: &mut Numbers) -> E::LogBatch {
    let mut batch = log.log_batch();
    for region in (1..=regions).map(RegionId::must) {
        batch.append(region, &[entry(region, index, numbers.bytes(VALUE_BYTES))]);
        let hard_state = HardState { term: 5, vote: 1, commit: index - 1 };
        let state = LocalState { peer: PeerId::must(1), hard_state, last_index: index };
        batch.put_raft_state(region, &state);
        if index.is_multiple_of(KEPT) {
            batch.truncate_prefix(region, index - KEPT / 2);
        }
    }
    batch
}

fn appends<F: LogFactory>(criterion: &mut Criterion) -> Result<()> {
    for regions in [1, 16, 256] {
        let (log, _folder) = F::make()?;
        let mut numbers = Numbers::new(1);
        let mut index = 0;
        let mut group = criterion.benchmark_group(format!("append/synced/{regions}"));
        group.throughput(Throughput::Elements(regions));
        group.bench_function(F::NAME, |bencher| {
            let batch = || {
                index += 1;
                round(&log, regions, index, &mut numbers)
            };
            let write = |batch| log.write(batch, Durability::Synced).expect("the disk takes it");
            // One at a time: each round follows the one before in its logs.
            bencher.iter_batched(batch, write, BatchSize::PerIteration);
        });
    }
    Ok(())
}

fn reads<F: LogFactory>(criterion: &mut Criterion) -> Result<()> {
    const ENTRIES: u64 = 10_000;
    let (log, _folder) = F::make()?;
    let mut numbers = Numbers::new(2);
    let region = RegionId::must(1);
    for low in (1..=ENTRIES).step_by(100) {
        let mut batch = log.log_batch();
        let entries: Vec<_> = (low..low + 100)
            .map(|index| entry(region, index, numbers.bytes(VALUE_BYTES)))
            .collect();
        batch.append(region, &entries);
        log.write(batch, Durability::Buffered)?;
    }
    log.sync()?;
    let mut group = criterion.benchmark_group("entries/64");
    group.throughput(Throughput::Elements(64));
    group.bench_function(F::NAME, |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            let low = 1 + numbers.draw() % (ENTRIES - 64);
            log.entries(region, black_box(low), low + 64, u64::MAX, &mut out).expect("readable")
        });
    });
    group.finish();
    Ok(())
}
