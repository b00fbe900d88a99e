//! What a hash worker does with jobs and questions.

use bytes::Bytes;
use engine_traits::{
    Durability, KvEngine, WriteBatch,
    mem::{MemEngine, MemSnapshot},
};
use raftstore_proto::{Epoch, Peer, PeerId, StoreId};

use super::*;
use crate::{hash::RegionHash, keys};

fn region(id: u64) -> Region {
    Region {
        id: RegionId::must(id),
        start_key: format!("{id}").into(),
        end_key: format!("{}", id + 1).into(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(id), StoreId::must(1))],
    }
}

/// 30 rows of each of the regions 1 to 9.
fn engine() -> MemEngine {
    let kv = MemEngine::default();
    let mut batch = kv.write_batch();
    for id in 1..=9 {
        for number in 0..30 {
            let key = format!("{id}-{number:02}");
            batch.put(Cf::Write, &keys::data_key(key.as_bytes()), &[b'v'; 10]);
        }
    }
    kv.write(batch, Durability::Buffered).unwrap();
    kv
}

fn job(kv: &MemEngine, id: u64, index: u64) -> HashJob<MemSnapshot> {
    HashJob { region: region(id), incarnation: 7, index, snapshot: kv.snapshot().unwrap() }
}

fn hash(kv: &MemEngine, id: u64) -> RegionHash {
    let mut walk = RowWalk::region(&region(id));
    assert!(walk.advance(kv, u64::MAX).unwrap());
    walk.region_hash()
}

fn question(ticket: u64, id: u64, index: u64) -> RangeQuestion {
    let (cf, start, end) = (Cf::Write, Vec::new(), Vec::new());
    RangeQuestion { ticket, region: RegionId::must(id), index, cf, start, end }
}

/// Works until a job ends; gives the slices it took, the region, index and hash.
fn ended(worker: &mut HashWorker<MemSnapshot>) -> (usize, u64, u64, Option<RegionHash>) {
    for slices in 1..1_000 {
        if let Some(done) = worker.step().done {
            let TaskDone::Hashed { region, incarnation: 7, index, hash } = done else {
                panic!("{done:?}")
            };
            return (slices, region.get(), index, hash);
        }
        assert!(!worker.is_idle());
    }
    panic!("never ends");
}

fn answered(worker: &mut HashWorker<MemSnapshot>) -> (u64, Result<RangeHash, RangeHashError>) {
    loop {
        let slice = worker.step();
        assert!(slice.done.is_none(), "questions come first");
        if let Some(answer) = slice.answer {
            return answer;
        }
    }
}

#[test]
fn regions_are_hashed_in_slices_in_the_order_given() {
    let kv = engine();
    let mut worker = HashWorker::new(100);
    assert!(worker.push(job(&kv, 3, 10)).is_none());
    assert!(worker.push(job(&kv, 2, 20)).is_none());
    let (slices, region, index, found) = ended(&mut worker);
    assert!(slices > 3, "{slices}");
    assert_eq!((region, index, found), (3, 10, Some(hash(&kv, 3))));
    let (_, region, index, found) = ended(&mut worker);
    assert_eq!((region, index, found), (2, 20, Some(hash(&kv, 2))));
    assert!(worker.is_idle());
}

/// H75: what waits is bounded, since each job holds a snapshot of the engine.
#[test]
fn h75_too_many_jobs_are_refused_and_told_to_have_failed() {
    let kv = engine();
    let mut worker = HashWorker::new(u64::MAX);
    for index in 0..WAITING_MAX as u64 {
        assert!(worker.push(job(&kv, 1, index)).is_none());
    }
    let refused = worker.push(job(&kv, 1, 99)).expect("too many");
    let TaskDone::Hashed { index: 99, hash: None, .. } = refused else { panic!("{refused:?}") };
    for index in 0..WAITING_MAX as u64 {
        assert_eq!(ended(&mut worker).2, index);
    }
}

/// H47, H75: an engine that fails costs the one job.
#[test]
fn h47_a_failing_engine_ends_the_job_without_a_hash() {
    let kv = engine();
    let mut worker = HashWorker::new(u64::MAX);
    for index in [1, 2] {
        assert!(worker.push(job(&kv, 1, index)).is_none());
    }
    kv.faults().fail_read(5);
    assert_eq!(ended(&mut worker), (1, 1, 1, None));
    assert!(!worker.keeps());
    assert_eq!(ended(&mut worker), (1, 1, 2, Some(hash(&kv, 1))));
}

