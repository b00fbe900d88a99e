//! What the lanes of a store say of it, put together for PD.

use std::collections::BTreeMap;

use pd_client::StoreStats;

use crate::meta::LaneId;

/// The store's report in the making; a driver keeps one.
#[derive(Debug, Default)]
pub struct StoreReport {
    /// The last share of each lane. Flows are summed up since the last whole report.
    shares: BTreeMap<LaneId, StoreStats>,
}

impl StoreReport {
    /// Takes in a lane's share. Gives the whole report each time the first lane has spoken,
    /// so that there are as many as if it were the only one. A lane that has not spoken yet
    /// is missing from it.
    pub fn add(&mut self, lane: LaneId, mut share: StoreStats) -> Option<StoreStats> {
        if let Some(earlier) = self.shares.get(&lane) {
            share.written_bytes = share.written_bytes.saturating_add(earlier.written_bytes);
            share.written_keys = share.written_keys.saturating_add(earlier.written_keys);
        }
        self.shares.insert(lane, share);
        (lane == LaneId(0)).then(|| self.whole()).flatten()
    }

    fn whole(&mut self) -> Option<StoreStats> {
        let mut shares = self.shares.values_mut();
        let take = |share: &mut StoreStats| {
            let taken = share.clone();
            (share.written_bytes, share.written_keys) = (0, 0);
            taken
        };
        let first = take(shares.next()?);
        let mut whole = shares.map(take).fold(first, |sum, share| StoreStats {
            used_bytes: sum.used_bytes.saturating_add(share.used_bytes),
            region_count: sum.region_count + share.region_count,
            sending_snapshots: sum.sending_snapshots + share.sending_snapshots,
            receiving_snapshots: sum.receiving_snapshots + share.receiving_snapshots,
            applying_snapshots: sum.applying_snapshots + share.applying_snapshots,
            is_busy: sum.is_busy || share.is_busy,
            written_bytes: sum.written_bytes.saturating_add(share.written_bytes),
            written_keys: sum.written_keys.saturating_add(share.written_keys),
            damaged_regions: [sum.damaged_regions, share.damaged_regions].concat(),
            ..sum
        });
        whole.damaged_regions.sort_unstable();
        whole.damaged_regions.dedup();
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use raftstore_proto::{RegionId, StoreId};

    use super::*;

    fn share(region_count: u64, written_bytes: u64, damaged: &[u64]) -> StoreStats {
        StoreStats {
            store: StoreId::must(1),
            capacity_bytes: 100,
            available_bytes: 0,
            used_bytes: 0,
            region_count,
            sending_snapshots: 1,
            receiving_snapshots: 0,
            applying_snapshots: 2,
            start_time_seconds: 0,
            is_busy: written_bytes > 50,
            written_bytes,
            written_keys: written_bytes / 10,
            damaged_regions: damaged.iter().map(|id| RegionId::must(*id)).collect(),
        }
    }

    #[test]
    fn one_lane_is_the_store() {
        let mut report = StoreReport::default();
        for written in [7, 0, 60] {
            assert_eq!(report.add(LaneId(0), share(3, written, &[])), Some(share(3, written, &[])));
        }
    }

    /// No lane's regions, flows or damage are lost, whatever the order; a flow is told once.
    #[test]
    fn lanes_add_up() {
        let mut report = StoreReport::default();
        assert_eq!(report.add(LaneId(1), share(2, 10, &[8])), None);
        assert_eq!(report.add(LaneId(2), share(4, 60, &[5])), None);
        let whole = report.add(LaneId(0), share(1, 1, &[9])).expect("the first lane has spoken");
        assert_eq!(
            (whole.region_count, whole.sending_snapshots, whole.applying_snapshots),
            (7, 3, 6)
        );
        assert_eq!((whole.written_bytes, whole.written_keys), (71, 7));
        assert_eq!(whole.capacity_bytes, 100);
        assert!(whole.is_busy);
        assert_eq!(whole.damaged_regions, share(0, 0, &[5, 8, 9]).damaged_regions);

        assert_eq!(report.add(LaneId(1), share(3, 10, &[])), None);
        assert_eq!(report.add(LaneId(1), share(3, 20, &[])), None);
        let whole = report.add(LaneId(0), share(1, 0, &[])).expect("the first lane has spoken");
        assert_eq!((whole.region_count, whole.written_bytes), (8, 30));
        assert_eq!(whole.damaged_regions, share(0, 0, &[5]).damaged_regions);
    }
}
