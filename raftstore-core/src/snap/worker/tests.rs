//! Installs end with the whole region or tell why not; order and cancelling are kept.

use bytes::Bytes;
use engine_traits::{
    Direction, Reader,
    mem::{MemBatch, MemEngine},
};
use raftstore_proto::{Epoch, Peer, StoreId};
use transport_traits::{MemSnapStore, SnapOp};

use super::*;
use crate::{
    hooks::NoHooks,
    snap::format::{Encoder, SnapHeader},
};

const REGION: RegionId = RegionId::must(7);
const PEER: PeerId = PeerId::must(70);
const KEY: SnapKey = SnapKey { region: REGION, term: 3, index: 12 };
const RECEIVED: SnapDirection = SnapDirection::Received;

fn region() -> Region {
    Region {
        id: REGION,
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"m"),
        epoch: Epoch { conf_ver: 2, version: 5 },
        peers: vec![Peer::voter(PEER, StoreId::must(1))],
    }
}

type Worker<H = NoHooks> = RegionWorker<MemEngine, H>;

struct Bench {
    kv: MemEngine,
    snaps: MemSnapStore,
    numbers: KvNumbers,
}

impl Bench {
    /// An engine with old rows in and around the region, whose record says Applying.
    fn new() -> Self {
        let this = Self {
            kv: MemEngine::new(),
            snaps: MemSnapStore::new(u64::MAX),
            numbers: KvNumbers::default(),
        };
        this.put_all(&[b"a", b"b", b"f", b"m", b"x"], b"old");
        this.put_phase(RegionPhase::Applying);
        let mut batch = this.kv.write_batch();
        batch.put(Cf::Raft, &keys::snapshot_raft_state_key(REGION), b"copy");
        this.write(batch);
        this
    }

    fn write(&self, batch: MemBatch) {
        self.kv.write(batch, Durability::Synced).unwrap();
        self.numbers.next_written();
    }

    fn put_all(&self, rows: &[&[u8]], value: &[u8]) {
        let mut batch = self.kv.write_batch();
        for cf in DATA_CFS {
            for key in rows {
                batch.put(cf, &keys::data_key(key), value);
            }
        }
        self.write(batch);
    }

    fn put_phase(&self, phase: RegionPhase) {
        let state = record::encode_region_state(REGION, &RegionState { phase, region: region() });
        let mut batch = self.kv.write_batch();
        batch.put(Cf::Raft, &keys::region_state_key(REGION), &state);
        self.write(batch);
    }

    fn phase(&self) -> RegionPhase {
        let state = self.kv.get(Cf::Raft, &keys::region_state_key(REGION)).unwrap().unwrap();
        record::decode_region_state(REGION, &state).unwrap().phase
    }

    fn receive(&self, region: Region, rows: &[&[u8]]) {
        let writer = self.snaps.create(RECEIVED, KEY).unwrap();
        let mut encoder = Encoder::start(writer, &SnapHeader { key: KEY, region }, 20).unwrap();
        for cf in DATA_CFS {
            for key in rows {
                encoder.push(cf, &keys::data_key(key), b"new").unwrap();
            }
        }
        encoder.finish().unwrap();
    }

    fn worker<H: Hooks>(&self, hooks: H) -> Worker<H> {
        RegionWorker::new(self.kv.clone(), Arc::new(self.snaps.clone()), hooks, 8)
    }

    /// User keys and values of one family.
    fn rows(&self, cf: Cf) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let mut cursor = self.kv.cursor(cf, Range::ALL, Direction::Forward).unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            rows.push((keys::origin_key(key).to_vec(), value.to_vec()));
        }
        rows
    }

    fn assert_rows(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        for cf in DATA_CFS {
            assert_eq!(self.rows(cf), expected, "{cf}");
        }
    }

    fn run<H: Hooks>(&self, worker: &mut Worker<H>) -> Vec<TaskDone> {
        let mut done = Vec::new();
        for _ in 0..1000 {
            let slice = worker.step(&self.numbers).unwrap();
            done.extend(slice.done);
            if slice.idle {
                return done;
            }
        }
        panic!("the worker never gets idle");
    }
}

const OLD: [(&str, &str); 5] =
    [("a", "old"), ("b", "old"), ("f", "old"), ("m", "old"), ("x", "old")];
const INSTALLED: [(&str, &str); 6] =
    [("a", "old"), ("c", "new"), ("d", "new"), ("e", "new"), ("m", "old"), ("x", "old")];

fn install(incarnation: u64) -> Task {
    Task::Install { region: region(), peer: PEER, incarnation, key: KEY }
}

fn outcome(done: &[TaskDone]) -> InstallOutcome {
    match done {
        [TaskDone::Installed { region: REGION, incarnation: 9, outcome }] => *outcome,
        other => panic!("not one end of the install: {other:?}"),
    }
}

