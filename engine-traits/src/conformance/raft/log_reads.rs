//! Cases about reading a log.

use raftstore_proto::RegionId;

use super::super::case::{Verdict, ensure, same};
use super::super::fixture::RaftLogFixture;
use super::{ONE, THREE, TWO, append, entries, entry, entry_with, read, state, with_engine, write};
use crate::Durability::Buffered;
use crate::{RaftEngine, RaftLogBatch};

/// A region never written has no state and no entries.
pub(super) fn absent_region_has_nothing<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        same("regions", &engine.regions()?, &Vec::new())?;
        append(engine, TWO, &entries(1, 5, 1))?;
        for region in [ONE, THREE] {
            same("state", &engine.raft_state(region)?, &None)?;
            same("entry", &engine.entry(region, 1)?, &None)?;
            same("entries", &read(engine, region, 1, 100)?, &Vec::new())?;
        }
        Ok(())
    })
}

/// Appended entries come back one by one and as a run, in order and unchanged.
pub(super) fn entries_are_read_back<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let stored = entries(1, 31, 4);
        append(engine, ONE, &stored)?;
        same("all", &read(engine, ONE, 1, 31)?, &stored)?;
        for entry in &stored {
            let index = entry.index();
            same("one", &engine.entry(ONE, index)?.as_ref(), &Some(entry))?;
        }
        Ok(())
    })
}

/// Term, payload and context of an entry come back as they were, empty ones too.
pub(super) fn entries_come_back_whole<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let mut raw = entry_with(2, 9, b"\0\xFF").into_raft();
        raw.context = vec![1, 2, 3, 4, 5].into();
        let stored = [
            entry_with(1, 9, b""),
            raftstore_proto::Entry::from_raft(raw),
            entry_with(3, u64::MAX, &[7; 300_000]),
        ];
        append(engine, ONE, &stored)?;
        ensure!(read(engine, ONE, 1, 4)? == stored, "a run of entries came back changed");
        for want in &stored {
            let got = engine.entry(ONE, want.index())?;
            ensure!(got.as_ref() == Some(want), "entry {} came back changed", want.index());
        }
        Ok(())
    })
}

/// A read starts at `low` and ends before `high`.
pub(super) fn entries_are_half_open<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 41, 1))?;
        for (low, high) in [(1, 41), (3, 4), (3, 8), (5, 30), (40, 41), (32, 41)] {
            same("entries", &read(engine, ONE, low, high)?, &entries(low, high, 1))?;
        }
        for (low, high) in [(5, 5), (9, 3), (40, 2), (0, 0)] {
            same("empty range", &read(engine, ONE, low, high)?, &Vec::new())?;
        }
        Ok(())
    })
}

/// A read adds to what `out` holds, and gives the number of what it added.
pub(super) fn entries_are_added_to_the_output<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 31, 1))?;
        let mut out = Vec::new();
        same("count", &engine.entries(ONE, 1, 4, u64::MAX, &mut out)?, &3)?;
        same("count", &engine.entries(ONE, 4, 24, u64::MAX, &mut out)?, &20)?;
        same("output", &out, &entries(1, 24, 1))
    })
}

/// A read stops before the entry with which payloads would exceed the limit; the bytes of
/// an earlier call do not count.
pub(super) fn entries_keep_the_limit<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let stored: Vec<_> = (1..41).map(|index| entry_with(index, 1, &[1; 100])).collect();
        append(engine, ONE, &stored)?;
        let mut out = Vec::new();
        for high in [6, 41] {
            for (limit, want) in [(100, 1), (199, 1), (200, 2), (399, 3), (400, 4)] {
                let got = engine.entries(ONE, 1, high, limit, &mut out)?;
                ensure!(got == want, "{got} entries of 100 bytes with a limit of {limit}");
            }
        }
        same("output", &out.len(), &22)
    })
}

