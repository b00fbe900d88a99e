//! Three replicas on three engines: memory, redb and RocksDB, under real threads.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine_redb::{RedbEngine, RedbOptions};
use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::mem::{MemEngine, MemRaftLog};
use engine_traits::{KvEngine, RaftEngine, Reader};
use pd_client::mock::{MockPd, PdConfig, RegionRecord};
use pd_client::{OrderAction, SplitPolicy};
use raftstore_core::consistency::{ReaderSide, first_difference};
use raftstore_core::runtime::client::{Client, LocalStores};
use raftstore_core::runtime::{Node, NodeOptions};
use raftstore_core::{Config, StoreMetrics};
use raftstore_proto::{ChangeKind, ClusterId, Peer, PeerChange, PeerId, PeerRole, StoreId};
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::must(31);
const DEADLINE: Duration = Duration::from_secs(120);

/// One store, whatever its engine.
struct Member {
    store: StoreId,
    metrics: Box<dyn Fn() -> StoreMetrics>,
    kv: Box<dyn Reader>,
    stop: Box<dyn FnOnce()>,
}

struct Cluster {
    pd: Arc<MockPd>,
    hub: ChannelHub,
    stores: LocalStores,
    client: Client<LocalStores>,
    members: Vec<Member>,
    written: u64,
}

fn config() -> Config {
    Config {
        pd_heartbeat_tick_interval: Duration::from_millis(50),
        pd_store_heartbeat_tick_interval: Duration::from_millis(50),
        consistency_check_interval: Duration::from_millis(200),
        kv_sync_interval: Duration::from_millis(50),
        ..Config::in_process()
    }
}

impl Cluster {
    fn new() -> Self {
        let pd = Arc::new(MockPd::new(CLUSTER, PdConfig::default()));
        let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
        let stores = LocalStores::new(pd.clone());
        let client = Client::new(stores.clone(), DEADLINE);
        Self { pd, hub, stores, client, members: Vec::new(), written: 0 }
    }

    fn start<K: KvEngine>(&mut self, address: &str, kv: K, log: impl RaftEngine) {
        let (pd, transport) = (self.pd.clone(), self.hub.connect());
        let mut options = NodeOptions::new(CLUSTER, address, kv.clone(), log, pd, transport);
        options.config = config();
        let node = Node::start(options).unwrap();
        self.stores.add(&node.handle());
        let handle = node.handle();
        self.members.push(Member {
            store: node.store(),
            metrics: Box::new(move || handle.lane_metrics(DEADLINE).remove(0)),
            kv: Box::new(kv),
            stop: Box::new(move || node.stop().unwrap()),
        });
    }

    /// A write to either side of the split.
    fn write(&mut self) {
        let side = if self.written.is_multiple_of(2) { 'a' } else { 'x' };
        let key = format!("{side}{:04}", self.written % 400);
        let value = format!("{} ", self.written).repeat(20);
        self.client.put(key, value).unwrap();
        self.written += 1;
    }

    /// Writes until `look` gives something.
    fn write_until<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited too long for {what}");
            self.write();
        }
    }

    /// What PD knows of the region on the right.
    fn right(&self) -> RegionRecord {
        self.pd.with_core(|core, _| core.region_at(b"x").unwrap().clone())
    }

    fn on(&self, store: StoreId) -> Option<Peer> {
        self.right().region.peer_on(store).copied()
    }

    fn order(&self, action: OrderAction) {
        self.pd.force_order(self.right().region.id, action).unwrap();
    }

    fn change(&self, kind: ChangeKind, peer: Peer) {
        self.order(OrderAction::ChangePeer(PeerChange { kind, peer }));
    }

    fn lead(&mut self, store: StoreId) {
        let leads = |it: &Self| (it.right().leader?.store == store).then_some(());
        if leads(self).is_none() {
            self.order(OrderAction::TransferLeader(self.on(store).unwrap()));
            self.write_until("the leader to change", leads);
        }
    }
}

