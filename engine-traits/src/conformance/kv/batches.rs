//! Cases about batches: order, ranges, wholeness.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::{keys, put_letters, with_engine, write};
use crate::Durability::{Buffered, Synced};
use crate::{Direction, KvEngine, Range, Reader, WriteBatch};

const CF: Cf = Cf::Default;

/// The keys of a family as text.
fn all(engine: &impl Reader, cf: Cf) -> crate::Result<String> {
    keys(engine, cf, Range::ALL, Direction::Forward)
}

fn text(what: &str, got: &str, want: &str) -> Verdict {
    same(what, &got, &want)
}

/// A batch without operations is accepted and changes nothing.
pub(super) fn empty_batch_changes_nothing<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "ab")?;
        for durability in [Buffered, Synced] {
            write(engine, durability, |_| {})?;
            text("rows", &all(engine, CF)?, "ab")?;
        }
        Ok(())
    })
}

/// A batch that is never written changes nothing, nor is it visible while it is filled.
pub(super) fn unwritten_batch_changes_nothing<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "ab")?;
        let mut batch = engine.write_batch();
        batch.put(CF, b"c", b"C");
        batch.delete(CF, b"a");
        batch.delete_range(CF, Range::ALL);
        text("while filled", &all(engine, CF)?, "ab")?;
        drop(batch);
        text("after the drop", &all(engine, CF)?, "ab")
    })
}

/// Of two puts of a key in one batch the one added last counts.
pub(super) fn later_put_of_a_batch_wins<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| {
            batch.put(CF, b"k", b"first");
            batch.put(CF, b"k", b"second");
        })?;
        same("value", &engine.get(CF, b"k")?, &Some(Bytes::from("second")))
    })
}

/// Put and delete of one key in one batch: the one added last counts.
pub(super) fn put_and_delete_keep_their_order<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| {
            batch.put(CF, b"a", b"A");
            batch.delete(CF, b"a");
            batch.delete(CF, b"b");
            batch.put(CF, b"b", b"B");
        })?;
        text("rows", &all(engine, CF)?, "b")
    })
}

/// A delete-range covers what was added to the batch before it (W11).
pub(super) fn delete_range_covers_earlier_puts<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "ac")?;
        write(engine, Buffered, |batch| {
            batch.put(CF, b"b", b"B");
            batch.put(CF, b"c", b"new");
            batch.put(CF, b"e", b"E");
            batch.delete_range(CF, Range::new(b"b", b"d"));
        })?;
        text("rows", &all(engine, CF)?, "ae")
    })
}

/// A delete-range spares what is added to the batch after it (W11).
pub(super) fn delete_range_spares_later_puts<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcd")?;
        write(engine, Buffered, |batch| {
            batch.delete_range(CF, Range::new(b"a", b"d"));
            batch.put(CF, b"b", b"new");
            batch.put(CF, b"bb", b"new");
        })?;
        same("value", &engine.get(CF, b"b")?, &Some(Bytes::from("new")))?;
        text("rows", &all(engine, CF)?, "bbbd")
    })
}

/// A delete-range takes its start and leaves its end.
pub(super) fn delete_range_is_half_open<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for (start, end, rest) in
            [("b", "d", "ade"), ("b\0", "d\0", "abe"), ("b", "b\0", "acde"), ("", "c", "cde")]
        {
            put_letters(engine, CF, "abcde")?;
            write(engine, Buffered, |batch| {
                batch.delete_range(CF, Range::new(start.as_bytes(), end.as_bytes()));
            })?;
            text("rows", &all(engine, CF)?, rest)?;
        }
        Ok(())
    })
}

/// A delete-range with an empty end goes beyond every key.
pub(super) fn delete_range_without_end_takes_the_rest<F: KvFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abc")?;
        write(engine, Buffered, |batch| {
            batch.put(CF, &[0xFF; 30], b"last");
            batch.delete_range(CF, Range::new(b"b", b""));
        })?;
        text("rows", &all(engine, CF)?, "a")?;
        write(engine, Buffered, |batch| batch.delete_range(CF, Range::ALL))?;
        text("rows", &all(engine, CF)?, "")
    })
}

