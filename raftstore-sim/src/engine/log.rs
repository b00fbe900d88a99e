//! The raft log of a simulated store: the one in memory, or any other behind its switches.
//!
//! As with data engines, another log has a gate in memory that sees the number of each write.

use std::{fmt, sync::Arc};

use engine_traits::{
    Durability, Error, LogStats, RaftEngine, RaftLogBatch, Result,
    conformance::RaftLogFixture,
    mem::{Faults, LogOp, MemLogBatch, MemRaftLog},
};
use parking_lot::Mutex;
use raftstore_proto::{Entry, HardState, LocalState, PeerId, RegionId};

/// A raft log, as the world has it.
#[derive(Clone)]
pub enum SimLog {
    /// In memory.
    Mem(MemRaftLog),
    /// Another one.
    Other(OtherLog),
}

/// Another log than that in memory.
#[derive(Clone)]
pub struct OtherLog {
    gate: MemRaftLog,
    home: Arc<dyn Home>,
}

impl fmt::Debug for SimLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimLog").field(&self.name()).finish()
    }
}

impl fmt::Debug for OtherLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherLog").field("name", &self.home.name()).finish_non_exhaustive()
    }
}

/// A log, from one end of it to the next.
trait Home: Send + Sync {
    fn name(&self) -> &'static str;
    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>>;
    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>>;
    fn entries(
        &self,
        region: RegionId,
        range: (u64, u64),
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize>;
    fn regions(&self) -> Result<Vec<RegionId>>;
    fn write(&self, ops: &[LogOp], durability: Durability) -> Result<()>;
    fn sync(&self) -> Result<()>;
    fn pinning(&self) -> Vec<RegionId>;
    fn stats(&self) -> LogStats;
    /// Ends the present life; `Some` with a power cut that should leave so many unsynced writes.
    fn end(&self, cut: Option<usize>);
}

struct Life<F: RaftLogFixture> {
    fixture: F,
    engine: Option<F::Engine>,
    name: &'static str,
}

struct Open<F: RaftLogFixture>(Mutex<Life<F>>);

fn gone() -> Error {
    let source = "the log did not open, or has ended".into();
    Error::Backend { engine: "simulated", op: "any", source }
}

impl<F: RaftLogFixture> Open<F> {
    fn with<T>(&self, work: impl FnOnce(&F::Engine) -> Result<T>) -> Result<T> {
        work(self.0.lock().engine.as_ref().ok_or_else(gone)?)
    }
}

impl<F: RaftLogFixture + Send + 'static> Home for Open<F> {
    fn name(&self) -> &'static str {
        self.0.lock().name
    }

    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        self.with(|engine| engine.raft_state(region))
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        self.with(|engine| engine.entry(region, index))
    }

    fn entries(
        &self,
        region: RegionId,
        (low, high): (u64, u64),
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize> {
        self.with(|engine| engine.entries(region, low, high, max_bytes, out))
    }

    fn regions(&self) -> Result<Vec<RegionId>> {
        self.with(RaftEngine::regions)
    }

    fn write(&self, ops: &[LogOp], durability: Durability) -> Result<()> {
        self.with(|engine| {
            let mut batch = engine.log_batch();
            for op in ops {
                match op {
                    LogOp::Append(region, entries) => batch.append(*region, entries),
                    LogOp::TruncatePrefix(region, index) => batch.truncate_prefix(*region, *index),
                    LogOp::PutRaftState(region, state) => batch.put_raft_state(*region, state),
                    LogOp::ClearRegion(region) => batch.clear_region(*region),
                }
            }
            engine.write(batch, durability)
        })
    }

    fn sync(&self) -> Result<()> {
        self.with(RaftEngine::sync)
    }

    fn pinning(&self) -> Vec<RegionId> {
        self.0.lock().engine.as_ref().map(RaftEngine::regions_pinning_space).unwrap_or_default()
    }

    fn stats(&self) -> LogStats {
        self.0.lock().engine.as_ref().map(RaftEngine::stats).unwrap_or_default()
    }

    fn end(&self, cut: Option<usize>) {
        let mut life = self.0.lock();
        if let Some(engine) = life.engine.take() {
            // A fixture that cannot do it leaves the log as its drop does.
            match cut {
                Some(keep) => life.fixture.power_cut(engine, keep),
                None => life.fixture.stop(engine),
            };
        }
        // Whoever uses a log that does not open is told.
        life.engine = life.fixture.open().ok();
    }
}

/// Under which region the gate keeps the number of the last write.
const NUMBER: RegionId = RegionId::must(1);

impl OtherLog {
    fn number(&self) -> Result<u64> {
        Ok(self.gate.raft_state(NUMBER)?.map_or(0, |state| state.last_index))
    }

