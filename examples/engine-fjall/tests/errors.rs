//! What can be wrong with a folder, and by which error it is told.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::fs;
use std::path::Path;

use engine_fjall::FjallEngine;
use engine_traits::{Cf, Durability, Error, KvEngine, Reader, WriteBatch};

/// A database with one synced row, closed again.
fn written(path: &Path) {
    let engine = FjallEngine::open(path).unwrap();
    let mut batch = engine.write_batch();
    batch.put(Cf::Lock, b"key", b"value");
    engine.write(batch, Durability::Synced).unwrap();
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (file, other) = (dir.path().join("file"), dir.path().join("other"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("CURRENT"), "MANIFEST-000001\n").unwrap();
    for path in [&file, &other] {
        let error = FjallEngine::open(path).err().unwrap();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let (mark, version) = (dir.path().join("RAFTSTORE-FJALL"), dir.path().join("data/version"));
    for (file, newer) in [(&mark, b"format 2\n".to_vec()), (&version, b"FJL\x09".to_vec())] {
        let old = fs::read(file).unwrap();
        fs::write(file, newer).unwrap();
        let error = FjallEngine::open(dir.path()).err().unwrap();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        fs::write(file, old).unwrap();
    }
    let engine = FjallEngine::open(dir.path()).unwrap();
    assert_eq!(engine.get(Cf::Lock, b"key").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_half_deleted_database_is_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    fs::remove_file(dir.path().join("data/version")).unwrap();
    let error = FjallEngine::open(dir.path()).err().unwrap();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    let error = FjallEngine::open(dir.path()).err().unwrap();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_half_made_database_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("RAFTSTORE-FJALL"), "").unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/0.jnl"), "half").unwrap();
    written(dir.path());
}

#[test]
fn a_second_open_is_locked_out_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let first = FjallEngine::open(dir.path()).unwrap();
    let error = FjallEngine::open(dir.path()).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    drop(first);
    FjallEngine::open(dir.path()).unwrap();
}

#[test]
fn a_key_that_is_too_long_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(dir.path()).unwrap();
    let mut batch = engine.write_batch();
    batch.put(Cf::Lock, b"key", b"value");
    batch.put(Cf::Write, &[7; 0xFFFF], b"value");
    let error = engine.write(batch, Durability::Buffered).unwrap_err();
    assert!(matches!(error, Error::InvalidBatch { .. }), "{error:?}");
    assert_eq!(engine.get(Cf::Lock, b"key").unwrap(), None);
    let mut batch = engine.write_batch();
    batch.put(Cf::Write, &[7; 0xFFFE], b"value");
    engine.write(batch, Durability::Synced).unwrap();
}
