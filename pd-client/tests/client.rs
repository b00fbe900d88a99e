//! The in-process PD as stores see it: questions, races, waiting for orders.

mod reported;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use bytes::Bytes;
use pd_client::{
    ClusterConfig, Error, Order, OrderAction, PdClient, PdCluster, RegionHeartbeat, RegionRoute,
    Result, SplitPolicy, StoreInfo, StoreLifecycle, StoreStats,
    mock::{MockPd, PdConfig},
};
use raftstore_proto::{
    ChangeKind, ClusterId, Epoch, Peer, PeerChange, PeerId, Region, RegionId, StoreId,
};

use self::reported::{heartbeat, stats};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The simplest executor there is.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls once and gives what was ready.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn info(id: u64, address: &str) -> StoreInfo {
    StoreInfo {
        id: StoreId::must(id),
        address: address.to_owned(),
        labels: Vec::new(),
        lifecycle: StoreLifecycle::Up,
    }
}

fn first_region(id: u64, peer: u64, store: u64) -> Region {
    Region {
        id: RegionId::must(id),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(peer), StoreId::must(store))],
    }
}

fn manual() -> MockPd {
    MockPd::with_clock(ClusterId::must(7), PdConfig::manual(), Box::new(|| 0))
}

/// A manual PD with store 1 and one region on it.
fn bootstrapped() -> (MockPd, Region) {
    let pd = manual();
    let region = first_region(2, 3, 1);
    block_on(pd.bootstrap_cluster(info(1, "a"), region.clone())).expect("it is the first");
    (pd, region)
}

fn add_learner(id: u64, store: u64) -> OrderAction {
    let peer = Peer::learner(PeerId::must(id), StoreId::must(store));
    OrderAction::ChangePeer(PeerChange { kind: ChangeKind::AddLearner, peer })
}

/// BOOT-01: of several stores that start at once one makes the first region, and all can
/// find out whether it was theirs.
#[test]
fn boot_01_one_of_many_bootstraps() {
    let pd = manual();
    let winners: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|number| {
                let pd = pd.clone();
                scope.spawn(move || {
                    let mut ids = [0; 3];
                    for id in &mut ids {
                        *id = block_on(pd.alloc_id()).expect("PD is there");
                    }
                    let [store, id, peer] = ids;
                    let region = first_region(id, peer, store);
                    let info = info(store, &format!("address {number}"));
                    let outcome = block_on(pd.bootstrap_cluster(info.clone(), region.clone()));
                    assert!(matches!(outcome, Ok(()) | Err(Error::AlreadyBootstrapped)));
                    block_on(pd.put_store(info)).expect("its address is its own");
                    let first = block_on(pd.region_by_key(Bytes::new())).expect("PD is there");
                    let is_mine = first.map(|route| route.region) == Some(region);
                    assert_eq!(is_mine, outcome.is_ok());
                    (store, is_mine)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().expect("no panic")).collect()
    });
    assert_eq!(winners.iter().filter(|(_, is_mine)| *is_mine).count(), 1);
    assert_eq!(pd.with_core(|core, _| core.regions().count()), 1);
    assert_eq!(block_on(pd.stores()).expect("PD is there").len(), 8);
}

/// The same request again is refused like another one: the caller compares.
#[test]
fn bootstrap_happens_once_and_comes_first() {
    let pd = manual();
    let region = first_region(2, 3, 1);
    assert!(!block_on(pd.is_cluster_bootstrapped()).expect("PD is there"));
    assert!(matches!(block_on(pd.put_store(info(1, "a"))), Err(Error::NotBootstrapped)));
    let report = block_on(pd.region_heartbeat(heartbeat(region.clone(), 1)));
    assert!(matches!(report, Err(Error::NotBootstrapped)));
    let elsewhere = block_on(pd.bootstrap_cluster(info(9, "a"), region.clone()));
    assert!(matches!(elsewhere, Err(Error::Invalid(_))));
    block_on(pd.bootstrap_cluster(info(1, "a"), region.clone())).expect("it is the first");
    let again = block_on(pd.bootstrap_cluster(info(1, "a"), region));
    assert!(matches!(again, Err(Error::AlreadyBootstrapped)));
    assert!(block_on(pd.is_cluster_bootstrapped()).expect("PD is there"));
    assert!(block_on(pd.alloc_id()).expect("PD is there") > 3, "ids in use are not given out");
}

