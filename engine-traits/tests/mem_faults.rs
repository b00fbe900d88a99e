//! What the reference engines do on command: crashes, failures, full devices, damage.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::error::Error as _;

use bytes::Bytes;
use engine_traits::mem::{FaultCause, Leaves, MemEngine, MemRaftLog};
use engine_traits::{
    Cf, Direction, Durability, Error, KvEngine, RaftEngine, RaftLogBatch, Range, Reader, Result,
    WriteBatch,
};
use raftstore_proto::{Entry, RegionId};

const CF: Cf = Cf::Default;
const ONE: RegionId = RegionId::must(1);

fn put(engine: &MemEngine, key: &str, durability: Durability) -> Result<()> {
    let mut batch = engine.write_batch();
    batch.put(CF, key.as_bytes(), b"v");
    engine.write(batch, durability)
}

fn append(log: &MemRaftLog, index: u64, durability: Durability) -> Result<()> {
    let mut raw = Entry::default().into_raft();
    raw.index = index;
    let mut batch = log.log_batch();
    batch.append(ONE, &[Entry::from_raft(raw)]);
    log.write(batch, durability)
}

fn keys(reader: &impl Reader) -> String {
    let mut cursor = reader.cursor(CF, Range::ALL, Direction::Forward).unwrap();
    let mut keys = String::new();
    while let Some((key, _)) = cursor.next().unwrap() {
        keys.push_str(std::str::from_utf8(key).unwrap());
    }
    keys
}

fn cause<T: std::fmt::Debug>(result: Result<T>) -> FaultCause {
    let error = result.unwrap_err();
    *error.source().unwrap().downcast_ref::<FaultCause>().unwrap()
}

#[test]
fn crash_keeps_exactly_the_prefix_asked_for() {
    for keep in 0..6 {
        let engine = MemEngine::new();
        put(&engine, "a", Durability::Synced).unwrap();
        for key in ["b", "c", "d", "e"] {
            put(&engine, key, Durability::Buffered).unwrap();
        }
        assert_eq!(engine.unsynced_writes(), 4);
        engine.crash(keep);
        assert_eq!(engine.unsynced_writes(), 0);
        assert_eq!(keys(&engine.reopen()), "abcde"[..=keep.min(4)]);

        let log = MemRaftLog::new();
        append(&log, 1, Durability::Synced).unwrap();
        for index in 2..6 {
            append(&log, index, Durability::Buffered).unwrap();
        }
        assert_eq!(log.unsynced_writes(), 4);
        log.crash(keep);
        let log = log.reopen();
        let mut out = Vec::new();
        assert_eq!(log.entries(ONE, 1, 100, u64::MAX, &mut out).unwrap(), 1 + keep.min(4));
    }
}

#[test]
fn handles_snapshots_and_cursors_from_before_a_crash_are_dead() {
    let engine = MemEngine::new();
    put(&engine, "a", Durability::Synced).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(CF, Range::ALL, Direction::Forward).unwrap();
    let clone = engine.clone();
    engine.crash(0);
    assert_eq!(cause(snapshot.get(CF, b"a")), FaultCause::Dead);
    assert_eq!(cause(cursor.next()), FaultCause::Dead);
    assert_eq!(cause(clone.get(CF, b"a")), FaultCause::Dead);
    assert_eq!(cause(clone.sync()), FaultCause::Dead);
    assert_eq!(cause(put(&clone, "b", Durability::Buffered)), FaultCause::Dead);
    let reopened = engine.reopen();
    assert_eq!(cause(clone.get(CF, b"a")), FaultCause::Dead);
    assert_eq!(keys(&reopened), "a");

    let log = MemRaftLog::new();
    append(&log, 1, Durability::Synced).unwrap();
    log.crash(0);
    assert_eq!(cause(log.entry(ONE, 1)), FaultCause::Dead);
    assert_eq!(cause(append(&log, 2, Durability::Synced)), FaultCause::Dead);
    assert!(log.reopen().entry(ONE, 1).unwrap().is_some());
}

#[test]
fn reopening_without_a_crash_keeps_unsynced_writes_unsynced() {
    let engine = MemEngine::new();
    put(&engine, "a", Durability::Buffered).unwrap();
    let engine = engine.reopen();
    assert_eq!((keys(&engine).as_str(), engine.unsynced_writes()), ("a", 1));
    engine.crash(0);
    assert_eq!(keys(&engine.reopen()), "");
}

