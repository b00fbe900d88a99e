//! Stores on transports over loopback, and what stands between them.

pub mod log;
pub mod proxy;
pub mod raw;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use raftstore_grpc::{ServerConfig, ServerCounters, serve};
use raftstore_proto::{ClusterId, StoreId};
use tokio::sync::oneshot;
use tonic::service::Routes;
use transport_grpc::{GrpcConfig, GrpcSender, GrpcTransport};
use transport_traits::{Inbox, SnapStore, StoreResolver, conformance::Fixture};

pub const CLUSTER: ClusterId = ClusterId::must(77);

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `is_so`, for what tells nobody when it happens.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Addresses as a test sets them.
#[derive(Default)]
pub struct Addresses(Mutex<BTreeMap<StoreId, String>>);

impl Addresses {
    pub fn set(&self, store: StoreId, address: SocketAddr) {
        self.0.lock().insert(store, address.to_string());
    }
}

impl StoreResolver for Addresses {
    fn resolve(&self, store: StoreId) -> Option<String> {
        self.0.lock().get(&store).cloned()
    }
}

/// A transport behind a server of its own.
pub struct End {
    pub transport: GrpcTransport,
    pub address: SocketAddr,
    pub server: ServerCounters,
    stop: Option<oneshot::Sender<()>>,
}

impl End {
    /// Listens on a port of the system's choice.
    pub fn start(
        config: GrpcConfig,
        server: ServerConfig,
        cluster: ClusterId,
        resolver: Arc<dyn StoreResolver>,
        routes: Routes,
    ) -> Self {
        let transport = GrpcTransport::new(config, cluster, resolver, None).expect("it starts");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        listener.set_nonblocking(true).expect("the system allows it");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = transport.add_to(routes);
        let counters = ServerCounters::default();
        let counted = counters.clone();
        transport.runtime().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is open");
            serve(listener, routes, server, counted, async { drop(stopped.await) }).await
        });
        Self { transport, address, server: counters, stop: Some(stop) }
    }

    /// The same with the settings of most tests.
    pub fn plain(config: GrpcConfig, addresses: &Arc<Addresses>) -> Self {
        let addresses = Arc::clone(addresses) as Arc<dyn StoreResolver>;
        Self::start(config, ServerConfig::default(), CLUSTER, addresses, Routes::default())
    }

    pub fn stop(&mut self) {
        self.stop = None;
        self.transport.close();
    }
}

/// Stores for the conformance suite.
pub struct GrpcFixture {
    config: GrpcConfig,
    addresses: Arc<Addresses>,
    ends: BTreeMap<StoreId, End>,
}

impl GrpcFixture {
    pub fn new(config: GrpcConfig) -> Self {
        Self { config, addresses: Arc::default(), ends: BTreeMap::new() }
    }
}

impl Fixture for GrpcFixture {
    type Transport = GrpcSender;

    const MAY_LOSE_ANSWERS: bool = true;

    fn start(
        &mut self,
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
    ) -> GrpcSender {
        let end = End::plain(self.config.clone(), &self.addresses);
        self.addresses.set(store, end.address);
        let sender = end.transport.attach(store, inbox, snaps).expect("it is open");
        self.ends.insert(store, end);
        sender
    }

    fn stop(&mut self, store: StoreId) {
        if let Some(mut end) = self.ends.remove(&store) {
            end.stop();
        }
    }

    fn close(&mut self) {
        for end in self.ends.values_mut() {
            end.stop();
        }
    }
}
