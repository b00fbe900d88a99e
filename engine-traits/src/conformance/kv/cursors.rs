//! Cases about walks over rows.

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::{Row, drain, keys, letters, put, put_letters, scan, with_engine, write};
use crate::Direction::{Backward, Forward};
use crate::{Cursor, Direction, Durability, KvEngine, Range, Reader, WriteBatch};

const CF: Cf = Cf::Default;

fn text(what: &str, got: &str, want: &str) -> Verdict {
    same(what, &got, &want)
}

/// Key of the next row, as text; empty at the end.
fn next_letter(cursor: &mut dyn Cursor) -> crate::Result<String> {
    let row = cursor.next()?;
    Ok(row.map(|(key, _)| String::from_utf8_lossy(key).into_owned()).unwrap_or_default())
}

/// A forward walk gives every row once, keys ascending as unsigned bytes.
pub(super) fn forward_walk_is_ascending<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let rows = awkward_rows(engine)?;
        same("rows", &scan(engine, CF, Range::ALL, Forward)?, &rows)
    })
}

/// A backward walk gives the same rows in reverse, the first one included.
pub(super) fn backward_walk_is_descending<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let mut rows = awkward_rows(engine)?;
        rows.reverse();
        same("rows", &scan(engine, CF, Range::ALL, Backward)?, &rows)
    })
}

/// Stores keys that sort wrongly if compared as text, as numbers or by length.
fn awkward_rows<E: KvEngine>(engine: &E) -> crate::Result<Vec<Row>> {
    let keys: [&[u8]; 12] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\xFF",
        b"\x01",
        b"a",
        b"a\0",
        b"aa",
        b"b",
        b"\x7F",
        b"\x80",
        b"\xFF\xFF",
    ];
    let mut rows = Vec::new();
    // Written out of order, so that the order of writing cannot stand in for that of keys.
    for at in [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6] {
        put(engine, CF, keys[at], &[u8::try_from(at).unwrap_or(0)])?;
        rows.push((Bytes::copy_from_slice(keys[at]), Bytes::from(vec![at.to_le_bytes()[0]])));
    }
    rows.sort();
    Ok(rows)
}

/// Walks of thousands of rows lose none, in both directions and from the middle.
pub(super) fn long_walk_loses_no_row<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let mut rows = Vec::new();
        write(engine, Durability::Buffered, |batch| {
            for number in 0..3000_u32 {
                let key = number.to_be_bytes();
                batch.put(CF, &key, &[key[3]]);
                rows.push((Bytes::copy_from_slice(&key), Bytes::from(vec![key[3]])));
            }
        })?;
        ensure!(scan(engine, CF, Range::ALL, Forward)? == rows, "forward walk differs");
        let (low, high) = (100_u32.to_be_bytes(), 2900_u32.to_be_bytes());
        let part = scan(engine, CF, Range::new(&low, &high), Forward)?;
        ensure!(part == rows[100..2900], "forward walk of a part differs");
        let mut part = scan(engine, CF, Range::new(&low, &high), Backward)?;
        part.reverse();
        ensure!(part == rows[100..2900], "backward walk of a part differs");
        Ok(())
    })
}

/// A row carries its own value; an empty one too.
pub(super) fn rows_carry_their_values<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put(engine, CF, b"a", b"first")?;
        put(engine, CF, b"b", b"")?;
        put(engine, CF, b"c", b"third")?;
        let mut want: Vec<Row> = [("a", "first"), ("b", ""), ("c", "third")]
            .map(|(key, value)| (Bytes::from(key), Bytes::from(value)))
            .to_vec();
        same("forward", &scan(engine, CF, Range::ALL, Forward)?, &want)?;
        want.reverse();
        same("backward", &scan(engine, CF, Range::ALL, Backward)?, &want)
    })
}

/// A cursor meets rows of its own family only.
pub(super) fn cursor_stays_in_its_family<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for (cf, rows) in Cf::ALL.into_iter().zip(["adg", "beh", "cfi", ""]) {
            put_letters(engine, cf, rows)?;
        }
        for (cf, rows) in Cf::ALL.into_iter().zip(["adg", "beh", "cfi", ""]) {
            text(cf.name(), &keys(engine, cf, Range::ALL, Forward)?, rows)?;
            let back: String = rows.chars().rev().collect();
            text(cf.name(), &keys(engine, cf, Range::ALL, Backward)?, &back)?;
        }
        Ok(())
    })
}

