//! Ingestion, sizes, points to split at, copies, and space.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use bytes::Bytes;
use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::{Cf, Durability, Error, KvEngine, Range, Reader, WriteBatch};
use tempfile::TempDir;

fn open() -> (TempDir, RocksEngine) {
    let dir = tempfile::tempdir().unwrap();
    let options = RocksOptions::default().with_compressed(false);
    let engine = RocksEngine::open(dir.path().join("data"), &options).unwrap();
    (dir, engine)
}

fn key(number: u32) -> Bytes {
    format!("key {number:08}").into()
}

fn rows(numbers: impl IntoIterator<Item = u32>) -> impl Iterator<Item = (Bytes, Bytes)> {
    numbers.into_iter().map(|number| (key(number), vec![b'v'; 1000].into()))
}

#[test]
fn ingested_rows_are_in_files_at_once() {
    let (dir, engine) = open();
    engine.ingest(Cf::Write, &mut rows(0..5_000)).unwrap();
    assert!(engine.stats().used_bytes > 4_000_000, "{:?}", engine.stats());
    assert_eq!(engine.get(Cf::Write, &key(4_999)).unwrap().unwrap().len(), 1000);
    engine.ingest(Cf::Write, &mut std::iter::empty()).unwrap();
    let left = std::fs::read_dir(dir.path().join("data").join("ingest")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn rows_out_of_order_are_refused_and_none_is_stored() {
    let (_dir, engine) = open();
    for numbers in [[1, 3, 2], [1, 2, 2]] {
        let error = engine.ingest(Cf::Default, &mut rows(numbers)).unwrap_err();
        assert!(matches!(error, Error::InvalidBatch { .. }), "{error:?}");
        assert_eq!(engine.get(Cf::Default, &key(1)).unwrap(), None);
    }
    engine.ingest(Cf::Default, &mut rows([1, 2, 3])).unwrap();
    assert!(engine.get(Cf::Default, &key(2)).unwrap().is_some());
}

#[test]
fn sizes_are_about_right_in_files_and_in_memory() {
    let (_dir, engine) = open();
    engine.ingest(Cf::Default, &mut rows(0..5_000)).unwrap();
    let size = |low, high, limit| {
        engine.approximate_size(Cf::Default, Range::new(&key(low), &key(high)), limit).unwrap()
    };
    let all = engine.approximate_size(Cf::Default, Range::ALL, 1_000_000).unwrap();
    assert!((4_500_000..6_000_000).contains(&all), "{all}");
    assert!((900_000..1_200_000).contains(&size(1_000, 2_000, u64::MAX)));
    assert!(size(1_000, 2_000, 100_000) >= 100_000);
    assert_eq!(size(9_000, 9_999, 100_000), 0);
    let mut batch = engine.write_batch();
    for (key, value) in rows(8_000..8_100) {
        batch.put(Cf::Default, &key, &value);
    }
    engine.write(batch, Durability::Buffered).unwrap();
    assert!((100_000..110_000).contains(&size(8_000, 9_000, u64::MAX)));
}

#[test]
fn split_keys_part_a_range_evenly() {
    let (_dir, engine) = open();
    engine.ingest(Cf::Default, &mut rows(0..20_000)).unwrap();
    for (low, high, count) in [(0, 20_000, 1), (0, 20_000, 3), (5_000, 15_000, 4)] {
        let (start, end) = (key(low), key(high));
        let range = Range::new(&start, &end);
        let keys = engine.split_keys(Cf::Default, range, count).unwrap();
        assert_eq!(keys.len(), count, "{keys:?}");
        let piece = (high - low) / (u32::try_from(count).unwrap() + 1);
        for (number, found) in (1..).zip(&keys) {
            assert!(engine.get(Cf::Default, found).unwrap().is_some(), "{found:?} is no key");
            let want = low + number * piece;
            let at: u32 = std::str::from_utf8(&found[4..]).unwrap().parse().unwrap();
            assert!(at.abs_diff(want) < piece / 4, "{at} of {want}");
        }
    }
    let none = engine.split_keys(Cf::Default, Range::new(b"x", b"y"), 3).unwrap();
    assert!(none.is_empty());
}

#[test]
fn a_copy_has_what_was_written_and_goes_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    for logged in [true, false] {
        let options = RocksOptions::default().with_write_ahead_log(logged);
        let folder = dir.path().join(format!("data {logged}"));
        let copy = dir.path().join(format!("copy {logged}"));
        let engine = RocksEngine::open(folder, &options).unwrap();
        let put = |engine: &RocksEngine, number| {
            let mut batch = engine.write_batch();
            batch.put(Cf::Default, &key(number), b"here");
            batch.put(Cf::Raft, &key(number), b"there");
            engine.write(batch, Durability::Buffered).unwrap();
        };
        put(&engine, 1);
        engine.checkpoint(&copy).unwrap();
        put(&engine, 2);
        assert!(engine.checkpoint(&copy).is_err(), "the folder exists");
        drop(engine);
        let engine = RocksEngine::open(&copy, &options).unwrap();
        assert_eq!(engine.get(Cf::Default, &key(1)).unwrap().as_deref(), Some(&b"here"[..]));
        assert_eq!(engine.get(Cf::Raft, &key(1)).unwrap().as_deref(), Some(&b"there"[..]));
        assert_eq!(engine.get(Cf::Default, &key(2)).unwrap(), None);
        put(&engine, 3);
        engine.close().unwrap();
    }
}

#[test]
fn compaction_gives_space_back() {
    let (_dir, engine) = open();
    engine.ingest(Cf::Lock, &mut rows(0..5_000)).unwrap();
    let mut batch = engine.write_batch();
    batch.delete_range(Cf::Lock, Range::new(&key(0), &key(4_900)));
    engine.write(batch, Durability::Synced).unwrap();
    let before = engine.stats().used_bytes;
    engine.compact(Cf::Lock, Range::ALL).unwrap();
    let after = engine.stats().used_bytes;
    assert!(after < before / 10, "{after} of {before} bytes");
    assert!(!engine.stats().stalled);
}
