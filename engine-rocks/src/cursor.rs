//! A walk over one family, on RocksDB's raw iterator.

use engine_traits::{Cursor, Direction, Range, Result};
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use crate::error::during;

/// RocksDB's iterator over a moment that lives for `'a`.
pub(crate) type Rows<'a> = DBRawIteratorWithThreadMode<'a, DB>;

/// Options of an iterator that stays in `range`, which is not empty.
pub(crate) fn bounded(range: Range<'_>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(range.start);
    if !range.end.is_empty() {
        options.set_iterate_upper_bound(range.end);
    }
    options
}

/// Where the iterator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the next row, if there is one.
    Before,
    /// At the row handed out last.
    At,
    /// Past the last row.
    Ended,
}

pub(crate) struct RocksCursor<'a> {
    /// `None` if the range is empty.
    rows: Option<Rows<'a>>,
    direction: Direction,
    start: Vec<u8>,
    /// Empty: after every key.
    end: Vec<u8>,
    place: Place,
}

impl<'a> RocksCursor<'a> {
    /// `rows` was made with [`bounded`]; it is `None` if the range is empty.
    pub(crate) fn new(rows: Option<Rows<'a>>, range: Range<'_>, direction: Direction) -> Self {
        let mut cursor = Self {
            rows,
            direction,
            start: range.start.to_vec(),
            end: range.end.to_vec(),
            place: Place::Before,
        };
        match (&mut cursor.rows, direction) {
            (Some(rows), Direction::Forward) => rows.seek_to_first(),
            (Some(rows), Direction::Backward) => rows.seek_to_last(),
            (None, _) => cursor.place = Place::Ended,
        }
        cursor
    }
}

impl Cursor for RocksCursor<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        match (self.place, self.direction) {
            (Place::Ended, _) => return Ok(None),
            (Place::Before, _) => {}
            (Place::At, Direction::Forward) => rows.next(),
            (Place::At, Direction::Backward) => rows.prev(),
        }
        if !rows.valid() {
            // An end that is an error stays one: the place does not change.
            rows.status().map_err(during("moving a cursor"))?;
            self.place = Place::Ended;
            return Ok(None);
        }
        self.place = Place::At;
        Ok(rows.item())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let range = Range::new(&self.start, &self.end);
        self.place = Place::Before;
        match self.direction {
            Direction::Forward if range.contains(key.max(range.start)) => {
                rows.seek(key.max(range.start));
            }
            Direction::Backward if !range.end.is_empty() && key >= range.end => rows.seek_to_last(),
            Direction::Backward if key >= range.start => rows.seek_for_prev(key),
            Direction::Forward | Direction::Backward => self.place = Place::Ended,
        }
        Ok(())
    }
}
