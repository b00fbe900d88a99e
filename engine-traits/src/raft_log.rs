//! The raft log engine: the logs of all regions, written in batches that span them.

use raftstore_proto::{Entry, LocalState, RegionId};

use crate::{Durability, Result};

/// Changes to the logs of any number of regions that happen together.
///
/// Within a batch, operations on one region take effect in the order added.
pub trait RaftLogBatch: Send {
    /// Appends entries to a region's log.
    ///
    /// *Shape*: consecutive, ascending. The first may lie inside the stored log: everything
    /// from its index on is then replaced, *also above the last appended one*. After
    /// `clear_region`, or when nothing is stored, it may start anywhere.
    fn append(&mut self, region: RegionId, entries: &[Entry]);

    /// Removes the entries below `index`. Indexes that are not stored are no error.
    fn truncate_prefix(&mut self, region: RegionId, index: u64);

    /// Stores the state beside the log.
    fn put_raft_state(&mut self, region: RegionId, state: &LocalState);

    /// Forgets everything about a region: entries and state.
    fn clear_region(&mut self, region: RegionId);

    /// Whether nothing was added.
    fn is_empty(&self) -> bool;

    /// Rough memory held, in bytes.
    fn size_bytes(&self) -> usize;
}

/// What a log engine can tell about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes on the device; 0 if there is none.
    pub used_bytes: u64,
    /// Bytes written to the device since it was opened, if counted.
    pub written_bytes: u64,
    /// Syncs since it was opened.
    pub syncs: u64,
}

/// The raft logs of a store. Handles are cheap to clone and name one engine.
pub trait RaftEngine: Clone + Send + Sync + 'static {
    /// Its batches.
    type LogBatch: RaftLogBatch;

    /// One word for messages and tables.
    fn name(&self) -> &'static str;

    /// The state stored beside a region's log, or `None`.
    ///
    /// # Errors
    /// `CorruptLog` if the record is damaged, never a wrong state.
    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>>;

    /// One entry, or `None` if it is not stored.
    ///
    /// # Errors
    /// `CorruptLog` if the record is damaged, never a wrong entry.
    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>>;

    /// Pushes the entries of `[low, high)` to `out` in order, and gives how many.
    ///
    /// Stops before the entry with which the payload bytes pushed by this call would exceed
    /// `max_bytes`, but always pushes the first. Stops at the first index that is not
    /// stored: the caller sees the gap in the count.
    ///
    /// # Errors
    /// As [`RaftEngine::entry`]; `out` may then hold what came before.
    fn entries(
        &self,
        region: RegionId,
        low: u64,
        high: u64,
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize>;

    /// Every region with an entry or a state, ascending.
    ///
    /// # Errors
    /// If the engine cannot be read.
    fn regions(&self) -> Result<Vec<RegionId>>;

    /// An empty batch.
    fn log_batch(&self) -> Self::LogBatch;

    /// Carries out a batch: all of it, or nothing. A batch that would leave a hole in a log
    /// is refused whole before anything is written. An empty batch with
    /// [`Durability::Synced`] still makes every earlier write durable.
    ///
    /// # Errors
    /// The state after an error other than `InvalidBatch` is unknown; the caller stops.
    fn write(&self, batch: Self::LogBatch, durability: Durability) -> Result<()>;

    /// Makes every write that has returned durable.
    ///
    /// # Errors
    /// As [`RaftEngine::write`].
    fn sync(&self) -> Result<()>;

    /// Regions whose old entries keep space from being reused; cutting their logs helps.
    fn regions_pinning_space(&self) -> Vec<RegionId> {
        Vec::new()
    }

    /// Figures about the engine.
    fn stats(&self) -> LogStats {
        LogStats::default()
    }
}
