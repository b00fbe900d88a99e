//! Cases about an engine that is cut off at every point: between two writes, within what a write
//! does to its device, and by the end of its process.

use std::path::Path;

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::super::killed::{Life, killed};
use super::super::random::Random;
use super::model::{Model, carry_out, random_ops};
use super::supported;
use crate::Durability::{Buffered, Synced};
use crate::mem::Op;
use crate::{Durability, KvEngine, Reader};

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
    fn write(&mut self, engine: &impl KvEngine, durability: Durability) -> crate::Result<()> {
        let ops = random_ops(&mut self.random, self.step);
        self.step += 1;
        let mut state = self.states.last().cloned().unwrap_or_default();
        state.apply(&ops);
        self.states.push(state);
        carry_out(engine, &ops, durability)?;
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
    fn left(&mut self, engine: &impl KvEngine, cut: &str) -> Verdict {
        let left = Model::read(engine)?;
        ensure!(self.states.contains(&left), "{cut}: {left:?} is no prefix");
        self.states = vec![left];
        Ok(())
    }
}

/// Power cuts after each number of writes, with the last sync at each of them: what is left is a
/// prefix that holds everything synced, and the engine goes on from it.
pub(super) fn every_write_boundary_keeps_a_prefix<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
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
pub(super) fn every_device_operation_keeps_a_prefix<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
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
pub(super) fn killed_process_leaves_a_prefix<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    killed(make().kills(), |folder| Child::open(make(), folder))
}

/// One life of an engine in a folder.
struct Child<F: KvFixture> {
    engine: F::Engine,
    _fixture: F,
}

/// A key that tells how many writes there are.
const COUNT: &[u8] = b"count";
/// After so many writes everything is deleted.
const ROUND: u64 = 64;

impl<F: KvFixture> Child<F> {
    fn open(mut fixture: F, folder: &Path) -> Result<Self, Failure> {
        supported(fixture.move_to(folder))?;
        Ok(Self { engine: fixture.open()?, _fixture: fixture })
    }
}

/// The operations of write `number`, and all that is needed to know the state after it.
fn numbered(number: u64) -> Vec<Op> {
    let mut ops = Vec::new();
    let key = Bytes::from(format!("{:02}", number % ROUND));
    let value = format!("value of {number} ");
    let value = Bytes::from(value.repeat(usize::try_from(number * 7 % 90).unwrap_or(1)));
    for cf in Cf::ALL {
        if number.is_multiple_of(ROUND) {
            ops.push(Op::DeleteRange(cf, Bytes::new(), Bytes::new()));
        }
        ops.push(Op::Put(cf, key.clone(), value.clone()));
    }
    if number % 16 == 9 {
        ops.push(Op::DeleteRange(Cf::Write, Bytes::from("10"), Bytes::from("30")));
    }
    ops.push(Op::Delete(Cf::Lock, Bytes::from(format!("{:02}", number * 5 % ROUND))));
    ops.push(Op::Put(Cf::Raft, Bytes::from(COUNT), Bytes::from(number.to_string())));
    ops
}

impl<F: KvFixture> Life for Child<F> {
    fn found(&self) -> Result<u64, Failure> {
        let count = self.engine.get(Cf::Raft, COUNT)?;
        let text = count.as_deref().map_or(Ok("0"), std::str::from_utf8);
        let count: Option<u64> = text.ok().and_then(|text| text.parse().ok());
        let Some(count) = count else {
            return Err(Failure::Failed("the count of writes cannot be read".to_owned()));
        };
        let mut want = Model::default();
        for number in (count / ROUND * ROUND).max(1)..=count {
            want.apply(&numbered(number));
        }
        same(&format!("after {count} writes"), &Model::read(&self.engine)?, &want)?;
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
