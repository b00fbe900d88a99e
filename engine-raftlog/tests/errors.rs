//! What can be wrong with a folder or device, and by which error it is told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic like the tests")]

use std::fs;
use std::path::{Path, PathBuf};

use engine_raftlog::{Loss, RaftLog, RaftLogOptions};
use engine_traits::{Durability, Error, RaftEngine, RaftLogBatch, Result};
use raft_proto::eraftpb;
use raftstore_proto::{Entry, RegionId};
use tempfile::TempDir;

const ONE: RegionId = RegionId::must(1);

fn small() -> RaftLogOptions {
    RaftLogOptions::default().with_file_bytes(4 << 10).with_purge_bytes(1 << 20)
}

fn entry(index: u64) -> Entry {
    let data = format!("entry {index} ").repeat(30);
    Entry::from_raft(eraftpb::Entry { index, term: 1, data: data.into(), ..Default::default() })
}

fn append(log: &RaftLog, index: u64, durability: Durability) -> Result<()> {
    let mut batch = log.log_batch();
    batch.append(ONE, &[entry(index)]);
    log.write(batch, durability)
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    let mut files: Vec<_> = names.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    files.sort();
    files
}

/// A log of `count` synced entries over several files, ended by `end`.
fn written(count: u64, end: impl FnOnce(RaftLog)) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = RaftLog::open(&path, &small()).unwrap();
    for index in 1..=count {
        append(&log, index, Durability::Synced).unwrap();
    }
    end(log);
    (dir, path)
}

fn closed(log: RaftLog) {
    log.close().unwrap();
}

/// The content of a folder, to be put back.
fn copied(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn put_back(folder: &Path, files: &[(PathBuf, Vec<u8>)]) {
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

/// Opens and reads everything: right, or an error about damage.
fn nothing_wrong_is_read(path: &Path, count: u64, what: &str) {
    let log = match RaftLog::open(path, &small()) {
        Ok(log) => log,
        Err(Error::Corrupt { .. } | Error::CorruptLog { .. } | Error::Format { .. }) => return,
        Err(other) => panic!("{what}: {other:?}"),
    };
    for index in 1..=count {
        match log.entry(ONE, index) {
            Ok(found) => assert_eq!(found, Some(entry(index)), "{what}: entry {index}"),
            Err(Error::CorruptLog { region: ONE, .. }) => {}
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_full_device_is_full_and_keeps_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (log, switch) = RaftLog::open_with_switch(dir.path().join("log"), &small()).unwrap();
    switch.set_capacity(Some(20_000));
    let mut stored = 0;
    let error = loop {
        match append(&log, stored + 1, Durability::Synced) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the device never fills");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(stored > 20);
    switch.set_capacity(None);
    assert!(append(&log, stored + 1, Durability::Synced).is_err(), "no write after a failed one");
    assert!(log.close().is_err());
    let log = RaftLog::open(dir.path().join("log"), &small()).unwrap();
    for index in 1..=stored {
        assert_eq!(log.entry(ONE, index).unwrap(), Some(entry(index)));
    }
}

#[test]
fn a_failed_sync_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, switch) = RaftLog::open_with_switch(&path, &small()).unwrap();
    append(&log, 1, Durability::Synced).unwrap();
    switch.set_failing_syncs(true);
    let failed = append(&log, 2, Durability::Synced);
    assert!(matches!(failed, Err(Error::Backend { .. })), "{failed:?}");
    switch.set_failing_syncs(false);
    assert!(log.sync().is_err(), "a later sync must not seem to have saved it");
    assert!(append(&log, 3, Durability::Buffered).is_err());
    switch.cut(Loss::Everything);
    let log = RaftLog::open(&path, &small()).unwrap();
    assert_eq!(log.entry(ONE, 1).unwrap(), Some(entry(1)));
    assert_eq!(log.entry(ONE, 2).unwrap(), None);
}

#[test]
fn a_sync_that_fails_while_the_log_is_closed_is_told() {
    let (dir, path) = (tempfile::tempdir().unwrap(), "log");
    let (log, switch) = RaftLog::open_with_switch(dir.path().join(path), &small()).unwrap();
    append(&log, 1, Durability::Buffered).unwrap();
    switch.set_failing_syncs(true);
    assert!(matches!(log.close(), Err(Error::Backend { .. })));
    let log = RaftLog::open(dir.path().join(path), &small()).unwrap();
    append(&log, 2, Durability::Synced).unwrap();
}

#[test]
fn a_sync_alone_reaches_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, switch) = RaftLog::open_with_switch(&path, &small()).unwrap();
    let before = switch.syncs();
    append(&log, 1, Durability::Buffered).unwrap();
    assert_eq!(switch.syncs(), before);
    log.sync().unwrap();
    log.write(log.log_batch(), Durability::Synced).unwrap();
    assert_eq!(switch.syncs(), before + 2);
    assert_eq!(log.stats().syncs, switch.syncs());
}

#[test]
fn a_second_open_is_locked_out_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (first, switch) = RaftLog::open_with_switch(&path, &small()).unwrap();
    append(&first, 1, Durability::Synced).unwrap();
    append(&first, 2, Durability::Buffered).unwrap();
    assert!(matches!(RaftLog::open(&path, &small()), Err(Error::Locked { .. })));
    // A cut frees the folder while old handles live, and they fail from then on.
    switch.cut(Loss::Everything);
    let second = RaftLog::open(&path, &small()).unwrap();
    assert!(append(&first, 2, Durability::Synced).is_err());
    assert!(first.entry(ONE, 1).is_err() && first.raft_state(ONE).is_err());
    drop(first);
    assert_eq!(second.entry(ONE, 1).unwrap(), Some(entry(1)));
    assert_eq!(second.entry(ONE, 2).unwrap(), None);
    assert!(second.was_checked_at_open());
    append(&second, 2, Durability::Synced).unwrap();
    second.close().unwrap();
    assert!(!RaftLog::open(&path, &small()).unwrap().was_checked_at_open());
}

