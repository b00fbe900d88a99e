//! Decides where a region should be cut.
//!
//! A [`CheckWorker`] walks the rows of a region in slices, against one snapshot of the
//! engine, and shows them to what the embedder's [`SplitPolicy`] has made for this region.
//! It proposes nothing: the store asks PD for ids if the region is still what it was (H70).

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use engine_traits::{Direction, KvEngine, Range, Reader};
use raftstore_proto::{Cf, Region, RegionId};

use crate::{
    Config,
    error::FatalError,
    event::{CheckGoal, Task, TaskDone},
    keys,
    observe::keep_rows_whole,
};

/// Families whose rows count: what clients lock is short-lived.
const FAMILIES: [Cf; 2] = [Cf::Default, Cf::Write];

/// Rows looked at in one slice.
const SLICE_ROWS: usize = 8 << 10;

/// Fewest bytes that a row takes, for the question whether so few bytes can be too many keys.
const LEAST_ROW_BYTES: u64 = 16;

/// Decides when and where regions are cut by themselves.
pub trait SplitPolicy: fmt::Debug + Send + Sync + 'static {
    /// Something that looks at the rows of `region` in key order and then says where to cut;
    /// `None` if the region is not to be cut. `size_bytes` is the engine's rough idea of it.
    fn checker(&self, region: &Region, size_bytes: u64) -> Option<Box<dyn SplitChecker>>;
}

/// Looks at the rows of one region.
pub trait SplitChecker: Send {
    /// The next row in key order: user key, and bytes of key and value as stored. A key that
    /// is in several families comes once for each. Gives whether it has seen enough.
    fn row(&mut self, key: &[u8], bytes: u64) -> bool;

    /// Where to cut: ascending user keys inside the region, none of them its start. Empty
    /// for not at all.
    fn keys(self: Box<Self>) -> Vec<Bytes>;
}

/// Cuts regions that have grown past a size, or a number of keys, into parts of a smaller
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeAndKeys {
    /// Bytes from which a region is cut.
    pub max_bytes: u64,
    /// Bytes of the parts.
    pub split_bytes: u64,
    /// Keys from which a region is cut.
    pub max_keys: u64,
    /// Keys of the parts.
    pub split_keys: u64,
}

impl SizeAndKeys {
    /// The limits of a configuration.
    #[must_use]
    pub const fn of(config: &Config) -> Self {
        Self {
            max_bytes: config.region_max_size,
            split_bytes: config.region_split_size,
            max_keys: config.region_max_keys,
            split_keys: config.region_split_keys,
        }
    }
}

impl SplitPolicy for SizeAndKeys {
    fn checker(&self, region: &Region, size_bytes: u64) -> Option<Box<dyn SplitChecker>> {
        if size_bytes < self.max_bytes && size_bytes / LEAST_ROW_BYTES < self.max_keys {
            return None;
        }
        Some(Box::new(Parts {
            limits: *self,
            start_key: region.start_key.clone(),
            total: (0, 0),
            part: (0, 0),
            cuts: Vec::new(),
        }))
    }
}

/// No region is cut by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverSplit;

impl SplitPolicy for NeverSplit {
    fn checker(&self, _: &Region, _: u64) -> Option<Box<dyn SplitChecker>> {
        None
    }
}

/// Moves another policy's cuts so that no row of a table is cut, as
/// [`RowSplits`](crate::observe::RowSplits) does with all splits. With both, a region that is
/// one row is not looked at again and again.
#[derive(Clone, Copy, Debug)]
pub struct WholeRows<P>(pub P);

impl<P: SplitPolicy> SplitPolicy for WholeRows<P> {
    fn checker(&self, region: &Region, size_bytes: u64) -> Option<Box<dyn SplitChecker>> {
        let checker = self.0.checker(region, size_bytes)?;
        Some(Box::new(Rows { checker, start_key: region.start_key.clone() }))
    }
}

struct Rows {
    checker: Box<dyn SplitChecker>,
    start_key: Bytes,
}

impl SplitChecker for Rows {
    fn row(&mut self, key: &[u8], bytes: u64) -> bool {
        self.checker.row(key, bytes)
    }

    fn keys(self: Box<Self>) -> Vec<Bytes> {
        let mut keys = self.checker.keys();
        keep_rows_whole(&self.start_key, &mut keys, |key| key);
        keys
    }
}