/// Keys removed before the cursor is opened are not met.
pub(super) fn cursor_skips_deleted_keys<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcdef")?;
        write(engine, Durability::Buffered, |batch| {
            batch.delete(CF, b"a");
            batch.delete(CF, b"f");
            batch.delete_range(CF, Range::new(b"c", b"e"));
        })?;
        text("forward", &keys(engine, CF, Range::ALL, Forward)?, "be")?;
        text("backward", &keys(engine, CF, Range::ALL, Backward)?, "eb")
    })
}

/// The start of a range is in it, whether it is a stored key or lies between two.
pub(super) fn range_start_is_inclusive<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "acegi")?;
        for (start, rows) in [("c", "ceg"), ("d", "eg"), ("b", "ceg"), ("g", "g")] {
            let range = Range::new(start.as_bytes(), b"i");
            text(start, &keys(engine, CF, range, Forward)?, rows)?;
            let back: String = rows.chars().rev().collect();
            text(start, &keys(engine, CF, range, Backward)?, &back)?;
        }
        Ok(())
    })
}

/// The end of a range is not in it, whether it is a stored key or lies between two.
pub(super) fn range_end_is_exclusive<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "acegi")?;
        for (end, rows) in [("g", "ce"), ("h", "ceg"), ("f", "ce"), ("c\0", "c")] {
            let range = Range::new(b"c", end.as_bytes());
            text(end, &keys(engine, CF, range, Forward)?, rows)?;
            let back: String = rows.chars().rev().collect();
            text(end, &keys(engine, CF, range, Backward)?, &back)?;
        }
        Ok(())
    })
}

/// An empty end of a range is after every key.
pub(super) fn empty_end_is_after_every_key<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abc")?;
        put(engine, CF, &[0xFF; 40], b"last")?;
        for direction in [Forward, Backward] {
            let mut rows = scan(engine, CF, Range::new(b"b", b""), direction)?;
            rows.sort();
            same("rows", &rows.len(), &3)?;
            same("last key", &rows[2].0, &Bytes::from(vec![0xFF; 40]))?;
        }
        Ok(())
    })
}

/// A range whose end is its start, or before it, has no rows; not even after a seek.
pub(super) fn empty_or_reversed_range_has_no_rows<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abc")?;
        for (start, end) in [("b", "b"), ("c", "a"), ("b\0", "b"), ("z", "a")] {
            for direction in [Forward, Backward] {
                let range = Range::new(start.as_bytes(), end.as_bytes());
                let mut cursor = engine.cursor(CF, range, direction)?;
                text("rows", &letters(&drain(&mut *cursor)?), "")?;
                for key in [&b""[..], b"a", b"b", b"c", b"zz"] {
                    cursor.seek(key)?;
                    text("rows after a seek", &letters(&drain(&mut *cursor)?), "")?;
                }
            }
        }
        Ok(())
    })
}

/// After the last row `next` gives `None` again and again.
pub(super) fn ended_cursor_stays_ended<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcd")?;
        for direction in [Forward, Backward] {
            let mut cursor = engine.cursor(CF, Range::new(b"b", b"d"), direction)?;
            same("rows", &drain(&mut *cursor)?.len(), &2)?;
            for _ in 0..3 {
                ensure!(cursor.next()?.is_none(), "an ended {direction:?} cursor went on");
            }
        }
        Ok(())
    })
}

fn seek_table<E: KvEngine>(engine: &E, direction: Direction, table: &[(&str, &str)]) -> Verdict {
    put_letters(engine, CF, "abdfgi")?;
    for (key, want) in table {
        let mut cursor = engine.cursor(CF, Range::new(b"b", b"i"), direction)?;
        cursor.seek(key.as_bytes())?;
        let what = format!("{direction:?} seek to {key:?}");
        text(&what, &letters(&drain(&mut *cursor)?), want)?;
    }
    Ok(())
}

