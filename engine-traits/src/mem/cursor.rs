//! How the reference data engine walks a family: it holds one moment of it and fetches
//! rows in small runs, so that neither a lock nor a borrow outlives a call.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::device::Device;
use super::kv::{Family, Stored, readable};
use crate::{Cursor, Direction, Range, Result};

/// A run starts with one row, since many walks end there, and doubles up to this: at half
/// the lookups are felt in long walks, at double nothing is gained.
const RUN_MAX: usize = 64;

pub(super) struct MemCursor {
    device: Arc<Device>,
    generation: u64,
    family: Family,
    start: Bytes,
    end: Bytes,
    direction: Direction,
    /// The keys not fetched yet.
    rest: (Bound<Bytes>, Bound<Bytes>),
    fetched: VecDeque<(Bytes, Stored)>,
    run: usize,
    /// The row that `next` lent out.
    row: (Bytes, Bytes),
}

impl MemCursor {
    pub(super) fn new(
        device: Arc<Device>,
        generation: u64,
        family: Family,
        range: Range<'_>,
        direction: Direction,
    ) -> Self {
        let mut cursor = Self {
            device,
            generation,
            family,
            start: Bytes::copy_from_slice(range.start),
            end: Bytes::copy_from_slice(range.end),
            direction,
            rest: (Bound::Unbounded, Bound::Unbounded),
            fetched: VecDeque::new(),
            run: 1,
            row: (Bytes::new(), Bytes::new()),
        };
        cursor.rest = cursor.whole();
        cursor
    }

    fn whole(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        let (low, high) = Range::new(&self.start, &self.end).bounds();
        (low.map(Bytes::copy_from_slice), high.map(Bytes::copy_from_slice))
    }

    fn nothing(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        (Bound::Included(self.start.clone()), Bound::Excluded(self.start.clone()))
    }

    fn fetch(&mut self) {
        let low = self.rest.0.as_ref().map(|key| key.as_ref());
        let high = self.rest.1.as_ref().map(|key| key.as_ref());
        let rows = self.family.range::<[u8], _>((low, high));
        let owned = |(key, value): (&Bytes, &Stored)| (key.clone(), value.clone());
        match self.direction {
            Direction::Forward => self.fetched.extend(rows.take(self.run).map(owned)),
            Direction::Backward => self.fetched.extend(rows.rev().take(self.run).map(owned)),
        }
        let last = self.fetched.back().filter(|_| self.fetched.len() == self.run);
        match (last, self.direction) {
            (None, _) => self.rest = self.nothing(),
            (Some((key, _)), Direction::Forward) => self.rest.0 = Bound::Excluded(key.clone()),
            (Some((key, _)), Direction::Backward) => self.rest.1 = Bound::Excluded(key.clone()),
        }
        // A lower bound that excludes the very key the upper one excludes is not in order.
        if let (Bound::Excluded(low), Bound::Excluded(high)) = (&self.rest.0, &self.rest.1)
            && low >= high
        {
            self.rest = self.nothing();
        }
        self.run = (self.run * 2).min(RUN_MAX);
    }
}

impl Cursor for MemCursor {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.device.admit_read(self.generation, "next")?;
        if self.fetched.is_empty() {
            self.fetch();
        }
        let Some((key, stored)) = self.fetched.pop_front() else {
            return Ok(None);
        };
        let value = readable(&key, &stored)?;
        self.row = (key, value);
        Ok(Some((&self.row.0, &self.row.1)))
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.device.admit_read(self.generation, "seek")?;
        self.fetched.clear();
        self.run = 1;
        self.rest = self.whole();
        let range = Range::new(&self.start, &self.end);
        let past_end = !range.end.is_empty() && key >= range.end;
        if range.is_empty() {
            return Ok(());
        }
        match self.direction {
            Direction::Forward if past_end => self.rest = self.nothing(),
            Direction::Forward if key > range.start => {
                self.rest.0 = Bound::Included(Bytes::copy_from_slice(key));
            }
            Direction::Backward if key < range.start => self.rest = self.nothing(),
            Direction::Backward if !past_end => {
                self.rest.1 = Bound::Included(Bytes::copy_from_slice(key));
            }
            Direction::Forward | Direction::Backward => {}
        }
        Ok(())
    }
}