#[test]
fn a_folder_of_another_program_is_refused_and_left_alone() {
    let refused = |path: &Path| {
        let before = path.is_dir().then(|| copied(path));
        let error = RaftLog::open(path, &small()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        assert_eq!(path.is_dir().then(|| copied(path)), before, "{}", path.display());
    };
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "not a folder at all").unwrap();
    refused(&text);
    // Another engine's.
    let rocks = dir.path().join("rocks");
    fs::create_dir(&rocks).unwrap();
    fs::write(rocks.join("CURRENT"), "MANIFEST-000001\n").unwrap();
    refused(&rocks);
    fs::write(rocks.join("MANIFEST"), "somebody else's").unwrap();
    refused(&rocks);
    // raft-engine's own, without what this crate keeps beside it.
    let (_dir, bare) = written(3, closed);
    fs::remove_file(bare.join("MANIFEST")).unwrap();
    fs::remove_file(bare.join("LOCK.raftstore")).unwrap();
    refused(&bare);
}

#[test]
fn a_newer_format_is_refused() {
    let (_dir, path) = written(3, closed);
    let manifest = path.join("MANIFEST");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("format 1", "format 2", 1)).unwrap();
    let error = RaftLog::open(&path, &small()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");

    fs::write(&manifest, text).unwrap();
    let last = files(&path, ".raftlog").pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes[60] = 3;
    fs::write(&last, bytes).unwrap();
    let error = RaftLog::open(&path, &small()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
}

#[test]
fn a_missing_file_is_corrupt_wherever_it_was() {
    let (_dir, path) = written(100, closed);
    let whole = copied(&path);
    let all = [files(&path, ".raftlog"), files(&path, ".rewrite")].concat();
    assert!(all.len() > 8, "{all:?}");
    for missing in &all {
        fs::remove_file(missing).unwrap();
        let error = RaftLog::open(&path, &small()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("missing"), "{error}");
        put_back(&path, &whole);
    }
    let log = RaftLog::open(&path, &small()).unwrap();
    assert_eq!(log.entry(ONE, 100).unwrap(), Some(entry(100)));
}

#[test]
fn a_cut_off_file_is_corrupt_after_an_orderly_end() {
    let (_dir, path) = written(30, closed);
    let whole = copied(&path);
    for file in files(&path, ".raftlog") {
        let len = fs::metadata(&file).unwrap().len();
        for left in [0, 10, len / 2, len - 1] {
            fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(left).unwrap();
            let error = RaftLog::open(&path, &small()).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{left} of {len}: {error:?}");
            put_back(&path, &whole);
        }
    }
}

#[test]
fn flipped_bits_are_never_read_after_an_orderly_end() {
    const COUNT: u64 = 12;
    let (_dir, path) = written(COUNT, closed);
    let whole = copied(&path);
    for file in [files(&path, ".raftlog"), files(&path, ".rewrite")].concat() {
        let bytes = fs::read(&file).unwrap();
        for at in (0..bytes.len()).step_by(17) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, bad).unwrap();
            nothing_wrong_is_read(&path, COUNT, &format!("{} at {at}", file.display()));
            put_back(&path, &whole);
        }
    }
}

