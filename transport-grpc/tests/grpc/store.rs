//! Whole stores that reach each other over gRPC alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use engine_traits::mem::{MemEngine, MemRaftLog};
use pd_client::mock::{MockPd, PdConfig};
use raftstore_core::{
    Config,
    runtime::{
        Node, NodeOptions,
        client::{Client, LocalStores},
    },
};
use raftstore_grpc::ServerConfig;
use raftstore_proto::PeerRole;
use tonic::service::Routes;
use transport_grpc::{GrpcConfig, GrpcCounters, PdResolver};

use crate::common::{CLUSTER, End, proxy::Proxy, wait_until};

const DEADLINE: Duration = Duration::from_secs(120);

/// A store, its transport, and the way that others reach it by.
struct Machine {
    end: End,
    proxy: Proxy,
    node: Option<Node<MemEngine>>,
}

impl Machine {
    fn start(pd: &MockPd, stores: &LocalStores) -> Self {
        let resolver = Arc::new(PdResolver::new(Arc::new(pd.clone())));
        let (config, server) = (GrpcConfig::default(), ServerConfig::default());
        let end = End::start(config, server, CLUSTER, resolver, Routes::default());
        let proxy = Proxy::start(&end.transport.runtime(), end.address);
        let config = Config {
            // A replica that was away for a while gets a snapshot, not what it has missed.
            raft_log_gc_tick_interval: Duration::from_millis(200),
            raft_log_gc_threshold: 1,
            raft_log_gc_count_limit: 100,
            ..Config::in_process()
        };
        let (kv, log) = (MemEngine::new(), MemRaftLog::new());
        let (address, connect) = (proxy.address.to_string(), end.transport.connect());
        let options = NodeOptions {
            config,
            ..NodeOptions::new(CLUSTER, address, kv, log, Arc::new(pd.clone()), connect)
        };
        let node = Node::start(options).expect("it starts");
        stores.add(&node.handle());
        Self { end, proxy, node: Some(node) }
    }

    fn counters(&self) -> GrpcCounters {
        self.end.transport.counters()
    }

    fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop().expect("it has not failed");
        }
        self.end.stop();
    }
}

/// Three stores, one of which hears nothing for a while, and then gets a snapshot; in the end
/// it is one of the two that are left.
#[test]
fn three_stores_over_grpc_survive_a_partition_and_a_stop() {
    let pd = MockPd::new(CLUSTER, PdConfig::default());
    let stores = LocalStores::new(Arc::new(pd.clone()));
    let mut machines: Vec<_> = (0..3).map(|_| Machine::start(&pd, &stores)).collect();
    let mut client = Client::new(stores.clone(), DEADLINE);
    let mut model = BTreeMap::new();
    let put = |client: &mut Client<LocalStores>, model: &mut BTreeMap<String, String>, n| {
        let (key, value) = (format!("key-{}", n % 500), format!("value-{n}"));
        client.put(key.clone(), value.clone()).expect("two of three are there");
        model.insert(key, value);
    };
    wait_until("a voter on each store", || {
        pd.with_core(|core, _| {
            core.regions().all(|it| {
                it.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count() == 3
            })
        })
    });
    (0..300).for_each(|n| put(&mut client, &mut model, n));

    let received = |machines: &[Machine]| machines[2].counters().snapshots_received;
    let before = received(&machines);
    machines[2].proxy.cut();
    (300..1000).for_each(|n| put(&mut client, &mut model, n));
    machines[2].proxy.heal();
    let machines_now = &machines;
    let mut n = 1000;
    let until = std::time::Instant::now() + DEADLINE;
    // Log is removed while there is something to write.
    while received(machines_now) == before {
        assert!(std::time::Instant::now() < until, "no snapshot came");
        put(&mut client, &mut model, n);
        n += 1;
    }

    machines[0].stop();
    put(&mut client, &mut model, n);
    for (key, value) in &model {
        let read = client.get(key.clone()).expect("two of three are there");
        assert_eq!(read.as_deref(), Some(value.as_bytes()), "{key}");
    }
    for machine in &machines[1..] {
        let counters = machine.counters();
        assert!(counters.received_messages > 0 && counters.sent_messages > 0);
        assert_eq!(counters.refused.iter().sum::<u64>(), 0, "stores refuse each other");
    }
    machines.iter_mut().for_each(Machine::stop);
}
