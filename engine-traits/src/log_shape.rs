//! Decides whether a log batch would leave a hole: follows first and last index of each
//! region through the batch, before anything is written.

use std::collections::BTreeMap;

use raftstore_proto::{Entry, RegionId};

use crate::Result;

/// First and last index of a log that holds entries.
pub(crate) type Bounds = Option<(u64, u64)>;

/// First and last index of an append, which must not be empty.
///
/// The error says where the entries are not consecutive.
pub(crate) fn append_bounds(region: RegionId, entries: &[Entry]) -> Result<(u64, u64), String> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Err(format!("empty append to region {region}"));
    };
    for pair in entries.windows(2) {
        let (before, after) = (pair[0].index(), pair[1].index());
        if before.checked_add(1) != Some(after) {
            return Err(format!(
                "entry {after} follows entry {before} in an append to region {region}"
            ));
        }
    }
    Ok((first.index(), last.index()))
}

/// The bounds of the regions a batch has touched so far.
///
/// `stored` gives a region's bounds before the batch; it is asked once per region, and not
/// for regions that the batch clears first.
#[derive(Debug, Default)]
pub(crate) struct LogShapes {
    regions: BTreeMap<RegionId, Bounds>,
}

impl LogShapes {
    /// The bounds of a region at this point of the batch.
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

    /// Takes in an append of `first..=last`. The outer error is `stored`'s; the inner one
    /// says what hole the append would leave.
    pub(crate) fn append(
        &mut self,
        region: RegionId,
        (first, last): (u64, u64),
        stored: &dyn Fn(RegionId) -> Result<Bounds>,
    ) -> Result<Result<(), String>> {
        if let Some((_, old_last)) = self.bounds(region, stored)?
            && first.checked_sub(1).is_some_and(|before| before > old_last)
        {
            let detail =
                format!("append at {first} to region {region} whose last entry is {old_last}");
            return Ok(Err(detail));
        }
        let start = match self.bounds(region, stored)? {
            Some((old_first, _)) => old_first.min(first),
            None => first,
        };
        self.regions.insert(region, Some((start, last)));
        Ok(Ok(()))
    }

    /// Takes in the removal of the entries below `index`.
    pub(crate) fn truncate_prefix(
        &mut self,
        region: RegionId,
        index: u64,
        stored: &dyn Fn(RegionId) -> Result<Bounds>,
    ) -> Result<()> {
        let rest = self.bounds(region, stored)?.and_then(|(first, last)| {
            let first = first.max(index);
            (first <= last).then_some((first, last))
        });
        self.regions.insert(region, rest);
        Ok(())
    }

    /// Takes in the end of a region.
    pub(crate) fn clear_region(&mut self, region: RegionId) {
        self.regions.insert(region, None);
    }

    /// What the touched regions look like after the batch, ascending.
    pub(crate) fn into_regions(self) -> impl Iterator<Item = (RegionId, Bounds)> {
        self.regions.into_iter()
    }
}
