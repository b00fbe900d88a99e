//! A raft log on any data engine: which keys its records have, and what an append must
//! delete. What a record's bytes look like is decided by the wire form of the vocabulary.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raftstore_proto::wire::record::{
    decode_entry, decode_local_state, encode_entry, encode_local_state,
};
use raftstore_proto::{Cf, Entry, LocalState, RegionId};

use crate::log_shape::{Bounds, LogShapes, append_bounds};
use crate::{
    Cursor, Direction, Durability, Error, KvEngine, LogStats, RaftEngine, RaftLogBatch, Range,
    Result, WriteBatch,
};

const CF: Cf = Cf::Default;
const ENTRY: u8 = 1;
const STATE: u8 = 2;
/// First suffix byte that is not ours.
const BEYOND: u8 = 3;
/// Up to this many entries are looked up one by one. A cursor costs a few lookups to open,
/// so at half of it short reads pay for cursors, at double medium ones pay for lookups.
const POINT_READS_MAX: u64 = 8;
/// Up to this many entries are deleted one by one; more leave one range deletion, which
/// costs some engines a marker that later reads step over.
const POINT_DELETES_MAX: u64 = 8;

/// The raft logs of a store in column family `default` of a data engine of their own.
///
/// *Shape*: entry `01 02 <region> 01 <index>`, state `01 02 <region> 02`, numbers big-endian
/// u64. Clones share what is known of the logs' bounds, so an engine must be wrapped once
/// and the wrapper cloned: nobody else may write these keys.
pub struct KvRaftLog<E> {
    engine: E,
    /// First and last index of the regions met so far. Held over a write, so that writes of
    /// a region are judged in the order in which they reach the engine.
    bounds: Arc<Mutex<BTreeMap<RegionId, Bounds>>>,
}

impl<E: Clone> Clone for KvRaftLog<E> {
    fn clone(&self) -> Self {
        Self { engine: self.engine.clone(), bounds: Arc::clone(&self.bounds) }
    }
}

impl<E> fmt::Debug for KvRaftLog<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvRaftLog").finish_non_exhaustive()
    }
}

enum Op {
    Append { region: RegionId, first: u64, records: Vec<Vec<u8>> },
    TruncatePrefix { region: RegionId, index: u64 },
    PutRaftState { region: RegionId, record: Vec<u8> },
    ClearRegion { region: RegionId },
}

/// A batch of [`KvRaftLog`]. Entries are encoded when they are added, on the caller's
/// thread; keys to delete are known only when it is written.
#[derive(Default)]
pub struct KvLogBatch {
    ops: Vec<Op>,
    size_bytes: usize,
    /// Why the batch must be refused, if its maker broke an append's shape.
    defect: Option<String>,
}

impl fmt::Debug for KvLogBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvLogBatch")
            .field("ops", &self.ops.len())
            .field("size_bytes", &self.size_bytes)
            .field("defect", &self.defect)
            .finish_non_exhaustive()
    }
}

impl RaftLogBatch for KvLogBatch {
    fn append(&mut self, region: RegionId, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        match append_bounds(region, entries) {
            Ok((first, _)) => {
                let records: Vec<_> =
                    entries.iter().map(|entry| encode_entry(region, entry)).collect();
                self.size_bytes += records.iter().map(|record| record.len() + 19).sum::<usize>();
                self.ops.push(Op::Append { region, first, records });
            }
            Err(defect) => {
                self.defect.get_or_insert(defect);
            }
        }
    }

    fn truncate_prefix(&mut self, region: RegionId, index: u64) {
        self.size_bytes += 19;
        self.ops.push(Op::TruncatePrefix { region, index });
    }

    fn put_raft_state(&mut self, region: RegionId, state: &LocalState) {
        let record = encode_local_state(region, state);
        self.size_bytes += record.len() + 11;
        self.ops.push(Op::PutRaftState { region, record });
    }

