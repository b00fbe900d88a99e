//! Committed logs never differ (Raft dissertation 3.2, "Log Matching" and "State Machine
//! Safety"): an index of a region is committed with one term and one payload only, and what
//! it does to the region is the same on every replica.

use std::collections::BTreeMap;

use raftstore_proto::{Entry, Region, RegionId};

use super::{
    Violation,
    effects::{Change, Effect, Rows, effect},
};

/// Index of the entry before the first of a region's log.
const BEFORE_FIRST: u64 = 5;

/// A committed entry as it was seen first.
#[derive(Clone, Debug)]
struct Committed {
    entry: Entry,
    changes: Vec<Change>,
}

/// All committed entries of all regions, and what they make of them.
#[derive(Debug, Default)]
pub struct Ledger {
    regions: BTreeMap<u64, RegionLedger>,
}

#[derive(Debug)]
struct RegionLedger {
    /// Index of the first entry in `entries`; they are consecutive.
    first: u64,
    entries: Vec<Committed>,
    /// The rows before the first entry; `None` if they are not known.
    born_with: Option<Rows>,
    /// The region from an index on, ascending; empty while that is not known.
    shapes: Vec<(u64, Region)>,
}

impl RegionLedger {
    const fn unknown(first: u64) -> Self {
        Self { first, entries: Vec::new(), born_with: None, shapes: Vec::new() }
    }

    fn born(region: Region, rows: Option<Rows>) -> Self {
        Self {
            first: BEFORE_FIRST + 1,
            entries: Vec::new(),
            born_with: rows,
            shapes: vec![(BEFORE_FIRST, region)],
        }
    }

    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

/// What is new about a committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Another replica said so before.
    Known,
    /// Nobody did. Regions that it has made, in key order; none, but for a split.
    New(Vec<Region>),
}

impl Ledger {
    /// A region begins, with nothing in its log. If nobody has made it, it has no data.
    pub fn begin(&mut self, region: &Region) {
        self.regions.entry(region.id.get()).or_insert_with(|| {
            let rows = (region.epoch.version <= 1).then(Rows::new);
            RegionLedger::born(region.clone(), rows)
        });
    }

    /// Takes note of an entry that a replica was told to be committed.
    ///
    /// # Errors
    /// If another entry was committed at that index, or if entries before it are missing.
    pub fn record(
        &mut self,
        store: u64,
        region: u64,
        entry: &Entry,
    ) -> Result<Recorded, Violation> {
        let index = entry.index();
        let ledger = self.regions.entry(region).or_insert_with(|| RegionLedger::unknown(index));
        let fault = |detail: String| Violation::new("log matching", detail);
        let next = ledger.next();
        if index > next || index < ledger.first {
            return Err(fault(format!(
                "store {store}: region {region} commits index {index}, but {next} is next"
            )));
        }
        if index == next {
            return Ok(Recorded::New(self.take_in(region, entry)));
        }
        let position = usize::try_from(index - ledger.first).expect("less than the length");
        let known = &ledger.entries[position].entry;
        if known.term() == entry.term()
            && known.kind() == entry.kind()
            && known.data() == entry.data()
        {
            Ok(Recorded::Known)
        } else {
            Err(fault(format!(
                "store {store}: region {region} commits index {index} with term {} and {} bytes, \
                 but it was committed with term {} and {} bytes",
                entry.term(),
                entry.data().len(),
                known.term(),
                known.data().len()
            )))
        }
    }

