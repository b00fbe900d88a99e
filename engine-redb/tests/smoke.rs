//! The engine as an embedder first meets it: write, read, close, open again.

#![expect(clippy::unwrap_used, reason = "a test that cannot read has failed")]
use engine_redb::{Loss, RedbEngine, RedbOptions};
use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, WriteBatch};

fn rows(reader: &impl Reader, range: Range<'_>, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut cursor = reader.cursor(Cf::Default, range, direction).unwrap();
    let mut rows = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        rows.push((key.to_vec(), value.to_vec()));
    }
    assert!(cursor.next().unwrap().is_none(), "the end stays the end");
    rows
}

#[test]
fn rows_outlive_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/data.redb");
    let engine = RedbEngine::open(&path, &RedbOptions::default()).unwrap();
    let mut batch = engine.write_batch();
    for number in 0..100_u32 {
        batch.put(Cf::Default, &number.to_be_bytes(), format!("value {number}").as_bytes());
    }
    batch.delete_range(Cf::Default, Range::new(&10_u32.to_be_bytes(), &20_u32.to_be_bytes()));
    batch.put(Cf::Default, &15_u32.to_be_bytes(), b"again");
    batch.put(Cf::Raft, b"state", b"");
    engine.write(batch, Durability::Buffered).unwrap();
    let before = rows(&engine, Range::ALL, Direction::Forward);
    assert_eq!(before.len(), 91);
    drop(engine);

    let engine = RedbEngine::open(&path, &RedbOptions::default()).unwrap();
    assert_eq!(rows(&engine, Range::ALL, Direction::Forward), before);
    let mut backward = rows(&engine, Range::ALL, Direction::Backward);
    backward.reverse();
    assert_eq!(backward, before);
    assert_eq!(engine.get(Cf::Raft, b"state").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(engine.get(Cf::Default, &12_u32.to_be_bytes()).unwrap(), None);
}

/// A clean close vouches for the file, an unclean stop does not, and a sweep goes over all of
/// it slice by slice.
#[test]
fn a_file_is_checked_as_a_whole_after_an_unclean_stop_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.redb");
    let options = RedbOptions::default();
    let (engine, switch) = RedbEngine::open_with_cut(&path, &options).unwrap();
    assert!(!engine.was_checked_at_open(), "there was nothing to check");
    let mut batch = engine.write_batch();
    batch.put(Cf::Default, b"k", b"v");
    engine.write(batch, Durability::Synced).unwrap();
    switch.cut(Loss::Everything);
    drop(engine);
    let engine = RedbEngine::open(&path, &options).unwrap();
    assert!(engine.was_checked_at_open());
    assert_eq!(engine.get(Cf::Default, b"k").unwrap().as_deref(), Some(&b"v"[..]));
    engine.close().unwrap();
    let engine = RedbEngine::open(&path, &options).unwrap();
    assert!(!engine.was_checked_at_open());
    let (mut swept, mut slices) = (0, 0);
    loop {
        let progress = engine.sweep(7).unwrap();
        swept += progress.slice_pages;
        slices += 1;
        assert!(progress.slice_pages <= 7);
        if progress.passes == 1 {
            assert_eq!(swept, progress.total_pages);
            assert!(slices > progress.total_pages / 7);
            break;
        }
    }
}
