//! Cases about what a log engine tells of itself. And how fast it is, which is not judged.

use std::time::{Duration, Instant};

use raftstore_proto::RegionId;

use super::super::case::{Verdict, ensure, same};
use super::super::fixture::RaftLogFixture;
use super::{ONE, TWO, append, entries, entry_with, with_engine, write};
use crate::Durability::{Buffered, Synced};
use crate::{RaftEngine, RaftLogBatch};

/// Whoever is said to pin space has something that could go: it is stored, and named once.
pub(super) fn pinning_regions_are_stored<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        append(engine, ONE, &entries(1, 20, 1))?;
        for index in 1..400 {
            write(engine, Buffered, |batch| {
                batch.append(TWO, &[entry_with(index, 1, &[7; 500])]);
                batch.truncate_prefix(TWO, index.saturating_sub(5));
            })?;
            if index % 40 == 0 {
                engine.sync()?;
                let (named, stored) = (engine.regions_pinning_space(), engine.regions()?);
                let mut sorted = named.clone();
                sorted.sort_unstable();
                sorted.dedup();
                ensure!(sorted.len() == named.len(), "named twice: {named:?}");
                let unknown = named.iter().find(|region| !stored.contains(region));
                same("named and not stored", &unknown, &None)?;
            }
        }
        Ok(())
    })
}

/// A figure that a log gives moves with what it counts; one it does not count stays 0.
pub(super) fn log_stats_count_what_they_name<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let mut index = 0;
        let mut round = || {
            index += 1;
            write(engine, Synced, |batch| batch.append(ONE, &[entry_with(index, 1, &[7; 300])]))
        };
        let mut last = engine.stats();
        round()?;
        let counted = engine.stats();
        for _ in 0..4 {
            round()?;
            let now = engine.stats();
            let syncs = counted.syncs == 0 && now.syncs == 0 || now.syncs > last.syncs;
            ensure!(syncs, "{} syncs, then one more, then {}", last.syncs, now.syncs);
            let written = counted.written_bytes == 0 || now.written_bytes > last.written_bytes;
            ensure!(written, "{} bytes written, then {}", last.written_bytes, now.written_bytes);
            last = now;
        }
        Ok(())
    })
}

fn timed(work: impl FnOnce() -> crate::Result<()>) -> crate::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Prints how long a few things take. Passes whatever that is.
pub(super) fn log_speed_is_told<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let measured = with_engine(make, |engine| {
        let rounds = |durability, from: u64, count: u64| {
            (from..from + count).try_for_each(|index| {
                write(engine, durability, |batch| {
                    for region in 1..=64 {
                        batch.append(RegionId::must(region), &[entry_with(index, 1, &[7; 256])]);
                    }
                })
            })
        };
        let durable = timed(|| rounds(Synced, 1, 10))?.as_micros() / 10;
        let buffered = timed(|| rounds(Buffered, 11, 10))?.as_micros() / 10;
        let mut out = Vec::new();
        let read = timed(|| engine.entries(ONE, 1, 21, u64::MAX, &mut out).map(drop))?;
        eprintln!(
            "{}: an entry to each of 64 regions: {durable} us durable, {buffered} us buffered; \
             20 entries read in {} us",
            engine.name(),
            read.as_micros()
        );
        Ok(())
    });
    if measured.is_err() {
        eprintln!("not measured: other cases tell why");
    }
    Ok(())
}
