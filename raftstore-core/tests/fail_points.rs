//! A running node at named points: each is reached, and whoever fails there poisons the
//! store, which answers everybody.
#![expect(clippy::disallowed_methods, reason = "the test waits for threads, with a deadline")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine_traits::mem::{MemEngine, MemRaftLog};
use fail::FailScenario;
use pd_client::mock::{MockPd, PdConfig};
use raftstore_core::{
    Config, FatalSource,
    runtime::{Node, NodeOptions},
};
use raftstore_proto::{
    Body, Cf, ClusterId, Command, Header, Operation, Peer, Region, RegionError, ResponseBody,
};
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::must(7);
const DEADLINE: Duration = Duration::from_secs(60);

fn start() -> (Node<MemEngine>, MockPd) {
    let pd = MockPd::new(CLUSTER, PdConfig { max_replicas: 1, ..PdConfig::default() });
    let hub = ChannelHub::new(ChannelConfig::default()).expect("threads can be started");
    let config = Config {
        raft_base_tick_interval: Duration::from_millis(20),
        raft_store_max_leader_lease: Duration::from_millis(180),
        pd_heartbeat_tick_interval: Duration::from_millis(40),
        kv_sync_interval: Duration::from_millis(20),
        ..Config::default()
    };
    let (kv, raft) = (MemEngine::new(), MemRaftLog::new());
    let options = NodeOptions {
        config,
        ..NodeOptions::new(CLUSTER, "in process", kv, raft, Arc::new(pd.clone()), hub.connect())
    };
    (Node::start(options).expect("the node starts"), pd)
}

fn leader(pd: &MockPd) -> (Region, Peer) {
    let begun = Instant::now();
    loop {
        let route = pd.with_core(|core, _| core.region_by_key(&Bytes::from_static(b"k")));
        if let Some(route) = route
            && let Some(leader) = route.leader
        {
            return (route.region, leader);
        }
        assert!(begun.elapsed() < DEADLINE, "no leader");
        std::thread::yield_now();
    }
}

fn put(region: &Region, peer: Peer) -> Command {
    let operation = Operation::Put {
        cf: Cf::Default,
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
    };
    let header = Header {
        region: region.id,
        peer,
        epoch: Some(region.epoch),
        term: 0,
        read_quorum: false,
        replica_read: false,
    };
    Command { header, body: Body::Operations(vec![operation]) }
}

/// H63: whatever dies, the store stops, and nobody waits.
#[test]
fn h63_a_panic_at_any_point_poisons_the_store_and_answers_everybody() {
    let scenario = FailScenario::setup();
    for point in ["raft_before_save", "raft_between_save", "raft_after_save", "apply_before_run"] {
        let (node, pd) = start();
        let (region, peer) = leader(&pd);
        fail::cfg(point, "panic").expect("points can be set");
        let reply = node.handle().command(put(&region, peer));
        let answer = reply.wait_for(DEADLINE).expect("everybody is answered");
        fail::remove(point);
        assert_eq!(answer.body, Err(RegionError::Stopping), "{point}");
        let fatal = node.wait_fatal(Some(DEADLINE)).expect("the store has failed");
        assert!(matches!(fatal.source, FatalSource::Panic { .. }), "{point}: {fatal:?}");
        assert!(node.stop().is_err());
    }
    scenario.teardown();
}

#[test]
fn a_split_comes_to_its_point() {
    let scenario = FailScenario::setup();
    let reached = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&reached);
    fail::cfg_callback("before_split", move || {
        counter.fetch_add(1, Ordering::Relaxed);
    })
    .expect("points can be set");
    let (node, pd) = start();
    let (region, _) = leader(&pd);
    let key = Bytes::from_static(b"m");
    let begun = Instant::now();
    let parts = loop {
        let reply = node.handle().split_region(region.id, region.epoch, vec![key.clone()]);
        let answer = reply.wait_for(DEADLINE).expect("everybody is answered");
        match answer.body {
            Ok(ResponseBody::Admin(admin)) => break admin,
            other => assert!(begun.elapsed() < DEADLINE, "{other:?}"),
        }
    };
    assert!(matches!(parts, raftstore_proto::AdminResponse::Split(parts) if parts.len() == 2));
    assert_eq!(reached.load(Ordering::Relaxed), 1);
    assert!(node.handle().metrics_text(DEADLINE).contains("raftstore_splits_total 1\n"));
    node.stop().expect("nothing has failed");
    scenario.teardown();
}
