//! The writer alone, with a lane that is played by the test.

use engine_traits::{
    KvEngine, RaftLogBatch, Reader, WriteBatch,
    mem::{Leaves, MemEngine, MemRaftLog},
};
use raftstore_proto::{Cf, HardState, LocalState, PeerId, RegionId};

use super::*;
use crate::runtime::{
    clock::MonoClock, counters::Counters, failure::Failure, router::Router, shared::LaneInlets,
    timings::Timings,
};

const R1: RegionId = RegionId::must(1);

struct Bench {
    kv: MemEngine,
    raft: MemRaftLog,
    lane: LaneInlets,
    shared: Arc<Shared>,
}

impl Bench {
    fn new() -> Self {
        let (lanes, mut inlets) = Shared::channels(1, 8);
        let router = Arc::<Router>::default();
        let failure = Failure::new(Arc::clone(&router), None);
        let (clock, counters) = (MonoClock::start(), Counters::default());
        let timings = Timings::default();
        let shared = Arc::new(Shared { clock, router, failure, counters, timings, lanes });
        let (kv, raft) = (MemEngine::default(), MemRaftLog::default());
        Self { kv, raft, lane: inlets.remove(0), shared }
    }

    /// A writer to whom these rounds, and no others, have come. Each leaves its number in
    /// both engines.
    fn writer(&self, numbers: std::ops::RangeInclusive<u64>) -> Writer<MemEngine, MemRaftLog> {
        let (sender, rounds) = crossbeam_channel::unbounded();
        for number in numbers {
            let mut kv = self.kv.write_batch();
            kv.put(Cf::Raft, &number.to_be_bytes(), b"written");
            let mut log = self.raft.log_batch();
            let hard_state = HardState { term: number, vote: 0, commit: 0 };
            let state = LocalState { peer: PeerId::must(1), hard_state, last_index: 0 };
            log.put_raft_state(R1, &state);
            sender.send(Writes { lane: LaneId(0), number, kv: Some(kv), log, sync: true }).unwrap();
        }
        Writer {
            kv: self.kv.clone(),
            raft: self.raft.clone(),
            meta: Arc::default(),
            rounds,
            shared: Arc::clone(&self.shared),
        }
    }

    /// The rounds the lane was told are durable.
    fn proofs(&self) -> Vec<u64> {
        let proofs = self.lane.significant.try_iter().flat_map(|input| match input {
            LaneInput::Proofs(proofs) => proofs,
            _ => panic!("the writer sends proofs only"),
        });
        proofs.map(|proof| proof.number()).collect()
    }

    fn in_kv(&self, number: u64) -> bool {
        self.kv.get(Cf::Raft, &number.to_be_bytes()).unwrap().is_some()
    }

    fn last_logged(&self) -> Option<u64> {
        self.raft.raft_state(R1).unwrap().map(|state| state.hard_state.term)
    }
}

/// R29: when the log write of a round fails, that round and all that wait with it get no
/// proof, and nothing that is queued behind them is written.
#[test]
fn r29_a_failed_log_write_is_the_last_write() {
    let bench = Bench::new();
    bench.raft.faults().fail_write(2, Leaves::Everything);
    let error = bench.writer(1..=3).run().unwrap_err();
    assert!(matches!(error.source, crate::FatalSource::Engine(_)), "{error:?}");
    assert!(bench.last_logged() <= Some(2), "the third round was written behind a failed one");
    assert!(bench.proofs().is_empty(), "declared durable though a write had failed");
    // The store stops, and what comes in meanwhile is not written either, on whichever
    // engine it was that failed.
    bench.shared.failure.fail(error);
    bench.writer(4..=4).run().unwrap();
    assert!(!bench.in_kv(4), "written after the store had failed");
    assert!(bench.proofs().is_empty());
}

/// R29: the same when the data engine fails: the log, which comes second, is not touched.
#[test]
fn r29_a_failed_kv_write_leaves_the_log_alone() {
    let bench = Bench::new();
    bench.kv.faults().fail_write(2, Leaves::Nothing);
    let error = bench.writer(1..=3).run().unwrap_err();
    assert!(matches!(error.source, crate::FatalSource::Engine(_)), "{error:?}");
    assert!(bench.proofs().is_empty());
    assert_eq!(bench.last_logged(), None);
    assert!(bench.in_kv(1) && !bench.in_kv(3));
}

/// R29: a sync that fails takes back what its writes seemed to have reached.
#[test]
fn r29_a_failed_sync_proves_nothing() {
    let bench = Bench::new();
    bench.raft.faults().fail_sync(1);
    bench.writer(1..=3).run().unwrap_err();
    assert!(bench.proofs().is_empty());
}

/// W10: without a failure everybody in the group gets a proof, after one sync.
#[test]
fn w10_a_group_is_proved_as_a_whole() {
    let bench = Bench::new();
    bench.writer(1..=3).run().unwrap();
    assert_eq!(bench.proofs(), [1, 2, 3]);
    assert_eq!(bench.last_logged(), Some(3));
    assert_eq!(bench.raft.unsynced_writes(), 0);
    let counters = bench.shared.counters.snapshot();
    assert_eq!((counters.rounds, counters.groups, counters.log_syncs), (3, 1, 1));
}
