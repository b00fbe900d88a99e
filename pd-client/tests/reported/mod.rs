//! What a store says when it has nothing to say.

use pd_client::{RegionHeartbeat, StoreStats};
use raftstore_proto::{Region, StoreId};

/// The first peer of the region leads it in `term`, and nothing was written.
pub(crate) fn heartbeat(region: Region, term: u64) -> RegionHeartbeat {
    RegionHeartbeat {
        leader: region.peers[0],
        region,
        term,
        down_peers: Vec::new(),
        pending_peers: Vec::new(),
        written_bytes: 0,
        written_keys: 0,
        approximate_size: 0,
    }
}

/// A store without room, regions or flow.
pub(crate) fn stats(store: StoreId) -> StoreStats {
    StoreStats {
        store,
        capacity_bytes: 0,
        available_bytes: 0,
        used_bytes: 0,
        region_count: 0,
        sending_snapshots: 0,
        receiving_snapshots: 0,
        applying_snapshots: 0,
        start_time_seconds: 0,
        is_busy: false,
        written_bytes: 0,
        written_keys: 0,
        damaged_regions: Vec::new(),
    }
}
