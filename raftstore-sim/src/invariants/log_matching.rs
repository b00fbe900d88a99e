//! Committed logs never differ (Raft dissertation 3.2, "Log Matching" and "State Machine
//! Safety"): an index of a region is committed with one term and one payload only.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_proto::{Body, Cf, Command, Entry, Operation, RegionId};

use super::Violation;

/// A change of data that a committed entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Put(Cf, Bytes, Bytes),
    Delete(Cf, Bytes),
    DeleteRange(Cf, Bytes, Bytes),
}

/// A committed entry as it was seen first.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
    changes: Vec<Change>,
}

/// All committed entries of all regions.
#[derive(Debug, Default)]
pub struct Ledger {
    regions: BTreeMap<u64, RegionLedger>,
}

#[derive(Debug)]
struct RegionLedger {
    /// Index of the first entry in `entries`; they are consecutive.
    first: u64,
    entries: Vec<Committed>,
}

/// Rows of a region in key order.
pub(super) type Rows = BTreeMap<(Cf, Bytes), Bytes>;

impl Ledger {
    /// Takes note of an entry that a replica was told to be committed. Gives whether it is
    /// the first to say so.
    ///
    /// # Errors
    /// If another entry was committed at that index, or if entries before it are missing.
    pub fn record(&mut self, store: u64, region: u64, entry: &Entry) -> Result<bool, Violation> {
        let ledger = self
            .regions
            .entry(region)
            .or_insert_with(|| RegionLedger { first: entry.index(), entries: Vec::new() });
        let index = entry.index();
        let fault = |detail: String| Violation::new("log matching", detail);
        let next = ledger.first + ledger.entries.len() as u64;
        if index > next || index < ledger.first {
            return Err(fault(format!(
                "store {store}: region {region} commits index {index}, but {next} is next"
            )));
        }
        if index == next {
            ledger.entries.push(Committed { entry: entry.clone(), changes: changes(entry) });
            return Ok(true);
        }
        let position = usize::try_from(index - ledger.first).expect("less than the length");
        let known = &ledger.entries[position].entry;
        if known.term() == entry.term()
            && known.kind() == entry.kind()
            && known.data() == entry.data()
        {
            Ok(false)
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

    /// The last committed index that was seen; 0 if none was.
    #[must_use]
    pub fn last(&self, region: u64) -> u64 {
        self.regions
            .get(&region)
            .map_or(0, |ledger| (ledger.first + ledger.entries.len() as u64).saturating_sub(1))
    }

    /// The committed entry at `index`, if it was seen.
    #[must_use]
    pub fn entry(&self, region: u64, index: u64) -> Option<&Entry> {
        let ledger = self.regions.get(&region)?;
        let position = usize::try_from(index.checked_sub(ledger.first)?).ok()?;
        ledger.entries.get(position).map(|committed| &committed.entry)
    }

    /// The data of a region right after entry `index`.
    #[must_use]
    pub fn rows_at(&self, region: u64, index: u64) -> Rows {
        let mut rows = Rows::new();
        let Some(ledger) = self.regions.get(&region) else { return rows };
        let count = usize::try_from((index + 1).saturating_sub(ledger.first)).unwrap_or(usize::MAX);
        for change in ledger.entries.iter().take(count).flat_map(|committed| &committed.changes) {
            change.apply(&mut rows);
        }
        rows
    }
}

impl Change {
    fn apply(&self, rows: &mut Rows) {
        match self {
            Self::Put(cf, key, value) => {
                rows.insert((*cf, key.clone()), value.clone());
            }
            Self::Delete(cf, key) => {
                rows.remove(&(*cf, key.clone()));
            }
            Self::DeleteRange(cf, start, end) => rows.retain(|(family, key), _| {
                family != cf || key < start || (!end.is_empty() && key >= end)
            }),
        }
    }
}

/// What an entry does to the data. Simulated regions keep their range, so an executed
/// write is never refused for its epoch; one that is refused for a key has no effect at
/// all, and the workload sends none.
fn changes(entry: &Entry) -> Vec<Change> {
    let Ok(command) = raftstore_proto::wire::decode_command(entry.data()) else {
        return Vec::new();
    };
    let Command { body: Body::Operations(operations), .. } = command else { return Vec::new() };
    operations
        .into_iter()
        .filter_map(|operation| match operation {
            Operation::Put { cf, key, value } => Some(Change::Put(cf, key, value)),
            Operation::Delete { cf, key } => Some(Change::Delete(cf, key)),
            Operation::DeleteRange { cf, start_key, end_key } => {
                Some(Change::DeleteRange(cf, start_key, end_key))
            }
            Operation::Get { .. } | Operation::Snap | Operation::Invalid { .. } => None,
        })
        .collect()
}

/// The region's number as an id.
///
/// # Panics
/// If it is 0.
#[must_use]
pub(super) fn region_id(region: u64) -> RegionId {
    RegionId::must(region)
}
