//! What raft is told when something is wrong: never what would make it abort.

use bytes::Bytes;
use engine_traits::{Durability, RaftLogBatch, mem::MemRaftLog};
use raftstore_proto::{EntryFlags, Epoch, Peer, StoreId};

use super::*;

const R1: RegionId = RegionId::must(1);

fn entry(index: u64, term: u64) -> Entry {
    let data = vec![7; 10];
    let context = Entry::context_for(R1, index, term, EntryFlags::default(), &data);
    let mut raw = RaftEntry::default();
    (raw.index, raw.term) = (index, term);
    (raw.context, raw.data) = (context.into(), data.into());
    Entry::from_raft(raw)
}

/// A log of the entries 6 to 9, of the terms 6 to 9, in the engine and not in the cache.
fn storage() -> (MemRaftLog, PeerStorage<MemRaftLog>) {
    let engine = MemRaftLog::default();
    let own = Peer::voter(PeerId::must(11), StoreId::must(1));
    let region = Region {
        id: R1,
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![own],
    };
    let local = LocalState {
        peer: own.id,
        hard_state: HardState { term: 9, vote: 0, commit: 9 },
        last_index: 9,
    };
    let mut batch = engine.log_batch();
    batch.append(R1, &(6..=9).map(|at| entry(at, at)).collect::<Vec<_>>());
    batch.put_raft_state(R1, &local);
    engine.write(batch, Durability::Synced).unwrap();
    let at = Truncated { index: 5, term: 5 };
    let storage = PeerStorage::new(engine.clone(), &region, &local, at, 9);
    (engine, storage)
}

fn read(storage: &PeerStorage<MemRaftLog>, low: u64, high: u64) -> Vec<u64> {
    let context = GetEntriesContext::empty(false);
    let entries = storage.entries(low, high, u64::MAX, context).unwrap();
    entries.iter().map(|entry| entry.index).collect()
}

/// R13: entries that cannot be read are left out, with all behind them, and remembered.
#[test]
fn r13_damaged_entries_are_answered_short_and_remembered() {
    let (engine, storage) = storage();
    assert_eq!(read(&storage, 6, 10), [6, 7, 8, 9]);
    assert!(storage.take_damage().is_none());
    assert!(engine.damage_entry(R1, 8));
    let short = read(&storage, 6, 10);
    assert!([6, 7].starts_with(&short), "{short:?} holds what nobody could have read");
    let damage = storage.take_damage();
    assert!(matches!(damage, Some(engine_traits::Error::CorruptLog { .. })), "{damage:?}");
    assert!(storage.take_damage().is_none(), "told once");
    assert_eq!(read(&storage, 6, 8), [6, 7]);
    assert!(storage.take_damage().is_none());
}

/// R13: so is an entry that is not there at all, in the middle or at the end.
#[test]
fn r13_missing_entries_are_damage_too() {
    let (engine, storage) = storage();
    let mut batch = engine.log_batch();
    batch.truncate_prefix(R1, 8);
    engine.write(batch, Durability::Synced).unwrap();
    assert!(read(&storage, 7, 10).is_empty());
    assert!(storage.take_damage().is_some());
    assert!(matches!(storage.term(7), Err(raft::Error::Store(StorageError::Unavailable))));
    assert!(storage.take_damage().is_some());
}

/// R13: an engine that fails is remembered the same way; the caller stops the store.
#[test]
fn r13_an_engine_failure_is_remembered() {
    let (engine, storage) = storage();
    engine.faults().fail_read(1);
    assert!(read(&storage, 6, 10).is_empty());
    let damage = storage.take_damage();
    assert!(matches!(damage, Some(engine_traits::Error::Backend { .. })), "{damage:?}");
    engine.faults().fail_read(1);
    assert!(storage.term(7).is_err());
    assert!(storage.take_damage().is_some());
    assert_eq!(storage.term(7).unwrap(), 7);
}

/// R13: the first thing that went wrong is the one that is told.
#[test]
fn r13_the_first_damage_is_kept() {
    let (engine, storage) = storage();
    assert!(engine.damage_entry(R1, 7));
    let _ = read(&storage, 6, 10);
    engine.faults().fail_read(1);
    let _ = storage.term(8);
    let first = storage.take_damage();
    assert!(matches!(first, Some(engine_traits::Error::CorruptLog { .. })), "{first:?}");
}

fn made(index: u64) -> SnapshotMaking {
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = index;
    SnapshotMaking::Made(Box::new(snapshot))
}

/// H49: whatever became of the snapshot raft asks for, it is told to ask later, never
/// anything that would make it abort, and the next wish is noted.
#[test]
fn h49_a_snapshot_that_is_not_there_is_temporarily_unavailable() {
    let (_, storage) = storage();
    let asked = |making: SnapshotMaking| {
        *storage.making.borrow_mut() = making;
        match storage.snapshot(7, 2) {
            Ok(snapshot) => Some(snapshot.get_metadata().index),
            Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)) => None,
            Err(other) => panic!("raft aborts on {other:?}"),
        }
    };
    let wanted = |storage: &PeerStorage<MemRaftLog>| match *storage.making.borrow() {
        SnapshotMaking::Wanted(index) => Some(index),
        _ => None,
    };
    assert_eq!(asked(SnapshotMaking::Idle), None);
    assert_eq!(wanted(&storage), Some(7));
    assert_eq!(asked(SnapshotMaking::Wanted(6)), None);
    assert_eq!(wanted(&storage), Some(6));
    assert_eq!(asked(SnapshotMaking::Underway(GivenUp::default())), None);
    assert_eq!(wanted(&storage), None);
    // One that does not reach far enough, and one that does.
    assert_eq!(asked(made(6)), None);
    assert_eq!(wanted(&storage), Some(7));
    assert_eq!(asked(made(7)), Some(7));
}

/// H49: a snapshot from before the log's start would leave a gap.
#[test]
fn h49_a_snapshot_from_before_the_log_is_not_given_out() {
    let (_, mut storage) = storage();
    storage.truncated = Truncated { index: 8, term: 8 };
    *storage.making.borrow_mut() = made(7);
    assert!(matches!(
        storage.snapshot(0, 2),
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    ));
}