    /// Appends the next entry of a region; gives the regions it makes.
    fn take_in(&mut self, region: u64, entry: &Entry) -> Vec<Region> {
        let Some(ledger) = self.regions.get_mut(&region) else { return Vec::new() };
        let index = entry.index();
        let mut changes = Vec::new();
        let mut made = Vec::new();
        match effect(ledger.shapes.last().map(|(_, region)| region), entry) {
            Effect::Nothing => {}
            Effect::Data(data) => changes = data,
            Effect::Members(after) => ledger.shapes.push((index, after)),
            Effect::Split(derived, parts) => {
                let (start, end) = (derived.start_key.clone(), derived.end_key.clone());
                changes.push(Change::Keep(start, end));
                ledger.shapes.push((index, derived));
                made = parts;
            }
            Effect::Unknown => ledger.shapes.clear(),
        }
        let whole = if made.is_empty() { None } else { self.rows_at(region, index - 1) };
        for part in &made {
            let mut rows = whole.clone();
            if let Some(rows) = &mut rows {
                Change::Keep(part.start_key.clone(), part.end_key.clone()).apply(rows);
            }
            self.regions.insert(part.id.get(), RegionLedger::born(part.clone(), rows));
        }
        if let Some(ledger) = self.regions.get_mut(&region) {
            ledger.entries.push(Committed { entry: entry.clone(), changes });
        }
        made
    }

    /// The last committed index that was seen; 0 if none was.
    #[must_use]
    pub fn last(&self, region: u64) -> u64 {
        let ledger = self.regions.get(&region).filter(|ledger| !ledger.entries.is_empty());
        ledger.map_or(0, |ledger| ledger.next() - 1)
    }

    /// The committed entry at `index`, if it was seen.
    #[must_use]
    pub fn entry(&self, region: u64, index: u64) -> Option<&Entry> {
        let ledger = self.regions.get(&region)?;
        let position = usize::try_from(index.checked_sub(ledger.first)?).ok()?;
        ledger.entries.get(position).map(|committed| &committed.entry)
    }

    /// The data of a region right after entry `index`; `None` if it is not known with what
    /// the region began.
    #[must_use]
    pub fn rows_at(&self, region: u64, index: u64) -> Option<Rows> {
        let ledger = self.regions.get(&region)?;
        let mut rows = ledger.born_with.clone()?;
        let count = usize::try_from((index + 1).saturating_sub(ledger.first)).unwrap_or(usize::MAX);
        for change in ledger.entries.iter().take(count).flat_map(|committed| &committed.changes) {
            change.apply(&mut rows);
        }
        Some(rows)
    }

    /// The region right after entry `index`, where it is known.
    #[must_use]
    pub fn shape_at(&self, region: u64, index: u64) -> Option<&Region> {
        let shapes = &self.regions.get(&region)?.shapes;
        shapes.iter().rev().find(|(from, _)| *from <= index).map(|(_, region)| region)
    }

    /// The region as all its entries that were seen make it, where that is known.
    #[must_use]
    pub fn newest_shape(&self, region: u64) -> Option<&Region> {
        self.regions.get(&region)?.shapes.last().map(|(_, region)| region)
    }

    /// Whether entry `index` is known to change nothing about the region.
    ///
    /// # Errors
    /// If it is known to change something.
    pub fn check_refused(&self, store: u64, region: u64, index: u64) -> Result<(), Violation> {
        let shapes = self.regions.get(&region).map_or(&[][..], |ledger| &ledger.shapes);
        match shapes.iter().find(|(from, _)| *from == index) {
            Some((_, expected)) => Err(Violation::new(
                "entries change a region alike everywhere",
                format!(
                    "store {store}: index {index} changes nothing, where the log makes \
                     {expected:?}"
                ),
            )),
            None => Ok(()),
        }
    }

    /// Compares a region as a replica has it after executing entry `index` with what the
    /// log makes of it.
    ///
    /// # Errors
    /// If they differ.
    pub fn check_shape(&self, store: u64, index: u64, found: &Region) -> Result<(), Violation> {
        match self.shape_at(found.id.get(), index) {
            Some(expected) if expected != found => Err(Violation::new(
                "entries change a region alike everywhere",
                format!(
                    "store {store}: after index {index} it has {found:?}, where the log makes \
                     {expected:?}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// The region's number as an id.
///
/// # Panics
/// If it is 0.
#[must_use]
pub(super) fn region_id(region: u64) -> RegionId {
    RegionId::must(region)
}
