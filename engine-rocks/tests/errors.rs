//! What can be wrong with a folder, and by which error it is told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic like the tests")]

use std::fs;
use std::path::{Path, PathBuf};

use engine_rocks::{RocksEngine, RocksOptions, open_raft_log};
use engine_traits::{Cf, Durability, Error, KvEngine, Reader, WriteBatch};
use tempfile::TempDir;

fn options() -> RocksOptions {
    RocksOptions::default().with_compressed(false)
}

fn value(number: u32) -> Vec<u8> {
    format!("value of {number} ").repeat(20).into_bytes()
}

fn put(engine: &RocksEngine, number: u32) {
    let mut batch = engine.write_batch();
    batch.put(Cf::Default, &number.to_be_bytes(), &value(number));
    batch.put(Cf::Write, &number.to_be_bytes(), b"");
    engine.write(batch, Durability::Synced).unwrap();
}

/// The content of a folder, to be put back.
fn copied(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn put_back(folder: &Path, files: &[(PathBuf, Vec<u8>)]) {
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

fn ends_with(path: &Path, suffix: &str) -> bool {
    path.to_string_lossy().ends_with(suffix)
}

/// A database with synced rows, most of them in a file and `in_log` in the log alone, as a kill
/// leaves it.
fn killed(in_log: u32) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (open, path) = (dir.path().join("open"), dir.path().join("data"));
    let engine = RocksEngine::open(&open, &options()).unwrap();
    for number in 0..20 {
        put(&engine, number);
    }
    drop(engine);
    let engine = RocksEngine::open(&open, &options()).unwrap();
    for number in 20..20 + in_log {
        put(&engine, number);
    }
    fs::create_dir(&path).unwrap();
    for (file, bytes) in copied(&open) {
        fs::write(path.join(file.file_name().unwrap()), bytes).unwrap();
    }
    (dir, path)
}

/// Opens and reads everything: right, or an error about damage; never less than the rows in files
/// nor a wrong one.
fn nothing_wrong_is_read(path: &Path, count: u32, what: &str) {
    let engine = match RocksEngine::open(path, &options()) {
        Ok(engine) => engine,
        Err(Error::Corrupt { .. } | Error::Format { .. } | Error::Backend { .. }) => return,
        Err(other) => panic!("{what}: {other:?}"),
    };
    for number in 0..count {
        match engine.get(Cf::Default, &number.to_be_bytes()) {
            Ok(found) => assert_eq!(found.as_deref(), Some(&*value(number)), "{what}: {number}"),
            Err(Error::Corrupt { .. } | Error::Backend { .. }) => {}
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_second_open_is_locked_out_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let first = RocksEngine::open(dir.path(), &options()).unwrap();
    let second = RocksEngine::open(dir.path(), &options());
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    // A snapshot keeps the database open as well.
    let snapshot = first.snapshot().unwrap();
    drop(first);
    assert!(RocksEngine::open(dir.path(), &options()).is_err());
    drop(snapshot);
    RocksEngine::open(dir.path(), &options()).unwrap();
}

#[test]
fn a_folder_of_another_program_is_refused_and_left_alone() {
    let refused = |path: &Path| {
        let before = path.is_dir().then(|| copied(path));
        let error = RocksEngine::open(path, &options()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        assert_eq!(path.is_dir().then(|| copied(path)), before, "{}", path.display());
    };
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "not a folder at all").unwrap();
    refused(&text);
    refused(dir.path());
    let bare = dir.path().join("bare");
    let mut native = rocksdb::Options::default();
    native.create_if_missing(true);
    drop(rocksdb::DB::open(&native, &bare).unwrap());
    refused(&bare);
    fs::write(bare.join("RAFTSTORE"), [0xFF, 0xFE]).unwrap();
    refused(&bare);

    let log = dir.path().join("log");
    drop(open_raft_log(&log, &options()).unwrap());
    refused(&log);
    drop(open_raft_log(&log, &options()).unwrap());
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(RocksEngine::open(dir.path(), &options()).unwrap());
    let mark = dir.path().join("RAFTSTORE");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, text.replace("format 1", "format 2")).unwrap();
    let error = RocksEngine::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[test]
fn a_missing_file_is_corrupt() {
    let (_dir, path) = killed(5);
    let whole = copied(&path);
    for (file, _) in &whole {
        let name = file.file_name().unwrap().to_string_lossy();
        let needed = name == "CURRENT" || name.starts_with("MANIFEST") || name.ends_with(".sst");
        if !needed {
            continue;
        }
        fs::remove_file(file).unwrap();
        let error = RocksEngine::open(&path, &options()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error:?}");
        put_back(&path, &whole);
    }
    nothing_wrong_is_read(&path, 25, "put back");
}

#[test]
fn damage_in_the_log_before_its_end_is_corrupt() {
    let (_dir, path) = killed(20);
    let whole = copied(&path);
    let (log, bytes) = whole.iter().rfind(|(file, _)| ends_with(file, ".log")).unwrap();
    assert!(bytes.len() > 20 * 200);
    for at in (0..bytes.len() - 400).step_by(97) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(log, bad).unwrap();
        let error = RocksEngine::open(&path, &options()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{at}: {error:?}");
        put_back(&path, &whole);
    }
}

#[test]
fn a_torn_end_of_the_log_costs_only_what_it_held() {
    let (_dir, path) = killed(4);
    let whole = copied(&path);
    let (log, bytes) = whole.iter().rfind(|(file, _)| ends_with(file, ".log")).unwrap();
    for left in (0..bytes.len()).step_by(61) {
        fs::write(log, &bytes[..left]).unwrap();
        let engine = RocksEngine::open(&path, &options()).unwrap();
        let there = |number: u32| engine.get(Cf::Default, &number.to_be_bytes()).unwrap();
        assert!((0..20).all(|number| there(number).as_deref() == Some(&*value(number))));
        let kept = (20..24).take_while(|number| there(*number).is_some()).count();
        let rest = (20..24).skip(kept).all(|number| there(number).is_none());
        assert!(rest, "{left} bytes left");
        drop(engine);
        put_back(&path, &whole);
    }
}

#[test]
fn flipped_bits_in_files_are_never_read() {
    let (_dir, path) = killed(0);
    let whole = copied(&path);
    for (file, bytes) in whole.iter().filter(|(file, _)| ends_with(file, ".sst")) {
        for at in (0..bytes.len()).step_by(41) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(file, bad).unwrap();
            nothing_wrong_is_read(&path, 20, &format!("{} at {at}", file.display()));
            put_back(&path, &whole);
        }
    }
}

#[test]
fn an_interrupted_creation_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(RocksEngine::open(dir.path(), &options()).unwrap());
    fs::rename(dir.path().join("RAFTSTORE"), dir.path().join("RAFTSTORE.next")).unwrap();
    put(&RocksEngine::open(dir.path(), &options()).unwrap(), 1);
    for (file, _) in copied(dir.path()) {
        fs::remove_file(file).unwrap();
    }
    fs::write(dir.path().join("RAFTSTORE.next"), "half a").unwrap();
    put(&RocksEngine::open(dir.path(), &options()).unwrap(), 1);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let error = RocksEngine::open("/proc/raftstore-data", &options()).unwrap_err();
    assert!(matches!(error, Error::Backend { .. }), "{error:?}");
}

#[test]
fn options_out_of_range_are_refused() {
    let bad = [
        options().with_write_buffer_bytes(1000),
        options().with_background_jobs(0),
        options().with_background_jobs(65),
        options().with_filter_bits(65),
        options().with_native("no_such_option=1"),
        options().with_native("write_buffer_size=many"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for options in bad {
        let error = RocksEngine::open(dir.path().join("data"), &options).unwrap_err();
        assert!(matches!(error, Error::Backend { op: "checking the options", .. }), "{error:?}");
        assert!(!dir.path().join("data").exists());
    }
}

#[test]
fn options_of_rocksdb_are_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let native = "level0_file_num_compaction_trigger=7;max_open_files=123;\
                  block_based_table_factory={block_size=8192}";
    // What the contract rests on cannot be turned off.
    let native = format!("wal_recovery_mode=kSkipAnyCorruptedRecords;{native}");
    let engine = RocksEngine::open(dir.path(), &options().with_native(native)).unwrap();
    let written = copied(dir.path());
    let written = written.iter().filter(|(file, _)| file.to_string_lossy().contains("OPTIONS-"));
    let text: String = written.map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect();
    for want in [
        "level0_file_num_compaction_trigger=7",
        "max_open_files=123",
        "block_size=8192",
        "wal_recovery_mode=kTolerateCorruptedTailRecords",
        "filter_policy=bloomfilter",
    ] {
        assert!(text.contains(want), "{want} is not in {text}");
    }
    put(&engine, 1);
}
