//! What can be wrong with a file or device, and by which error it is told.

use std::fs;

use engine_redb::{Loss, MemDisk, RedbEngine, RedbOptions, open_raft_log};
use engine_traits::{Cf, Durability, Error, KvEngine, Reader, Result, WriteBatch};

fn options() -> RedbOptions {
    RedbOptions::default().with_cache_bytes(1 << 20)
}

fn put(engine: &RedbEngine, number: u32, bytes: usize) -> Result<()> {
    let mut batch = engine.write_batch();
    batch.put(Cf::Default, &number.to_be_bytes(), &vec![b'x'; bytes]);
    engine.write(batch, Durability::Synced)
}

#[test]
fn a_full_device_is_full_and_keeps_what_was_synced() {
    let disk = MemDisk::new();
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    disk.set_capacity(Some(4 << 20));
    let mut stored = 0;
    let error = loop {
        match put(&engine, stored, 100_000) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the device never fills");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(stored > 5);
    assert!(put(&engine, 0, 1).is_err(), "nothing is written after a failed write");
    drop(engine);
    disk.set_capacity(None);
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    for number in 0..stored {
        let value = engine.get(Cf::Default, &number.to_be_bytes()).unwrap();
        assert_eq!(value.map(|value| value.len()), Some(100_000), "row {number} of {stored}");
    }
    put(&engine, stored, 100_000).unwrap();
}

#[test]
fn a_failed_sync_is_final() {
    let disk = MemDisk::new();
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    put(&engine, 1, 10).unwrap();
    disk.set_failing_syncs(true);
    assert!(matches!(put(&engine, 2, 10), Err(Error::Backend { .. })));
    disk.set_failing_syncs(false);
    assert!(engine.sync().is_err(), "a later sync must not seem to have saved it");
    assert!(put(&engine, 3, 10).is_err());
    disk.cut(Loss::Everything);
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    assert!(engine.get(Cf::Default, &1_u32.to_be_bytes()).unwrap().is_some());
}

#[test]
fn a_second_open_is_locked_out_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let first = RedbEngine::open(&path, &options()).unwrap();
    assert!(matches!(RedbEngine::open(&path, &options()), Err(Error::Locked { .. })));
    put(&first, 1, 10).unwrap();
    drop(first);
    let second = RedbEngine::open(&path, &options()).unwrap();
    assert!(second.get(Cf::Default, &1_u32.to_be_bytes()).unwrap().is_some());

    let disk = MemDisk::new();
    let _first = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    let second = RedbEngine::open_with_backend(disk.backend(), &options());
    assert!(matches!(second, Err(Error::Locked { .. })));
}

#[test]
fn a_cut_frees_the_file_while_old_handles_live() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (old, switch) = RedbEngine::open_with_cut(&path, &options()).unwrap();
    put(&old, 1, 10).unwrap();
    let mut batch = old.write_batch();
    batch.put(Cf::Default, b"unsynced", b"value");
    old.write(batch, Durability::Buffered).unwrap();
    switch.cut(Loss::Everything);
    assert!(switch.is_cut());
    let (new, _switch) = RedbEngine::open_with_cut(&path, &options()).unwrap();
    assert!(put(&old, 2, 10).is_err());
    drop(old);
    assert!(new.get(Cf::Default, &1_u32.to_be_bytes()).unwrap().is_some());
    assert_eq!(new.get(Cf::Default, b"unsynced").unwrap(), None);
    put(&new, 3, 10).unwrap();
    new.close().unwrap();
    let new = RedbEngine::open(&path, &options()).unwrap();
    assert!(new.get(Cf::Default, &3_u32.to_be_bytes()).unwrap().is_some());
}

