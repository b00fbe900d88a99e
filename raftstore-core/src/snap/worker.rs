//! Decides how a received snapshot becomes a region's data, and when abandoned ranges go.
//!
//! Installs and range deletions are done strictly in the order given (H52), one slice per
//! [`RegionWorker::step`]. An install
//!
//! 1. reads the whole snapshot once and checks every byte of it, the range of every key and
//!    that it is the snapshot asked for (H56): a bad one touches nothing;
//! 2. removes what the range holds;
//! 3. reads it again and writes the rows in batches;
//! 4. records the region as normal and removes the copy of the raft state, in one batch with
//!    the last rows. The number of that write is the outcome: the caller keeps the
//!    snapshot's bytes until it is durable (H5).
//!
//! Only plain buffered writes are used, so the engine's prefix contract orders everything.
//! Interrupted anywhere, an install is done over from the start.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use engine_traits::{DATA_CFS, Durability, KvEngine, Range, WriteBatch};
use raftstore_proto::{Cf, PeerId, Region, RegionId, RegionPhase, RegionState, wire::record};
use transport_traits::{SnapDirection, SnapKey, SnapStore};

use super::format::{Chunk, Decoder, FormatError};
use crate::{
    error::FatalError,
    event::{InstallOutcome, Task, TaskDone},
    hooks::{Bug, Hooks, Point},
    keys,
    meta::{KvNumbers, LaneId},
};

/// What one slice of work brought.
#[derive(Debug, Default)]
pub struct SliceOutcome {
    /// Tasks that ended.
    pub done: Vec<TaskDone>,
    /// Number of the last KV write of the slice, if it wrote.
    pub kv_number: Option<u64>,
    /// Bytes of keys and values written.
    pub written_bytes: u64,
    /// Whether nothing is left to do.
    pub idle: bool,
}

/// Installs snapshots and deletes ranges, in order, slice by slice.
pub struct RegionWorker<K: KvEngine, H: Hooks> {
    kv: K,
    snaps: Arc<dyn SnapStore>,
    hooks: H,
    batch_bytes: usize,
    waiting: VecDeque<Job>,
    installing: Option<Install<K>>,
    /// Cancelled before they began; told with the next slice.
    cancelled: Vec<TaskDone>,
    /// Snapshots that nobody knew of when they were last collected.
    unknown: BTreeSet<(SnapDirection, SnapKey)>,
}

impl<K: KvEngine, H: Hooks> std::fmt::Debug for RegionWorker<K, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegionWorker")
            .field("waiting", &self.waiting)
            .field("installing", &self.installing.as_ref().map(|install| &install.order))
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Job {
    Install(Order),
    DeleteRange { start: Vec<u8>, end: Vec<u8>, left_by: Option<RegionId> },
    DeleteSnapshot { direction: SnapDirection, key: SnapKey },
    Collect { lane: (LaneId, u16), known: Vec<(SnapDirection, SnapKey)> },
}

/// What is to be installed.
#[derive(Debug)]
struct Order {
    region: Region,
    peer: PeerId,
    incarnation: u64,
    key: SnapKey,
}

impl Order {
    fn ended(&self, outcome: InstallOutcome) -> TaskDone {
        TaskDone::Installed { region: self.region.id, incarnation: self.incarnation, outcome }
    }

    fn is(&self, region: RegionId, incarnation: u64) -> bool {
        self.region.id == region && self.incarnation == incarnation
    }
}

struct Install<K: KvEngine> {
    order: Order,
    phase: Phase<K>,
}

enum Phase<K: KvEngine> {
    /// First pass.
    Checking(Box<Decoder>),
    /// The range is to be emptied.
    Clearing,
    /// Second pass; the batch is carried from slice to slice until it is full.
    Writing(Box<Decoder>, K::WriteBatch),
}

/// How an install goes on after a slice.
enum Next<K: KvEngine> {
    Phase(Phase<K>),
    Ended(InstallOutcome),
}