/// A delete-range of an empty or reversed range does nothing.
pub(super) fn delete_range_of_nothing_does_nothing<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abc")?;
        write(engine, Buffered, |batch| {
            batch.delete_range(CF, Range::new(b"b", b"b"));
            batch.delete_range(CF, Range::new(b"c", b"a"));
            batch.delete_range(CF, Range::new(b"d", b"x"));
        })?;
        text("rows", &all(engine, CF)?, "abc")
    })
}

/// A delete-range touches its own family only.
pub(super) fn delete_range_stays_in_its_family<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for cf in Cf::ALL {
            put_letters(engine, cf, "abc")?;
        }
        write(engine, Buffered, |batch| batch.delete_range(Cf::Write, Range::new(b"a", b"c")))?;
        for cf in Cf::ALL {
            text(cf.name(), &all(engine, cf)?, if cf == Cf::Write { "c" } else { "abc" })?;
        }
        Ok(())
    })
}

/// Overlapping delete-ranges and puts between them take effect in the order added.
pub(super) fn ranges_and_puts_interleave_in_order<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put_letters(engine, CF, "abcdef")?;
        write(engine, Buffered, |batch| {
            batch.delete_range(CF, Range::new(b"a", b"d"));
            batch.put(CF, b"b", b"1");
            batch.put(CF, b"d", b"1");
            batch.delete_range(CF, Range::new(b"c", b"f"));
            batch.put(CF, b"c", b"2");
            batch.delete(CF, b"f");
        })?;
        text("rows", &all(engine, CF)?, "bc")?;
        same("value", &engine.get(CF, b"b")?, &Some(Bytes::from("1")))
    })
}

/// One batch changes all families.
pub(super) fn batch_spans_families<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| {
            for cf in Cf::ALL {
                batch.put(cf, b"k", cf.name().as_bytes());
            }
        })?;
        for cf in Cf::ALL {
            same(cf.name(), &engine.get(cf, b"k")?, &Some(Bytes::from(cf.name())))?;
        }
        Ok(())
    })
}

/// A batch knows how many operations it holds, and at least their bytes.
pub(super) fn batch_counts_its_operations<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let mut batch = engine.write_batch();
        ensure!(batch.is_empty() && batch.len() == 0, "a new batch is not empty");
        batch.put(CF, b"key", &[7; 1000]);
        same("operations", &batch.len(), &1)?;
        ensure!(batch.size_bytes() >= 1003, "size {} after 1003 bytes", batch.size_bytes());
        batch.put(CF, b"key", b"");
        batch.delete(CF, b"key");
        batch.delete_range(CF, Range::new(b"a", b"z"));
        same("operations", &batch.len(), &4)?;
        ensure!(!batch.is_empty(), "a batch of four operations is empty");
        Ok(())
    })
}

/// Ten thousand operations fit a batch.
pub(super) fn large_batch_is_carried_out_whole<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| {
            for number in 0..10_000_u32 {
                batch.put(CF, &number.to_be_bytes(), &number.to_le_bytes());
            }
        })?;
        for number in 0..10_000_u32 {
            let got = engine.get(CF, &number.to_be_bytes())?;
            ensure!(got.as_deref() == Some(&number.to_le_bytes()[..]), "row {number} is {got:?}");
        }
        Ok(())
    })
}

/// A reader on another thread sees all of a batch or nothing of it, and never goes back.
pub(super) fn readers_never_see_half_a_batch<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut newest = None;
                while !done.load(Ordering::SeqCst) {
                    let snapshot = engine.snapshot()?;
                    let first = snapshot.get(Cf::Default, b"k")?;
                    for cf in Cf::ALL {
                        same("another family", &snapshot.get(cf, b"k")?, &first)?;
                    }
                    ensure!(first >= newest, "a later snapshot is older: {first:?}");
                    newest = first;
                }
                Ok(())
            });
            let written = (0..50_u32).try_for_each(|number| {
                write(engine, Buffered, |batch| {
                    for cf in Cf::ALL {
                        batch.put(cf, b"k", &number.to_be_bytes());
                    }
                })
            });
            done.store(true, Ordering::SeqCst);
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written?;
            read
        })
    })
}
