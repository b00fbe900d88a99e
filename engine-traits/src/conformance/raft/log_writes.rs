//! Cases about batches of log changes: what replaces what, what is refused, in which order.

use raftstore_proto::Entry;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::RaftLogFixture;
use super::{ONE, THREE, TWO, append, entries, entry, read, state, with_engine, write};
use crate::Durability::{Buffered, Synced};
use crate::{Error, RaftEngine, RaftLogBatch};

/// Reads every entry of region one, looking at each index by itself too.
fn all<E: RaftEngine>(engine: &E, low: u64) -> Result<Vec<Entry>, Failure> {
    let run = read(engine, ONE, low, 200)?;
    for index in 0..200 {
        let want = run.iter().find(|entry| entry.index() == index);
        same("one entry", &engine.entry(ONE, index)?.as_ref(), &want)?;
    }
    Ok(run)
}

fn joined(parts: &[&[Entry]]) -> Vec<Entry> {
    parts.concat()
}

/// Appends follow each other, in one batch and in several.
pub(super) fn append_continues_the_log<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 4, 1))?;
        write(engine, Synced, |batch| {
            batch.append(ONE, &entries(4, 6, 1));
            batch.append(ONE, &entries(6, 9, 2));
        })?;
        same("log", &all(engine, 1)?, &joined(&[&entries(1, 6, 1), &entries(6, 9, 2)]))
    })
}

/// An append of no entries changes nothing.
pub(super) fn empty_append_changes_nothing<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &[])?;
        same("regions", &engine.regions()?, &Vec::new())?;
        append(engine, ONE, &entries(1, 4, 1))?;
        append(engine, ONE, &[])?;
        same("log", &all(engine, 1)?, &entries(1, 4, 1))
    })
}

/// An append inside the log replaces everything from its index on, also above its last.
pub(super) fn append_replaces_the_suffix<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    for old_end in [8, 12, 40] {
        for (low, high) in [(4, 5), (4, 7), (7, 8), (1, 3)] {
            with_engine(make, |engine| {
                append(engine, ONE, &entries(1, old_end, 1))?;
                append(engine, ONE, &entries(low, high, 2))?;
                let want = joined(&[&entries(1, low, 1), &entries(low, high, 2)]);
                same("log", &all(engine, 1)?, &want)?;
                append(engine, ONE, &entries(high, high + 2, 3))?;
                same("next", &read(engine, ONE, high, 200)?, &entries(high, high + 2, 3))
            })?;
        }
    }
    Ok(())
}

/// An append that begins before the stored log leaves nothing of it.
pub(super) fn append_before_the_start_replaces_all<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(20, 40, 1))?;
        append(engine, ONE, &entries(5, 8, 2))?;
        same("log", &all(engine, 5)?, &entries(5, 8, 2))
    })
}

/// The first append to an empty log may start anywhere.
pub(super) fn first_append_starts_anywhere<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(77, 80, 1))?;
        same("log", &all(engine, 77)?, &entries(77, 80, 1))?;
        write(engine, Buffered, |batch| batch.put_raft_state(TWO, &state(1)))?;
        append(engine, TWO, &entries(9, 11, 1))?;
        same("beside a state", &read(engine, TWO, 9, 11)?, &entries(9, 11, 1))
    })
}

/// After `clear_region`, or a truncation of everything, an append may start anywhere, in
/// the same batch (W11) and later.
pub(super) fn append_to_an_emptied_log_starts_anywhere<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 20, 1))?;
        write(engine, Buffered, |batch| {
            batch.clear_region(ONE);
            batch.append(ONE, &entries(50, 53, 2));
        })?;
        same("cleared", &all(engine, 50)?, &entries(50, 53, 2))?;
        write(engine, Buffered, |batch| {
            batch.truncate_prefix(ONE, 90);
            batch.append(ONE, &entries(100, 102, 3));
        })?;
        same("truncated", &all(engine, 100)?, &entries(100, 102, 3))?;
        write(engine, Buffered, |batch| batch.clear_region(ONE))?;
        append(engine, ONE, &entries(7, 9, 4))?;
        same("cleared before", &all(engine, 7)?, &entries(7, 9, 4))
    })
}

fn refused<E: RaftEngine>(engine: &E, what: &str, fill: impl FnOnce(&mut E::LogBatch)) -> Verdict {
    match write(engine, Buffered, fill) {
        Err(Error::InvalidBatch { .. }) => Ok(()),
        Err(other) => Err(other.into()),
        Ok(()) => Err(Failure::Failed(format!("{what} was accepted"))),
    }
}

/// An append that would leave a hole is refused, and the engine goes on.
pub(super) fn append_that_leaves_a_hole_is_refused<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 4, 1))?;
        for first in [5, 6, 100] {
            refused(engine, "an append behind a hole", |batch| {
                batch.append(ONE, &entries(first, first + 2, 2));
            })?;
        }
        same("log", &all(engine, 1)?, &entries(1, 4, 1))?;
        append(engine, ONE, &entries(4, 6, 2))?;
        same("afterwards", &read(engine, ONE, 4, 6)?, &entries(4, 6, 2))
    })
}

