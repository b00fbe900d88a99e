//! What can be asked about the stores of a world from outside.

use std::collections::BTreeMap;

use raftstore_core::{PeerStatus, StoreMetrics};
use raftstore_proto::{Region, RegionId};

use super::World;

impl World {
    /// The peer of a region on a running store.
    #[must_use]
    pub fn peer_status(&self, store: u64, region: u64) -> Option<PeerStatus> {
        let running = self.nodes.get(&store)?.running.as_ref()?;
        let region = RegionId::new(region)?;
        let lane = running.lane_of(Some(region));
        running.lanes[lane].store.inspect_region(region)
    }

    /// All peers of a running store.
    #[must_use]
    pub fn peers(&self, store: u64) -> Vec<PeerStatus> {
        let Some(running) = self.nodes.get(&store).and_then(|node| node.running.as_ref()) else {
            return Vec::new();
        };
        running.lanes.iter().flat_map(|lane| lane.store.inspect()).collect()
    }

    /// The region as the best informed running store knows it.
    #[must_use]
    pub fn newest_region(&self, region: u64) -> Option<Region> {
        self.nodes
            .keys()
            .filter_map(|store| self.peer_status(*store, region))
            .map(|status| status.region)
            .filter(Region::is_initialized)
            .max_by_key(|region| (region.epoch.version, region.epoch.conf_ver))
    }

    /// All regions that running stores know, by number, each as the best informed store
    /// knows it.
    #[must_use]
    pub fn regions(&self) -> BTreeMap<u64, Region> {
        let mut regions: BTreeMap<u64, Region> = BTreeMap::new();
        for region in self.nodes.keys().flat_map(|store| self.registered(*store)) {
            let known = regions.entry(region.id.get()).or_insert_with(|| region.clone());
            let (old, new) = (known.epoch, region.epoch);
            if (old.version, old.conf_ver) < (new.version, new.conf_ver) {
                *known = region;
            }
        }
        regions
    }

    /// The newest region with this key that a running store knows.
    #[must_use]
    pub fn region_holding(&self, key: &[u8]) -> Option<Region> {
        self.nodes
            .values()
            .filter_map(|node| node.running.as_ref()?.meta.region_of(key))
            .max_by_key(|region| (region.epoch.version, region.epoch.conf_ver))
    }

    /// What each lane of a running store has done.
    #[must_use]
    pub fn metrics(&self, store: u64) -> Vec<StoreMetrics> {
        let Some(running) = self.nodes.get(&store).and_then(|node| node.running.as_ref()) else {
            return Vec::new();
        };
        running.lanes.iter().map(|lane| lane.store.metrics().clone()).collect()
    }

    /// The regions registered on a running store, in key order.
    #[must_use]
    pub fn registered(&self, store: u64) -> Vec<Region> {
        self.nodes
            .get(&store)
            .and_then(|node| node.running.as_ref())
            .map(|running| running.meta.regions())
            .unwrap_or_default()
    }
}