#[test]
fn chosen_write_fails_and_wedges_the_engine_until_it_is_reopened() {
    for (leaves, left) in [(Leaves::Nothing, "a"), (Leaves::Everything, "ab")] {
        let engine = MemEngine::new();
        engine.faults().fail_write(2, leaves);
        put(&engine, "a", Durability::Buffered).unwrap();
        assert_eq!(cause(put(&engine, "b", Durability::Synced)), FaultCause::Commanded);
        assert_eq!(cause(put(&engine, "c", Durability::Buffered)), FaultCause::Wedged);
        assert_eq!(cause(engine.sync()), FaultCause::Wedged);
        assert_eq!(keys(&engine), left);
        let engine = engine.reopen();
        put(&engine, "d", Durability::Synced).unwrap();
        assert_eq!(keys(&engine), format!("{left}d"));
    }
}

#[test]
fn failed_sync_leaves_the_writes_unsynced() {
    let engine = MemEngine::new();
    engine.faults().fail_sync(1);
    assert_eq!(cause(put(&engine, "a", Durability::Synced)), FaultCause::Commanded);
    assert_eq!((keys(&engine).as_str(), engine.unsynced_writes()), ("a", 1));
    engine.crash(0);
    assert_eq!(keys(&engine.reopen()), "");

    let log = MemRaftLog::new();
    append(&log, 1, Durability::Buffered).unwrap();
    log.faults().fail_sync(1);
    assert_eq!(cause(log.sync()), FaultCause::Commanded);
    assert_eq!(cause(append(&log, 2, Durability::Buffered)), FaultCause::Wedged);
    assert_eq!(log.unsynced_writes(), 1);
}

#[test]
fn chosen_read_fails_once() {
    let engine = MemEngine::new();
    put(&engine, "a", Durability::Synced).unwrap();
    engine.faults().fail_read(2);
    assert!(engine.get(CF, b"a").is_ok());
    assert_eq!(cause(engine.get(CF, b"a")), FaultCause::Commanded);
    assert!(engine.get(CF, b"a").is_ok());
    engine.faults().fail_read(1);
    engine.faults().clear();
    assert!(engine.get(CF, b"a").is_ok());
}

#[test]
fn full_device_is_a_typed_error_that_leaves_nothing() {
    let engine = MemEngine::new();
    put(&engine, "a", Durability::Synced).unwrap();
    engine.faults().set_full(true);
    let error = put(&engine, "b", Durability::Buffered).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(keys(&engine), "a");
    engine.faults().set_full(false);
    let engine = engine.reopen();
    put(&engine, "b", Durability::Buffered).unwrap();
    assert_eq!(keys(&engine), "ab");
}

#[test]
fn flipped_bit_is_read_as_it_is_and_damage_is_an_error() {
    let engine = MemEngine::new();
    put(&engine, "a", Durability::Synced).unwrap();
    assert!(engine.flip_bit(CF, b"a", 0));
    assert_eq!(engine.get(CF, b"a").unwrap(), Some(Bytes::from("w")));
    assert!(!engine.flip_bit(CF, b"a", 8) && !engine.flip_bit(CF, b"b", 0));
    assert!(engine.damage(CF, b"a") && !engine.damage(CF, b"b"));
    assert!(matches!(engine.get(CF, b"a"), Err(Error::Corrupt { .. })));
    put(&engine, "a", Durability::Synced).unwrap();
    assert_eq!(engine.get(CF, b"a").unwrap(), Some(Bytes::from("v")));

    let log = MemRaftLog::new();
    append(&log, 1, Durability::Synced).unwrap();
    append(&log, 2, Durability::Synced).unwrap();
    assert!(log.damage_entry(ONE, 2) && !log.damage_entry(ONE, 3));
    assert!(matches!(log.entry(ONE, 2), Err(Error::CorruptLog { region: ONE, .. })));
    assert!(log.entry(ONE, 1).unwrap().is_some());
    append(&log, 2, Durability::Synced).unwrap();
    assert!(log.entry(ONE, 2).unwrap().is_some());
}

#[test]
fn syncs_and_written_bytes_are_counted() {
    let engine = MemEngine::new();
    put(&engine, "a", Durability::Buffered).unwrap();
    put(&engine, "b", Durability::Synced).unwrap();
    engine.sync().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.syncs, stats.written_bytes), (2, 4));

    let log = MemRaftLog::new();
    append(&log, 1, Durability::Synced).unwrap();
    assert_eq!(log.stats().syncs, 1);
    assert!(log.stats().written_bytes > 0);
}