#[test]
fn an_install_replaces_the_range_and_records_it() {
    let bench = Bench::new();
    bench.receive(region(), &[b"c", b"d", b"e"]);
    let mut worker = bench.worker(NoHooks);
    worker.push(install(9));
    let done = bench.run(&mut worker);
    assert_eq!(outcome(&done), InstallOutcome::Done { kv_number: bench.numbers.written() });
    bench.assert_rows(&INSTALLED);
    assert_eq!(bench.phase(), RegionPhase::Normal);
    assert_eq!(bench.kv.get(Cf::Raft, &keys::snapshot_raft_state_key(REGION)).unwrap(), None);
    assert_eq!(bench.snaps.list().unwrap().len(), 1, "the bytes stay until the write is durable");
}

/// Whatever prefix of the writes a crash leaves, the record says Normal only with the rows.
#[test]
fn h5_a_crash_at_any_write_leaves_applying_or_everything() {
    for kept in 0..64 {
        let bench = Bench::new();
        bench.receive(region(), &[b"c", b"d", b"e"]);
        let mut worker = bench.worker(NoHooks);
        worker.push(install(9));
        for _ in 0..kept {
            drop(worker.step(&bench.numbers).unwrap());
        }
        if bench.phase() == RegionPhase::Normal {
            assert!(worker.is_idle());
            bench.assert_rows(&INSTALLED);
            return;
        }
        drop(worker);
        // Redone from the start over whatever is there.
        let mut worker = bench.worker(NoHooks);
        worker.push(install(9));
        assert!(matches!(outcome(&bench.run(&mut worker)), InstallOutcome::Done { .. }));
        bench.assert_rows(&INSTALLED);
    }
    panic!("the install never ends");
}

#[test]
fn h56_damage_anywhere_touches_nothing() {
    let bench = Bench::new();
    bench.receive(region(), &[b"c", b"d", b"e"]);
    let size = usize::try_from(bench.snaps.list().unwrap()[0].2).unwrap();
    for offset in 0..size {
        assert!(bench.snaps.corrupt(RECEIVED, KEY, offset, 0x10));
        let mut worker = bench.worker(NoHooks);
        worker.push(install(9));
        assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::BadContent, "byte {offset}");
        assert!(bench.snaps.corrupt(RECEIVED, KEY, offset, 0x10));
    }
    bench.assert_rows(&OLD);
    assert_eq!(bench.phase(), RegionPhase::Applying);
}

#[test]
fn h50_a_missing_unreadable_or_foreign_snapshot_is_bad_content() {
    let bench = Bench::new();
    let mut worker = bench.worker(NoHooks);
    worker.push(install(9));
    assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::BadContent);

    bench.receive(Region { start_key: Bytes::from_static(b"c"), ..region() }, &[b"c"]);
    worker.push(install(9));
    assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::BadContent);

    let epoch = Epoch { conf_ver: 2, version: 4 };
    bench.receive(Region { epoch, ..region() }, &[b"c"]);
    worker.push(install(9));
    assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::BadContent);

    bench.receive(region(), &[b"c"]);
    bench.snaps.fail_next(SnapOp::Read, 1);
    worker.push(install(9));
    assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::BadContent);
    bench.assert_rows(&OLD);
}

/// Bytes that go bad between the two passes never reach the engine either.
#[test]
fn damage_between_the_passes_writes_no_bad_row() {
    let bench = Bench::new();
    bench.receive(region(), &[b"c", b"d", b"e"]);
    let size = usize::try_from(bench.snaps.list().unwrap()[0].2).unwrap();
    let mut worker = bench.worker(NoHooks);
    worker.push(install(9));
    while !matches!(worker.installing.as_ref().map(|i| &i.phase), Some(Phase::Clearing)) {
        drop(worker.step(&bench.numbers).unwrap());
    }
    assert!(bench.snaps.corrupt(RECEIVED, KEY, size - 30, 1));
    assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::BadContent);
    assert_eq!(bench.phase(), RegionPhase::Applying);
    for (_, value) in bench.rows(Cf::Write) {
        assert!(value == b"old" || value == b"new");
    }
}

#[test]
fn a_cancel_stops_between_slices_and_is_told_once() {
    for slices in 0..64 {
        let bench = Bench::new();
        bench.receive(region(), &[b"c", b"d", b"e"]);
        let mut worker = bench.worker(NoHooks);
        worker.push(install(9));
        let mut done = Vec::new();
        for _ in 0..slices {
            done.extend(worker.step(&bench.numbers).unwrap().done);
        }
        worker.push(Task::CancelInstall { region: REGION, incarnation: 8 });
        worker.push(Task::CancelInstall { region: REGION, incarnation: 9 });
        worker.push(Task::CancelInstall { region: REGION, incarnation: 9 });
        if worker.is_idle() {
            assert!(matches!(outcome(&done), InstallOutcome::Done { .. }));
            return;
        }
        done.extend(bench.run(&mut worker));
        assert_eq!(outcome(&done), InstallOutcome::Cancelled);
        assert_eq!(bench.phase(), RegionPhase::Applying);
    }
    panic!("the install never ends");
}

