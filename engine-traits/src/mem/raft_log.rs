//! The reference log engine: a double-ended queue of entries per region.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use raftstore_proto::{Entry, LocalState, RegionId};

use super::device::{Device, FaultCause, Faults, WriteFate};
use crate::log_shape::{LogShapes, append_bounds};
use crate::{Durability, Error, LogStats, RaftEngine, RaftLogBatch, Result};

const ENGINE: &str = "mem-log";

/// One operation of a [`MemLogBatch`].
#[derive(Clone, Debug, PartialEq)]
pub enum LogOp {
    /// Appends entries, replacing a stored suffix.
    Append(RegionId, Vec<Entry>),
    /// Removes the entries below an index.
    TruncatePrefix(RegionId, u64),
    /// Stores the state beside the log.
    PutRaftState(RegionId, LocalState),
    /// Forgets everything about a region.
    ClearRegion(RegionId),
}

/// A batch of [`MemRaftLog`]: a list of operations that tests can look into.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemLogBatch {
    ops: Vec<LogOp>,
    size_bytes: usize,
}

impl MemLogBatch {
    /// The operations in the order added.
    #[must_use]
    pub fn ops(&self) -> &[LogOp] {
        &self.ops
    }
}

/// What an entry counts for in sizes: payload, index and term.
fn entry_bytes(entry: &Entry) -> usize {
    entry.payload_len() + 16
}

impl RaftLogBatch for MemLogBatch {
    fn append(&mut self, region: RegionId, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        self.size_bytes += entries.iter().map(entry_bytes).sum::<usize>();
        self.ops.push(LogOp::Append(region, entries.to_vec()));
    }

    fn truncate_prefix(&mut self, region: RegionId, index: u64) {
        self.size_bytes += 16;
        self.ops.push(LogOp::TruncatePrefix(region, index));
    }

    fn put_raft_state(&mut self, region: RegionId, state: &LocalState) {
        self.size_bytes += size_of::<LocalState>();
        self.ops.push(LogOp::PutRaftState(region, *state));
    }

    fn clear_region(&mut self, region: RegionId) {
        self.size_bytes += 8;
        self.ops.push(LogOp::ClearRegion(region));
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// One region's log.
///
/// Invariant: the indexes of `entries` are consecutive.
#[derive(Clone, Default)]
struct RegionLog {
    entries: VecDeque<Entry>,
    state: Option<LocalState>,
}

impl RegionLog {
    fn bounds(&self) -> Option<(u64, u64)> {
        Some((self.entries.front()?.index(), self.entries.back()?.index()))
    }

    /// Position of `index` in the queue, if it is stored.
    fn position(&self, index: u64) -> Option<usize> {
        let (first, last) = self.bounds()?;
        if !(first..=last).contains(&index) {
            return None;
        }
        usize::try_from(index - first).ok()
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(new_first) = entries.first().map(Entry::index) else {
            return;
        };
        match self.bounds() {
            Some((first, _)) if new_first < first => self.entries.clear(),
            _ => {
                if let Some(position) = self.position(new_first) {
                    self.entries.truncate(position);
                }
            }
        }
        self.entries.extend(entries.iter().cloned());
    }

    fn truncate_prefix(&mut self, index: u64) {
        let below = self.entries.partition_point(|entry| entry.index() < index);
        self.entries.drain(..below);
    }
}

/// The logs of all regions at one moment.
#[derive(Clone, Default)]
struct Logs {
    regions: BTreeMap<RegionId, RegionLog>,
}

impl Logs {
    fn holds(&self, (region, index): Damage) -> bool {
        self.regions.get(&region).is_some_and(|log| match index {
            Some(index) => log.position(index).is_some(),
            None => log.state.is_some(),
        })
    }

    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::Append(region, entries) => {
                self.regions.entry(*region).or_default().append(entries);
            }
            LogOp::TruncatePrefix(region, index) => {
                if let Some(log) = self.regions.get_mut(region) {
                    log.truncate_prefix(*index);
                    if log.entries.is_empty() && log.state.is_none() {
                        self.regions.remove(region);
                    }
                }
            }
            LogOp::PutRaftState(region, state) => {
                self.regions.entry(*region).or_default().state = Some(*state);
            }
            LogOp::ClearRegion(region) => {
                self.regions.remove(region);
            }
        }
    }
}