#[test]
fn a_flipped_bit_before_the_last_synced_write_is_no_torn_end() {
    const COUNT: u64 = 12;
    // Ended by a cut: the manifest knows nothing of the last file's length.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let options = RaftLogOptions::default();
    let (log, switch) = RaftLog::open_with_switch(&path, &options).unwrap();
    for index in 1..=COUNT {
        append(&log, index, Durability::Synced).unwrap();
    }
    append(&log, COUNT + 1, Durability::Buffered).unwrap();
    switch.cut(Loss::Suffix { seed: 3 });
    drop(log);
    let whole = copied(&path);
    let file = files(&path, ".raftlog").pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    let text = format!("entry {} ", COUNT);
    let last = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    for at in (0..last - 100).step_by(23) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&file, bad).unwrap();
        let error = RaftLog::open(&path, &options).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. } | Error::Format { .. }), "{at}: {error:?}");
        put_back(&path, &whole);
    }
    let log = RaftLog::open(&path, &options).unwrap();
    assert_eq!(log.entry(ONE, COUNT).unwrap(), Some(entry(COUNT)));
}

#[test]
fn a_torn_end_is_cut_off_and_costs_no_synced_write() {
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (log, switch) = RaftLog::open_with_switch(&path, &small()).unwrap();
        for index in 1..=8 {
            append(&log, index, Durability::Buffered).unwrap();
        }
        log.sync().unwrap();
        for index in 9..=12 {
            append(&log, index, Durability::Buffered).unwrap();
        }
        switch.cut(Loss::Scattered { seed });
        let log = RaftLog::open(&path, &small()).unwrap();
        let mut out = Vec::new();
        log.entries(ONE, 1, 20, u64::MAX, &mut out).unwrap();
        assert!(out.len() >= 8, "seed {seed}: {} left", out.len());
        let want: Vec<_> = (1..=out.len() as u64).map(entry).collect();
        assert_eq!(out, want, "seed {seed}");
    }
}

#[test]
fn an_interrupted_creation_starts_again() {
    let (_dir, path) = written(0, closed);
    for kept in [".raftlog", ".rewrite", "LOCK", "none"] {
        let whole = copied(&path);
        for (file, _) in &whole {
            if !file.to_string_lossy().ends_with(kept) {
                fs::remove_file(file).unwrap();
            }
        }
        fs::write(path.join("MANIFEST.next"), "half a line").unwrap();
        let log = RaftLog::open(&path, &small()).unwrap();
        append(&log, 1, Durability::Synced).unwrap();
        drop(log);
        put_back(&path, &whole);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let error = RaftLog::open("/proc/raftstore-log", &small()).unwrap_err();
    assert!(matches!(error, Error::Backend { .. }), "{error:?}");
}

#[test]
fn options_out_of_range_are_refused() {
    let sound = RaftLogOptions::default();
    let bad = [
        sound.clone().with_file_bytes(4095),
        sound.clone().with_file_bytes((256 << 20) + 1),
        sound.clone().with_purge_bytes(sound.file_bytes),
        sound.clone().with_compress_above_bytes(Some(0)),
        sound.clone().with_recovery_threads(0),
        sound.with_recovery_threads(65),
    ];
    let dir = tempfile::tempdir().unwrap();
    for options in bad {
        let error = RaftLog::open(dir.path().join("log"), &options).unwrap_err();
        assert!(matches!(error, Error::Backend { op: "checking the options", .. }), "{error:?}");
        assert!(!dir.path().join("log").exists());
    }
}