#[test]
fn h52_deletions_and_installs_keep_their_order() {
    let delete = || Task::DeleteRange {
        start: keys::data_key(b"b"),
        end: keys::data_key(b"z"),
        left_by: None,
    };
    let bench = Bench::new();
    bench.receive(region(), &[b"c"]);
    let mut worker = bench.worker(NoHooks);
    worker.push(delete());
    worker.push(install(9));
    assert_eq!(bench.run(&mut worker).len(), 1);
    bench.assert_rows(&[("a", "old"), ("c", "new")]);
    bench.put_phase(RegionPhase::Applying);
    worker.push(install(9));
    worker.push(delete());
    assert_eq!(bench.run(&mut worker).len(), 1);
    bench.assert_rows(&[("a", "old")]);
}

#[test]
fn an_empty_or_reversed_range_deletes_nothing() {
    let bench = Bench::new();
    let mut worker = bench.worker(NoHooks);
    worker.push(Task::DeleteRange {
        start: keys::data_key(b"m"),
        end: keys::data_key(b"b"),
        left_by: None,
    });
    assert!(bench.run(&mut worker).is_empty());
    bench.assert_rows(&OLD);
}

#[test]
fn a_removed_replica_is_not_brought_back() {
    for phase in [RegionPhase::Tombstone, RegionPhase::Quarantined, RegionPhase::Normal] {
        let bench = Bench::new();
        bench.receive(region(), &[b"c"]);
        bench.put_phase(phase);
        let mut worker = bench.worker(NoHooks);
        worker.push(install(9));
        assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::Cancelled);
        bench.assert_rows(&OLD);

        // And not if it is removed under way.
        bench.put_phase(RegionPhase::Applying);
        worker.push(install(9));
        drop(worker.step(&bench.numbers).unwrap());
        bench.put_phase(phase);
        assert_eq!(outcome(&bench.run(&mut worker)), InstallOutcome::Cancelled);
        assert_eq!(bench.phase(), phase);
    }
}

#[test]
fn snapshots_are_removed_and_a_failure_to_is_no_end() {
    let bench = Bench::new();
    bench.receive(region(), &[b"c"]);
    bench.snaps.fail_next(SnapOp::Delete, 1);
    let mut worker = bench.worker(NoHooks);
    worker.push(Task::DeleteSnapshot { direction: RECEIVED, key: KEY });
    assert!(bench.run(&mut worker).is_empty());
    assert_eq!(bench.snaps.list().unwrap().len(), 1);
    worker.push(Task::DeleteSnapshot { direction: RECEIVED, key: KEY });
    assert!(bench.run(&mut worker).is_empty());
    assert_eq!(bench.snaps.list().unwrap(), []);
}

#[derive(Clone)]
struct OverOldData;

impl Hooks for OverOldData {
    fn planted(&self, bug: Bug) -> bool {
        bug == Bug::InstallOverOldData
    }
}

#[test]
fn the_planted_bug_leaves_old_rows() {
    let bench = Bench::new();
    bench.receive(region(), &[b"c"]);
    let mut worker = bench.worker(OverOldData);
    worker.push(install(9));
    assert!(matches!(outcome(&bench.run(&mut worker)), InstallOutcome::Done { .. }));
    assert!(bench.rows(Cf::Lock).contains(&(b"f".to_vec(), b"old".to_vec())));
}

/// H55: what nobody knows of goes with the second pass in a row that does not know it; what
/// is known stays, and so does what belongs to another lane.
#[test]
fn h55_forgotten_snapshots_are_collected() {
    let bench = Bench::new();
    bench.receive(region(), &[b"c"]);
    let mut worker = bench.worker(NoHooks);
    let left = |bench: &Bench| bench.snaps.list().expect("the list can be read").len();
    let known = bench.snaps.list().expect("the list can be read");
    let known: Vec<_> = known.into_iter().map(|(direction, key, _)| (direction, key)).collect();
    let lane = (LaneId(0), 1);
    let pass = |known: Vec<(SnapDirection, SnapKey)>, lane| Task::CollectSnapshots { lane, known };
    for round in [pass(known.clone(), lane), pass(Vec::new(), lane), pass(known, lane)] {
        worker.push(round);
        assert!(bench.run(&mut worker).is_empty());
        assert_eq!(left(&bench), 1);
    }
    let other = LaneId(u16::from(LaneId::of(REGION, 2) == LaneId(0)));
    for _ in 0..2 {
        worker.push(pass(Vec::new(), (other, 2)));
        assert!(bench.run(&mut worker).is_empty());
    }
    assert_eq!(left(&bench), 1, "another lane's");
    for expected in [1, 0] {
        worker.push(pass(Vec::new(), lane));
        assert!(bench.run(&mut worker).is_empty());
        assert_eq!(left(&bench), expected);
    }
}
