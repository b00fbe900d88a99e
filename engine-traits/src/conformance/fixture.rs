//! What the suite asks of an engine's crate beside the engine: opening, stopping, harm.

use std::path::Path;

use raftstore_proto::{Cf, RegionId};

use crate::mem::{Leaves, MemEngine, MemRaftLog};
use crate::{KvEngine, KvRaftLog, RaftEngine, Result};

/// Whether a fixture could do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Done.
    Done,
    /// It cannot; cases that need it are skipped with this reason.
    Unsupported(&'static str),
}

/// A place where one data engine's state lives, from creation to removal.
///
/// The suite opens it at most once at a time. It hands the last handle back in `stop` and
/// `power_cut`, having dropped all other handles, snapshots, cursors and batches. Dropping
/// the fixture removes everything. Cases that fail may drop a fixture with its engine open.
pub trait KvFixture {
    /// The engine under test.
    type Engine: KvEngine;

    /// Opens the engine: empty the first time, later with whatever is left.
    ///
    /// # Errors
    /// The engine's own. The suite takes one as a breach of contract but after `damage`.
    fn open(&mut self) -> Result<Self::Engine>;

    /// Ends the engine in the orderly way. An engine that keeps nothing over an end gives
    /// [`Support::Unsupported`].
    fn stop(&mut self, engine: Self::Engine) -> Support {
        drop(engine);
        Support::Done
    }

    /// Cuts the power under the running engine: synced writes stay, and of the unsynced ones
    /// `keep`, the first ones, or as near to it as the fixture can come. The suite
    /// accepts every prefix.
    fn power_cut(&mut self, engine: Self::Engine, keep: usize) -> Support {
        let _ = (engine, keep);
        Support::Unsupported("the fixture cannot cut the power")
    }

    /// Harms the stored bytes of the value under `key`, while the engine is stopped. The
    /// value is `value`, which occurs nowhere else, so that it can be found in a file.
    fn damage(&mut self, cf: Cf, key: &[u8], value: &[u8]) -> Support {
        let _ = (cf, key, value);
        Support::Unsupported("the fixture cannot harm stored bytes")
    }

    /// Lets the power go by itself before the `operation`-th change or sync of the device from
    /// now, counted from 0, while the engine is open: that one does not happen, and the engine's
    /// writes fail from then on. The suite then calls `power_cut`.
    fn cut_before(&mut self, operation: u64) -> Support {
        let _ = operation;
        Support::Unsupported("the fixture has no device that counts its operations")
    }

    /// Puts what the fixture keeps into `folder` from now on, before it was opened. The folder is
    /// empty, or as another fixture of the same kind left it, and stays when the fixture ends: so
    /// processes that are killed can follow upon each other.
    fn move_to(&mut self, folder: &Path) -> Support {
        let _ = folder;
        Support::Unsupported("the engine keeps nothing beyond its process")
    }

    /// How many seeds each test against the model runs. About 60 writes are made per seed.
    fn model_seeds(&self) -> u64 {
        40
    }

    /// How many power cuts each test about them makes at least.
    fn cuts(&self) -> u64 {
        500
    }

    /// How many processes are killed.
    fn kills(&self) -> u64 {
        500
    }
}

/// A place where one log engine's state lives. As [`KvFixture`] in everything not said here.
pub trait RaftLogFixture {
    /// The engine under test.
    type Engine: RaftEngine;

    /// Opens the engine: empty the first time, later with whatever is left.
    ///
    /// # Errors
    /// The engine's own. The suite takes one as a breach of contract but after `damage`.
    fn open(&mut self) -> Result<Self::Engine>;

    /// Ends the engine in the orderly way.
    fn stop(&mut self, engine: Self::Engine) -> Support {
        drop(engine);
        Support::Done
    }

    /// Cuts the power under the running engine, as [`KvFixture::power_cut`] does.
    fn power_cut(&mut self, engine: Self::Engine, keep: usize) -> Support {
        let _ = (engine, keep);
        Support::Unsupported("the fixture cannot cut the power")
    }

    /// Harms the stored bytes of one entry (or of the raft state, for `None`) while the
    /// engine is stopped. `payload` occurs in an entry's record and nowhere else; it is
    /// empty for the raft state.
    fn damage(&mut self, region: RegionId, index: Option<u64>, payload: &[u8]) -> Support {
        let _ = (region, index, payload);
        Support::Unsupported("the fixture cannot harm stored bytes")
    }

