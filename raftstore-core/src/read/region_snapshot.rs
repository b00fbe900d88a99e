//! One region at one moment, as if the engine held nothing else: user keys go in and come
//! out, and nothing of a neighbour is ever seen.

use std::{fmt, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use engine_traits::{Direction, Range, Snapshot};
use raftstore_proto::{
    Cf, DecodeError, Region, RegionError, RegionId, wire::record::decode_apply_state,
};

use super::region_cursor::RegionCursor;
use crate::keys;

/// Why a read of a region failed. Never to be taken for a missing key or an end of rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The request does not fit the region. The reason says what to do, and is ready to be
    /// handed to a client.
    #[error("read refused")]
    Refused(#[source] RegionError),
    /// The engine cannot be read (H47).
    #[error("region {region} cannot be read")]
    Engine {
        /// The region.
        region: RegionId,
        /// What the engine said.
        #[source]
        source: engine_traits::Error,
    },
    /// A record of the region cannot be understood.
    #[error("a record of region {region} is damaged")]
    Record {
        /// The region.
        region: RegionId,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

/// A region's data as of one moment. Cheap to clone; copies share the engine's snapshot,
/// which is held until the last of them is gone.
///
/// `S` is the engine's own kind of snapshot; without it, any engine's.
pub struct RegionSnapshot<S: Snapshot + ?Sized = dyn Snapshot> {
    snapshot: Arc<S>,
    region: Arc<Region>,
}

impl<S: Snapshot + ?Sized> Clone for RegionSnapshot<S> {
    fn clone(&self) -> Self {
        Self { snapshot: Arc::clone(&self.snapshot), region: Arc::clone(&self.region) }
    }
}

impl<S: Snapshot + ?Sized> fmt::Debug for RegionSnapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionSnapshot").field("region", &self.region).finish_non_exhaustive()
    }
}

impl<S: Snapshot> RegionSnapshot<S> {
    /// The same for any engine.
    #[must_use]
    pub fn erase(self) -> RegionSnapshot {
        RegionSnapshot { snapshot: self.snapshot, region: self.region }
    }
}

impl<S: Snapshot + ?Sized> RegionSnapshot<S> {
    /// What `snapshot` holds of `region`.
    ///
    /// It is up to the caller that the two belong together: that the engine's snapshot was
    /// taken while this store was allowed to read the region as it is given here. The
    /// reader of this crate and the store itself see to that (H41).
    ///
    /// # Panics
    /// If the region is not initialised: its range is then unknown.
    #[must_use]
    pub fn new(snapshot: Arc<S>, region: Arc<Region>) -> Self {
        assert!(region.is_initialized(), "snapshot of the uninitialised region {}", region.id);
        Self { snapshot, region }
    }

    /// The region as of the moment.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// First key of the region, inclusive.
    #[must_use]
    pub fn start_key(&self) -> &[u8] {
        &self.region.start_key
    }

    /// End of the region, exclusive; empty is after every key.
    #[must_use]
    pub fn end_key(&self) -> &[u8] {
        &self.region.end_key
    }

    /// Index of the last log entry that the snapshot contains. A replica that has applied it
    /// shows everything that was acknowledged when this snapshot was asked for.
    ///
    /// # Errors
    /// If the engine cannot be read, or holds no readable record of it.
    pub fn applied_index(&self) -> Result<u64, ReadError> {
        let region = self.region.id;
        let key = keys::apply_state_key(region);
        let record = self.snapshot.get(Cf::Raft, &key).map_err(failed(region))?;
        let state = record.ok_or(DecodeError::Missing { what: "apply state" });
        let state = state.and_then(|bytes| decode_apply_state(region, &bytes));
        state.map(|state| state.applied).map_err(|source| ReadError::Record { region, source })
    }

    /// The value under a user key.
    ///
    /// # Errors
    /// `KeyNotInRegion`, or what the engine says.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        data_family(cf)?;
        if !self.region.contains(key) {
            return Err(not_in_region(key, &self.region));
        }
        self.snapshot.get(cf, &keys::data_key(key)).map_err(failed(self.region.id))
    }

    /// A cursor over the user keys of `bounds` that are in the region; an empty start or end
    /// is that of the region, as is one that lies outside of it. It stands nowhere yet.
    ///
    /// # Errors
    /// If the family is not one for user data.
    pub fn cursor(&self, cf: Cf, bounds: Range<'_>) -> Result<RegionCursor<'_, S>, ReadError> {
        data_family(cf)?;
        let (start, end) = self.clamp(bounds);
        Ok(RegionCursor::new(&self.snapshot, &self.region, cf, start, end))
    }

    /// Shows the rows of `range`, in order of `direction`, until `visit` breaks.
    ///
    /// The scan begins in the region: the key it begins at, `range.start` going forward and
    /// `range.end` going backward, must not lie outside of it (the region's end is inside).
    /// It ends with the region, even if the range goes on: what is beyond is for the
    /// caller to ask of the neighbour. An empty start or end is that of the region.
    ///
    /// # Errors
    /// `KeyNotInRegion` for where it begins, or what the engine says. Rows shown before an
    /// error are good, those after it are unknown.
    pub fn scan(
        &self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        data_family(cf)?;
        let begin = match direction {
            Direction::Forward => range.start,
            Direction::Backward => range.end,
        };
        if !begin.is_empty() {
            check_position(begin, &self.region)?;
        }
        let (start, end) = self.clamp(range);
        let failed = || failed(self.region.id);
        let mut cursor =
            self.snapshot.cursor(cf, Range::new(&start, &end), direction).map_err(failed())?;
        while let Some((key, value)) = cursor.next().map_err(failed())? {
            if visit(keys::origin_key(key), value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The first `limit` rows of a [`scan`](Self::scan).
    ///
    /// # Errors
    /// As `scan`; no rows are given then.
    pub fn rows(
        &self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.scan(cf, range, direction, |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    /// The data keys `[start, end)` of the part of `range` that is in the region.
    fn clamp(&self, range: Range<'_>) -> (Vec<u8>, Vec<u8>) {
        let region = &self.region;
        let start = range.start.max(&region.start_key);
        let end = if range.end.is_empty() {
            &region.end_key
        } else if region.end_key.is_empty() {
            range.end
        } else {
            range.end.min(&region.end_key)
        };
        (keys::data_key(start), keys::data_end_key(end))
    }
}

/// A cursor may stand at a key of the region, or at its end.
pub(super) fn check_position(key: &[u8], region: &Region) -> Result<(), ReadError> {
    let reached = key >= region.start_key.as_ref();
    let beyond = !region.end_key.is_empty() && key > region.end_key.as_ref();
    if reached && !beyond { Ok(()) } else { Err(not_in_region(key, region)) }
}

pub(super) fn failed(region: RegionId) -> impl FnOnce(engine_traits::Error) -> ReadError {
    move |source| ReadError::Engine { region, source }
}

fn not_in_region(key: &[u8], region: &Region) -> ReadError {
    ReadError::Refused(RegionError::KeyNotInRegion {
        key: Bytes::copy_from_slice(key),
        region: region.clone(),
    })
}

fn data_family(cf: Cf) -> Result<(), ReadError> {
    if cf.is_data() {
        return Ok(());
    }
    let why = "not a column family for user data";
    Err(ReadError::Refused(RegionError::InvalidCommand { why }))
}