#[test]
fn an_address_belongs_to_one_living_store() {
    let (pd, _) = bootstrapped();
    block_on(pd.put_store(info(20, "b"))).expect("a new address");
    let twin = block_on(pd.put_store(info(21, "b")));
    assert!(matches!(twin, Err(Error::DuplicateAddress { other, .. }) if other.get() == 20));
    block_on(pd.put_store(info(20, "c"))).expect("a store may move");
    assert_eq!(block_on(pd.store(StoreId::must(20))).expect("it is known").address, "c");
    pd.with_core(|core, _| core.set_lifecycle(StoreId::must(20), StoreLifecycle::Tombstone))
        .expect("it holds nothing");
    let buried = StoreId::must(20);
    assert!(matches!(block_on(pd.store(buried)), Err(Error::StoreNotFound(id)) if id == buried));
    assert!(matches!(block_on(pd.put_store(info(20, "d"))), Err(Error::StoreNotFound(_))));
    assert!(matches!(
        block_on(pd.store_heartbeat(stats(StoreId::must(20)))),
        Err(Error::StoreNotFound(_))
    ));
    block_on(pd.put_store(info(21, "c"))).expect("the address is free again");
}

#[test]
fn stale_and_senseless_reports_change_nothing() {
    let (pd, mut region) = bootstrapped();
    region.epoch.conf_ver = 4;
    block_on(pd.region_heartbeat(heartbeat(region.clone(), 8))).expect("it is newer");
    let known = block_on(pd.region_by_id(region.id)).expect("PD is there");
    let mut older = region.clone();
    older.epoch.conf_ver = 3;
    let old_epoch = block_on(pd.region_heartbeat(heartbeat(older.clone(), 9)));
    let old_term = block_on(pd.region_heartbeat(heartbeat(region.clone(), 7)));
    assert!(matches!((old_epoch, old_term), (Err(Error::Stale), Err(Error::Stale))));
    let mut stranger = heartbeat(region.clone(), 9);
    stranger.leader = Peer::voter(PeerId::must(99), StoreId::must(1));
    let mut doubled = heartbeat(region.clone(), 9);
    doubled.region.peers.push(region.peers[0]);
    for report in [stranger, doubled] {
        assert!(matches!(block_on(pd.region_heartbeat(report)), Err(Error::Invalid(_))));
    }
    assert_eq!(block_on(pd.region_by_id(region.id)).expect("PD is there"), known);
    assert_eq!(pd.with_core(|core, _| core.counters().stale_reports), 2);
}

#[test]
fn split_ids_are_new_and_a_report_shows_both_parts() {
    let (pd, region) = bootstrapped();
    let ids = block_on(pd.ask_split(region.clone(), 2)).expect("the region is current");
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|(_, peers)| peers.len() == 1));
    assert!(block_on(pd.ask_split(region.clone(), 0)).is_err());
    let mut left = region.clone();
    let mut right = region.clone();
    left.end_key = Bytes::from_static(b"m");
    right.start_key = Bytes::from_static(b"m");
    (right.id, right.peers[0].id) = (ids[0].0, ids[0].1[0]);
    left.epoch.version = 2;
    right.epoch.version = 2;
    let swapped = block_on(pd.report_split(vec![right.clone(), left.clone()]));
    assert!(matches!(swapped, Err(Error::Invalid(_))));
    block_on(pd.report_split(vec![left.clone(), right.clone()])).expect("neighbours");
    let at = |key: &'static [u8]| {
        let route = block_on(pd.region_by_key(Bytes::from_static(key))).expect("PD is there");
        route.map(|route| route.region)
    };
    assert_eq!((at(b"a"), at(b"m")), (Some(left), Some(right)));
    let old = block_on(pd.ask_split(region, 1));
    assert!(matches!(old, Err(Error::Stale)));
    assert_eq!(pd.with_core(|core, _| core.scan_regions(b"", b"", 10).len()), 2);
}

/// A PD that only answers for one key at a time: what is provided for it must scan alike.
struct ByKey(MockPd);