    /// Lets the power go by itself before the `operation`-th change or sync of the device from
    /// now, counted from 0, while the engine is open: that one does not happen, and the engine's
    /// writes fail from then on. The suite then calls `power_cut`.
    fn cut_before(&mut self, operation: u64) -> Support {
        let _ = operation;
        Support::Unsupported("the fixture has no device that counts its operations")
    }

    /// Puts what the fixture keeps into `folder` from now on, before it was opened. The folder is
    /// empty, or as another fixture of the same kind left it, and stays when the fixture ends: so
    /// processes that are killed can follow upon each other.
    fn move_to(&mut self, folder: &Path) -> Support {
        let _ = folder;
        Support::Unsupported("the engine keeps nothing beyond its process")
    }

    /// How many seeds each test against the model runs. About 60 writes are made per seed.
    fn model_seeds(&self) -> u64 {
        40
    }

    /// How many power cuts each test about them makes at least.
    fn cuts(&self) -> u64 {
        500
    }

    /// How many processes are killed.
    fn kills(&self) -> u64 {
        500
    }
}

/// The fixture of [`MemEngine`].
#[derive(Debug, Default)]
pub struct MemFixture {
    engine: MemEngine,
}

impl MemFixture {
    /// A fixture over an empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl KvFixture for MemFixture {
    type Engine = MemEngine;

    fn open(&mut self) -> Result<MemEngine> {
        self.engine = self.engine.reopen();
        Ok(self.engine.clone())
    }

    fn power_cut(&mut self, engine: MemEngine, keep: usize) -> Support {
        engine.faults().clear();
        engine.crash(keep);
        Support::Done
    }

    /// A write is one operation, which may have happened although its caller got an error.
    fn cut_before(&mut self, operation: u64) -> Support {
        let leaves = if operation.is_multiple_of(2) { Leaves::Nothing } else { Leaves::Everything };
        self.engine.faults().fail_write(operation + 1, leaves);
        Support::Done
    }

    fn damage(&mut self, cf: Cf, key: &[u8], _value: &[u8]) -> Support {
        self.engine.damage(cf, key);
        Support::Done
    }
}

/// The fixture of [`MemRaftLog`].
#[derive(Debug, Default)]
pub struct MemLogFixture {
    engine: MemRaftLog,
}

impl MemLogFixture {
    /// A fixture over an empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl RaftLogFixture for MemLogFixture {
    type Engine = MemRaftLog;

    fn open(&mut self) -> Result<MemRaftLog> {
        self.engine = self.engine.reopen();
        Ok(self.engine.clone())
    }

    fn power_cut(&mut self, engine: MemRaftLog, keep: usize) -> Support {
        engine.faults().clear();
        engine.crash(keep);
        Support::Done
    }

    /// A write is one operation, which may have happened although its caller got an error.
    fn cut_before(&mut self, operation: u64) -> Support {
        let leaves = if operation.is_multiple_of(2) { Leaves::Nothing } else { Leaves::Everything };
        self.engine.faults().fail_write(operation + 1, leaves);
        Support::Done
    }

    fn damage(&mut self, region: RegionId, index: Option<u64>, _payload: &[u8]) -> Support {
        match index {
            Some(index) => self.engine.damage_entry(region, index),
            None => self.engine.damage_raft_state(region),
        };
        Support::Done
    }
}

/// The log fixture of a [`KvRaftLog`] over any data engine that has a fixture.
#[derive(Debug)]
pub struct KvLogFixture<F> {
    below: F,
}

impl<F: KvFixture> KvLogFixture<F> {
    /// Wraps the fixture of the engine below.
    #[must_use]
    pub const fn new(below: F) -> Self {
        Self { below }
    }
}

impl<F: KvFixture> RaftLogFixture for KvLogFixture<F> {
    type Engine = KvRaftLog<F::Engine>;

    fn open(&mut self) -> Result<Self::Engine> {
        Ok(KvRaftLog::new(self.below.open()?))
    }

    fn stop(&mut self, engine: Self::Engine) -> Support {
        self.below.stop(engine.into_engine())
    }

    fn power_cut(&mut self, engine: Self::Engine, keep: usize) -> Support {
        self.below.power_cut(engine.into_engine(), keep)
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        self.below.cut_before(operation)
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.below.move_to(folder)
    }

    fn damage(&mut self, region: RegionId, index: Option<u64>, payload: &[u8]) -> Support {
        let key = crate::kv_raft_log::record_key(region, index);
        self.below.damage(Cf::Default, &key, payload)
    }

    fn model_seeds(&self) -> u64 {
        self.below.model_seeds()
    }

    fn cuts(&self) -> u64 {
        self.below.cuts()
    }

    fn kills(&self) -> u64 {
        self.below.kills()
    }
}