/// Entries of one append that are not consecutive are refused.
pub(super) fn append_with_a_gap_is_refused<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let broken = [
            vec![entry(1, 1), entry(3, 1)],
            vec![entry(1, 1), entry(1, 1)],
            vec![entry(2, 1), entry(1, 1)],
        ];
        for entries in broken {
            refused(engine, "an append with a gap", |batch| batch.append(ONE, &entries))?;
        }
        same("regions", &engine.regions()?, &Vec::new())
    })
}

/// A refused batch is refused whole: nothing of it is written, for no region.
pub(super) fn refused_batch_leaves_nothing<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 4, 1))?;
        append(engine, TWO, &entries(1, 4, 1))?;
        refused(engine, "a batch with a hole", |batch| {
            batch.append(TWO, &entries(3, 6, 2));
            batch.put_raft_state(TWO, &state(5));
            batch.truncate_prefix(ONE, 2);
            batch.append(THREE, &entries(1, 2, 2));
            batch.append(ONE, &entries(9, 10, 2));
            batch.clear_region(ONE);
        })?;
        same("region one", &all(engine, 1)?, &entries(1, 4, 1))?;
        same("region two", &read(engine, TWO, 1, 9)?, &entries(1, 4, 1))?;
        same("its state", &engine.raft_state(TWO)?, &None)?;
        same("regions", &engine.regions()?, &vec![ONE, TWO])
    })
}

/// Holes are judged at the operation's place in the batch.
pub(super) fn holes_are_judged_in_order<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 10, 1))?;
        refused(engine, "an append behind a suffix that the batch cut", |batch| {
            batch.append(ONE, &entries(3, 5, 2));
            batch.append(ONE, &entries(10, 12, 2));
        })?;
        refused(engine, "a second append behind a hole", |batch| {
            batch.clear_region(ONE);
            batch.append(ONE, &entries(30, 33, 2));
            batch.append(ONE, &entries(34, 36, 2));
        })?;
        refused(engine, "an append behind a hole, cleared too late", |batch| {
            batch.append(ONE, &entries(30, 33, 2));
            batch.clear_region(ONE);
        })?;
        same("log", &all(engine, 1)?, &entries(1, 10, 1))?;
        write(engine, Buffered, |batch| {
            batch.append(ONE, &entries(3, 5, 2));
            batch.append(ONE, &entries(5, 12, 2));
        })?;
        let want = joined(&[&entries(1, 3, 1), &entries(3, 12, 2)]);
        same("log", &all(engine, 1)?, &want)
    })
}

/// A truncation removes the entries below its index and no other.
pub(super) fn truncation_removes_what_is_below<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 60, 1))?;
        append(engine, TWO, &entries(1, 60, 1))?;
        for index in [1, 2, 2, 5, 40, 41] {
            write(engine, Buffered, |batch| batch.truncate_prefix(ONE, index))?;
            same("log", &all(engine, index)?, &entries(index, 60, 1))?;
        }
        write(engine, Buffered, |batch| batch.truncate_prefix(ONE, 3))?;
        same("truncated lower", &all(engine, 41)?, &entries(41, 60, 1))?;
        append(engine, ONE, &entries(60, 62, 1))?;
        same("appended", &all(engine, 41)?, &entries(41, 62, 1))?;
        same("the other region", &read(engine, TWO, 1, 99)?, &entries(1, 60, 1))
    })
}

/// Truncating an absent region, or beyond the log's end, is no error and keeps the state.
pub(super) fn truncation_of_nothing_is_no_error<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| batch.truncate_prefix(ONE, 10))?;
        same("regions", &engine.regions()?, &Vec::new())?;
        write(engine, Buffered, |batch| {
            batch.append(ONE, &entries(1, 5, 1));
            batch.put_raft_state(ONE, &state(3));
        })?;
        for index in [5, 100, u64::MAX] {
            write(engine, Buffered, |batch| batch.truncate_prefix(ONE, index))?;
            same("log", &all(engine, 1)?, &Vec::new())?;
            same("state", &engine.raft_state(ONE)?, &Some(state(3)))?;
        }
        Ok(())
    })
}

/// A state is stored per region, replaced by the next one, and independent of entries.
pub(super) fn raft_state_is_read_back<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for number in [1, 7, u64::MAX - 9] {
            write(engine, Buffered, |batch| {
                batch.put_raft_state(ONE, &state(number));
                batch.put_raft_state(TWO, &state(number + 1));
            })?;
            same("state", &engine.raft_state(ONE)?, &Some(state(number)))?;
            same("state", &engine.raft_state(TWO)?, &Some(state(number + 1)))?;
        }
        same("no entries", &engine.entry(ONE, 1)?, &None)?;
        append(engine, THREE, &entries(1, 9, 1))?;
        same("no state", &engine.raft_state(THREE)?, &None)
    })
}

