//! The first regions of a simulated cluster, put on disks before any store starts.

use engine_traits::{Cf, Durability, KvEngine, WriteBatch};
use raftstore_core::{keys, seed};
use raftstore_proto::{
    ClusterId, Epoch, Peer, PeerId, Region, RegionId, StoreId, StoreIdent, wire::record,
};

use crate::{client::start_key, disk::Disk, plan::Plan, world::World};

/// The regions of `plan`: equal slices of the key space by first letter, their replicas
/// spread over the stores.
#[must_use]
pub fn first_regions(plan: &Plan) -> Vec<Region> {
    (1..=plan.regions)
        .map(|region| {
            let end_key =
                if region == plan.regions { bytes::Bytes::new() } else { start_key(region + 1) };
            let peers = (0..plan.replicas)
                .map(|replica| {
                    let store = (region - 1 + replica) % plan.stores + 1;
                    Peer::voter(PeerId::must(region * 100 + store), StoreId::must(store))
                })
                .collect();
            Region {
                id: RegionId::must(region),
                start_key: start_key(region),
                end_key,
                epoch: Epoch { conf_ver: 1, version: 1 },
                peers,
            }
        })
        .collect()
}

/// Records a store's identity.
fn seed_ident(disk: &Disk, store: u64) -> engine_traits::Result<()> {
    let ident = StoreIdent { cluster: ClusterId::must(1), store: StoreId::must(store) };
    let mut batch = disk.kv.write_batch();
    batch.put(Cf::Default, &keys::STORE_IDENT, &record::encode_store_ident(&ident));
    disk.kv.write(batch, Durability::Synced)
}

impl World {
    /// Puts the first regions on the disks and makes them known to PD.
    ///
    /// # Panics
    /// If a fresh disk refuses a write: it does not.
    pub fn seed_cluster(&mut self) {
        let regions = first_regions(&self.plan);
        for node in self.nodes.values() {
            seed_ident(&node.disk, node.id).expect("a fresh disk takes writes");
            let store = StoreId::must(node.id);
            let own: Vec<Region> =
                regions.iter().filter(|region| region.peer_on(store).is_some()).cloned().collect();
            seed::seed_regions(&node.disk.kv, &node.disk.log, &own, store)
                .expect("a fresh disk takes writes");
        }
        for region in &regions {
            self.checks.members.note(region);
        }
        self.pd.core.seed(regions).expect("the first regions do not overlap");
    }

    /// Starts every store.
    pub fn start_all(&mut self) {
        let stores: Vec<u64> = self.nodes.keys().copied().collect();
        for store in stores {
            self.start_store(store);
        }
    }
}
