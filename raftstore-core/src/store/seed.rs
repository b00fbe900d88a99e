//! Regions put into engines as if a split or a bootstrap had made them, for tests that need
//! many at once.

use engine_traits::{Cf, Durability, KvEngine, RaftEngine, RaftLogBatch, Result, WriteBatch};
use raftstore_proto::{ClusterId, Region, StoreId, StoreIdent, wire::record};

use super::{bootstrap::put_new_region, start::initial_local_state};
use crate::keys;

/// Gives an empty data engine the identity of a store, as a bootstrap would, so that a node
/// can be started over seeded regions. PD has to know them: `PdCore::seed` of its mock.
///
/// # Errors
/// If the engine fails.
pub fn seed_store<K: KvEngine>(kv: &K, cluster: ClusterId, store: StoreId) -> Result<()> {
    let mut batch = kv.write_batch();
    let ident = record::encode_store_ident(&StoreIdent { cluster, store });
    batch.put(Cf::Default, &keys::STORE_IDENT, &ident);
    kv.write(batch, Durability::Synced)
}

/// Puts the records of a new region into the engines of one of its stores: its data begins
/// empty, its log behind index 5. Both writes are synced.
///
/// # Errors
/// If an engine fails.
///
/// # Panics
/// If the region has no peer on `store`.
pub fn seed_region<K: KvEngine, R: RaftEngine>(
    kv: &K,
    raft: &R,
    region: &Region,
    store: StoreId,
) -> Result<()> {
    seed_regions(kv, raft, std::slice::from_ref(region), store)
}

/// As [`seed_region`], for any number of regions with one write per engine.
///
/// # Errors
/// If an engine fails.
///
/// # Panics
/// If a region has no peer on `store`.
pub fn seed_regions<K: KvEngine, R: RaftEngine>(
    kv: &K,
    raft: &R,
    regions: &[Region],
    store: StoreId,
) -> Result<()> {
    let mut kv_batch = kv.write_batch();
    let mut log_batch = raft.log_batch();
    for region in regions {
        let peer = region.peer_on(store).expect("a seeded region has a peer on the store");
        put_new_region(region, &mut kv_batch);
        log_batch.put_raft_state(region.id, &initial_local_state(peer.id));
    }
    kv.write(kv_batch, Durability::Synced)?;
    raft.write(log_batch, Durability::Synced)
}
