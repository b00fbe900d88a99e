//! Cases about snapshots, and about what engines may do better than the fallbacks.

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::{Row, keys, put, put_letters, scan, with_engine, write};
use crate::Direction::{Backward, Forward};
use crate::Durability::{Buffered, Synced};
use crate::{KvEngine, Range, Reader, WriteBatch};

const CF: Cf = Cf::Default;

/// A snapshot sees every write that returned before it was taken, synced or not.
pub(super) fn snapshot_sees_earlier_writes<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for (number, durability) in [Buffered, Synced, Buffered].into_iter().enumerate() {
            let value = [number.to_le_bytes()[0]];
            write(engine, durability, |batch| batch.put(CF, b"k", &value))?;
            let snapshot = engine.snapshot()?;
            let want = Some(Bytes::copy_from_slice(&value));
            same("value", &snapshot.get(CF, b"k")?, &want)?;
        }
        Ok(())
    })
}

/// Gets of a snapshot see nothing of any later write.
pub(super) fn snapshot_hides_later_writes<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcd")?;
        let snapshot = engine.snapshot()?;
        put(engine, CF, b"a", b"new")?;
        put(engine, CF, b"e", b"new")?;
        write(engine, Synced, |batch| batch.delete(CF, b"b"))?;
        write(engine, Buffered, |batch| batch.delete_range(CF, Range::new(b"c", b"d")))?;
        for letter in ["a", "b", "c", "d"] {
            let want = Some(Bytes::from(letter.to_ascii_uppercase()));
            same(letter, &snapshot.get(CF, letter.as_bytes())?, &want)?;
        }
        same("e", &snapshot.get(CF, b"e")?, &None)
    })
}

/// Cursors of a snapshot see nothing of any later write, whenever they are opened.
pub(super) fn snapshot_cursor_hides_later_writes<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "bdf")?;
        let snapshot = engine.snapshot()?;
        let mut cursor = snapshot.cursor(CF, Range::ALL, Forward)?;
        put_letters(engine, CF, "aceg")?;
        write(engine, Buffered, |batch| {
            batch.delete(CF, b"d");
            batch.delete_range(CF, Range::new(b"e", b"g"));
        })?;
        let first = cursor.next()?.map(|(key, _)| key.to_vec());
        same("first row", &first, &Some(b"b".to_vec()))?;
        same("forward", &keys(&snapshot, CF, Range::ALL, Forward)?.as_str(), &"bdf")?;
        same("backward", &keys(&snapshot, CF, Range::ALL, Backward)?.as_str(), &"fdb")
    })
}

/// A snapshot is one moment over all families.
pub(super) fn snapshot_is_one_moment_of_all_families<F: KvFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        for cf in Cf::ALL {
            put(engine, cf, b"k", b"old")?;
        }
        let snapshot = engine.snapshot()?;
        for cf in Cf::ALL {
            same("before", &snapshot.get(cf, b"k")?, &Some(Bytes::from("old")))?;
            for later in Cf::ALL {
                put(engine, later, b"k", b"new")?;
            }
        }
        Ok(())
    })
}

/// Several snapshots each keep their own moment, in whatever order they are dropped.
pub(super) fn snapshots_keep_their_own_moments<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let mut snapshots = Vec::new();
        for number in 0..8_u8 {
            put(engine, CF, b"k", &[number])?;
            put(engine, CF, &[number], b"")?;
            snapshots.push((number, engine.snapshot()?));
        }
        for dropped in [3, 0, 5] {
            snapshots.remove(dropped);
            for (number, snapshot) in &snapshots {
                let want = Some(Bytes::copy_from_slice(&[*number]));
                same("value", &snapshot.get(CF, b"k")?, &want)?;
                let rows = scan(snapshot, CF, Range::new(b"\0", b"k"), Forward)?;
                same("rows", &rows.len(), &(usize::from(*number) + 1))?;
            }
        }
        Ok(())
    })
}

/// A snapshot is readable on another thread, and after every handle of the engine is gone.
pub(super) fn snapshot_outlives_its_handle<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    put_letters(&engine, CF, "abc")?;
    let snapshot = engine.snapshot()?;
    put_letters(&engine, CF, "d")?;
    drop(engine);
    let read =
        std::thread::scope(|scope| scope.spawn(|| keys(&snapshot, CF, Range::ALL, Forward)).join());
    let read = read.map_err(|_| Failure::Failed("the reading thread panicked".to_owned()))??;
    same("rows", &read.as_str(), &"abc")
}

/// The approximate size of a range is within a factor of four, or at least the limit.
pub(super) fn approximate_size_is_of_the_right_order<F: KvFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Synced, |batch| {
            for number in 0..2_000_u32 {
                batch.put(CF, &number.to_be_bytes(), &[7; 1020]);
            }
        })?;
        let (low, high) = (500_u32.to_be_bytes(), 1500_u32.to_be_bytes());
        let size = engine.approximate_size(CF, Range::new(&low, &high), u64::MAX)?;
        ensure!((256_000..=4_096_000).contains(&size), "{size} for 1024000 bytes");
        let size = engine.approximate_size(CF, Range::ALL, 100_000)?;
        ensure!(size >= 100_000, "{size} for 2048000 bytes with a limit of 100000");
        Ok(())
    })
}

/// Ingested rows are readable like written ones, and neighbours stay.
pub(super) fn ingested_rows_are_readable<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put(engine, CF, b"a", b"below")?;
        put(engine, CF, b"z", b"above")?;
        let rows: Vec<Row> = (0..3_000_u32)
            .map(|number| (Bytes::from(format!("k{number:06}")), Bytes::from(vec![1; 600])))
            .collect();
        engine.ingest(CF, &mut rows.iter().cloned())?;
        let got = scan(engine, CF, Range::new(b"k", b"l"), Forward)?;
        ensure!(got == rows, "{} rows came back of {}", got.len(), rows.len());
        same("below", &engine.get(CF, b"a")?, &Some(Bytes::from("below")))?;
        same("above", &engine.get(CF, b"z")?, &Some(Bytes::from("above")))?;
        engine.ingest(CF, &mut std::iter::empty())?;
        Ok(())
    })
}

/// Compaction changes no data, neither in the range nor beside it.
pub(super) fn compaction_keeps_the_data<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for cf in Cf::ALL {
            put_letters(engine, cf, "abcdefg")?;
            write(engine, Synced, |batch| batch.delete_range(cf, Range::new(b"c", b"e")))?;
        }
        engine.compact(CF, Range::new(b"b", b"f"))?;
        engine.compact(CF, Range::ALL)?;
        for cf in Cf::ALL {
            same("rows", &keys(engine, cf, Range::ALL, Forward)?.as_str(), &"abefg")?;
        }
        Ok(())
    })
}
