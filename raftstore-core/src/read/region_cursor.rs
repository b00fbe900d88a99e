//! A walk over one region, both ways, as if the engine held nothing else.
//!
//! An engine's cursor goes one way. This one holds up to two of them, opened when first
//! needed, and the row it stands at; after a turn the other one is brought to that row.

use std::fmt;

use engine_traits::{Cursor, Direction, Range, Snapshot};
use raftstore_proto::{Cf, Region};

use super::region_snapshot::{ReadError, check_position, failed};
use crate::keys;

/// A cursor over part of a region. Made by
/// [`RegionSnapshot::cursor`](super::RegionSnapshot::cursor).
///
/// Every move gives whether it has come to a row. A cursor that stands at no row stays
/// there, whichever way it is moved, until it is sent to a place.
///
/// # Errors
/// A move that fails leaves the cursor where it was and may be tried again. Failing is
/// never the same as having no row (H47).
pub struct RegionCursor<'a, S: Snapshot + ?Sized = dyn Snapshot> {
    snapshot: &'a S,
    region: &'a Region,
    cf: Cf,
    /// First data key, inclusive.
    start: Vec<u8>,
    /// End data key, exclusive.
    end: Vec<u8>,
    forward: Option<Box<dyn Cursor + 'a>>,
    backward: Option<Box<dyn Cursor + 'a>>,
    /// The way in which an engine cursor stands right behind `row`.
    ready: Option<Direction>,
    is_valid: bool,
    row: Row,
}

/// The row a cursor stands at, in memory that is used again.
#[derive(Debug, Default)]
struct Row {
    /// Its data key.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Row {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.value.clear();
        self.value.extend_from_slice(value);
    }
}

impl<S: Snapshot + ?Sized> fmt::Debug for RegionCursor<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionCursor")
            .field("region", &self.region.id)
            .field("cf", &self.cf)
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

impl<'a, S: Snapshot + ?Sized> RegionCursor<'a, S> {
    pub(super) fn new(
        snapshot: &'a S,
        region: &'a Region,
        cf: Cf,
        start: Vec<u8>,
        end: Vec<u8>,
    ) -> Self {
        Self {
            snapshot,
            region,
            cf,
            start,
            end,
            forward: None,
            backward: None,
            ready: None,
            is_valid: false,
            row: Row::default(),
        }
    }

    /// Whether the cursor stands at a row.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.is_valid
    }

    /// The user key it stands at.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.is_valid.then(|| keys::origin_key(&self.row.key))
    }

    /// The value it stands at.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.is_valid.then_some(&self.row.value)
    }

    /// Goes to the first row.
    ///
    /// # Errors
    /// If the engine cannot be read.
    pub fn seek_to_first(&mut self) -> Result<bool, ReadError> {
        let start = self.start.clone();
        self.place(Direction::Forward, &start)
    }

    /// Goes to the last row.
    ///
    /// # Errors
    /// If the engine cannot be read.
    pub fn seek_to_last(&mut self) -> Result<bool, ReadError> {
        let end = self.end.clone();
        self.place(Direction::Backward, &end)
    }

    /// Goes to the first row at or after a user key. At the region's end there is none.
    ///
    /// # Errors
    /// `KeyNotInRegion` if the key lies outside of the region, its end not counting as
    /// outside; or what the engine says.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool, ReadError> {
        check_position(key, self.region)?;
        self.place(Direction::Forward, &keys::data_key(key))
    }

    /// Goes to the last row at or before a user key. At the region's end that is its last.
    ///
    /// # Errors
    /// As [`RegionCursor::seek`].
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, ReadError> {
        check_position(key, self.region)?;
        self.place(Direction::Backward, &keys::data_key(key))
    }

    /// Goes to the next row.
    ///
    /// # Errors
    /// If the engine cannot be read.
    #[expect(clippy::should_implement_trait, reason = "a row is lent, which no iterator can")]
    pub fn next(&mut self) -> Result<bool, ReadError> {
        self.step(Direction::Forward)
    }

    /// Goes to the row before.
    ///
    /// # Errors
    /// If the engine cannot be read.
    pub fn prev(&mut self) -> Result<bool, ReadError> {
        self.step(Direction::Backward)
    }

    /// Goes to the first row at or after `target`, a data key, in `direction`.
    fn place(&mut self, direction: Direction, target: &[u8]) -> Result<bool, ReadError> {
        self.ready = None;
        let failed = || failed(self.region.id);
        let cursor = engine_cursor(
            match direction {
                Direction::Forward => &mut self.forward,
                Direction::Backward => &mut self.backward,
            },
            || {
                let range = Range::new(&self.start, &self.end);
                self.snapshot.cursor(self.cf, range, direction).map_err(failed())
            },
        )?;
        cursor.seek(target).map_err(failed())?;
        let found = cursor.next().map_err(failed())?;
        self.is_valid = found.is_some();
        if let Some((key, value)) = found {
            self.row.set(key, value);
            self.ready = Some(direction);
        }
        Ok(self.is_valid)
    }

    fn step(&mut self, direction: Direction) -> Result<bool, ReadError> {
        if !self.is_valid {
            return Ok(false);
        }
        if self.ready != Some(direction) {
            // Brings the engine's cursor of this direction to the row; the snapshot still
            // has it.
            let here = self.row.key.clone();
            self.place(direction, &here)?;
            debug_assert!(self.row.key == here, "a snapshot lost a row");
        }
        self.ready = None;
        let failed = || failed(self.region.id);
        let cursor = match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        };
        let cursor = cursor.as_mut().expect("placed before it is stepped");
        let found = cursor.next().map_err(failed())?;
        self.is_valid = found.is_some();
        if let Some((key, value)) = found {
            self.row.set(key, value);
            self.ready = Some(direction);
        }
        Ok(self.is_valid)
    }
}

/// The cursor in `slot`, opened if there is none.
fn engine_cursor<'s, 'a>(
    slot: &'s mut Option<Box<dyn Cursor + 'a>>,
    open: impl FnOnce() -> Result<Box<dyn Cursor + 'a>, ReadError>,
) -> Result<&'s mut Box<dyn Cursor + 'a>, ReadError> {
    if slot.is_none() {
        *slot = Some(open()?);
    }
    Ok(slot.as_mut().expect("just filled"))
}
