//! Devices that are really full, or cannot be written: a file system in memory of a few megabytes,
//! which another process mounts for itself.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic like the tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use engine_raftlog::{RaftLog, RaftLogOptions};
use engine_redb::{RedbEngine, RedbOptions};
use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::{
    Cf, Durability, Error, KvEngine, RaftEngine, RaftLogBatch, Result, WriteBatch,
};
use raftstore_proto::{HardState, LocalState, PeerId, RegionId};

/// Where the file system is, in the process that has mounted it.
const DEVICE: &str = "RAFTSTORE_FULL_DEVICE";

/// Runs a test of this program once more, with a small device; `None` in that process, and the
/// device.
fn on_a_small_device(test: &str) -> Option<PathBuf> {
    if let Some(device) = std::env::var_os(DEVICE) {
        return Some(device.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=24m none \"$0\" || exit 77; \
                  \"$1\" --exact \"$2\" --nocapture && umount \"$0\"";
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(folder.path())
        .arg(program)
        .arg(test)
        .env(DEVICE, folder.path())
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        // There is no such program, or it may not.
        Err(_) | Ok(Some(1 | 77)) if !may_mount() => {
            eprintln!("skipped: nothing can be mounted here")
        }
        other => panic!("{other:?}"),
    }
    None
}

fn may_mount() -> bool {
    let args = ["--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"];
    Command::new("unshare").args(args).status().is_ok_and(|status| status.success())
}

fn put(engine: &impl KvEngine, number: u32) -> Result<()> {
    let mut batch = engine.write_batch();
    let value: Vec<u8> = (0..100_000_u32).map(|at| (at ^ number).to_le_bytes()[0]).collect();
    batch.put(Cf::Default, &number.to_be_bytes(), &value);
    engine.write(batch, Durability::Synced)
}

/// Writes until the device is full, and looks for what was synced once there is room.
fn fills<K: KvEngine>(device: &Path, open: impl Fn(&Path) -> Result<K>) {
    let (folder, ballast) = (device.join("engine"), device.join("ballast"));
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let engine = open(&folder).unwrap();
    let mut stored = 0;
    let error = loop {
        match put(&engine, stored) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the device never fills");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(stored > 5, "{stored} rows");
    assert!(put(&engine, 1_000).is_err(), "nothing is written after a failed write");
    drop(engine);
    // On a full device an engine opens, or says what is the matter.
    if let Err(error) = open(&folder).map(drop) {
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
    }
    std::fs::remove_file(&ballast).unwrap();
    let engine = open(&folder).unwrap();
    for number in 0..stored {
        let value = engine.get(Cf::Default, &number.to_be_bytes()).unwrap();
        assert_eq!(value.map(|value| value.len()), Some(100_000), "row {number} of {stored}");
    }
    put(&engine, stored).unwrap();
    drop(engine);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::remove_file(&folder).ok();
}

/// Opens on a device that cannot be written: an error that says so, and nothing is lost by it.
fn refuses_to_write<T>(device: &Path, open: impl Fn(&Path) -> Result<T>, check: impl Fn(T)) {
    let folder = device.join("engine");
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &options]).arg(device).status().unwrap();
        assert!(status.success(), "mount -o {options}");
    };
    remount("ro");
    let error = open(&folder).map(drop).unwrap_err();
    assert!(matches!(error, Error::Backend { .. }), "{error:?}");
    remount("rw");
    check(open(&folder).unwrap());
}

fn holds_a_row(engine: &impl KvEngine) {
    let value = engine.get(Cf::Default, &1_u32.to_be_bytes()).unwrap();
    assert_eq!(value.map(|value| value.len()), Some(100_000));
}

#[test]
fn engines_say_that_their_device_cannot_be_written() {
    let test = "engines_say_that_their_device_cannot_be_written";
    let Some(device) = on_a_small_device(test) else { return };
    for write_ahead_log in [true, false] {
        let open = |folder: &Path| RocksEngine::open(folder, &rocks(write_ahead_log));
        put(&open(&device.join("engine")).unwrap(), 1).unwrap();
        refuses_to_write(&device, open, |engine| holds_a_row(&engine));
        std::fs::remove_dir_all(device.join("engine")).unwrap();
    }
    let open = |file: &Path| RedbEngine::open(file, &RedbOptions::default());
    put(&open(&device.join("engine")).unwrap(), 1).unwrap();
    refuses_to_write(&device, open, |engine| holds_a_row(&engine));
    std::fs::remove_file(device.join("engine")).unwrap();

    let open = |folder: &Path| RaftLog::open(folder, &RaftLogOptions::default());
    let (region, state) = (RegionId::must(1), state());
    let log = open(&device.join("engine")).unwrap();
    let mut batch = log.log_batch();
    batch.put_raft_state(region, &state);
    log.write(batch, Durability::Synced).unwrap();
    drop(log);
    refuses_to_write(&device, open, |log| {
        assert_eq!(log.raft_state(region).unwrap(), Some(state));
    });
}

fn state() -> LocalState {
    let hard_state = HardState { term: 3, vote: 1, commit: 0 };
    LocalState { peer: PeerId::must(1), hard_state, last_index: 0 }
}

fn rocks(write_ahead_log: bool) -> RocksOptions {
    let options = RocksOptions::default().with_compressed(false);
    options.with_write_buffer_bytes(1 << 20).with_write_ahead_log(write_ahead_log)
}

#[test]
fn rocksdb_with_a_log_is_full_and_keeps_what_was_synced() {
    if let Some(device) = on_a_small_device("rocksdb_with_a_log_is_full_and_keeps_what_was_synced")
    {
        fills(&device, |folder| RocksEngine::open(folder, &rocks(true)));
    }
}

#[test]
fn rocksdb_without_a_log_is_full_and_keeps_what_was_synced() {
    let test = "rocksdb_without_a_log_is_full_and_keeps_what_was_synced";
    if let Some(device) = on_a_small_device(test) {
        fills(&device, |folder| RocksEngine::open(folder, &rocks(false)));
    }
}

#[test]
fn redb_is_full_and_keeps_what_was_synced() {
    if let Some(device) = on_a_small_device("redb_is_full_and_keeps_what_was_synced") {
        fills(&device, |folder| RedbEngine::open(folder, &RedbOptions::default()));
    }
}