/// Which record of a region was damaged: the entry at an index, or the state.
type Damage = (RegionId, Option<u64>);

#[derive(Default)]
struct Disk {
    /// What reads see.
    current: Logs,
    /// What a power cut cannot take away. Kept beside `current`, so that a sync costs what
    /// was written since the last one; payloads are shared.
    durable: Logs,
    /// The writes between the two, in the order in which they returned.
    unsynced: Vec<Vec<LogOp>>,
    damaged: BTreeSet<Damage>,
    written_bytes: u64,
    syncs: u64,
}

impl Disk {
    fn settle(&mut self) {
        for op in std::mem::take(&mut self.unsynced).iter().flatten() {
            self.durable.apply(op);
        }
    }

    /// A record written anew is whole again, one removed is nobody's.
    fn heal(&mut self, op: &LogOp) {
        if self.damaged.is_empty() {
            return;
        }
        let untouched = |damage: &Damage| match (op, damage.1) {
            (LogOp::ClearRegion(_), _) | (LogOp::PutRaftState(..), None) => false,
            (LogOp::Append(_, entries), Some(index)) => index < entries[0].index(),
            (LogOp::TruncatePrefix(_, below), Some(index)) => index >= *below,
            (_, _) => true,
        };
        let region = match op {
            LogOp::Append(region, _)
            | LogOp::TruncatePrefix(region, _)
            | LogOp::PutRaftState(region, _)
            | LogOp::ClearRegion(region) => *region,
        };
        self.damaged.retain(|damage| damage.0 != region || untouched(damage));
    }

    fn check(&self, damage: Damage) -> Result<()> {
        if self.damaged.is_empty() || !self.damaged.contains(&damage) {
            return Ok(());
        }
        let (region, index) = damage;
        Err(Error::CorruptLog {
            engine: ENGINE,
            region,
            place: index.map_or_else(|| "raft state".to_owned(), |index| format!("entry {index}")),
            detail: "damaged on command".to_owned(),
        })
    }
}

struct Shared {
    device: Arc<Device>,
    disk: Mutex<Disk>,
}

/// The reference log engine. See [the module](crate::mem) for how it crashes.
///
/// Clones are handles of the same engine.
#[derive(Clone)]
pub struct MemRaftLog {
    shared: Arc<Shared>,
    generation: u64,
}

impl fmt::Debug for MemRaftLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemRaftLog")
            .field("generation", &self.generation)
            .field("unsynced_writes", &self.unsynced_writes())
            .finish_non_exhaustive()
    }
}

impl Default for MemRaftLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemRaftLog {
    /// An empty log engine.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { device: Device::new(ENGINE), disk: Mutex::new(Disk::default()) };
        Self { shared: Arc::new(shared), generation: 0 }
    }

    /// The control of its failures.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.device.faults.clone()
    }

    /// How many writes a power cut could lose now. Empty batches are not counted.
    #[must_use]
    pub fn unsynced_writes(&self) -> usize {
        self.shared.disk.lock().unsynced.len()
    }

    /// Cuts the power, as [`MemEngine::crash`](crate::mem::MemEngine::crash) does.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.shared.disk.lock();
        self.shared.device.kill_handles();
        disk.unsynced.truncate(keep);
        disk.settle();
        disk.current = disk.durable.clone();
        let disk = &mut *disk;
        disk.damaged.retain(|damage| disk.current.holds(*damage));
    }

    /// Starts the engine again, as [`MemEngine::reopen`](crate::mem::MemEngine::reopen) does.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut disk = self.shared.disk.lock();
        disk.written_bytes = 0;
        disk.syncs = 0;
        let generation = self.shared.device.kill_handles();
        Self { shared: Arc::clone(&self.shared), generation }
    }

    /// Makes the record of one entry unreadable until it is written again or removed. Gives
    /// whether it is stored.
    pub fn damage_entry(&self, region: RegionId, index: u64) -> bool {
        self.damage((region, Some(index)))
    }

    /// Makes the record of a region's state unreadable until it is written again or removed.
    /// Gives whether it is stored.
    pub fn damage_raft_state(&self, region: RegionId) -> bool {
        self.damage((region, None))
    }

    fn damage(&self, damage: Damage) -> bool {
        let mut disk = self.shared.disk.lock();
        let stored = disk.current.holds(damage);
        if stored {
            disk.damaged.insert(damage);
        }
        stored
    }

    fn refuse_holes(&self, logs: &Logs, ops: &[LogOp]) -> Result<()> {
        let mut shapes = LogShapes::default();
        let stored = |region: RegionId| Ok(logs.regions.get(&region).and_then(RegionLog::bounds));
        for op in ops {
            match op {
                LogOp::Append(region, entries) => {
                    let refuse = |detail| self.shared.device.invalid(detail);
                    let bounds = append_bounds(*region, entries).map_err(refuse)?;
                    shapes.append(*region, bounds, &stored)?.map_err(refuse)?;
                }
                LogOp::TruncatePrefix(region, index) => {
                    shapes.truncate_prefix(*region, *index, &stored)?;
                }
                LogOp::PutRaftState(..) => {}
                LogOp::ClearRegion(region) => shapes.clear_region(*region),
            }
        }
        Ok(())
    }
}

