//! Cases about snapshots, and about what engines may do better than the fallbacks.

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Failure, Verdict, same};
use super::super::fixture::KvFixture;
use super::{keys, put, put_letters, scan, with_engine, write};
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
