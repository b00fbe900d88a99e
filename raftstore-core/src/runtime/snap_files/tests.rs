//! Files come whole or not at all, and survive reopening.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const KEY: SnapKey = SnapKey { region: RegionId::must(7), term: 3, index: 12 };
const OTHER: SnapKey = SnapKey { region: RegionId::must(7), term: 3, index: 13 };
const GENERATED: SnapDirection = SnapDirection::Generated;
const RECEIVED: SnapDirection = SnapDirection::Received;

/// A directory of its own for one test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("raftstore-snap-files-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> FileSnapStore {
        FileSnapStore::open(&self.0, 1000).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(store: &FileSnapStore, direction: SnapDirection, key: SnapKey, bytes: &[u8]) {
    let mut writer = store.create(direction, key).unwrap();
    for part in bytes.chunks(3) {
        writer.write(part).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), bytes.len() as u64);
}

fn get(store: &FileSnapStore, direction: SnapDirection, key: SnapKey) -> Vec<u8> {
    let mut reader = store.open(direction, key).unwrap();
    let mut bytes = Vec::new();
    loop {
        let more = reader.read(2).unwrap();
        if more.is_empty() {
            return bytes;
        }
        bytes.extend_from_slice(&more);
    }
}

#[test]
fn bytes_come_back_and_survive_reopening() {
    let directory = Directory::new();
    let store = directory.open();
    put(&store, GENERATED, KEY, b"generated");
    put(&store, RECEIVED, KEY, b"received!!");
    put(&store, RECEIVED, OTHER, b"");
    for store in [store, directory.open()] {
        assert_eq!(get(&store, GENERATED, KEY), b"generated");
        assert_eq!(get(&store, RECEIVED, KEY), b"received!!");
        assert_eq!(get(&store, RECEIVED, OTHER), b"");
        let list = [(GENERATED, KEY, 9), (RECEIVED, KEY, 10), (RECEIVED, OTHER, 0)];
        assert_eq!(store.list().unwrap(), list);
        assert_eq!(store.used_bytes(), 19);
    }
    assert_eq!(directory.files(), ["gen_7_3_12.snap", "rev_7_3_12.snap", "rev_7_3_13.snap"]);
}

#[test]
fn h5_what_is_unfinished_is_invisible_and_gone_after_a_start() {
    let directory = Directory::new();
    let store = directory.open();
    let mut writer = store.create(RECEIVED, KEY).unwrap();
    writer.write(b"half").unwrap();
    assert!(matches!(store.open(RECEIVED, KEY), Err(SnapError::NotFound(KEY))));
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(directory.files(), ["rev_7_3_12.snap.tmp"]);
    // As after the death of a process: the writer never ends.
    std::mem::forget(writer);
    fs::write(directory.0.join("notes.tmp"), b"not ours").unwrap();
    let store = directory.open();
    assert_eq!(directory.files(), ["notes.tmp"]);
    assert_eq!(store.used_bytes(), 0);
    put(&store, RECEIVED, KEY, b"whole");
    assert_eq!(get(&store, RECEIVED, KEY), b"whole");
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let directory = Directory::new();
    let store = directory.open();
    let mut writer = store.create(GENERATED, KEY).unwrap();
    writer.write(b"half").unwrap();
    drop(writer);
    assert_eq!(directory.files(), Vec::<String>::new());
    assert_eq!(store.used_bytes(), 0);
}

#[test]
fn h44_one_writer_per_name() {
    let directory = Directory::new();
    let store = directory.open();
    let mut writer = store.create(GENERATED, KEY).unwrap();
    writer.write(b"first").unwrap();
    assert!(matches!(store.create(GENERATED, KEY), Err(SnapError::Busy(KEY))));
    put(&store, RECEIVED, KEY, b"the other direction");
    assert_eq!(writer.finish().unwrap(), 5);
    put(&store, GENERATED, KEY, b"replaced");
    assert_eq!(get(&store, GENERATED, KEY), b"replaced");
    assert_eq!(store.used_bytes(), 19 + 8);
}

#[test]
fn the_byte_limit_counts_what_is_being_written() {
    let directory = Directory::new();
    let store = FileSnapStore::open(&directory.0, 10).unwrap();
    put(&store, GENERATED, KEY, b"12345");
    let mut writer = store.create(RECEIVED, KEY).unwrap();
    writer.write(b"1234").unwrap();
    let error = writer.write(b"56").unwrap_err();
    assert!(matches!(error, SnapError::NoSpace { key: KEY, limit_bytes: 1 }), "{error}");
    assert!(writer.write(b"").is_err(), "a broken writer stays broken");
    assert!(writer.finish().is_err());
    assert_eq!(store.used_bytes(), 5);
    assert_eq!(directory.files(), ["gen_7_3_12.snap"]);
    store.delete(GENERATED, KEY).unwrap();
    put(&store, RECEIVED, KEY, b"1234567890");
}

#[test]
fn a_reader_outlives_the_deletion_of_what_it_reads() {
    let directory = Directory::new();
    let store = directory.open();
    put(&store, GENERATED, KEY, b"0123456789");
    let mut reader = store.open(GENERATED, KEY).unwrap();
    assert_eq!(reader.read(4).unwrap(), &b"0123"[..]);
    store.delete(GENERATED, KEY).unwrap();
    store.delete(GENERATED, KEY).unwrap();
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(reader.read(100).unwrap(), &b"456789"[..]);
    assert!(reader.read(100).unwrap().is_empty());
}

#[test]
fn only_names_as_we_write_them_are_ours() {
    assert_eq!(parse("gen_7_3_12.snap"), Some((GENERATED, KEY)));
    for foreign in [
        "gen_7_3_12",
        "gen_7_3_12.snap.tmp",
        "gen_07_3_12.snap",
        "gen_+7_3_12.snap",
        "gen_0_3_12.snap",
        "gen_7_3.snap",
        "gen_7_3_12_1.snap",
        "gen_7_3_x.snap",
        "out_7_3_12.snap",
        "gen_7_3_99999999999999999999.snap",
    ] {
        assert_eq!(parse(foreign), None, "{foreign}");
    }
}