/// Counts rows into parts.
struct Parts {
    limits: SizeAndKeys,
    start_key: Bytes,
    /// Bytes and keys of all rows, and of those behind the last cut.
    total: (u64, u64),
    part: (u64, u64),
    cuts: Vec<Bytes>,
}

impl SplitChecker for Parts {
    fn row(&mut self, key: &[u8], bytes: u64) -> bool {
        self.total = (self.total.0 + bytes, self.total.1 + 1);
        let part = (self.part.0 + bytes, self.part.1 + 1);
        let full = part.0 > self.limits.split_bytes || part.1 > self.limits.split_keys;
        // The first row of a part is never cut off from it, or parts would be empty (H69).
        let is_cut = full && self.part.1 > 0 && key > self.start_key.as_ref();
        if is_cut && self.cuts.last().is_none_or(|last| last.as_ref() < key) {
            self.cuts.push(Bytes::copy_from_slice(key));
            self.part = (bytes, 1);
        } else {
            self.part = part;
        }
        false
    }

    fn keys(mut self: Box<Self>) -> Vec<Bytes> {
        let Self { limits, total, part, .. } = *self;
        if total.0 < limits.max_bytes && total.1 < limits.max_keys {
            return Vec::new();
        }
        // A last part that is far from full stays with its neighbour.
        let left_over = part.0 < limits.max_bytes - limits.split_bytes
            && part.1 < limits.max_keys - limits.split_keys;
        if left_over && self.cuts.len() > 1 {
            self.cuts.pop();
        }
        std::mem::take(&mut self.cuts)
    }
}

/// Finds the row in the middle, by bytes.
struct Half {
    start_key: Bytes,
    total: u64,
    rows: Vec<(Bytes, u64)>,
}

/// Rows remembered by [`Half`]: one in so many bytes of the region is enough.
const HALF_STEP_BYTES: u64 = 4 << 10;

impl SplitChecker for Half {
    fn row(&mut self, key: &[u8], bytes: u64) -> bool {
        let apart = self.rows.last().is_none_or(|(_, at)| self.total - at >= HALF_STEP_BYTES);
        if (apart || self.rows.len() < 4096) && key > self.start_key.as_ref() {
            self.rows.push((Bytes::copy_from_slice(key), self.total));
        }
        self.total += bytes;
        false
    }

    fn keys(self: Box<Self>) -> Vec<Bytes> {
        let middle = self.total / 2;
        let before = self.rows.partition_point(|(_, at)| *at < middle);
        self.rows
            .get(before)
            .or_else(|| self.rows.last())
            .map(|(key, _)| key.clone())
            .into_iter()
            .collect()
    }
}

/// What one slice brought.
#[derive(Debug, Default)]
pub struct CheckSlice {
    /// Checks that ended.
    pub done: Vec<TaskDone>,
    /// Whether nothing is left to do.
    pub idle: bool,
}

/// Carries out checks one after the other, slice by slice.
pub struct CheckWorker<K: KvEngine> {
    kv: K,
    policy: Arc<dyn SplitPolicy>,
    waiting: VecDeque<Order>,
    walking: Option<Walk<K>>,
}

impl<K: KvEngine> fmt::Debug for CheckWorker<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckWorker")
            .field("policy", &self.policy)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Order {
    region: Region,
    incarnation: u64,
    goal: CheckGoal,
}

impl Order {
    fn ended(self, size_bytes: u64, keys: Vec<Bytes>) -> TaskDone {
        let Self { region, incarnation, goal } = self;
        let version = region.epoch.version;
        TaskDone::SplitChecked { region: region.id, incarnation, version, goal, size_bytes, keys }
    }
}

struct Walk<K: KvEngine> {
    order: Order,
    snapshot: K::Snapshot,
    checker: Box<dyn SplitChecker>,
    /// First data key not looked at.
    next: Vec<u8>,
    size_bytes: u64,
}

impl<K: KvEngine> CheckWorker<K> {
    /// A worker with nothing to do.
    #[must_use]
    pub fn new(kv: K, policy: Arc<dyn SplitPolicy>) -> Self {
        Self { kv, policy, waiting: VecDeque::new(), walking: None }
    }

