//! What the log on a data engine keeps where, and what it does with bytes it did not write.

use engine_traits::mem::MemEngine;
use engine_traits::{
    Cf, Durability, Error, KvEngine, KvRaftLog, RaftEngine, RaftLogBatch, Range, Reader, WriteBatch,
};
use raftstore_proto::{Entry, HardState, LocalState, PeerId, RegionId};

const REGION: RegionId = RegionId::must(0x0102);

fn entry(index: u64) -> Entry {
    let mut raw = Entry::default().into_raft();
    raw.index = index;
    raw.term = 3;
    Entry::from_raft(raw)
}

fn key(suffix: &[u8]) -> Vec<u8> {
    [&[1, 2, 0, 0, 0, 0, 0, 0, 1, 2], suffix].concat()
}

fn entry_key(index: u8) -> Vec<u8> {
    key(&[1, 0, 0, 0, 0, 0, 0, 0, index])
}

fn log_with_entries() -> KvRaftLog<MemEngine> {
    let log = KvRaftLog::new(MemEngine::new());
    let mut batch = log.log_batch();
    batch.append(REGION, &[entry(7), entry(8)]);
    let hard_state = HardState { term: 3, vote: 1, commit: 7 };
    batch.put_raft_state(REGION, &LocalState { peer: PeerId::must(1), hard_state, last_index: 8 });
    assert!(log.write(batch, Durability::Synced).is_ok());
    log
}

fn put(engine: &MemEngine, key: &[u8], value: &[u8]) {
    let mut batch = engine.write_batch();
    batch.put(Cf::Default, key, value);
    assert!(engine.write(batch, Durability::Synced).is_ok());
}

#[test]
fn records_stand_under_the_keys_of_the_layout() {
    let log = log_with_entries();
    for key in [entry_key(7), entry_key(8), key(&[2])] {
        assert!(log.engine().get(Cf::Default, &key).unwrap().is_some(), "{key:?}");
    }
    assert_eq!(log.engine().approximate_size(Cf::Lock, Range::ALL, u64::MAX).unwrap(), 0);
}

/// H64: length, prefix and suffix of a key decide whose it is.
#[test]
fn keys_of_others_are_neither_regions_nor_entries() {
    let log = log_with_entries();
    for foreign in [&[1, 1][..], &[1, 2], &key(&[3]), &key(&[4]), &key(&[2, 0]), &[1, 3], b"zuser"]
    {
        put(log.engine(), foreign, b"not of the log");
    }
    let stranger = [1, 2, 0, 0, 0, 0, 0, 0, 9, 9, 3];
    put(log.engine(), &stranger, b"not of the log");
    assert_eq!(log.regions().unwrap(), [REGION]);
    let mut batch = log.log_batch();
    batch.clear_region(REGION);
    log.write(batch, Durability::Synced).unwrap();
    assert_eq!(log.regions().unwrap(), []);
    for foreign in [key(&[3]), key(&[4]), b"zuser".to_vec(), stranger.to_vec()] {
        assert!(log.engine().get(Cf::Default, &foreign).unwrap().is_some(), "{foreign:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_corruption_of_that_log() {
    let log = log_with_entries();
    let record = log.engine().get(Cf::Default, &entry_key(7)).unwrap().unwrap();
    for bit in 0..record.len() * 8 {
        assert!(log.engine().flip_bit(Cf::Default, &entry_key(7), bit));
        let read = log.entry(REGION, 7);
        assert!(matches!(read, Err(Error::CorruptLog { region: REGION, .. })), "{bit}: {read:?}");
        assert!(log.engine().flip_bit(Cf::Default, &entry_key(7), bit));
    }
    assert_eq!(log.entry(REGION, 7).unwrap(), Some(entry(7)));
    assert!(log.engine().flip_bit(Cf::Default, &key(&[2]), 3));
    let read = log.raft_state(REGION);
    assert!(matches!(read, Err(Error::CorruptLog { region: REGION, .. })), "{read:?}");
}

#[test]
fn record_in_another_entrys_place_is_corruption() {
    let log = log_with_entries();
    let record = log.engine().get(Cf::Default, &entry_key(7)).unwrap().unwrap();
    put(log.engine(), &entry_key(8), &record);
    let read = log.entry(REGION, 8);
    assert!(matches!(read, Err(Error::CorruptLog { region: REGION, .. })), "{read:?}");
}