/// Everything that a cluster of three engines has to do, in one life of it: each start of nine
/// engines would cost more than the rest.
#[test]
fn raft_18_three_engines_are_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let redb_options = RedbOptions::default();
    let rocks_options = RocksOptions::default();
    let mut cluster = Cluster::new();
    cluster.start("memory", MemEngine::new(), MemRaftLog::new());
    let log = engine_redb::open_raft_log(at("redb-log"), &redb_options).unwrap();
    cluster.start("redb", RedbEngine::open(at("redb"), &redb_options).unwrap(), log);
    let log = engine_rocks::open_raft_log(at("rocks-log"), &rocks_options).unwrap();
    cluster.start("rocks", RocksEngine::open(at("rocks"), &rocks_options).unwrap(), log);

    cluster.write_until("three voters", |it| {
        let votes = |known: &RegionRecord| {
            known.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count()
        };
        it.pd.with_core(|core, _| core.regions().all(|known| votes(known) == 3)).then_some(())
    });
    cluster.pd.with_core(|core, _| core.set_config(PdConfig::manual()));
    cluster.order(OrderAction::SplitRegion { keys: vec!["m".into()], policy: SplitPolicy::Keys });
    cluster.write_until("the split", |it| {
        it.pd.with_core(|core, _| core.regions().count() == 2).then_some(())
    });

    // A snapshot from each to each, while both regions are written.
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let (source, target) = (cluster.members[from].store, cluster.members[to].store);
            let what = format!("from store {from} to store {to}");
            cluster.lead(source);
            cluster.change(ChangeKind::RemoveNode, cluster.on(target).unwrap());
            cluster.write_until(&what, |it| it.on(target).is_none().then_some(()));
            let before = (cluster.members[to].metrics)().snapshots_installed;
            let sent = (cluster.members[from].metrics)().snapshots_sent;
            let id = cluster.pd.with_core(|core, _| core.alloc_id());
            cluster.change(ChangeKind::AddNode, Peer::voter(PeerId::must(id), target));
            cluster.write_until(&what, |it| {
                let there = it.on(target).is_some();
                let installed = (it.members[to].metrics)().snapshots_installed > before;
                (there && installed && it.right().pending_peers.is_empty()).then_some(())
            });
            assert!((cluster.members[from].metrics)().snapshots_sent > sent, "{what}");
        }
    }
    equal_replicas(&mut cluster);
    let Cluster { members, .. } = cluster;
    for member in members {
        (member.stop)();
    }
}

fn equal_replicas(cluster: &mut Cluster) {
    // The stores compare hashes among themselves, also while they are written.
    cluster.write_until("equal hashes", |it| {
        let all = it.members.iter().map(|member| (member.metrics)());
        let all: Vec<_> =
            all.map(|metrics| (metrics.hashes_matched, metrics.hashes_differing)).collect();
        assert!(all.iter().all(|(_, differing)| *differing == 0), "{all:?}");
        // Two of three are told of a hash of either region, whoever leads.
        (all.iter().map(|(matched, _)| matched).sum::<u64>() >= 8).then_some(())
    });
    // Row for row, once everyone has what is written.
    let regions: Vec<_> =
        cluster.pd.with_core(|core, _| core.regions().map(|known| known.region.clone()).collect());
    let deadline = Instant::now() + DEADLINE;
    for region in &regions {
        for pair in [(0, 1), (1, 2), (2, 0)] {
            let (one, other) = (&cluster.members[pair.0].kv, &cluster.members[pair.1].kv);
            let difference =
                || first_difference(&mut ReaderSide(&**one), &mut ReaderSide(&**other), region);
            while let Some(place) = difference().unwrap() {
                assert!(Instant::now() < deadline, "{pair:?} differ: {place:?}");
                std::thread::yield_now();
            }
        }
    }
    for number in 0..400 {
        let key = format!("{}{number:04}", if number % 2 == 0 { 'a' } else { 'x' });
        let value = cluster.client.get(key.clone()).unwrap().map(|value| value.to_vec());
        let last = (0..cluster.written).rev().find(|written| written % 400 == number);
        let want = last.map(|written| format!("{written} ").repeat(20).into_bytes());
        assert_eq!(value, want, "{key}");
    }
}
