//! DISK-02 in a running node: it looks at its device, refuses what it has no room for, and
//! takes it again when there is room.
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
use pd_client::mock::{MockPd, PdConfig};
use raftstore_core::{
    Config,
    runtime::{DiskSpace, Node, NodeOptions},
};
use raftstore_proto::{
    Body, Cf, ClusterId, Command, Header, Operation, RegionError, ResponseBody, StoreId,
};
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::must(7);
const DEADLINE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Asks the leader for one operation until the answer is one that `wanted` accepts.
fn ask_until(
    node: &Node<MemEngine>,
    pd: &MockPd,
    operation: &Operation,
    wanted: impl Fn(&Result<ResponseBody, RegionError>) -> bool,
) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < DEADLINE, "not in time: {operation:?}");
        let route = pd.with_core(|core, _| core.region_by_key(b"k"));
        let found = route.and_then(|route| Some((route.leader?, route.region)));
        if let Some((peer, region)) = found {
            let header = Header {
                region: region.id,
                peer,
                epoch: Some(region.epoch),
                term: 0,
                read_quorum: false,
                replica_read: false,
            };
            let body = Body::Operations(vec![operation.clone()]);
            let reply = node.handle().command(Command { header, body });
            let answer = reply.wait_for(DEADLINE).expect("everybody is answered");
            if wanted(&answer.body) {
                return;
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn disk_02_a_node_looks_at_its_device() {
    let pd = MockPd::new(CLUSTER, PdConfig { max_replicas: 1, ..PdConfig::default() });
    let hub = ChannelHub::new(ChannelConfig::default()).expect("threads can be started");
    let config = Config {
        raft_base_tick_interval: Duration::from_millis(20),
        raft_store_max_leader_lease: Duration::from_millis(180),
        pd_heartbeat_tick_interval: Duration::from_millis(40),
        pd_store_heartbeat_tick_interval: Duration::from_millis(40),
        reserve_space: MIB,
        lanes: 3,
        ..Config::default()
    };
    let free = Arc::new(AtomicU64::new(100 * MIB));
    let seen = Arc::clone(&free);
    let probe = move || {
        let free_bytes = seen.load(Ordering::Relaxed);
        Ok(DiskSpace { total_bytes: 1000 * MIB, free_bytes })
    };
    let (kv, raft) = (MemEngine::new(), MemRaftLog::new());
    let options = NodeOptions {
        config,
        disk: Some(Box::new(probe)),
        ..NodeOptions::new(CLUSTER, "in process", kv, raft, Arc::new(pd.clone()), hub.connect())
    };
    let node = Node::start(options).expect("the node starts");
    let key = Bytes::from_static(b"k");
    let put = Operation::Put { cf: Cf::Default, key: key.clone(), value: Bytes::from_static(b"v") };
    let get = Operation::Get { cf: Cf::Default, key: key.clone() };
    let delete = Operation::Delete { cf: Cf::Default, key };
    let store: StoreId = node.handle().store();
    let is_refused = |answer: &Result<ResponseBody, RegionError>| {
        *answer == Err(RegionError::DiskFull { stores: vec![store] })
    };
    ask_until(&node, &pd, &put, Result::is_ok);
    for few in [3 * MIB / 2, MIB / 2] {
        free.store(few, Ordering::Relaxed);
        ask_until(&node, &pd, &put, is_refused);
        ask_until(&node, &pd, &get, Result::is_ok);
        ask_until(&node, &pd, &delete, Result::is_ok);
    }
    free.store(100 * MIB, Ordering::Relaxed);
    ask_until(&node, &pd, &put, Result::is_ok);
    node.stop().expect("it stops in order");
}
