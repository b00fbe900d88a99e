//! The data engine of a simulated store: the one in memory, or any other behind its switches.
//!
//! Another engine has a *gate*: an engine in memory that sees the number of each write, and
//! nothing of its content. The gate knows which handles are alive, fails on command, and counts
//! what was not synced, so that the world treats all engines alike.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, Error, KvEngine, Range, Reader, Result,
    Snapshot, WriteBatch,
    conformance::KvFixture,
    mem::{Faults, MemBatch, MemEngine, MemSnapshot, Op},
};
use parking_lot::Mutex;

/// A key and its value.
type Row = (Bytes, Bytes);

/// A data engine, as the world has it.
#[derive(Clone)]
pub enum SimKv {
    /// In memory.
    Mem(MemEngine),
    /// Another one.
    Other(OtherKv),
}

/// Another engine than that in memory.
#[derive(Clone)]
pub struct OtherKv {
    gate: MemEngine,
    home: Arc<dyn Home>,
}

/// One moment of a [`SimKv`].
#[derive(Clone)]
pub enum SimSnapshot {
    /// In memory.
    Mem(MemSnapshot),
    /// Of another engine.
    Other(OtherSnapshot),
}

/// One moment of another engine.
#[derive(Clone)]
pub struct OtherSnapshot {
    gate: MemSnapshot,
    rows: Arc<dyn Rows>,
}

impl fmt::Debug for SimKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimKv").field(&self.name()).finish()
    }
}

impl fmt::Debug for OtherKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherKv").field("name", &self.home.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSnapshot").finish_non_exhaustive()
    }
}

impl fmt::Debug for OtherSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherSnapshot").finish_non_exhaustive()
    }
}

/// Reads of one moment, a few rows at a time: what is read from must be free to go when the power
/// does, whoever holds it.
trait Rows: Send + Sync {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;
    fn some(&self, cf: Cf, range: Range<'_>, direction: Direction) -> Result<Vec<Row>>;
}

/// An engine, from one end of it to the next.
trait Home: Send + Sync {
    fn name(&self) -> &'static str;
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;
    fn snapshot(&self) -> Result<Arc<dyn Rows>>;
    fn write(&self, ops: &[Op], durability: Durability) -> Result<()>;
    fn sync(&self) -> Result<()>;
    fn size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64>;
    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = Row>) -> Result<()>;
    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()>;
    fn stats(&self) -> EngineStats;
    /// Ends the present life; `Some` with a power cut that should leave so many unsynced writes.
    fn end(&self, cut: Option<usize>);
}

struct Life<F: KvFixture> {
    fixture: F,
    engine: Option<F::Engine>,
    moments: Vec<Weak<Held<F>>>,
    name: &'static str,
}

struct Held<F: KvFixture>(Mutex<Option<<F::Engine as KvEngine>::Snapshot>>);

struct Open<F: KvFixture>(Mutex<Life<F>>);

/// How many rows a walk takes at a time.
const CHUNK: usize = 32;

fn gone() -> Error {
    let source = "the engine did not open, or has ended".into();
    Error::Backend { engine: "simulated", op: "any", source }
}

impl<F: KvFixture + Send + 'static> Rows for Held<F> {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.lock().as_ref().ok_or_else(gone)?.get(cf, key)
    }

    fn some(&self, cf: Cf, range: Range<'_>, direction: Direction) -> Result<Vec<Row>> {
        let moment = self.0.lock();
        let mut cursor = moment.as_ref().ok_or_else(gone)?.cursor(cf, range, direction)?;
        let mut rows = Vec::new();
        while rows.len() < CHUNK {
            let Some((key, value)) = cursor.next()? else { break };
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        Ok(rows)
    }
}

impl<F: KvFixture> Open<F> {
    fn with<T>(&self, work: impl FnOnce(&F::Engine) -> Result<T>) -> Result<T> {
        work(self.0.lock().engine.as_ref().ok_or_else(gone)?)
    }
}