    /// Takes a task. Nothing is done before [`CheckWorker::step`].
    ///
    /// # Panics
    /// On a task that is not this worker's.
    pub fn push(&mut self, task: Task) {
        let Task::CheckSplit { region, incarnation, goal } = task else {
            unreachable!("another worker's task was given to the split check");
        };
        self.waiting.push_back(Order { region, incarnation, goal });
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.walking.is_none() && self.waiting.is_empty()
    }

    /// Does one slice: begins a check, or looks at some rows.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn step(&mut self) -> Result<CheckSlice, FatalError> {
        let mut slice = CheckSlice::default();
        let region = self.walking.as_ref().map(|walk| walk.order.region.id);
        let region = region.or_else(|| self.waiting.front().map(|order| order.region.id));
        let outcome = match self.walking.take() {
            Some(walk) => walk.go_on(),
            None => match self.waiting.pop_front() {
                Some(order) => self.begin(order),
                None => Ok(Next::Nothing),
            },
        };
        match outcome.map_err(failed(region))? {
            Next::Walk(walk) => self.walking = Some(walk),
            Next::Done(done) => slice.done.push(done),
            Next::Nothing => {}
        }
        slice.idle = self.is_idle();
        Ok(slice)
    }

    fn begin(&self, order: Order) -> Result<Next<K>, engine_traits::Error> {
        let (start, end) = keys::region_data_range(&order.region);
        let mut size_bytes = 0;
        for cf in FAMILIES {
            size_bytes += self.kv.approximate_size(cf, Range::new(&start, &end), u64::MAX)?;
        }
        let checker: Option<Box<dyn SplitChecker>> = match order.goal {
            CheckGoal::Auto => self.policy.checker(&order.region, size_bytes),
            CheckGoal::Half => Some(Box::new(Half {
                start_key: order.region.start_key.clone(),
                total: 0,
                rows: Vec::new(),
            })),
        };
        let Some(checker) = checker else {
            return Ok(Next::Done(order.ended(size_bytes, Vec::new())));
        };
        let snapshot = self.kv.snapshot()?;
        Ok(Next::Walk(Walk { order, snapshot, checker, next: start, size_bytes: 0 }))
    }
}

fn failed(region: Option<RegionId>) -> impl FnOnce(engine_traits::Error) -> FatalError {
    FatalError::engine("looking for where to split a region", region)
}

enum Next<K: KvEngine> {
    Walk(Walk<K>),
    Done(TaskDone),
    Nothing,
}

impl<K: KvEngine> Walk<K> {
    /// Looks at the next rows of all families, merged in key order.
    fn go_on(mut self) -> Result<Next<K>, engine_traits::Error> {
        let (_, end) = keys::region_data_range(&self.order.region);
        let range = Range::new(&self.next, &end);
        let mut cursors = Vec::with_capacity(FAMILIES.len());
        for cf in FAMILIES {
            let mut cursor = self.snapshot.cursor(cf, range, Direction::Forward)?;
            let head = owned(cursor.next()?);
            cursors.push((cursor, head));
        }
        let mut seen = 0;
        let mut stopped_at = None;
        loop {
            let least = cursors
                .iter()
                .enumerate()
                .filter_map(|(at, (_, head))| head.as_ref().map(|(key, _)| (key, at)))
                .min();
            let Some((key, at)) = least else { break };
            if seen >= SLICE_ROWS {
                stopped_at = Some(key.clone());
                break;
            }
            let (cursor, head) = &mut cursors[at];
            if let Some((key, bytes)) = head.take() {
                seen += 1;
                self.size_bytes += bytes;
                if self.checker.row(keys::origin_key(&key), bytes) {
                    break;
                }
            }
            *head = owned(cursor.next()?);
        }
        drop(cursors);
        if let Some(key) = stopped_at {
            self.next = key;
            return Ok(Next::Walk(self));
        }
        let Self { order, checker, size_bytes, .. } = self;
        Ok(Next::Done(order.ended(size_bytes, checker.keys())))
    }
}

fn owned(row: Option<(&[u8], &[u8])>) -> Option<(Vec<u8>, u64)> {
    row.map(|(key, value)| (key.to_vec(), (key.len() + value.len()) as u64))
}

#[cfg(test)]
mod tests;
