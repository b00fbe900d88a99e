//! The in-process PD behind the interface stores use: a lock, a clock, queues of orders.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use raftstore_proto::{ClusterId, PeerId, Region, RegionId, StoreId};

use super::{PdConfig, PdCore};
use crate::{
    ClusterConfig, Error, OperatorStatus, Order, OrderAction, PdClient, PdCluster, RegionHeartbeat,
    RegionRoute, Result, StoreInfo, StoreStats, orders::Orders,
};

/// Says what time it is, in ms since some moment in the past; never goes back.
pub type PdClock = dyn Fn() -> u64 + Send + Sync;

struct State {
    core: PdCore,
    orders: BTreeMap<StoreId, Orders>,
    is_available: bool,
}

struct Inner {
    cluster: ClusterId,
    clock: Box<PdClock>,
    state: Mutex<State>,
}

/// An in-process PD. Clones are the same PD; one in the hands of a test can look into it,
/// give forced orders, and make it unavailable.
#[derive(Clone)]
pub struct MockPd {
    inner: Arc<Inner>,
}

impl MockPd {
    /// A PD for an empty cluster, on the system's monotonic clock.
    #[must_use]
    pub fn new(cluster: ClusterId, config: PdConfig) -> Self {
        let start = Instant::now();
        let clock = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self::with_clock(cluster, config, Box::new(clock))
    }

    /// A PD on a clock of the caller's.
    #[must_use]
    pub fn with_clock(cluster: ClusterId, config: PdConfig, clock: Box<PdClock>) -> Self {
        let core = PdCore::new(cluster, config);
        let state = State { core, orders: BTreeMap::new(), is_available: true };
        Self { inner: Arc::new(Inner { cluster, clock, state: Mutex::new(state) }) }
    }

    /// Looks at the PD, or changes it, as of now (in ms), also while it is unavailable.
    pub fn with_core<T>(&self, look: impl FnOnce(&mut PdCore, u64) -> T) -> T {
        let now_ms = (self.inner.clock)();
        look(&mut self.inner.state.lock().core, now_ms)
    }

    /// Asks for `action` until it has happened: see [`PdCore::force_order`].
    ///
    /// # Errors
    /// `Invalid` if the region is not known.
    pub fn force_order(&self, region: RegionId, action: OrderAction) -> Result<()> {
        self.with_core(|core, now_ms| core.force_order(now_ms, region, action))
    }

    /// Lets every call fail with `Unavailable` from now on, or answers again. Who waits
    /// for an order is told too; orders nobody took are lost, and made again at the
    /// leaders' next reports.
    pub fn set_available(&self, is_available: bool) {
        let wakers: Vec<_> = {
            let mut state = self.inner.state.lock();
            state.is_available = is_available;
            if !is_available {
                for orders in state.orders.values_mut() {
                    orders.clear();
                }
            }
            state.orders.values_mut().filter_map(Orders::take_waker).collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// One question to the core, if PD is there to answer.
    fn ask<T>(&self, question: impl FnOnce(&mut PdCore, u64) -> Result<T>) -> Result<T> {
        let now_ms = (self.inner.clock)();
        let mut state = self.inner.state.lock();
        if !state.is_available {
            return Err(unavailable());
        }
        question(&mut state.core, now_ms)
    }
}

const fn unavailable() -> Error {
    Error::Unavailable { source: None }
}

impl fmt::Debug for MockPd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockPd").field("cluster", &self.inner.cluster).finish_non_exhaustive()
    }
}

#[async_trait]
impl PdClient for MockPd {
    fn cluster_id(&self) -> ClusterId {
        self.inner.cluster
    }

    async fn bootstrap_cluster(&self, store: StoreInfo, region: Region) -> Result<()> {
        self.ask(|core, now_ms| core.bootstrap(now_ms, store, region))
    }

    async fn is_cluster_bootstrapped(&self) -> Result<bool> {
        self.ask(|core, _| Ok(core.is_bootstrapped()))
    }

    async fn alloc_id(&self) -> Result<u64> {
        self.ask(|core, _| Ok(core.alloc_id()))
    }

    async fn put_store(&self, store: StoreInfo) -> Result<()> {
        self.ask(|core, now_ms| core.put_store(now_ms, store))
    }

    async fn store(&self, id: StoreId) -> Result<StoreInfo> {
        self.ask(|core, _| core.store(id).map(|record| record.info.clone()))
    }

    async fn region_by_key(&self, key: Bytes) -> Result<Option<RegionRoute>> {
        self.ask(|core, _| Ok(core.region_by_key(&key)))
    }

    async fn region_by_id(&self, id: RegionId) -> Result<Option<RegionRoute>> {
        self.ask(|core, _| Ok(core.region_by_id(id)))
    }

    async fn region_heartbeat(&self, heartbeat: RegionHeartbeat) -> Result<()> {
        let now_ms = (self.inner.clock)();
        let waker = {
            let mut state = self.inner.state.lock();
            if !state.is_available {
                return Err(unavailable());
            }
            let order = state.core.region_heartbeat(now_ms, heartbeat)?;
            order.and_then(|order| state.orders.entry(order.target.store).or_default().push(order))
        };
        // Outside the lock: a waker may run the task that polls us.
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    async fn store_heartbeat(&self, stats: StoreStats) -> Result<()> {
        self.ask(|core, now_ms| core.store_heartbeat(now_ms, stats))
    }

    async fn next_order(&self, store: StoreId) -> Result<Order> {
        NextOrder { pd: self, store }.await
    }

    async fn ask_split(
        &self,
        region: Region,
        count: usize,
    ) -> Result<Vec<(RegionId, Vec<PeerId>)>> {
        self.ask(|core, _| core.ask_split(&region, count))
    }

    async fn report_split(&self, regions: Vec<Region>) -> Result<()> {
        self.ask(|core, _| core.report_split(regions))
    }
}

#[async_trait]
impl PdCluster for MockPd {
    async fn stores(&self) -> Result<Vec<StoreInfo>> {
        self.ask(|core, _| Ok(core.stores().map(|record| record.info.clone()).collect()))
    }

    async fn cluster_config(&self) -> Result<ClusterConfig> {
        self.ask(|core, _| {
            let max_replicas = core.config().max_replicas;
            Ok(ClusterConfig { cluster: core.cluster_id(), max_replicas })
        })
    }

    async fn scan_regions(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<RegionRoute>> {
        self.ask(|core, _| Ok(core.scan_regions(&start, &end, limit)))
    }

    async fn scatter_regions(
        &self,
        regions: Vec<RegionId>,
        group: String,
    ) -> Result<Vec<RegionId>> {
        self.ask(|core, now_ms| core.scatter(now_ms, &regions, &group))
    }

    async fn operator_status(&self, region: RegionId) -> Result<Option<OperatorStatus>> {
        self.ask(|core, _| Ok(core.operator_status(region)))
    }
}

/// Waits for an order, or for PD to go.
struct NextOrder<'a> {
    pd: &'a MockPd,
    store: StoreId,
}

impl Future for NextOrder<'_> {
    type Output = Result<Order>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Order>> {
        let mut state = self.pd.inner.state.lock();
        if !state.is_available {
            return Poll::Ready(Err(unavailable()));
        }
        let orders = state.orders.entry(self.store).or_default();
        orders.poll_pop(context).map(Ok)
    }
}