/// `clear_region` forgets entries and state of its region and of no other.
pub(super) fn cleared_region_is_forgotten<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for region in [ONE, TWO, THREE] {
            write(engine, Buffered, |batch| {
                batch.append(region, &entries(1, 30, 1));
                batch.put_raft_state(region, &state(1));
            })?;
        }
        write(engine, Buffered, |batch| batch.clear_region(TWO))?;
        same("entries", &read(engine, TWO, 1, 30)?, &Vec::new())?;
        same("entry", &engine.entry(TWO, 29)?, &None)?;
        same("state", &engine.raft_state(TWO)?, &None)?;
        same("regions", &engine.regions()?, &vec![ONE, THREE])?;
        for region in [ONE, THREE] {
            same("entries", &read(engine, region, 1, 30)?, &entries(1, 30, 1))?;
            same("state", &engine.raft_state(region)?, &Some(state(1)))?;
        }
        write(engine, Buffered, |batch| batch.clear_region(TWO))?;
        same("cleared twice", &engine.regions()?, &vec![ONE, THREE])
    })
}

/// Operations of a batch on one region take effect in the order added (W11).
pub(super) fn log_batch_keeps_its_order<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| {
            batch.put_raft_state(ONE, &state(1));
            batch.append(ONE, &entries(1, 9, 1));
            batch.clear_region(ONE);
            batch.append(ONE, &entries(4, 9, 2));
            batch.truncate_prefix(ONE, 6);
            batch.append(ONE, &entries(8, 9, 3));
            batch.put_raft_state(ONE, &state(2));
            batch.put_raft_state(ONE, &state(3));
            batch.put_raft_state(TWO, &state(4));
            batch.append(TWO, &entries(1, 3, 4));
            batch.clear_region(TWO);
        })?;
        let want = joined(&[&entries(6, 8, 2), &entries(8, 9, 3)]);
        same("log", &all(engine, 6)?, &want)?;
        same("state", &engine.raft_state(ONE)?, &Some(state(3)))?;
        same("regions", &engine.regions()?, &vec![ONE])
    })
}

/// One batch changes any number of regions.
pub(super) fn log_batch_spans_regions<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        write(engine, Buffered, |batch| {
            for region in [THREE, ONE, TWO] {
                batch.append(region, &entries(1, 4, region.get()));
            }
        })?;
        write(engine, Synced, |batch| {
            batch.append(ONE, &entries(2, 3, 9));
            batch.clear_region(TWO);
            batch.truncate_prefix(THREE, 3);
        })?;
        let want = joined(&[&entries(1, 2, 1), &entries(2, 3, 9)]);
        same("region one", &all(engine, 1)?, &want)?;
        same("region three", &read(engine, THREE, 3, 9)?, &entries(3, 4, 3))?;
        same("regions", &engine.regions()?, &vec![ONE, THREE])
    })
}

/// A batch that is never written changes nothing, nor does one without operations.
pub(super) fn unwritten_log_batch_changes_nothing<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 4, 1))?;
        let mut batch = engine.log_batch();
        batch.append(ONE, &entries(2, 9, 2));
        batch.clear_region(ONE);
        batch.put_raft_state(TWO, &state(1));
        drop(batch);
        write(engine, Buffered, |_| {})?;
        write(engine, Synced, |_| {})?;
        same("log", &all(engine, 1)?, &entries(1, 4, 1))?;
        same("regions", &engine.regions()?, &vec![ONE])
    })
}

/// A batch knows whether it is empty and at least the bytes of its payloads.
pub(super) fn log_batch_knows_its_size<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        ensure!(engine.log_batch().is_empty(), "a new batch is not empty");
        for number in 0..4 {
            let mut batch = engine.log_batch();
            match number {
                0 => batch.append(ONE, &entries(1, 2, 1)),
                1 => batch.truncate_prefix(ONE, 1),
                2 => batch.put_raft_state(ONE, &state(1)),
                _ => batch.clear_region(ONE),
            }
            ensure!(!batch.is_empty(), "a batch with operation {number} is empty");
        }
        let mut batch = engine.log_batch();
        batch.append(ONE, &[super::entry_with(1, 1, &[0; 5000])]);
        ensure!(batch.size_bytes() >= 5000, "size {} after 5000 bytes", batch.size_bytes());
        Ok(())
    })
}

/// A write through one handle is seen, and followed, through its clones.
pub(super) fn log_clones_name_one_engine<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let other = engine.clone();
        append(engine, ONE, &entries(1, 9, 1))?;
        append(&other, ONE, &entries(3, 5, 2))?;
        append(engine, ONE, &entries(5, 6, 3))?;
        let want = joined(&[&entries(1, 3, 1), &entries(3, 5, 2), &entries(5, 6, 3)]);
        same("log", &all(&other, 1)?, &want)?;
        ensure!(!engine.name().is_empty(), "an engine has a name");
        Ok(())
    })
}
