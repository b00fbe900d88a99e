//! The questions a store asks.

use async_trait::async_trait;
use bytes::Bytes;
use raftstore_proto::{ClusterId, PeerId, Region, RegionId, StoreId};

use crate::{Order, RegionHeartbeat, RegionRoute, Result, StoreInfo, StoreStats};

/// A placement driver.
///
/// Every call ends in bounded time: an implementation that talks over a network keeps a
/// deadline of its own and answers [`Error::Unavailable`](crate::Error::Unavailable).
#[async_trait]
pub trait PdClient: Send + Sync + 'static {
    /// The cluster this PD serves.
    fn cluster_id(&self) -> ClusterId;

    /// Makes `region` on `store` the first of the cluster.
    ///
    /// # Errors
    /// `AlreadyBootstrapped` if another store was first, or this one before.
    async fn bootstrap_cluster(&self, store: StoreInfo, region: Region) -> Result<()>;

    /// Whether the cluster has a first region.
    async fn is_cluster_bootstrapped(&self) -> Result<bool>;

    /// A number nobody was given before: for stores, regions and peers.
    async fn alloc_id(&self) -> Result<u64>;

    /// Makes a store known, or updates what is known.
    async fn put_store(&self, store: StoreInfo) -> Result<()>;

    /// What is known of a store.
    ///
    /// # Errors
    /// `StoreNotFound` if nothing is, or it is gone for good.
    async fn store(&self, id: StoreId) -> Result<StoreInfo>;

    /// The region that holds `key`.
    async fn region_by_key(&self, key: Bytes) -> Result<Option<RegionRoute>>;

    /// The region of this id.
    async fn region_by_id(&self, id: RegionId) -> Result<Option<RegionRoute>>;

    /// Takes a leader's report. Orders that follow from it come through
    /// [`PdClient::next_order`].
    async fn region_heartbeat(&self, heartbeat: RegionHeartbeat) -> Result<()>;

    /// Takes a store's report on itself.
    async fn store_heartbeat(&self, stats: StoreStats) -> Result<()>;

    /// Waits for the next order for a leader on `store`. One caller per store.
    async fn next_order(&self, store: StoreId) -> Result<Order>;

    /// Ids for a split of `region`: for each new region its id and those of its peers.
    async fn ask_split(&self, region: Region, count: usize)
    -> Result<Vec<(RegionId, Vec<PeerId>)>>;

    /// Tells of a finished split, in key order.
    async fn report_split(&self, regions: Vec<Region>) -> Result<()>;
}