impl<K: KvEngine, H: Hooks> RegionWorker<K, H> {
    /// A worker with nothing to do, which writes rows in batches of about `batch_bytes`.
    #[must_use]
    pub fn new(kv: K, snaps: Arc<dyn SnapStore>, hooks: H, batch_bytes: usize) -> Self {
        Self {
            kv,
            snaps,
            hooks,
            batch_bytes: batch_bytes.max(1),
            waiting: VecDeque::new(),
            installing: None,
            cancelled: Vec::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// Takes a task. Nothing is done before [`RegionWorker::step`].
    ///
    /// # Panics
    /// On a task that is not this worker's.
    pub fn push(&mut self, task: Task) {
        match task {
            Task::Install { region, peer, incarnation, key } => {
                self.waiting.push_back(Job::Install(Order { region, peer, incarnation, key }));
            }
            Task::CancelInstall { region, incarnation } => self.cancel(region, incarnation),
            Task::DeleteRange { start, end, left_by } => {
                self.waiting.push_back(Job::DeleteRange { start, end, left_by });
            }
            Task::DeleteSnapshot { direction, key } => {
                self.waiting.push_back(Job::DeleteSnapshot { direction, key });
            }
            Task::CollectSnapshots { lane, known } => {
                self.waiting.push_back(Job::Collect { lane, known });
            }
            Task::SyncKv | Task::CheckSplit { .. } | Task::Compact { .. } => {
                unreachable!("another worker's task was given to the region worker")
            }
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.installing.is_none() && self.waiting.is_empty() && self.cancelled.is_empty()
    }

    /// Does one slice: checks or writes one chunk, empties one range, or removes one
    /// snapshot.
    ///
    /// # Errors
    /// If the engine fails; nothing may be done any more then.
    pub fn step(&mut self, numbers: &KvNumbers) -> Result<SliceOutcome, FatalError> {
        let mut slice =
            SliceOutcome { done: std::mem::take(&mut self.cancelled), ..SliceOutcome::default() };
        if let Some(install) = self.installing.take() {
            self.go_on(install, numbers, &mut slice)?;
        } else if let Some(job) = self.next_job() {
            self.begin(job, numbers, &mut slice)?;
        }
        slice.idle = self.is_idle();
        Ok(slice)
    }

    fn next_job(&mut self) -> Option<Job> {
        if self.hooks.planted(Bug::InstallBeforeDeletion) {
            let install = self.waiting.iter().position(|job| matches!(job, Job::Install(_)));
            return self.waiting.remove(install.unwrap_or(0));
        }
        self.waiting.pop_front()
    }

    /// An attempt that has ended already has told so, and is not told again.
    fn cancel(&mut self, region: RegionId, incarnation: u64) {
        if let Some(install) = self.installing.take_if(|i| i.order.is(region, incarnation)) {
            self.cancelled.push(install.order.ended(InstallOutcome::Cancelled));
        }
        let cancelled = &mut self.cancelled;
        self.waiting.retain(|job| match job {
            Job::Install(order) if order.is(region, incarnation) => {
                cancelled.push(order.ended(InstallOutcome::Cancelled));
                false
            }
            Job::Install(_)
            | Job::DeleteRange { .. }
            | Job::DeleteSnapshot { .. }
            | Job::Collect { .. } => true,
        });
    }

    fn begin(
        &mut self,
        job: Job,
        numbers: &KvNumbers,
        slice: &mut SliceOutcome,
    ) -> Result<(), FatalError> {
        match job {
            Job::Install(order) => {
                self.hooks.reach(Point::BeforeApplySnapshot);
                let next = match self.open(&order) {
                    Ok(decoder) if self.is_wanted(&order)? => Next::Phase(Phase::Checking(decoder)),
                    Ok(_) => Next::Ended(InstallOutcome::Cancelled),
                    Err(damage) => Next::Ended(bad_content(&order, &damage)),
                };
                self.settle(order, next, slice);
            }
            Job::DeleteRange { start, end, left_by } => {
                let range = Range::new(&start, &end);
                if !range.is_empty() {
                    self.delete_range(range, None, numbers, slice)?;
                }
                slice.done.extend(left_by.map(|region| TaskDone::RangeDeleted { region }));
            }
            Job::Collect { lane, known } => self.collect(lane, &known),
            Job::DeleteSnapshot { direction, key } => {
                // What stays is found and removed by a later pass (H55).
                if let Err(error) = self.snaps.delete(direction, key) {
                    tracing::warn!(%key, ?direction, %error, "cannot remove a region snapshot");
                }
            }
        }
        Ok(())
    }

    /// Removes snapshots of the lane that were unknown the last time too. One that cannot be
    /// removed keeps nobody else's from going (H55).
    fn collect(&mut self, (lane, lanes): (LaneId, u16), known: &[(SnapDirection, SnapKey)]) {
        let listed = match self.snaps.list() {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "cannot list region snapshots");
                return;
            }
        };
        let is_ours = |key: &SnapKey| LaneId::of(key.region, lanes) == lane;
        let unknown: BTreeSet<(SnapDirection, SnapKey)> = listed
            .into_iter()
            .map(|(direction, key, _)| (direction, key))
            .filter(|(direction, key)| is_ours(key) && !known.contains(&(*direction, *key)))
            .collect();
        for (direction, key) in &unknown {
            if self.unknown.contains(&(*direction, *key))
                && let Err(error) = self.snaps.delete(*direction, *key)
            {
                tracing::warn!(%key, ?direction, %error, "cannot remove a region snapshot");
            }
        }
        self.unknown.retain(|(_, key)| !is_ours(key));
        self.unknown.extend(unknown);
    }

    fn settle(&mut self, order: Order, next: Next<K>, slice: &mut SliceOutcome) {
        match next {
            Next::Phase(phase) => self.installing = Some(Install { order, phase }),
            Next::Ended(outcome) => slice.done.push(order.ended(outcome)),
        }
    }

    fn go_on(
        &mut self,
        install: Install<K>,
        numbers: &KvNumbers,
        slice: &mut SliceOutcome,
    ) -> Result<(), FatalError> {
        let Install { order, phase } = install;
        let next = match phase {
            Phase::Checking(mut decoder) => match decoder.next_chunk() {
                Ok(Some(_)) => Next::Phase(Phase::Checking(decoder)),
                Ok(None) => Next::Phase(Phase::Clearing),
                Err(damage) => Next::Ended(bad_content(&order, &damage)),
            },
            Phase::Clearing => match self.open(&order) {
                Ok(decoder) => {
                    if !self.hooks.planted(Bug::InstallOverOldData) {
                        let (start, end) = keys::region_data_range(&order.region);
                        let range = Range::new(&start, &end);
                        self.delete_range(range, Some(order.region.id), numbers, slice)?;
                    }
                    Next::Phase(Phase::Writing(decoder, self.kv.write_batch()))
                }
                Err(damage) => Next::Ended(bad_content(&order, &damage)),
            },
            Phase::Writing(mut decoder, batch) => match decoder.next_chunk() {
                Ok(Some(chunk)) => {
                    let batch = self.write_chunk(&order, &chunk, batch, numbers, slice)?;
                    Next::Phase(Phase::Writing(decoder, batch))
                }
                Ok(None) => Next::Ended(self.record(&order, batch, numbers, slice)?),
                Err(damage) => Next::Ended(bad_content(&order, &damage)),
            },
        };
        self.settle(order, next, slice);
        Ok(())
    }

    /// Opens the snapshot and compares what it says about itself with what was asked for.
    fn open(&self, order: &Order) -> Result<Box<Decoder>, FormatError> {
        let decoder = Decoder::open(self.snaps.open(SnapDirection::Received, order.key)?)?;
        let (found, wanted) = (&decoder.header().region, &order.region);
        let same_range = (&found.start_key, &found.end_key) == (&wanted.start_key, &wanted.end_key);
        if decoder.header().key != order.key || found.epoch != wanted.epoch || !same_range {
            return Err(FormatError::Malformed { detail: "the header is of another snapshot" });
        }
        Ok(Box::new(decoder))
    }

    /// Whether the replica still waits for its data: the record of one that was removed or
    /// taken out of service meanwhile is never written over.
    fn is_wanted(&self, order: &Order) -> Result<bool, FatalError> {
        let region = order.region.id;
        let stored = self
            .kv
            .get(Cf::Raft, &keys::region_state_key(region))
            .map_err(FatalError::engine("reading a region state", Some(region)))?;
        let Some(stored) = stored else { return Ok(false) };
        let state = record::decode_region_state(region, &stored)
            .map_err(FatalError::record("reading a region state", Some(region)))?;
        Ok(state.phase == RegionPhase::Applying && state.region.peer(order.peer).is_some())
    }

    fn delete_range(
        &self,
        range: Range<'_>,
        region: Option<RegionId>,
        numbers: &KvNumbers,
        slice: &mut SliceOutcome,
    ) -> Result<(), FatalError> {
        let mut batch = self.kv.write_batch();
        for cf in DATA_CFS {
            batch.delete_range(cf, range);
        }
        self.write(batch, "deleting a range", region, numbers, slice).map(drop)
    }

    /// Adds the rows of a chunk to `batch`, writes it out whenever it is full, and gives back
    /// what is left of it.
    fn write_chunk(
        &self,
        order: &Order,
        chunk: &Chunk,
        mut batch: K::WriteBatch,
        numbers: &KvNumbers,
        slice: &mut SliceOutcome,
    ) -> Result<K::WriteBatch, FatalError> {
        for (key, value) in chunk.rows() {
            batch.put(chunk.cf(), key, value);
            slice.written_bytes += (key.len() + value.len()) as u64;
            if batch.size_bytes() >= self.batch_bytes {
                let full = std::mem::replace(&mut batch, self.kv.write_batch());
                let region = Some(order.region.id);
                self.write(full, "installing a snapshot", region, numbers, slice)?;
            }
        }
        Ok(batch)
    }

    /// Writes the last rows together with the record that the region is complete.
    fn record(
        &self,
        order: &Order,
        mut batch: K::WriteBatch,
        numbers: &KvNumbers,
        slice: &mut SliceOutcome,
    ) -> Result<InstallOutcome, FatalError> {
        if !self.is_wanted(order)? {
            return Ok(InstallOutcome::Cancelled);
        }
        self.hooks.reach(Point::AfterApplySnapshot);
        let region = order.region.id;
        let state = RegionState { phase: RegionPhase::Normal, region: order.region.clone() };
        let state = record::encode_region_state(region, &state);
        batch.put(Cf::Raft, &keys::region_state_key(region), &state);
        batch.delete(Cf::Raft, &keys::snapshot_raft_state_key(region));
        let doing = "recording an installed snapshot";
        let kv_number = self.write(batch, doing, Some(region), numbers, slice)?;
        Ok(InstallOutcome::Done { kv_number })
    }

    fn write(
        &self,
        batch: K::WriteBatch,
        doing: &'static str,
        region: Option<RegionId>,
        numbers: &KvNumbers,
        slice: &mut SliceOutcome,
    ) -> Result<u64, FatalError> {
        self.kv.write(batch, Durability::Buffered).map_err(FatalError::engine(doing, region))?;
        let number = numbers.next_written();
        slice.kv_number = Some(number);
        Ok(number)
    }
}

/// Whether the bytes are wrong, gone or unreadable comes to the same: the log they replace
/// is gone too, so this replica has no way on, and PD gets it replaced (H50).
fn bad_content(order: &Order, damage: &FormatError) -> InstallOutcome {
    let detail = std::error::Error::source(damage).map(ToString::to_string);
    tracing::error!(key = %order.key, error = %damage, ?detail, "region snapshot cannot be installed");
    InstallOutcome::BadContent
}

#[cfg(test)]
mod tests;