impl<F: KvFixture + Send + 'static> Home for Open<F> {
    fn name(&self) -> &'static str {
        self.0.lock().name
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.with(|engine| engine.get(cf, key))
    }

    fn snapshot(&self) -> Result<Arc<dyn Rows>> {
        let mut life = self.0.lock();
        let moment = life.engine.as_ref().ok_or_else(gone)?.snapshot()?;
        let held = Arc::new(Held::<F>(Mutex::new(Some(moment))));
        life.moments.retain(|moment| moment.strong_count() > 0);
        life.moments.push(Arc::downgrade(&held));
        Ok(held)
    }

    fn write(&self, ops: &[Op], durability: Durability) -> Result<()> {
        self.with(|engine| {
            let mut batch = engine.write_batch();
            for op in ops {
                match op {
                    Op::Put(cf, key, value) => batch.put(*cf, key, value),
                    Op::Delete(cf, key) => batch.delete(*cf, key),
                    Op::DeleteRange(cf, start, end) => {
                        batch.delete_range(*cf, Range::new(start, end));
                    }
                }
            }
            engine.write(batch, durability)
        })
    }

    fn sync(&self) -> Result<()> {
        self.with(KvEngine::sync)
    }

    fn size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        self.with(|engine| engine.approximate_size(cf, range, limit))
    }

    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = Row>) -> Result<()> {
        self.with(|engine| engine.ingest(cf, rows))
    }

    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()> {
        self.with(|engine| engine.compact(cf, range))
    }

    fn stats(&self) -> EngineStats {
        self.0.lock().engine.as_ref().map(KvEngine::stats).unwrap_or_default()
    }

    fn end(&self, cut: Option<usize>) {
        let mut life = self.0.lock();
        for moment in std::mem::take(&mut life.moments) {
            if let Some(moment) = moment.upgrade() {
                moment.0.lock().take();
            }
        }
        if let Some(engine) = life.engine.take() {
            // A fixture that cannot do it leaves the engine as its drop does.
            match cut {
                Some(keep) => life.fixture.power_cut(engine, keep),
                None => life.fixture.stop(engine),
            };
        }
        // Whoever uses an engine that does not open is told.
        life.engine = life.fixture.open().ok();
    }
}

/// What the gate keeps: the number of the last write.
const NUMBER: &[u8] = b"number";

impl OtherKv {
    /// The engine of a fixture, which has to cut the power.
    fn new<F: KvFixture + Send + 'static>(mut fixture: F) -> Result<Self> {
        let engine = fixture.open()?;
        let name = engine.name();
        let life = Life { fixture, engine: Some(engine), moments: Vec::new(), name };
        Ok(Self { gate: MemEngine::new(), home: Arc::new(Open(Mutex::new(life))) })
    }

    /// Lets a write through the gate, or not; `Err` with whether it is to be carried out all the
    /// same.
    fn pass(&self, ops: usize, durability: Durability) -> Result<(), (Error, bool)> {
        let number = |gate: &MemEngine| -> Result<u64> {
            let bytes = gate.get(Cf::Default, NUMBER)?;
            Ok(bytes
                .and_then(|bytes| Some(u64::from_be_bytes(bytes[..].try_into().ok()?)))
                .unwrap_or(0))
        };
        let next = number(&self.gate).map_err(|error| (error, false))? + 1;
        let mut batch = self.gate.write_batch();
        if ops > 0 {
            batch.put(Cf::Default, NUMBER, &next.to_be_bytes());
        }
        self.gate.write(batch, durability).map_err(|error| {
            let written = number(&self.gate).is_ok_and(|number| number == next);
            (error, written && ops > 0)
        })
    }
}

impl SimKv {
    /// The engine of a fixture, which has to cut the power.
    ///
    /// # Errors
    /// Those of its opening.
    pub fn of<F: KvFixture + Send + 'static>(fixture: F) -> Result<Self> {
        OtherKv::new(fixture).map(Self::Other)
    }

    const fn gate(&self) -> &MemEngine {
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
                Self::Other(OtherKv { gate, home: Arc::clone(&other.home) })
            }
        }
    }
}

impl Default for SimKv {
    fn default() -> Self {
        Self::Mem(MemEngine::new())
    }
}

impl Reader for SimKv {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        match self {
            Self::Mem(engine) => engine.get(cf, key),
            Self::Other(other) => {
                other.gate.get(Cf::Default, NUMBER)?;
                other.home.get(cf, key)
            }
        }
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        match self {
            Self::Mem(engine) => engine.cursor(cf, range, direction),
            Self::Other(_) => match self.snapshot()? {
                SimSnapshot::Other(moment) => Ok(Box::new(Walk::new(moment, cf, range, direction))),
                SimSnapshot::Mem(_) => Err(gone()),
            },
        }
    }
}

impl KvEngine for SimKv {
    type Snapshot = SimSnapshot;
    type WriteBatch = MemBatch;