#[test]
fn a_file_of_another_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    let content = "not a database at all\n".repeat(1000);
    fs::write(&text, &content).unwrap();
    let error = RedbEngine::open(&text, &options()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&text).unwrap(), content);

    let foreign = dir.path().join("foreign");
    let database = redb::Database::create(&foreign).unwrap();
    let write = database.begin_write().unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("theirs");
    write.open_table(table).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = RedbEngine::open(&foreign, &options()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");

    let log = dir.path().join("log");
    drop(open_raft_log(&log, &options()).unwrap());
    let error = RedbEngine::open(&log, &options()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    assert!(error.to_string().contains("raft log"), "{error}");
    drop(open_raft_log(&log, &options()).unwrap());

    let error = RedbEngine::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
}

#[test]
fn a_damaged_file_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let engine = RedbEngine::open(&path, &options()).unwrap();
    for number in 0..50 {
        put(&engine, number, 10_000).unwrap();
    }
    engine.close().unwrap();
    let whole = fs::read(&path).unwrap();
    let sums_path = dir.path().join("data.sums");
    let sums = fs::read(&sums_path).unwrap();

    let refused = |bytes: &[u8], with_sums: bool, what: &str| {
        fs::write(&path, bytes).unwrap();
        if with_sums {
            fs::write(&sums_path, &sums).unwrap();
        } else {
            let _ = fs::remove_file(&sums_path);
        }
        let error = RedbEngine::open(&path, &options()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
    };
    refused(&whole[..whole.len() / 2], true, "cut off, sums present");
    refused(&whole[..whole.len() / 2], false, "cut off");
    let mut holed = whole.clone();
    let at = holed.windows(64).position(|window| window == [b'x'; 64]).unwrap();
    holed[at..at + 64].fill(b'y');
    refused(&holed, false, "overwritten within a value");
    let mut bad_head = whole.clone();
    bad_head[9] ^= 1;
    refused(&bad_head, true, "the other commit made the newest");

    // Sums that are damaged or gone cost a check, and nothing else.
    for bad in [&sums[..sums.len() - 1], b""] {
        fs::write(&path, &whole).unwrap();
        fs::write(&sums_path, bad).unwrap();
        let engine = RedbEngine::open(&path, &options()).unwrap();
        assert!(engine.get(Cf::Default, &7_u32.to_be_bytes()).unwrap().is_some());
        engine.close().unwrap();
    }
}

#[test]
fn an_interrupted_creation_starts_again() {
    let whole = MemDisk::new();
    drop(RedbEngine::open_with_backend(whole.backend(), &options()).unwrap());
    for operation in 0..whole.operations() {
        for loss in [Loss::Everything, Loss::Suffix { seed: operation }] {
            let disk = MemDisk::new();
            disk.cut_after(operation, loss);
            let _ = RedbEngine::open_with_backend(disk.backend(), &options());
            let engine = RedbEngine::open_with_backend(disk.backend(), &options());
            put(&engine.unwrap(), 1, 10).unwrap();
        }
    }
}

#[test]
fn a_removed_file_is_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let engine = RedbEngine::open(&path, &options()).unwrap();
    put(&engine, 1, 10).unwrap();
    engine.close().unwrap();
    fs::remove_file(&path).unwrap();
    let error = RedbEngine::open(&path, &options()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(!path.exists());
    fs::remove_file(dir.path().join("data.sums")).unwrap();
    put(&RedbEngine::open(&path, &options()).unwrap(), 2, 10).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let engine = RedbEngine::open(&path, &options()).unwrap();
    put(&engine, 1, 10).unwrap();
    engine.close().unwrap();
    let sums = dir.path().join("data.sums");
    let rewrite = |from: &str, to: &str| {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, &[u8]>::new("raftstore.meta");
        let mut table = write.open_table(meta).unwrap();
        let old = table.insert("format", to.as_bytes()).unwrap().unwrap().value().to_vec();
        assert_eq!(old, from.as_bytes());
        drop(table);
        write.commit().unwrap();
    };
    fs::remove_file(&sums).unwrap();
    rewrite("raftstore rows 1", "raftstore rows 2");
    let error = RedbEngine::open(&path, &options()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    let _ = fs::remove_file(&sums);
    rewrite("raftstore rows 2", "raftstore rows 1");
    let engine = RedbEngine::open(&path, &options()).unwrap();
    assert!(engine.get(Cf::Default, &1_u32.to_be_bytes()).unwrap().is_some());
}

#[test]
fn any_size_of_cache_is_taken() {
    for bytes in [0, 1, usize::MAX] {
        let options = RedbOptions::default().with_cache_bytes(bytes);
        let engine = RedbEngine::open_with_backend(MemDisk::new().backend(), &options).unwrap();
        put(&engine, 1, 100_000).unwrap();
        assert!(engine.get(Cf::Default, &1_u32.to_be_bytes()).unwrap().is_some());
    }
}