#[async_trait::async_trait]
impl PdClient for ByKey {
    fn cluster_id(&self) -> ClusterId {
        self.0.cluster_id()
    }
    async fn bootstrap_cluster(&self, store: StoreInfo, region: Region) -> Result<()> {
        self.0.bootstrap_cluster(store, region).await
    }
    async fn is_cluster_bootstrapped(&self) -> Result<bool> {
        self.0.is_cluster_bootstrapped().await
    }
    async fn alloc_id(&self) -> Result<u64> {
        self.0.alloc_id().await
    }
    async fn put_store(&self, store: StoreInfo) -> Result<()> {
        self.0.put_store(store).await
    }
    async fn store(&self, id: StoreId) -> Result<StoreInfo> {
        self.0.store(id).await
    }
    async fn region_by_key(&self, key: Bytes) -> Result<Option<RegionRoute>> {
        self.0.region_by_key(key).await
    }
    async fn region_by_id(&self, id: RegionId) -> Result<Option<RegionRoute>> {
        self.0.region_by_id(id).await
    }
    async fn region_heartbeat(&self, heartbeat: RegionHeartbeat) -> Result<()> {
        self.0.region_heartbeat(heartbeat).await
    }
    async fn store_heartbeat(&self, stats: StoreStats) -> Result<()> {
        self.0.store_heartbeat(stats).await
    }
    async fn next_order(&self, store: StoreId) -> Result<Order> {
        self.0.next_order(store).await
    }
    async fn ask_split(
        &self,
        region: Region,
        count: usize,
    ) -> Result<Vec<(RegionId, Vec<PeerId>)>> {
        self.0.ask_split(region, count).await
    }
    async fn report_split(&self, regions: Vec<Region>) -> Result<()> {
        self.0.report_split(regions).await
    }
}

#[async_trait::async_trait]
impl PdCluster for ByKey {
    async fn stores(&self) -> Result<Vec<StoreInfo>> {
        self.0.stores().await
    }
    async fn cluster_config(&self) -> Result<ClusterConfig> {
        self.0.cluster_config().await
    }
}

/// The provided scan finds what the overridden one finds, within the same bounds.
#[test]
fn scans_are_bounded_by_keys_and_count() {
    let (pd, whole) = bootstrapped();
    let cuts = ["", "c", "f", "k", "q", ""];
    let parts: Vec<Region> = (0..5)
        .map(|number| {
            let mut part = whole.clone();
            part.start_key = cuts[number].into();
            part.end_key = cuts[number + 1].into();
            part.epoch.version = 6;
            if number != 4 {
                part.id = RegionId::must(100 + number as u64);
                part.peers[0].id = PeerId::must(200 + number as u64);
            }
            part
        })
        .collect();
    block_on(pd.report_split(parts)).expect("neighbours");
    let by_key = ByKey(pd.clone());
    let starts = |routes: Vec<RegionRoute>| -> Vec<Bytes> {
        routes.into_iter().map(|route| route.region.start_key).collect()
    };
    let cases: [(&str, &str, usize, &[&str]); 8] = [
        ("", "", 9, &["", "c", "f", "k", "q"]),
        ("", "", 2, &["", "c"]),
        ("d", "", 2, &["c", "f"]),
        ("c", "f", 9, &["c"]),
        ("c", "f0", 9, &["c", "f"]),
        ("z", "", 9, &["q"]),
        ("a", "b", 9, &[""]),
        ("a", "z", 0, &[]),
    ];
    for (start, end, limit, expected) in cases {
        let scan = |pd: &dyn PdCluster| {
            let routes = block_on(pd.scan_regions(start.into(), end.into(), limit));
            starts(routes.expect("PD is there"))
        };
        assert_eq!(scan(&pd), expected, "[{start}, {end}) {limit}");
        assert_eq!(scan(&by_key), expected, "[{start}, {end}) {limit} by key");
    }
    let nothing = block_on(by_key.scatter_regions(vec![whole.id], String::new()));
    assert!(matches!(nothing, Err(Error::Unsupported(_))));
}

