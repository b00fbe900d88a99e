//! What can be asked about the stores of a world from outside.

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
