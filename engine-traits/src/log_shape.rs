//! Decides whether a log batch would leave a hole: follows first and last index of each
//! region through the batch, before anything is written.

use std::collections::BTreeMap;

use raftstore_proto::{Entry, RegionId};

use crate::Result;

/// First and last index of a log that holds entries.
pub(crate) type Bounds = Option<(u64, u64)>;

/// The bounds of the regions a batch has touched so far.
///
/// `stored` gives a region's bounds before the batch; it is asked once per region, and not
/// for regions that the batch clears first.
#[derive(Debug, Default)]
pub(crate) struct LogShapes {
    regions: BTreeMap<RegionId, Bounds>,
}

impl LogShapes {
    pub(crate) fn bounds(
        &mut self,
        region: RegionId,
        stored: &dyn Fn(RegionId) -> Result<Bounds>,
    ) -> Result<Bounds> {
        if let Some(bounds) = self.regions.get(&region) {
            return Ok(*bounds);
        }
        let bounds = stored(region)?;
        self.regions.insert(region, bounds);
        Ok(bounds)
    }

    /// The outer error is `stored`'s; the inner one says why the entries do not fit.
    pub(crate) fn append(
        &mut self,
        region: RegionId,
        entries: &[Entry],
        stored: &dyn Fn(RegionId) -> Result<Bounds>,
    ) -> Result<std::result::Result<(), String>> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Ok(()));
        };
        let (first, last) = (first.index(), last.index());
        for pair in entries.windows(2) {
            if pair[0].index().checked_add(1) != Some(pair[1].index()) {
                let (before, after) = (pair[0].index(), pair[1].index());
                let detail =
                    format!("entry {after} follows entry {before} in an append to region {region}");
                return Ok(Err(detail));
            }
        }
        let start = match self.bounds(region, stored)? {
            Some((_, old_last)) if first.checked_sub(1).is_some_and(|before| before > old_last) => {
                let detail =
                    format!("append at {first} to region {region} whose last entry is {old_last}");
                return Ok(Err(detail));
            }
            Some((old_first, _)) => old_first.min(first),
            None => first,
        };
        self.regions.insert(region, Some((start, last)));
        Ok(Ok(()))
    }

    pub(crate) fn truncate_prefix(
        &mut self,
        region: RegionId,
        index: u64,
        stored: &dyn Fn(RegionId) -> Result<Bounds>,
    ) -> Result<()> {
        let bounds = self.bounds(region, stored)?;
        let rest = bounds.and_then(|(first, last)| {
            let first = first.max(index);
            (first <= last).then_some((first, last))
        });
        self.regions.insert(region, rest);
        Ok(())
    }

    pub(crate) fn clear_region(&mut self, region: RegionId) {
        self.regions.insert(region, None);
    }
}
