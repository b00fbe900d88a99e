//! The reference data engine: persistent ordered maps, so that a snapshot copies nothing.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raftstore_proto::Cf;
use rpds::RedBlackTreeMapSync;

use super::cursor::MemCursor;
use super::device::{Device, FaultCause, Faults, WriteFate};
use crate::{
    Cursor, Direction, Durability, EngineStats, Error, KvEngine, Range, Reader, Result, Snapshot,
    WriteBatch,
};

pub(super) const ENGINE: &str = "mem";

/// What lies under a key; `None` is a value that can no longer be read.
pub(super) type Stored = Option<Bytes>;
/// One column family. Cloning it is O(1).
pub(super) type Family = RedBlackTreeMapSync<Bytes, Stored>;

/// One operation of a [`MemBatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores a value.
    Put(Cf, Bytes, Bytes),
    /// Removes a key.
    Delete(Cf, Bytes),
    /// Removes keys `[start, end)`.
    DeleteRange(Cf, Bytes, Bytes),
}

impl Op {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Put(_, key, value) => key.len() + value.len(),
            Self::Delete(_, key) => key.len(),
            Self::DeleteRange(_, start, end) => start.len() + end.len(),
        }
    }
}

/// A batch of [`MemEngine`]: a list of operations that tests can look into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemBatch {
    ops: Vec<Op>,
    size_bytes: usize,
}

impl MemBatch {
    /// The operations in the order added.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    fn push(&mut self, op: Op) {
        self.size_bytes += op.size_bytes();
        self.ops.push(op);
    }
}

impl WriteBatch for MemBatch {
    fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.push(Op::Put(cf, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }

    fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.push(Op::Delete(cf, Bytes::copy_from_slice(key)));
    }

    fn delete_range(&mut self, cf: Cf, range: Range<'_>) {
        let (start, end) = (range.start, range.end);
        self.push(Op::DeleteRange(cf, Bytes::copy_from_slice(start), Bytes::copy_from_slice(end)));
    }

    fn len(&self) -> usize {
        self.ops.len()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// All column families at one moment. Cloning it is O(1).
#[derive(Clone)]
struct State {
    families: [Family; Cf::ALL.len()],
}

impl State {
    fn new() -> Self {
        Self { families: std::array::from_fn(|_| Family::new_sync()) }
    }

    fn family(&self, cf: Cf) -> &Family {
        &self.families[cf.index()]
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put(cf, key, value) => {
                self.families[cf.index()].insert_mut(key.clone(), Some(value.clone()));
            }
            Op::Delete(cf, key) => {
                self.families[cf.index()].remove_mut(key);
            }
            Op::DeleteRange(cf, start, end) => {
                let family = &mut self.families[cf.index()];
                let bounds = Range::new(start, end).bounds();
                let doomed: Vec<Bytes> =
                    family.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    family.remove_mut(&key);
                }
            }
        }
    }
}

struct Disk {
    /// What reads see.
    current: State,
    /// What a power cut cannot take away.
    durable: State,
    /// The writes between the two, in the order in which they returned.
    unsynced: Vec<Vec<Op>>,
    written_bytes: u64,
    syncs: u64,
}

impl Disk {
    fn settle(&mut self) {
        self.durable = self.current.clone();
        self.unsynced.clear();
    }
}

struct Shared {
    device: Arc<Device>,
    disk: Mutex<Disk>,
}

/// The reference data engine. See [the module](crate::mem) for how it crashes.
///
/// `snapshot` is O(1), a write costs O(log n) per operation whether snapshots live or not.
/// Clones are handles of the same engine.
#[derive(Clone)]
pub struct MemEngine {
    shared: Arc<Shared>,
    generation: u64,
}

impl fmt::Debug for MemEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemEngine")
            .field("generation", &self.generation)
            .field("unsynced_writes", &self.unsynced_writes())
            .finish_non_exhaustive()
    }
}

impl Default for MemEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl MemEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> Self {
        let disk = Disk {
            current: State::new(),
            durable: State::new(),
            unsynced: Vec::new(),
            written_bytes: 0,
            syncs: 0,
        };
        let shared = Shared { device: Device::new(ENGINE), disk: Mutex::new(disk) };
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