/// The first entry is given whatever the limit.
pub(super) fn first_entry_is_always_given<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 31, 1))?;
        for limit in [0, 1] {
            for (low, high) in [(4, 5), (4, 6), (4, 30)] {
                let mut out = Vec::new();
                engine.entries(ONE, low, high, limit, &mut out)?;
                same("entries", &out, &vec![entry(low, 1)])?;
            }
        }
        Ok(())
    })
}

/// A read stops at the first index that is not stored.
pub(super) fn entries_stop_where_the_log_does<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(10, 21, 1))?;
        for high in [22, 25, 60] {
            same("beyond the end", &read(engine, ONE, 18, high)?, &entries(18, 21, 1))?;
            same("above the end", &read(engine, ONE, 21, high)?, &Vec::new())?;
        }
        for (low, high) in [(9, 12), (1, 12), (1, 60), (1, 10)] {
            same("from before the start", &read(engine, ONE, low, high)?, &Vec::new())?;
        }
        for index in [0, 9, 21, u64::MAX] {
            same("one entry", &engine.entry(ONE, index)?, &None)?;
        }
        Ok(())
    })
}

/// Thousands of entries come back in one read.
pub(super) fn long_log_is_read_back<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for start in (1..5_001).step_by(500) {
            append(engine, ONE, &entries(start, start + 500, 1))?;
        }
        ensure!(read(engine, ONE, 1, 5_001)? == entries(1, 5_001, 1), "a long run differs");
        Ok(())
    })
}

/// Entries and states of neighbouring regions do not mix, whatever their numbers.
pub(super) fn regions_are_separate<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let numbers = [1, 2, 255, 256, 257, 1 << 32, u64::MAX - 1, u64::MAX];
        let regions = numbers.map(RegionId::must);
        for (term, region) in (1..).zip(regions) {
            write(engine, Buffered, |batch| {
                batch.append(region, &entries(5, 5 + 10 * term, term));
                batch.put_raft_state(region, &state(term));
            })?;
        }
        for (term, region) in (1..).zip(regions) {
            let want = entries(5, 5 + 10 * term, term);
            same("entries", &read(engine, region, 5, 1000)?, &want)?;
            same("state", &engine.raft_state(region)?, &Some(state(term)))?;
        }
        same("regions", &engine.regions()?, &regions.to_vec())
    })
}

/// `regions` lists those with an entry, with a state and with both, each once, ascending.
pub(super) fn regions_are_listed_ascending<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let (entries_only, state_only, both) =
            (RegionId::must(700), RegionId::must(3), RegionId::must(41));
        write(engine, Buffered, |batch| {
            batch.append(entries_only, &entries(1, 20, 1));
            batch.put_raft_state(state_only, &state(1));
            batch.append(both, &entries(1, 20, 1));
            batch.put_raft_state(both, &state(1));
        })?;
        same("regions", &engine.regions()?, &vec![state_only, both, entries_only])?;
        write(engine, Buffered, |batch| {
            batch.truncate_prefix(both, 100);
            batch.truncate_prefix(entries_only, 100);
        })?;
        same("after truncation", &engine.regions()?, &vec![state_only, both])
    })
}

/// Indexes up to the largest number are stored and found.
pub(super) fn largest_indexes_are_indexes<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let (low, high) = (u64::MAX - 12, u64::MAX);
        append(engine, ONE, &entries(low, high, 1))?;
        append(engine, TWO, &entries(1, 3, 1))?;
        same("entries", &read(engine, ONE, low, high)?, &entries(low, high, 1))?;
        append(engine, ONE, &entries(low + 2, low + 4, 2))?;
        same("replaced", &read(engine, ONE, low, high)?.len(), &4)?;
        write(engine, Buffered, |batch| batch.truncate_prefix(ONE, u64::MAX))?;
        same("truncated", &engine.entry(ONE, low)?, &None)?;
        same("the other region", &read(engine, TWO, 1, 3)?, &entries(1, 3, 1))
    })
}
