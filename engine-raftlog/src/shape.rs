//! What is known of each region without asking raft-engine, and what a batch makes of it.

use std::collections::BTreeMap;

use engine_traits::{Error, Result};
use raft_engine::{Command, LogBatch, MessageExt};
use raft_proto::eraftpb;
use raftstore_proto::wire::record::encode_local_state;
use raftstore_proto::{LocalState, RegionId};

use crate::batch::Op;
use crate::error::NAME;

/// Key of a region's state.
pub(crate) const STATE_KEY: &[u8] = b"s";
/// Key of the index below which a region's entries are removed (big-endian u64).
pub(crate) const FLOOR_KEY: &[u8] = b"f";

/// Raft's entries, as raft-engine wants to see them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries;

impl MessageExt for Entries {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

/// One region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shape {
    /// First and last index, if there are entries.
    pub(crate) bounds: Option<(u64, u64)>,
    /// Entries below this are removed. raft-engine may bring them back when it is opened: it
    /// moves entries to other files, and the removal may have been in a file that is gone.
    pub(crate) floor: u64,
    pub(crate) state: Option<LocalState>,
}

impl Shape {
    /// Whether the region is one of those that are listed.
    pub(crate) const fn counts(&self) -> bool {
        self.bounds.is_some() || self.state.is_some()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.bounds.map_or(0, |(first, last)| last - first + 1)
    }

    /// The indexes of `[low, high)` that are stored without a gap from `low` on.
    pub(crate) fn run(&self, low: u64, high: u64) -> std::ops::Range<u64> {
        match self.bounds {
            Some((first, last)) if (first..=last).contains(&low) => low..high.min(last + 1),
            _ => 0..0,
        }
    }
}

/// Regions as a batch leaves them; `None` for one that it clears.
pub(crate) type Touched = BTreeMap<RegionId, Option<Shape>>;

/// What a batch comes to.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    pub(crate) touched: Touched,
    /// Whether stored entries give way to others, or to none, but at the front of a log.
    pub(crate) replaces: bool,
}

/// Puts operations into raft-engine's form, and gives what they leave.
///
/// `stored` gives a region as it was before. The error says what hole they would leave.
pub(crate) fn translate(
    ops: Vec<(RegionId, Op)>,
    native: &mut LogBatch,
    stored: impl Fn(RegionId) -> Option<Shape>,
) -> Result<Translated> {
    let Translated { mut touched, mut replaces } = Translated::default();
    for (region, op) in ops {
        let known = touched.entry(region).or_insert_with(|| stored(region));
        match op {
            Op::Clear => {
                if known.take().is_some() {
                    replaces = true;
                    native.add_command(region.get(), Command::Clean);
                }
            }
            Op::PutRaftState(state) => {
                put(native, region, STATE_KEY, encode_local_state(region, &state))?;
                known.get_or_insert_default().state = Some(state);
            }
            Op::TruncatePrefix(index) => {
                if let Some(shape) = known {
                    truncate(native, region, shape, index)?;
                }
            }
            Op::Append(entries) => {
                let last = known.and_then(|shape| shape.bounds).map(|(_, last)| last);
                replaces |= last >= entries.first().map(|entry| entry.index);
                append(native, region, known.get_or_insert_default(), &entries)?;
            }
        }
    }
    Ok(Translated { touched, replaces })
}

fn invalid(detail: String) -> Error {
    Error::InvalidBatch { engine: NAME, detail }
}

fn put(native: &mut LogBatch, region: RegionId, key: &[u8], value: Vec<u8>) -> Result<()> {
    let put = native.put(region.get(), key.to_vec(), value);
    put.map_err(|error| invalid(error.to_string()))
}

fn set_floor(native: &mut LogBatch, region: RegionId, shape: &mut Shape, floor: u64) -> Result<()> {
    shape.floor = floor;
    put(native, region, FLOOR_KEY, floor.to_be_bytes().to_vec())
}

fn truncate(native: &mut LogBatch, region: RegionId, shape: &mut Shape, index: u64) -> Result<()> {
    let Some((first, last)) = shape.bounds.filter(|(first, _)| *first < index) else {
        return Ok(());
    };
    debug_assert!(first <= last);
    native.add_command(region.get(), Command::Compact { index });
    shape.bounds = (index <= last).then_some((index, last));
    set_floor(native, region, shape, index)
}

fn append(
    native: &mut LogBatch,
    region: RegionId,
    shape: &mut Shape,
    entries: &[eraftpb::Entry],
) -> Result<()> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(());
    };
    let (first, last) = (first.index, last.index);
    let mut start = first;
    if let Some((old_first, old_last)) = shape.bounds {
        if first > old_last + 1 {
            return Err(invalid(format!(
                "append at {first} to region {region} whose last entry is {old_last}"
            )));
        }
        if first < old_first {
            // raft-engine panics if an append begins before the stored log.
            native.add_command(region.get(), Command::Compact { index: old_last + 1 });
        }
        start = first.min(old_first);
    }
    if first < shape.floor {
        set_floor(native, region, shape, first)?;
    }
    let added = native.add_entries::<Entries>(region.get(), entries);
    added.map_err(|error| invalid(format!("an append to region {region}: {error}")))?;
    shape.bounds = Some((start, last));
    Ok(())
}
