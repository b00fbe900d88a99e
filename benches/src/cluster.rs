//! Stores of one process, with threads, their PD and the transport between them, over
//! regions that are there from the beginning.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use engine_traits::{KvEngine, RaftEngine};
use pd_client::mock::{MockPd, PdConfig};
use raftstore_core::{
    Config, StoreMetrics,
    runtime::{Node, NodeHandle, NodeOptions},
    seed,
};
use raftstore_proto::{ClusterId, Epoch, Peer, PeerId, Region, RegionId, StoreId};
use transport_traits::{BoxError, ChannelConfig, ChannelHub, SnapStore};

const CLUSTER: ClusterId = ClusterId::must(1);

/// How long a lane may take to tell its figures.
const ASK: Duration = Duration::from_secs(30);

/// Regions 1 to `count` side by side, each with a voter on stores 1 to `stores`. Region n
/// holds the keys from `border(n - 1)` to `border(n)`; the first and the last are open.
#[must_use]
pub fn row_of_regions(count: u64, stores: u64, border: impl Fn(u64) -> Bytes) -> Vec<Region> {
    let peer_id = |region: u64, store: u64| PeerId::must(count + (region - 1) * stores + store);
    (1..=count)
        .map(|id| Region {
            id: RegionId::must(id),
            start_key: if id == 1 { Bytes::new() } else { border(id - 1) },
            end_key: if id == count { Bytes::new() } else { border(id) },
            epoch: Epoch { conf_ver: stores, version: 1 },
            peers: (1..=stores)
                .map(|store| Peer::voter(peer_id(id, store), StoreId::must(store)))
                .collect(),
        })
        .collect()
}

fn seed_all<K: KvEngine, R: RaftEngine>(
    engines: &[(K, R)],
    regions: &[Region],
) -> Result<(), BoxError> {
    for ((kv, raft), number) in engines.iter().zip(1..) {
        let store = StoreId::must(number);
        seed::seed_store(kv, CLUSTER, store)?;
        let here = regions.iter().filter(|region| region.peer_on(store).is_some());
        seed::seed_regions(kv, raft, &here.cloned().collect::<Vec<_>>(), store)?;
    }
    Ok(())
}

/// Running stores, numbered from 1.
#[derive(Debug)]
pub struct Cluster<K: KvEngine> {
    pd: MockPd,
    hub: ChannelHub,
    nodes: Vec<Node<K>>,
    /// In the order of stores.
    pub handles: Vec<NodeHandle<K>>,
}

impl<K: KvEngine> Cluster<K> {
    /// Puts `regions` into empty engines, one pair for each store, and starts the stores. PD
    /// orders nothing by itself.
    ///
    /// # Errors
    /// If an engine fails or a store does not start.
    pub fn start<R: RaftEngine>(
        config: &Config,
        engines: Vec<(K, R)>,
        regions: &[Region],
    ) -> Result<Self, BoxError> {
        seed_all(&engines, regions)?;
        Self::launch(config, engines, regions, |_| Ok(None))
    }

    /// Starts stores on engines that have run before with these regions.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub fn start_again<R: RaftEngine>(
        config: &Config,
        engines: Vec<(K, R)>,
        regions: &[Region],
    ) -> Result<Self, BoxError> {
        Self::launch(config, engines, regions, |_| Ok(None))
    }

    /// The same, with a place for region snapshots other than memory.
    ///
    /// # Errors
    /// As for [`Cluster::start`], and those of `snaps`.
    pub fn start_with<R: RaftEngine>(
        config: &Config,
        engines: Vec<(K, R)>,
        regions: &[Region],
        snaps: impl Fn(StoreId) -> Result<Option<Arc<dyn SnapStore>>, BoxError>,
    ) -> Result<Self, BoxError> {
        seed_all(&engines, regions)?;
        Self::launch(config, engines, regions, snaps)
    }

    fn launch<R: RaftEngine>(
        config: &Config,
        engines: Vec<(K, R)>,
        regions: &[Region],
        snaps: impl Fn(StoreId) -> Result<Option<Arc<dyn SnapStore>>, BoxError>,
    ) -> Result<Self, BoxError> {
        let pd = MockPd::new(CLUSTER, PdConfig::manual());
        pd.with_core(|core, _| core.seed(regions.to_vec()))?;
        let hub = ChannelHub::new(ChannelConfig::default())?;
        let mut nodes = Vec::new();
        for ((kv, raft), number) in engines.into_iter().zip(1..) {
            let store = StoreId::must(number);
            let driver = Arc::new(pd.clone());
            let address = format!("store {number}");
            let mut options = NodeOptions::new(CLUSTER, address, kv, raft, driver, hub.connect());
            options.config = config.clone();
            if let Some(snaps) = snaps(store)? {
                options.snaps = snaps;
            }
            nodes.push(Node::start(options)?);
        }
        let handles = nodes.iter().map(Node::handle).collect();
        Ok(Self { pd, hub, nodes, handles })
    }

    /// The placement driver.
    #[must_use]
    pub fn pd(&self) -> &MockPd {
        &self.pd
    }

    /// Regions of which PD has heard a leader.
    #[must_use]
    pub fn led_at_pd(&self) -> u64 {
        self.pd.with_core(|core, _| core.regions().filter(|it| it.leader.is_some()).count() as u64)
    }

    /// What all lanes of all stores have done.
    #[must_use]
    pub fn metrics(&self) -> StoreMetrics {
        let mut sum = StoreMetrics::default();
        for lane in self.handles.iter().flat_map(|handle| handle.lane_metrics(ASK)) {
            sum.merge(&lane);
        }
        sum
    }

    /// Regions that a store leads.
    #[must_use]
    pub fn led(&self) -> u64 {
        let peers = self.handles.iter().flat_map(|handle| handle.peers(ASK));
        peers.filter(|peer| peer.is_leader).count() as u64
    }

    /// Ends all stores.
    ///
    /// # Panics
    /// If one of them has failed: its figures would mean nothing.
    pub fn stop(self) {
        for node in self.nodes {
            self.hub.unregister(node.store());
            node.stop().expect("the store has run without a failure");
        }
        self.hub.close();
    }
}