    /// Cuts the power: the first `keep` of the unsynced writes survive (all, if there are
    /// fewer), the others never happened. Every handle and snapshot of the engine is dead
    /// from now on, also this one, but for `reopen` and the other controls.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.shared.disk.lock();
        self.shared.device.kill_handles();
        let mut survived = disk.durable.clone();
        for op in disk.unsynced.iter().take(keep).flatten() {
            survived.apply(op);
        }
        disk.current = survived;
        disk.settle();
    }

    /// Starts the engine again and gives a handle; all others are dead from now on.
    ///
    /// Without a crash before it this is the end and restart of a process: every write that
    /// returned is still there, and those that were unsynced still are.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut disk = self.shared.disk.lock();
        disk.written_bytes = 0;
        disk.syncs = 0;
        let generation = self.shared.device.kill_handles();
        Self { shared: Arc::clone(&self.shared), generation }
    }

    /// Makes the value under `key` unreadable for readers opened from now on, until it is
    /// written again. Gives whether there is such a key.
    pub fn damage(&self, cf: Cf, key: &[u8]) -> bool {
        self.replace(cf, key, |_| Some(None))
    }

    /// Flips one bit of the value under `key`, unnoticed by the engine. `bit` counts from
    /// the value's first byte. Gives whether there is such a bit.
    pub fn flip_bit(&self, cf: Cf, key: &[u8], bit: usize) -> bool {
        self.replace(cf, key, |value| {
            let mut bytes = value.as_ref()?.to_vec();
            *bytes.get_mut(bit / 8)? ^= 1 << (bit % 8);
            Some(Some(Bytes::from(bytes)))
        })
    }

    /// Puts what `change` gives in the place of what is stored, unless it gives `None`.
    fn replace(&self, cf: Cf, key: &[u8], change: impl Fn(&Stored) -> Option<Stored>) -> bool {
        let mut disk = self.shared.disk.lock();
        let disk = &mut *disk;
        let mut changed = false;
        for state in [&mut disk.current, &mut disk.durable] {
            let family = &mut state.families[cf.index()];
            let Some(new) = family.get(key).and_then(&change) else { continue };
            changed = true;
            family.insert_mut(Bytes::copy_from_slice(key), new);
        }
        changed
    }
}

/// The value, or the error of one that was damaged.
pub(super) fn readable(key: &[u8], stored: &Stored) -> Result<Bytes> {
    stored.clone().ok_or_else(|| Error::Corrupt {
        engine: ENGINE,
        place: format!("value of key {}", key.escape_ascii()),
        detail: "damaged on command".to_owned(),
    })
}

impl Reader for MemEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.shared.device.admit_read(self.generation, "get")?;
        let disk = self.shared.disk.lock();
        disk.current.family(cf).get(key).map(|stored| readable(key, stored)).transpose()
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        self.shared.device.admit_read(self.generation, "cursor")?;
        let family = self.shared.disk.lock().current.family(cf).clone();
        let device = Arc::clone(&self.shared.device);
        Ok(Box::new(MemCursor::new(device, self.generation, family, range, direction)))
    }
}

impl KvEngine for MemEngine {
    type Snapshot = MemSnapshot;
    type WriteBatch = MemBatch;

    fn name(&self) -> &'static str {
        ENGINE
    }

    fn snapshot(&self) -> Result<MemSnapshot> {
        self.shared.device.admit_read(self.generation, "snapshot")?;
        let state = self.shared.disk.lock().current.clone();
        Ok(MemSnapshot {
            device: Arc::clone(&self.shared.device),
            generation: self.generation,
            state,
        })
    }

    fn write_batch(&self) -> MemBatch {
        MemBatch::default()
    }

    fn write(&self, batch: MemBatch, durability: Durability) -> Result<()> {
        let device = &self.shared.device;
        let mut disk = self.shared.disk.lock();
        let fate = device.admit_write(self.generation, batch.size_bytes > 0)?;
        for op in &batch.ops {
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

    fn stats(&self) -> EngineStats {
        let disk = self.shared.disk.lock();
        EngineStats {
            used_bytes: 0,
            written_bytes: disk.written_bytes,
            syncs: disk.syncs,
            stalled: false,
        }
    }
}

/// One moment of a [`MemEngine`].
#[derive(Clone)]
pub struct MemSnapshot {
    device: Arc<Device>,
    generation: u64,
    state: State,
}

impl fmt::Debug for MemSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemSnapshot").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Reader for MemSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.device.admit_read(self.generation, "get")?;
        self.state.family(cf).get(key).map(|stored| readable(key, stored)).transpose()
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        self.device.admit_read(self.generation, "cursor")?;
        let family = self.state.family(cf).clone();
        let device = Arc::clone(&self.device);
        Ok(Box::new(MemCursor::new(device, self.generation, family, range, direction)))
    }
}

impl Snapshot for MemSnapshot {}
