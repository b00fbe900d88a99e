//! What one engine write will hold, and what may be said only once it has returned.

use std::collections::BTreeMap;

use engine_traits::WriteBatch;
use raftstore_proto::{ApplyState, RegionId, Response};

use super::{ApplyMetrics, ExecResult};
use crate::{event::ReplyId, observe::AppliedCommand};

/// Bytes of a batch after which it is written. Half of it doubles the engine calls of a
/// bulk load; double it holds back the answers of the batch's first commands.
const BATCH_BYTES: usize = 1 << 20;

/// Entries in a batch after which it is written, so that small commands are answered
/// before a long run of them has been executed.
const BATCH_ENTRIES: usize = 256;

/// The batch that all regions share, with everything that waits for it.
#[derive(Debug)]
pub(super) struct Pending<B> {
    /// What entries write to.
    pub(super) fill: Fill<B>,
    /// Entries executed into the batch.
    entries: usize,
    /// What was executed, by region.
    pub(super) progress: BTreeMap<RegionId, Progress>,
    /// To be given once the batch is written.
    pub(super) answers: Vec<(ReplyId, Response)>,
}

/// A batch being filled.
#[derive(Debug)]
pub(super) struct Fill<B> {
    /// Data and region states; the apply states follow when it is sealed.
    pub(super) batch: B,
    /// Memory for data keys.
    pub(super) key: Vec<u8>,
    /// Memory for the second data key of a range.
    pub(super) end_key: Vec<u8>,
}

/// Progress of one region in a batch.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) incarnation: u64,
    pub(super) state: ApplyState,
    /// The replica has executed its own removal: a tombstone has no apply state.
    pub(super) removed: bool,
    pub(super) exec: Vec<ExecResult>,
    pub(super) answers: Vec<(ReplyId, Response)>,
    pub(super) metrics: ApplyMetrics,
    /// What observers will be told, if there are any.
    pub(super) observed: Vec<AppliedCommand>,
}

impl<B: WriteBatch> Pending<B> {
    pub(super) fn new(batch: B) -> Self {
        Self {
            fill: Fill { batch, key: Vec::new(), end_key: Vec::new() },
            entries: 0,
            progress: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    /// Counts one executed entry.
    pub(super) const fn count_entry(&mut self) {
        self.entries += 1;
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.entries >= BATCH_ENTRIES || self.fill.batch.size_bytes() >= BATCH_BYTES
    }

    /// Whether nothing waits for a write.
    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_empty() && self.fill.batch.is_empty() && self.answers.is_empty()
    }

    /// Takes the batch and puts an empty one in its place.
    pub(super) fn replace_batch(&mut self, empty: B) -> B {
        self.entries = 0;
        std::mem::replace(&mut self.fill.batch, empty)
    }
}

impl Progress {
    pub(super) fn new(incarnation: u64, state: ApplyState) -> Self {
        Self {
            incarnation,
            state,
            removed: false,
            exec: Vec::new(),
            answers: Vec::new(),
            metrics: ApplyMetrics::default(),
            observed: Vec::new(),
        }
    }
}
