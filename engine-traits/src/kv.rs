//! The data engine: an ordered map per column family, with snapshots and atomic batches.

use std::ops::Bound;

use bytes::Bytes;
use raftstore_proto::Cf;

use crate::Result;

/// Keys `[start, end)`; an empty `end` is after every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    /// First key, inclusive.
    pub start: &'a [u8],
    /// End, exclusive.
    pub end: &'a [u8],
}

impl<'a> Range<'a> {
    /// All keys.
    pub const ALL: Range<'static> = Range { start: b"", end: b"" };

    /// Keys from `start` up to but not including `end`.
    #[must_use]
    pub const fn new(start: &'a [u8], end: &'a [u8]) -> Self {
        Self { start, end }
    }

    /// Whether `key` is inside.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start && (self.end.is_empty() || key < self.end)
    }

    /// Whether no key can be inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    /// The same range as bounds of an ordered map. An empty range gives bounds that are in
    /// order, so that maps which panic on reversed bounds can take them.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        if self.is_empty() {
            return (Bound::Included(self.end), Bound::Excluded(self.end));
        }
        let end = if self.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(self.end) };
        (Bound::Included(self.start), end)
    }
}

/// Which way a cursor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards larger keys.
    Forward,
    /// Towards smaller keys.
    Backward,
}

/// How long a write lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Visible at once, durable with the next synced write or `sync`.
    Buffered,
    /// Durable, and all writes before it with it, when the call returns.
    Synced,
}

/// Reads of one state of the data.
pub trait Reader {
    /// The value under `key`, or `None`.
    ///
    /// # Errors
    /// Anything the engine cannot read or finds corrupt. Never a wrong value.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;

    /// A cursor over `range`, which nothing outside of it ever leaves.
    ///
    /// An empty or reversed range gives a cursor without rows. On an engine (as opposed to
    /// a snapshot) the cursor sees one moment at or after the call.
    ///
    /// # Errors
    /// As [`Reader::get`].
    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>>;
}

/// A walk over rows in key order.
pub trait Cursor {
    /// The next row, or `None` past the last. After `None` it stays `None` until a seek.
    ///
    /// # Errors
    /// A row that cannot be read is an error, never a missing row nor an early end.
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>>;

    /// Moves so that the next row is the first at or after `key` going forward, at or before
    /// `key` going backward. A key outside the range is clamped to it: going away from the
    /// range there is no row then, going towards it all rows. Works in any state, also
    /// after the end, also against the direction.
    ///
    /// # Errors
    /// As [`Cursor::next`].
    fn seek(&mut self, key: &[u8]) -> Result<()>;
}

/// One moment of an engine, kept readable as long as the value lives.
pub trait Snapshot: Reader + Send + Sync + 'static {}

/// Changes that happen together.
pub trait WriteBatch: Send {
    /// Stores a value.
    fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]);

    /// Removes a key; an absent one is no error.
    fn delete(&mut self, cf: Cf, key: &[u8]);

    /// Removes all keys of `range` as of this point of the batch: operations added before
    /// are covered, operations added after are not. An empty range does nothing.
    fn delete_range(&mut self, cf: Cf, range: Range<'_>);

    /// Number of operations.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rough memory held, in bytes of keys and values.
    fn size_bytes(&self) -> usize;
}

/// What an engine can tell about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Bytes on the device; 0 if there is none.
    pub used_bytes: u64,
    /// Bytes written to the device since it was opened, if counted.
    pub written_bytes: u64,
    /// Syncs since it was opened.
    pub syncs: u64,
    /// Whether writes are being held back.
    pub stalled: bool,
}

/// An ordered map per column family. Handles are cheap to clone and name one engine.
pub trait KvEngine: Reader + Clone + Send + Sync + 'static {
    /// Its snapshots.
    type Snapshot: Snapshot;
    /// Its batches.
    type WriteBatch: WriteBatch;

    /// One word for messages and tables.
    fn name(&self) -> &'static str;

    /// The state as of now. Sees every write that has returned.
    ///
    /// # Errors
    /// If the engine cannot open one.
    fn snapshot(&self) -> Result<Self::Snapshot>;

    /// An empty batch.
    fn write_batch(&self) -> Self::WriteBatch;

    /// Carries out a batch, all or nothing. An empty batch with [`Durability::Synced`]
    /// still makes every earlier write durable.
    ///
    /// # Errors
    /// The state after an error is unknown; the caller stops.
    fn write(&self, batch: Self::WriteBatch, durability: Durability) -> Result<()>;

    /// Makes every write that has returned durable.
    ///
    /// # Errors
    /// As [`KvEngine::write`].
    fn sync(&self) -> Result<()>;

    /// Rough bytes of keys and values in `range`. The fallback walks it and gives up
    /// counting at `limit` (the answer is then at least `limit`).
    ///
    /// # Errors
    /// As [`Reader::get`].
    fn approximate_size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        let mut total = 0;
        let mut cursor = self.cursor(cf, range, Direction::Forward)?;
        while let Some((key, value)) = cursor.next()? {
            total += (key.len() + value.len()) as u64;
            if total >= limit {
                break;
            }
        }
        Ok(total)
    }

    /// Stores rows that are in ascending key order and all new to their range, fast.
    ///
    /// Outside the prefix contract: the rows may survive a crash that loses writes made
    /// before, and the caller must hold the range for itself. The fallback writes batches.
    ///
    /// # Errors
    /// As [`KvEngine::write`].
    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        let mut batch = self.write_batch();
        for (key, value) in rows {
            batch.put(cf, &key, &value);
            if batch.size_bytes() >= 1 << 20 {
                let full = std::mem::replace(&mut batch, self.write_batch());
                self.write(full, Durability::Buffered)?;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.write(batch, Durability::Buffered) }
    }

    /// Gives space of removed keys in `range` back, as far as the engine can.
    ///
    /// # Errors
    /// If the engine fails at it; the data is unharmed.
    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()> {
        let _ = (cf, range);
        Ok(())
    }

    /// Figures about the engine.
    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}