/// Going forward, a seek lands on the first row at or after the key.
pub(super) fn seek_forward_lands_at_or_after<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let table = [("b", "bdfg"), ("c", "dfg"), ("d", "dfg"), ("d\0", "fg"), ("g", "g"), ("h", "")];
    with_engine(make, |engine| seek_table(engine, Forward, &table))
}

/// Going backward, a seek lands on the first row at or before the key.
pub(super) fn seek_backward_lands_at_or_before<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let table =
        [("h", "gfdb"), ("g", "gfdb"), ("f\0", "fdb"), ("f", "fdb"), ("e", "db"), ("b", "b")];
    with_engine(make, |engine| seek_table(engine, Backward, &table))
}

/// A seek below the range meets no row below it: forward all rows, backward none.
pub(super) fn seek_below_the_range_is_clamped<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        seek_table(engine, Forward, &[("", "bdfg"), ("a", "bdfg"), ("aa", "bdfg")])?;
        seek_table(engine, Backward, &[("", ""), ("a", ""), ("aa", "")])
    })
}

/// A seek above the range meets no row above it: backward all rows, forward none.
pub(super) fn seek_above_the_range_is_clamped<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        seek_table(engine, Backward, &[("i", "gfdb"), ("j", "gfdb"), ("z", "gfdb")])?;
        seek_table(engine, Forward, &[("i", ""), ("j", ""), ("z", "")])
    })
}

/// A seek brings an ended cursor back.
pub(super) fn seek_revives_an_ended_cursor<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcd")?;
        for (direction, want) in [(Forward, "cd"), (Backward, "cba")] {
            let mut cursor = engine.cursor(CF, Range::ALL, direction)?;
            for _ in 0..2 {
                drain(&mut *cursor)?;
                ensure!(cursor.next()?.is_none(), "an ended cursor went on");
                cursor.seek(b"c")?;
                text("after the seek", &letters(&drain(&mut *cursor)?), want)?;
            }
        }
        Ok(())
    })
}

/// A seek may go back over rows that were already met, and forth over some not yet met.
pub(super) fn seek_goes_against_the_direction<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcdefgh")?;
        for (direction, steps) in
            [(Forward, ["fg", "bc", "ef", "aa"]), (Backward, ["cb", "gf", "dc", "hh"])]
        {
            let mut cursor = engine.cursor(CF, Range::ALL, direction)?;
            next_letter(&mut *cursor)?;
            for step in steps {
                cursor.seek(&step.as_bytes()[..1])?;
                text("landed", &next_letter(&mut *cursor)?, &step[..1])?;
                if step[..1] != step[1..] {
                    text("after it", &next_letter(&mut *cursor)?, &step[1..])?;
                }
            }
        }
        Ok(())
    })
}

/// Two seeks in a row: the last one counts.
pub(super) fn last_seek_counts<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcdef")?;
        for direction in [Forward, Backward] {
            let mut cursor = engine.cursor(CF, Range::ALL, direction)?;
            cursor.seek(b"e")?;
            cursor.seek(b"zz")?;
            cursor.seek(b"b")?;
            text("landed", &next_letter(&mut *cursor)?, "b")?;
        }
        Ok(())
    })
}

/// A cursor on an engine sees one moment at or after its making, whatever is written while
/// it walks, ahead of it and behind it.
pub(super) fn engine_cursor_sees_one_moment<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "ahz")?;
        let mut cursor = engine.cursor(CF, Range::ALL, Forward)?;
        let mut walk = next_letter(&mut *cursor)?;
        put_letters(engine, CF, "b")?;
        walk.push_str(&next_letter(&mut *cursor)?);
        write(engine, Durability::Buffered, |batch| {
            batch.delete(CF, b"b");
            batch.put(CF, b"y", b"Y");
        })?;
        walk.push_str(&letters(&drain(&mut *cursor)?));
        let moments = ["ahz", "abhz", "ahyz"];
        ensure!(moments.contains(&walk.as_str()), "the walk met {walk:?}, which no moment had");
        Ok(())
    })
}