    fn clear_region(&mut self, region: RegionId) {
        self.size_bytes += 11;
        self.ops.push(Op::ClearRegion { region });
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.defect.is_none()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

fn region_key(region: RegionId, suffix: u8) -> [u8; 11] {
    let mut key = [0; 11];
    key[..2].copy_from_slice(&[1, 2]);
    key[2..10].copy_from_slice(&region.get().to_be_bytes());
    key[10] = suffix;
    key
}

fn entry_key(region: RegionId, index: u64) -> [u8; 19] {
    let mut key = [0; 19];
    key[..11].copy_from_slice(&region_key(region, ENTRY));
    key[11..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The key of an entry, or of the state for `None`.
#[cfg(feature = "conformance")]
pub(crate) fn record_key(region: RegionId, index: Option<u64>) -> Vec<u8> {
    match index {
        Some(index) => entry_key(region, index).to_vec(),
        None => region_key(region, STATE).to_vec(),
    }
}

/// The end, exclusive, of the keys of entries up to and including `last`.
fn entries_end(region: RegionId, last: u64) -> Vec<u8> {
    match last.checked_add(1) {
        Some(index) => entry_key(region, index).to_vec(),
        None => region_key(region, STATE).to_vec(),
    }
}

/// What a key of a log is for.
enum Place {
    Entry(u64),
    State,
}

/// Takes a key apart, checking length, prefix and suffix; `None` if it is not ours (H64).
fn parse_key(key: &[u8]) -> Option<(u64, Place)> {
    let rest = key.strip_prefix(&[1, 2])?;
    let (region, rest) = rest.split_first_chunk::<8>()?;
    let place = match rest {
        [ENTRY, index @ ..] => Place::Entry(u64::from_be_bytes(index.try_into().ok()?)),
        [STATE] => Place::State,
        _ => return None,
    };
    Some((u64::from_be_bytes(*region), place))
}

impl<E: KvEngine> KvRaftLog<E> {
    /// Wraps an engine. Reads nothing yet.
    #[must_use]
    pub fn new(engine: E) -> Self {
        Self { engine, bounds: Arc::default() }
    }

    /// The engine below.
    #[must_use]
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine below, giving up the wrapper.
    #[must_use]
    pub fn into_engine(self) -> E {
        self.engine
    }

    fn corrupt(&self, region: RegionId, place: String, detail: String) -> Error {
        Error::CorruptLog { engine: self.engine.name(), region, place, detail }
    }

    /// Says whose log it is when the engine below met damage.
    fn of_region(&self, region: RegionId, error: Error) -> Error {
        match error {
            Error::Corrupt { place, detail, .. } => self.corrupt(region, place, detail),
            other => other,
        }
    }

    fn decode(&self, region: RegionId, index: u64, record: Bytes) -> Result<Entry> {
        let entry = decode_entry(region, record)
            .map_err(|error| self.corrupt(region, format!("entry {index}"), error.to_string()))?;
        if entry.index() == index {
            return Ok(entry);
        }
        let detail = format!("holds entry {}", entry.index());
        Err(self.corrupt(region, format!("entry {index}"), detail))
    }

    fn entries_cursor(
        &self,
        region: RegionId,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + '_>> {
        self.engine.cursor(CF, range, direction).map_err(|error| self.of_region(region, error))
    }

    /// First and last stored index, from the engine.
    fn stored_bounds(&self, region: RegionId) -> Result<Bounds> {
        let (start, end) = (region_key(region, ENTRY), region_key(region, STATE));
        let mut found = [0; 2];
        for (slot, direction) in found.iter_mut().zip([Direction::Forward, Direction::Backward]) {
            let mut cursor = self.entries_cursor(region, Range::new(&start, &end), direction)?;
            let row = cursor.next().map_err(|error| self.of_region(region, error))?;
            match row.map(|(key, _)| parse_key(key)) {
                None => return Ok(None),
                Some(Some((_, Place::Entry(index)))) => *slot = index,
                Some(_) => {
                    let detail = "a key among the entries is not an entry's".to_owned();
                    return Err(self.corrupt(region, "log".to_owned(), detail));
                }
            }
        }
        Ok(Some((found[0], found[1])))
    }

    fn delete_entries(batch: &mut E::WriteBatch, region: RegionId, first: u64, last: u64) {
        if last.saturating_sub(first) < POINT_DELETES_MAX {
            for index in first..=last {
                batch.delete(CF, &entry_key(region, index));
            }
        } else {
            let (start, end) = (entry_key(region, first), entries_end(region, last));
            batch.delete_range(CF, Range::new(&start, &end));
        }
    }

    /// The operations below for those of the batch; refuses holes.
    fn translate(
        &self,
        ops: &[Op],
        known: &BTreeMap<RegionId, Bounds>,
        shapes: &mut LogShapes,
    ) -> Result<E::WriteBatch> {
        let stored = |region: RegionId| match known.get(&region) {
            Some(bounds) => Ok(*bounds),
            None => self.stored_bounds(region),
        };
        let mut batch = self.engine.write_batch();
        for op in ops {
            match op {
                Op::Append { region, first, records } => {
                    let before = shapes.bounds(*region, &stored)?;
                    let last = first + (records.len() as u64 - 1);
                    let fit = shapes.append(*region, (*first, last), &stored)?;
                    fit.map_err(|detail| self.invalid(detail))?;
                    for (index, record) in (*first..=last).zip(records) {
                        batch.put(CF, &entry_key(*region, index), record);
                    }
                    if let Some((old_first, old_last)) = before
                        && old_last > last
                    {
                        let above = old_first.max(last + 1);
                        Self::delete_entries(&mut batch, *region, above, old_last);
                    }
                }
                Op::TruncatePrefix { region, index } => {
                    if let Some((first, last)) = shapes.bounds(*region, &stored)?
                        && first < *index
                    {
                        let below = last.min(*index - 1);
                        Self::delete_entries(&mut batch, *region, first, below);
                    }
                    shapes.truncate_prefix(*region, *index, &stored)?;
                }
                Op::PutRaftState { region, record } => {
                    batch.put(CF, &region_key(*region, STATE), record);
                }
                Op::ClearRegion { region } => {
                    let (start, end) = (region_key(*region, ENTRY), region_key(*region, BEYOND));
                    batch.delete_range(CF, Range::new(&start, &end));
                    shapes.clear_region(*region);
                }
            }
        }
        Ok(batch)
    }

    fn invalid(&self, detail: String) -> Error {
        Error::InvalidBatch { engine: self.engine.name(), detail }
    }

    fn entries_by_cursor(
        &self,
        region: RegionId,
        low: u64,
        high: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let (start, end) = (entry_key(region, low), entry_key(region, high));
        let mut cursor =
            self.entries_cursor(region, Range::new(&start, &end), Direction::Forward)?;
        for index in low..high {
            let row = cursor.next().map_err(|error| self.of_region(region, error))?;
            let Some((key, record)) = row else { break };
            if key != entry_key(region, index) {
                break;
            }
            if !visit(self.decode(region, index, Bytes::copy_from_slice(record))?) {
                break;
            }
        }
        Ok(())
    }
}

impl<E: KvEngine> RaftEngine for KvRaftLog<E> {
    type LogBatch = KvLogBatch;

    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        let record = self
            .engine
            .get(CF, &region_key(region, STATE))
            .map_err(|error| self.of_region(region, error))?;
        let Some(record) = record else { return Ok(None) };
        match decode_local_state(region, &record) {
            Ok(state) => Ok(Some(state)),
            Err(error) => Err(self.corrupt(region, "raft state".to_owned(), error.to_string())),
        }
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        let record = self
            .engine
            .get(CF, &entry_key(region, index))
            .map_err(|error| self.of_region(region, error))?;
        record.map(|record| self.decode(region, index, record)).transpose()
    }

    fn entries(
        &self,
        region: RegionId,
        low: u64,
        high: u64,
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize> {
        let (mut pushed, mut bytes) = (0, 0_u64);
        let mut visit = |entry: Entry| {
            bytes = bytes.saturating_add(entry.payload_len() as u64);
            if pushed > 0 && bytes > max_bytes {
                return false;
            }
            out.push(entry);
            pushed += 1;
            true
        };
        if high.saturating_sub(low) > POINT_READS_MAX {
            self.entries_by_cursor(region, low, high, &mut visit)?;
        } else {
            for index in low..high {
                let Some(entry) = self.entry(region, index)? else { break };
                if !visit(entry) {
                    break;
                }
            }
        }
        Ok(pushed)
    }

    fn regions(&self) -> Result<Vec<RegionId>> {
        let mut regions = Vec::new();
        let mut cursor =
            self.engine.cursor(CF, Range::new(&[1, 2], &[1, 3]), Direction::Forward)?;
        loop {
            let Some((key, _)) = cursor.next()? else { break };
            let Some((number, _)) = parse_key(key) else { continue };
            let Some(region) = RegionId::new(number) else {
                return Err(Error::Corrupt {
                    engine: self.engine.name(),
                    place: "a raft log key".to_owned(),
                    detail: "region id 0".to_owned(),
                });
            };
            regions.push(region);
            cursor.seek(&region_key(region, BEYOND))?;
        }
        Ok(regions)
    }

    fn log_batch(&self) -> KvLogBatch {
        KvLogBatch::default()
    }

    fn write(&self, batch: KvLogBatch, durability: Durability) -> Result<()> {
        if let Some(defect) = batch.defect {
            return Err(self.invalid(defect));
        }
        let mut known = self.bounds.lock();
        let mut shapes = LogShapes::default();
        let below = self.translate(&batch.ops, &known, &mut shapes)?;
        let written = self.engine.write(below, durability);
        for (region, bounds) in shapes.into_regions() {
            match (&written, bounds) {
                (Ok(()), Some(_)) => {
                    known.insert(region, bounds);
                }
                // An empty log is looked up again when it is next asked for, so that
                // regions that are gone take no memory.
                (Ok(()), None) | (Err(_), _) => {
                    known.remove(&region);
                }
            }
        }
        written
    }

    fn sync(&self) -> Result<()> {
        self.engine.sync()
    }

    fn stats(&self) -> LogStats {
        let stats = self.engine.stats();
        LogStats {
            used_bytes: stats.used_bytes,
            written_bytes: stats.written_bytes,
            syncs: stats.syncs,
        }
    }
}