#[test]
fn questions_are_about_what_was_hashed_last_and_come_first() {
    let kv = engine();
    let mut worker = HashWorker::new(100);
    assert!(worker.push(job(&kv, 1, 5)).is_none());
    ended(&mut worker);
    assert!(worker.push(job(&kv, 2, 6)).is_none());
    worker.step();
    // Later writes are not part of it.
    let mut batch = kv.write_batch();
    batch.delete_range(Cf::Write, engine_traits::Range::ALL);
    kv.write(batch, Durability::Buffered).unwrap();

    worker.ask(question(40, 1, 5));
    worker.ask(RangeQuestion {
        start: b"1-10".to_vec(),
        end: b"1-12".to_vec(),
        ..question(41, 1, 5)
    });
    worker.ask(RangeQuestion { cf: Cf::Lock, ..question(42, 1, 5) });
    worker.ask(RangeQuestion { end: b"1-01".to_vec(), ..question(43, 1, 5) });
    worker.ask(RangeQuestion { start: b"2".to_vec(), ..question(44, 1, 5) });
    let rows: Vec<(u64, u64)> = (0..5)
        .map(|_| {
            let (ticket, answer) = answered(&mut worker);
            (ticket, answer.unwrap().rows)
        })
        .collect();
    assert_eq!(rows, [(40, 30), (41, 2), (42, 0), (43, 1), (44, 0)]);

    worker.ask(question(1, 1, 6));
    worker.ask(question(2, 2, 5));
    worker.ask(RangeQuestion { cf: Cf::Raft, ..question(3, 1, 5) });
    for ticket in [1, 2] {
        let (found, answer) = answered(&mut worker);
        assert_eq!(found, ticket);
        assert!(matches!(answer, Err(RangeHashError::NotKept { .. })), "{answer:?}");
    }
    assert!(matches!(answered(&mut worker), (3, Err(RangeHashError::NotUserData { .. }))));
    assert_eq!(ended(&mut worker).1, 2, "the job goes on");
}

#[test]
fn what_is_kept_goes_with_the_next_job_or_when_told() {
    let kv = engine();
    let mut worker = HashWorker::new(100);
    for (id, index) in [(1, 5), (2, 6)] {
        assert!(worker.push(job(&kv, id, index)).is_none());
        ended(&mut worker);
    }
    worker.ask(question(1, 1, 5));
    assert!(matches!(answered(&mut worker).1, Err(RangeHashError::NotKept { .. })));
    worker.ask(question(2, 2, 6));
    assert!(worker.step().answer.is_none(), "it takes several slices");
    worker.forget();
    assert!(!worker.keeps());
    assert!(matches!(answered(&mut worker), (2, Err(RangeHashError::NotKept { .. }))));
    assert!(worker.is_idle());
}

/// The halves of two replicas are compared through their workers.
#[test]
fn two_workers_find_where_their_stores_differ() {
    struct Side(HashWorker<MemSnapshot>);
    impl super::super::HashedSide for Side {
        type Error = RangeHashError;
        fn range_hash(
            &mut self,
            cf: Cf,
            start: &[u8],
            end: &[u8],
        ) -> Result<RangeHash, RangeHashError> {
            let (start, end) = (start.to_vec(), end.to_vec());
            self.0.ask(RangeQuestion { cf, start, end, ..question(1, 4, 9) });
            answered(&mut self.0).1
        }
    }
    let (healthy, damaged) = (engine(), engine());
    let mut batch = damaged.write_batch();
    batch.put(Cf::Write, &keys::data_key(b"4-17"), b"damaged");
    damaged.write(batch, Durability::Buffered).unwrap();
    let mut sides = [healthy, damaged].map(|kv| {
        let mut worker = HashWorker::new(64);
        assert!(worker.push(job(&kv, 4, 9)).is_none());
        ended(&mut worker);
        Side(worker)
    });
    let [one, other] = &mut sides;
    let found = super::super::first_difference(one, other, &region(4)).unwrap().unwrap();
    assert_eq!((found.cf, found.start, found.rows), (Cf::Write, Bytes::from("4-17"), (1, 1)));
}
