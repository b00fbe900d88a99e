//! Cases about reading a log.

use super::super::case::{Verdict, same};
use super::super::fixture::RaftLogFixture;
use super::{ONE, append, entries, read, with_engine};
use crate::RaftEngine;

/// A region never written has no state and no entries.
pub(super) fn absent_region_has_nothing<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        same("state", &engine.raft_state(ONE)?, &None)?;
        same("entry", &engine.entry(ONE, 1)?, &None)?;
        same("entries", &read(engine, ONE, 1, 100)?, &Vec::new())?;
        same("regions", &engine.regions()?, &Vec::new())
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
