//! Cases about a log that is cut off at every point: between two writes, within what a write does
//! to its device, and by the end of its process.

use std::path::Path;

use raftstore_proto::RegionId;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::RaftLogFixture;
use super::super::killed::{Life, killed};
use super::super::random::Random;
use super::log_model::{Change, Model, carry_out, random_changes};
use super::{ONE, entries, state, supported};
use crate::Durability::{Buffered, Synced};
use crate::{Durability, RaftEngine};

/// The most writes between two cuts.
const LIFE: u64 = 12;

/// The states a cut may leave, oldest first, and the write that makes the next one.
struct Course {
    random: Random,
    states: Vec<Model>,
    step: u64,
}

impl Course {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), states: vec![Model::default()], step: 0 }
    }

    /// Writes once. The state after it is among those that may be left also if it fails.
    fn write(&mut self, engine: &impl RaftEngine, durability: Durability) -> crate::Result<()> {
        let mut state = self.states.last().cloned().unwrap_or_default();
        let changes = random_changes(&mut self.random, &state, self.step);
        self.step += 1;
        state.apply(&changes);
        self.states.push(state);
        carry_out(engine, &changes, durability)?;
        if durability == Synced {
            self.durable();
        }
        Ok(())
    }

    /// Nothing before the last state can be left from now on.
    fn durable(&mut self) {
        self.states.drain(..self.states.len().saturating_sub(1));
    }

    /// Takes in what is left, which must be one of the states.
    fn left(&mut self, engine: &impl RaftEngine, cut: &str) -> Verdict {
        let left = Model::read(engine)?;
        ensure!(self.states.contains(&left), "{cut}: {left:?} is no prefix");
        self.states = vec![left];
        Ok(())
    }
}

/// Power cuts after each number of writes, with the last sync at each of them: what is left is a
/// prefix that holds everything synced, and the log goes on from it.
pub(super) fn every_log_write_boundary_keeps_a_prefix<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    let mut course = Course::new(1);
    for cut in 0..fixture.cuts() {
        let writes = cut % LIFE;
        let (synced, by_write) = (cut / LIFE % LIFE, cut % 3 > 0);
        for write in 0..writes {
            let now = write == synced;
            course.write(&engine, if now && by_write { Synced } else { Buffered })?;
            if now && !by_write {
                engine.sync()?;
                course.durable();
            }
        }
        let keep = usize::try_from(cut / 7 % (writes + 1)).unwrap_or(0);
        supported(fixture.power_cut(engine, keep))?;
        engine = fixture.open()?;
        course.left(&engine, &format!("cut {cut}, after {writes} writes"))?;
    }
    Ok(())
}

/// Power cuts before each change and each sync of the device: what is left is a prefix that holds
/// everything synced.
pub(super) fn every_device_operation_keeps_a_log_prefix<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    let (mut cuts, mut seed) = (0, 0);
    while cuts < make().cuts() {
        seed += 1;
        let before = cuts;
        for operation in 0.. {
            let at = format!("seed {seed}, operation {operation}");
            let mut fixture = make();
            let engine = fixture.open()?;
            supported(fixture.cut_before(operation))?;
            let mut course = Course::new(seed);
            let mut writes = (0..2 * LIFE).map(|write| {
                let durability = if write % 4 == 3 { Synced } else { Buffered };
                course.write(&engine, durability)
            });
            if writes.all(|written| written.is_ok()) {
                break;
            }
            cuts += 1;
            let keep = usize::try_from(operation % 5).unwrap_or(0);
            supported(fixture.power_cut(engine, keep))?;
            let engine = fixture.open()?;
            course.left(&engine, &at)?;
            // What was recovered can be written to and ended in the orderly way.
            course.write(&engine, Synced)?;
            supported(fixture.stop(engine))?;
            course.left(&fixture.open()?, &at)?;
        }
        ensure!(cuts > before, "no write of seed {seed} was cut off");
    }
    Ok(())
}

/// The process dies while it writes, at any moment: what is left is a prefix that holds
/// everything synced, and the next process goes on from it.
pub(super) fn killed_process_leaves_a_log_prefix<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    killed(make().kills(), |folder| Child::open(make(), folder))
}

/// One life of a log in a folder.
struct Child<F: RaftLogFixture> {
    engine: F::Engine,
    _fixture: F,
}

/// Regions that are written to in each batch.
const REGIONS: [RegionId; 3] = [ONE, RegionId::must(2), RegionId::must(3)];
/// A region that comes and goes.
const FLEETING: RegionId = RegionId::must(9);
/// Entries kept below the last one written for good, and those above it, which the next write
/// replaces.
const KEPT: u64 = 20;
const ABOVE: u64 = 2;

impl<F: RaftLogFixture> Child<F> {
    fn open(mut fixture: F, folder: &Path) -> Result<Self, Failure> {
        supported(fixture.move_to(folder))?;
        Ok(Self { engine: fixture.open()?, _fixture: fixture })
    }
}

/// The changes of write `number`: entry `number` of that term for good, and two above it.
fn numbered(number: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    for region in REGIONS {
        changes.push(Change::Append(region, entries(number, number + 1 + ABOVE, number)));
        changes.push(Change::TruncatePrefix(region, number.saturating_sub(KEPT)));
        changes.push(Change::PutRaftState(region, state(number)));
    }
    match number % 7 {
        3 => changes.push(Change::Append(FLEETING, entries(1, 2 + number % 9, number))),
        6 => changes.push(Change::Clear(FLEETING)),
        _ => {}
    }
    changes
}

impl<F: RaftLogFixture> Life for Child<F> {
    fn found(&self) -> Result<u64, Failure> {
        // The state's numbers are all above that of the write by a constant.
        let count = self.engine.raft_state(ONE)?.map_or(0, |state| state.hard_state.term);
        let mut want = Model::default();
        for number in count.saturating_sub(2 * KEPT).max(1)..=count {
            want.apply(&numbered(number));
        }
        let indexes = [0..30, count.saturating_sub(3 * KEPT).max(30)..count + 9];
        let got = Model::read_at(&self.engine, indexes.into_iter().flatten())?;
        same(&format!("after {count} writes"), &got, &want)?;
        Ok(count)
    }

    fn write(&self, number: u64) -> Result<bool, Failure> {
        let durability = if number.is_multiple_of(5) { Synced } else { Buffered };
        carry_out(&self.engine, &numbered(number), durability)?;
        let sync = number % 11 == 3;
        if sync {
            self.engine.sync()?;
        }
        Ok(sync || durability == Synced)
    }
}