    /// Lets a write through the gate, or not; `Err` with whether it is to be carried out all the
    /// same.
    fn pass(&self, is_empty: bool, durability: Durability) -> Result<(), (Error, bool)> {
        let next = self.number().map_err(|error| (error, false))? + 1;
        let mut batch = self.gate.log_batch();
        if !is_empty {
            let (peer, hard_state) = (PeerId::must(1), HardState { term: 1, vote: 1, commit: 0 });
            batch.put_raft_state(NUMBER, &LocalState { peer, hard_state, last_index: next });
        }
        self.gate.write(batch, durability).map_err(|error| {
            let written = self.number().is_ok_and(|number| number == next);
            (error, written && !is_empty)
        })
    }
}

impl SimLog {
    /// The log of a fixture, which has to cut the power.
    ///
    /// # Errors
    /// Those of its opening.
    pub fn of<F: RaftLogFixture + Send + 'static>(mut fixture: F) -> Result<Self> {
        let engine = fixture.open()?;
        let name = engine.name();
        let home = Arc::new(Open(Mutex::new(Life { fixture, engine: Some(engine), name })));
        Ok(Self::Other(OtherLog { gate: MemRaftLog::new(), home }))
    }

    const fn gate(&self) -> &MemRaftLog {
        match self {
            Self::Mem(engine) => engine,
            Self::Other(other) => &other.gate,
        }
    }

    /// The control of its failures.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.gate().faults()
    }

    /// How many writes a power cut could lose now.
    #[must_use]
    pub fn unsynced_writes(&self) -> usize {
        self.gate().unsynced_writes()
    }

    /// Makes a region's state unreadable. Gives whether it could, which it can in memory.
    #[must_use]
    pub fn damage_raft_state(&self, region: RegionId) -> bool {
        match self {
            Self::Mem(engine) => engine.damage_raft_state(region),
            Self::Other(_) => false,
        }
    }

    /// Ends its life, with a power cut that leaves `Some` number of unsynced writes or the end of
    /// a process, and gives a handle of the next one.
    #[must_use]
    pub fn ended(&self, cut: Option<usize>) -> Self {
        if let Some(keep) = cut {
            self.gate().crash(keep);
        }
        let gate = self.gate().reopen();
        match self {
            Self::Mem(_) => Self::Mem(gate),
            Self::Other(other) => {
                other.home.end(cut);
                Self::Other(OtherLog { gate, home: Arc::clone(&other.home) })
            }
        }
    }
}

impl Default for SimLog {
    fn default() -> Self {
        Self::Mem(MemRaftLog::new())
    }
}

impl RaftEngine for SimLog {
    type LogBatch = MemLogBatch;

    fn name(&self) -> &'static str {
        match self {
            Self::Mem(engine) => engine.name(),
            Self::Other(other) => other.home.name(),
        }
    }

    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        match self {
            Self::Mem(engine) => engine.raft_state(region),
            Self::Other(other) => {
                other.number()?;
                other.home.raft_state(region)
            }
        }
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        match self {
            Self::Mem(engine) => engine.entry(region, index),
            Self::Other(other) => {
                other.number()?;
                other.home.entry(region, index)
            }
        }
    }

    fn entries(
        &self,
        region: RegionId,
        low: u64,
        high: u64,
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize> {
        match self {
            Self::Mem(engine) => engine.entries(region, low, high, max_bytes, out),
            Self::Other(other) => {
                other.number()?;
                other.home.entries(region, (low, high), max_bytes, out)
            }
        }
    }

    fn regions(&self) -> Result<Vec<RegionId>> {
        match self {
            Self::Mem(engine) => engine.regions(),
            Self::Other(other) => {
                other.number()?;
                other.home.regions()
            }
        }
    }

    fn log_batch(&self) -> MemLogBatch {
        MemLogBatch::default()
    }

    fn write(&self, batch: MemLogBatch, durability: Durability) -> Result<()> {
        match self {
            Self::Mem(engine) => engine.write(batch, durability),
            Self::Other(other) => match other.pass(batch.is_empty(), durability) {
                Ok(()) => other.home.write(batch.ops(), durability),
                Err((error, happens)) => {
                    if happens {
                        other.home.write(batch.ops(), Durability::Buffered)?;
                    }
                    Err(error)
                }
            },
        }
    }

    fn sync(&self) -> Result<()> {
        match self {
            Self::Mem(engine) => engine.sync(),
            Self::Other(other) => {
                other.gate.sync()?;
                other.home.sync()
            }
        }
    }

    fn regions_pinning_space(&self) -> Vec<RegionId> {
        match self {
            Self::Mem(engine) => engine.regions_pinning_space(),
            Self::Other(other) => other.home.pinning(),
        }
    }

    fn stats(&self) -> LogStats {
        match self {
            Self::Mem(engine) => engine.stats(),
            Self::Other(other) => other.home.stats(),
        }
    }
}