    fn name(&self) -> &'static str {
        match self {
            Self::Mem(engine) => engine.name(),
            Self::Other(other) => other.home.name(),
        }
    }

    fn snapshot(&self) -> Result<SimSnapshot> {
        match self {
            Self::Mem(engine) => engine.snapshot().map(SimSnapshot::Mem),
            Self::Other(other) => {
                let gate = other.gate.snapshot()?;
                Ok(SimSnapshot::Other(OtherSnapshot { gate, rows: other.home.snapshot()? }))
            }
        }
    }

    fn write_batch(&self) -> MemBatch {
        MemBatch::default()
    }

    fn write(&self, batch: MemBatch, durability: Durability) -> Result<()> {
        match self {
            Self::Mem(engine) => engine.write(batch, durability),
            Self::Other(other) => match other.pass(batch.len(), durability) {
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

    fn approximate_size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        match self {
            Self::Mem(engine) => engine.approximate_size(cf, range, limit),
            Self::Other(other) => other.home.size(cf, range, limit),
        }
    }

    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = Row>) -> Result<()> {
        match self {
            Self::Mem(engine) => engine.ingest(cf, rows),
            Self::Other(other) => {
                other.pass(1, Durability::Buffered).map_err(|(error, _)| error)?;
                other.home.ingest(cf, rows)
            }
        }
    }

    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()> {
        match self {
            Self::Mem(engine) => engine.compact(cf, range),
            Self::Other(other) => other.home.compact(cf, range),
        }
    }

    fn stats(&self) -> EngineStats {
        match self {
            Self::Mem(engine) => engine.stats(),
            Self::Other(other) => other.home.stats(),
        }
    }
}

impl Snapshot for SimSnapshot {}

impl Reader for SimSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        match self {
            Self::Mem(moment) => moment.get(cf, key),
            Self::Other(moment) => {
                moment.gate.get(Cf::Default, NUMBER)?;
                moment.rows.get(cf, key)
            }
        }
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        match self {
            Self::Mem(moment) => moment.cursor(cf, range, direction),
            Self::Other(moment) => {
                moment.gate.get(Cf::Default, NUMBER)?;
                Ok(Box::new(Walk::new(moment.clone(), cf, range, direction)))
            }
        }
    }
}

/// A walk that takes its rows a few at a time.
struct Walk {
    moment: OtherSnapshot,
    cf: Cf,
    start: Vec<u8>,
    end: Vec<u8>,
    direction: Direction,
    /// What is left of the range.
    low: Vec<u8>,
    high: Vec<u8>,
    ahead: VecDeque<Row>,
    row: Option<Row>,
    ended: bool,
}

impl Walk {
    fn new(moment: OtherSnapshot, cf: Cf, range: Range<'_>, direction: Direction) -> Self {
        let (start, end) = (range.start.to_vec(), range.end.to_vec());
        let (low, high) = (start.clone(), end.clone());
        let ended = range.is_empty();
        let (ahead, row) = (VecDeque::new(), None);
        Self { moment, cf, start, end, direction, low, high, ahead, row, ended }
    }
}

fn behind(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}

impl Cursor for Walk {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.moment.gate.get(Cf::Default, NUMBER)?;
        if self.ahead.is_empty() && !self.ended {
            let range = Range::new(&self.low, &self.high);
            let rows = self.moment.rows.some(self.cf, range, self.direction)?;
            self.ended = rows.len() < CHUNK;
            if let Some((last, _)) = rows.last() {
                match self.direction {
                    Direction::Forward => self.low = behind(last),
                    Direction::Backward => self.high = last.to_vec(),
                }
                // Nothing is before the empty key, which as an end means every key.
                self.ended |= self.direction == Direction::Backward && last.is_empty();
            }
            self.ahead = rows.into();
        }
        self.row = self.ahead.pop_front();
        Ok(self.row.as_ref().map(|(key, value)| (&key[..], &value[..])))
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.ahead.clear();
        (self.low, self.high) = (self.start.clone(), self.end.clone());
        match self.direction {
            Direction::Forward => self.low = self.low.clone().max(key.to_vec()),
            Direction::Backward if self.end.is_empty() || key < &self.end[..] => {
                self.high = behind(key);
            }
            Direction::Backward => {}
        }
        self.ended = Range::new(&self.low, &self.high).is_empty();
        Ok(())
    }
}