impl RaftEngine for MemRaftLog {
    type LogBatch = MemLogBatch;

    fn name(&self) -> &'static str {
        ENGINE
    }

    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        self.shared.device.admit_read(self.generation, "raft_state")?;
        let disk = self.shared.disk.lock();
        disk.check((region, None))?;
        Ok(disk.current.regions.get(&region).and_then(|log| log.state))
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        self.shared.device.admit_read(self.generation, "entry")?;
        let disk = self.shared.disk.lock();
        disk.check((region, Some(index)))?;
        let log = disk.current.regions.get(&region);
        Ok(log.and_then(|log| log.entries.get(log.position(index)?)).cloned())
    }

    fn entries(
        &self,
        region: RegionId,
        low: u64,
        high: u64,
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize> {
        self.shared.device.admit_read(self.generation, "entries")?;
        let disk = self.shared.disk.lock();
        let Some(log) = disk.current.regions.get(&region) else {
            return Ok(0);
        };
        let Some(position) = log.position(low) else {
            return Ok(0);
        };
        let (mut pushed, mut bytes) = (0, 0_u64);
        for entry in log.entries.range(position..) {
            if entry.index() >= high {
                break;
            }
            bytes = bytes.saturating_add(entry.payload_len() as u64);
            if pushed > 0 && bytes > max_bytes {
                break;
            }
            disk.check((region, Some(entry.index())))?;
            out.push(entry.clone());
            pushed += 1;
        }
        Ok(pushed)
    }

    fn regions(&self) -> Result<Vec<RegionId>> {
        self.shared.device.admit_read(self.generation, "regions")?;
        Ok(self.shared.disk.lock().current.regions.keys().copied().collect())
    }

    fn log_batch(&self) -> MemLogBatch {
        MemLogBatch::default()
    }

    fn write(&self, batch: MemLogBatch, durability: Durability) -> Result<()> {
        let device = &self.shared.device;
        let mut disk = self.shared.disk.lock();
        self.refuse_holes(&disk.current, &batch.ops)?;
        let fate = device.admit_write(self.generation, batch.size_bytes > 0)?;
        for op in &batch.ops {
            disk.heal(op);
            disk.current.apply(op);
        }
        disk.written_bytes += batch.size_bytes as u64;
        if !batch.ops.is_empty() {
            disk.unsynced.push(batch.ops);
        }
        if fate == WriteFate::FailAfter {
            return Err(device.backend("write", FaultCause::Commanded));
        }
        if durability == Durability::Synced {
            device.admit_sync(self.generation)?;
            disk.syncs += 1;
            disk.settle();
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut disk = self.shared.disk.lock();
        self.shared.device.admit_sync(self.generation)?;
        disk.syncs += 1;
        disk.settle();
        Ok(())
    }

    fn stats(&self) -> LogStats {
        let disk = self.shared.disk.lock();
        LogStats { used_bytes: 0, written_bytes: disk.written_bytes, syncs: disk.syncs }
    }
}
