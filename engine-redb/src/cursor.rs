//! A walk over one family, in either direction, handing out rows where redb's pages hold them.

use std::ops::Bound;
use std::sync::Arc;

use engine_traits::{Cf, Cursor, Direction, Range, Result};
use redb::AccessGuard;

use crate::contain::contain;
use crate::error::{during, invalid_state};
use crate::record;
use crate::view::View;

type Rows = redb::Range<'static, &'static [u8], &'static [u8]>;
type Guard = AccessGuard<'static, &'static [u8]>;

/// A cursor over one moment of the engine.
pub(crate) struct RedbCursor {
    view: Arc<View>,
    cf: Cf,
    direction: Direction,
    start: Vec<u8>,
    /// Empty: after every key.
    end: Vec<u8>,
    /// `None` past the last row.
    rows: Option<Rows>,
    /// A row could not be read. Going on would skip it silently.
    failed: bool,
    /// What the last row handed out borrows.
    current: Option<(Guard, Guard)>,
    scratch: Vec<u8>,
}

impl RedbCursor {
    pub(crate) fn open(
        view: Arc<View>,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Self> {
        let rows = rows(&view, cf, range.bounds(), range.is_empty())?;
        Ok(Self {
            view,
            cf,
            direction,
            start: range.start.to_vec(),
            end: range.end.to_vec(),
            rows,
            failed: false,
            current: None,
            scratch: Vec::new(),
        })
    }
}

fn rows(
    view: &View,
    cf: Cf,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    empty: bool,
) -> Result<Option<Rows>> {
    if empty {
        return Ok(None);
    }
    contain("opening a cursor", || {
        let rows = view.table(cf).range::<&[u8]>(bounds).map_err(during("opening a cursor"))?;
        Ok(Some(rows))
    })
}

impl Cursor for RedbCursor {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.failed {
            return Err(invalid_state("a cursor that failed was moved on"));
        }
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        let direction = self.direction;
        let step = contain("moving a cursor", || {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            row.transpose().map_err(during("moving a cursor"))
        });
        // Taken back when a row has been read whole.
        self.failed = true;
        let Some(row) = step? else {
            self.failed = false;
            self.rows = None;
            self.current = None;
            return Ok(None);
        };
        let (key, stored) = self.current.insert(row);
        let key = key.value();
        let value = record::open(self.cf, key, stored.value(), &mut self.scratch)?;
        self.failed = false;
        Ok(Some((key, value)))
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.current = None;
        let range = Range::new(&self.start, &self.end);
        let (start, end) = range.bounds();
        let (bounds, empty) = match self.direction {
            Direction::Forward => {
                let from = key.max(range.start);
                ((Bound::Included(from), end), range.is_empty() || !range.contains(from))
            }
            Direction::Backward if range.end.is_empty() || key < range.end => {
                ((start, Bound::Included(key)), range.is_empty() || key < range.start)
            }
            Direction::Backward => ((start, end), range.is_empty()),
        };
        self.failed = true;
        self.rows = rows(&self.view, self.cf, bounds, empty)?;
        self.failed = false;
        Ok(())
    }
}
