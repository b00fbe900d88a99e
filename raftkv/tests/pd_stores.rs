//! Stores that ask a PD over the network: it gives the region replicas, is killed while they
//! go on, and comes back to have the region split.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use engine_traits::mem::{MemEngine, MemRaftLog};
use pd_client::{
    OrderAction, RegionRoute, SplitPolicy,
    grpc::{ClientOptions, GrpcPdClient, PdServer, ServeOptions, serve},
    mock::{PdConfig, RegionRecord},
};
use raftstore_core::{
    Config,
    runtime::{Node, NodeOptions, client::Client, client::LocalStores},
};
use raftstore_proto::{ClusterId, PeerRole};
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::must(7);
/// How long anything may take. Only what is broken takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

fn start_pd(dir: &Path, address: SocketAddr) -> PdServer {
    let listener = TcpListener::bind(address).expect("the address is free");
    let config = PdConfig { max_replicas: 3, ..PdConfig::default() };
    let options = ServeOptions { cluster: Some(CLUSTER), config, ..ServeOptions::new(dir) };
    serve(listener, options).expect("the directory is good")
}

fn connect(pd: SocketAddr) -> Arc<GrpcPdClient> {
    let options = ClientOptions { deadline: PATIENCE, ..ClientOptions::default() };
    Arc::new(GrpcPdClient::connect(&[pd.to_string()], options).expect("PD is there"))
}

/// Everything the PD shows.
fn routes(pd: &PdServer) -> Vec<RegionRoute> {
    let all = |core: &mut pd_client::mock::PdCore, _| -> Vec<RegionRoute> {
        core.regions().map(RegionRecord::route).collect()
    };
    pd.with_core(all).expect("the disk is good")
}

#[test]
fn stores_go_on_without_pd_and_find_it_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let pd = start_pd(dir.path(), ([127, 0, 0, 1], 0).into());
    let address = pd.address();
    let hub = ChannelHub::new(ChannelConfig::default()).expect("a transport");
    let stores = LocalStores::new(connect(address));
    let nodes: Vec<Node<MemEngine>> = (1..=3)
        .map(|number| {
            let (kv, log) = (MemEngine::new(), MemRaftLog::new());
            let at = format!("store-{number}.invalid:20160");
            let mut options =
                NodeOptions::new(CLUSTER, at, kv, log, connect(address), hub.connect());
            options.config = Config::in_process();
            let node = Node::start(options).expect("it starts");
            stores.add(&node.handle());
            node
        })
        .collect();
    let mut client = Client::new(stores, PATIENCE);
    let mut written: u32 = 0;
    let mut put = |client: &mut Client<LocalStores>, count: u32| {
        for _ in 0..count {
            client.put(format!("key/{written:06}"), format!("value {written}")).expect("it is put");
            written += 1;
        }
        written
    };
    let deadline = Instant::now() + PATIENCE;
    let until = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} took too long");
        }
    };

    until("bringing replicas", &mut || {
        put(&mut client, 1);
        let voters = |route: &RegionRoute| {
            route.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count()
        };
        routes(&pd).iter().any(|route| voters(route) == 3)
    });
    let ids = routes(&pd);

    pd.kill();
    put(&mut client, 20);
    let pd = start_pd(dir.path(), address);
    let cut = format!("key/{:06}", put(&mut client, 1) / 2);

    let whole = ids[0].region.id;
    let split = OrderAction::SplitRegion { keys: vec![cut.into()], policy: SplitPolicy::Keys };
    until("a report after the restart", &mut || {
        put(&mut client, 1);
        routes(&pd).iter().any(|route| route.region.peers.len() == 3)
    });
    pd.with_core(move |core, now_ms| core.force_order(now_ms, whole, split))
        .expect("the disk is good")
        .expect("the region is known");
    until("the split", &mut || {
        put(&mut client, 1);
        routes(&pd).iter().filter(|route| route.leader.is_some()).count() == 2
    });
    let new = routes(&pd).into_iter().find(|route| route.region.id != whole).expect("a new part");
    let used = ids[0].region.peers.iter().map(|peer| peer.id.get()).max();
    assert!(Some(new.region.id.get()) > used, "{new:?} has an id that was in use");

    for number in 0..put(&mut client, 1) {
        let value = client.get(format!("key/{number:06}")).expect("it can be read");
        assert_eq!(value.as_deref(), Some(format!("value {number}").as_bytes()), "key {number}");
    }
    for node in nodes {
        node.stop().expect("it ran without a fault");
    }
    pd.stop();
}