/// SPL-36, PD's part: a split is ordered until the region's version shows it.
#[test]
fn spl_36_a_split_is_ordered_until_it_is_seen() {
    let (pd, mut region) = bootstrapped();
    let keys = vec![Bytes::from_static(b"d"), Bytes::from_static(b"m")];
    let split = OrderAction::SplitRegion { keys, policy: SplitPolicy::Keys };
    pd.force_order(region.id, split.clone()).expect("the region is known");
    for term in 1..4 {
        block_on(pd.region_heartbeat(heartbeat(region.clone(), term))).expect("it is current");
        let order = block_on(pd.next_order(StoreId::must(1))).expect("PD is there");
        assert_eq!((order.epoch, order.action), (region.epoch, split.clone()));
    }
    region.epoch.version += 2;
    region.end_key = Bytes::from_static(b"d");
    block_on(pd.region_heartbeat(heartbeat(region.clone(), 4))).expect("it is newer");
    assert!(poll_once(pd.next_order(StoreId::must(1))).is_none());
    assert_eq!(pd.with_core(|core, _| core.counters().finished), 1);
}

/// Who waits is woken, on whatever thread; who comes later finds the newest order once.
#[test]
fn orders_wake_who_waits() {
    let (pd, region) = bootstrapped();
    assert!(poll_once(pd.next_order(StoreId::must(1))).is_none());
    pd.force_order(region.id, add_learner(50, 2)).expect("the region is known");
    let expected = Order {
        region: region.id,
        epoch: region.epoch,
        target: region.peers[0],
        action: add_learner(50, 2),
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(pd.next_order(StoreId::must(1))));
        block_on(pd.region_heartbeat(heartbeat(region.clone(), 1))).expect("it is current");
        let order = waiting.join().expect("no panic").expect("PD is there");
        assert_eq!(order, expected);
    });
    for _ in 0..3 {
        block_on(pd.region_heartbeat(heartbeat(region.clone(), 1))).expect("it is current");
    }
    assert_eq!(block_on(pd.next_order(StoreId::must(1))).expect("PD is there"), expected);
    assert!(poll_once(pd.next_order(StoreId::must(1))).is_none(), "repeats do not pile up");
    assert!(pd.force_order(RegionId::must(77), add_learner(50, 2)).is_err());
}

/// STALE-04's question: PD still tells a region that has moved away from the asking store.
#[test]
fn stale_04_a_region_is_told_to_those_that_left_it() {
    let (pd, mut region) = bootstrapped();
    block_on(pd.put_store(info(4, "b"))).expect("a new address");
    region.peers = vec![Peer::voter(PeerId::must(60), StoreId::must(4))];
    region.epoch.conf_ver = 9;
    block_on(pd.region_heartbeat(heartbeat(region.clone(), 6))).expect("it is newer");
    let route = block_on(pd.region_by_id(region.id)).expect("PD is there").expect("it is known");
    assert_eq!(route.region, region);
    assert!(route.region.peer_on(StoreId::must(1)).is_none());
}

#[test]
fn unavailable_fails_every_call_and_wakes_who_waits() {
    let (pd, region) = bootstrapped();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(pd.next_order(StoreId::must(1))));
        pd.set_available(false);
        let outcome = waiting.join().expect("no panic");
        assert!(matches!(outcome, Err(Error::Unavailable { .. })));
    });
    assert!(matches!(block_on(pd.alloc_id()), Err(Error::Unavailable { .. })));
    let report = block_on(pd.region_heartbeat(heartbeat(region.clone(), 1)));
    assert!(matches!(report, Err(Error::Unavailable { .. })));
    pd.set_available(true);
    assert!(block_on(pd.region_heartbeat(heartbeat(region.clone(), 1))).is_ok());
}

/// The clock is the caller's: a store that is silent for too long gets nothing.
#[test]
fn the_clock_is_the_callers() {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let pd = MockPd::with_clock(
        ClusterId::must(7),
        PdConfig { max_replicas: 2, ..PdConfig::default() },
        Box::new(move || clock.load(Ordering::SeqCst)),
    );
    let region = first_region(2, 3, 1);
    block_on(pd.bootstrap_cluster(info(1, "a"), region.clone())).expect("it is the first");
    block_on(pd.put_store(info(4, "b"))).expect("a new address");
    now.store(31_000, Ordering::SeqCst);
    block_on(pd.region_heartbeat(heartbeat(region.clone(), 1))).expect("it is current");
    assert!(poll_once(pd.next_order(StoreId::must(1))).is_none());
    block_on(pd.store_heartbeat(stats(StoreId::must(4)))).expect("it is known");
    block_on(pd.region_heartbeat(heartbeat(region.clone(), 1))).expect("it is current");
    assert!(poll_once(pd.next_order(StoreId::must(1))).is_some());
}
