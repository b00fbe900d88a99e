//! A server that can be killed and started again at the same place, and what stores are.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use bytes::Bytes;
use pd_client::{
    StoreInfo, StoreLifecycle,
    grpc::{ClientOptions, GrpcPdClient, PdServer, ServeOptions, serve},
    mock::PdConfig,
};
use raftstore_proto::{ClusterId, Epoch, Peer, PeerId, Region, RegionId, StoreId};
use tempfile::TempDir;

pub(crate) const CLUSTER: ClusterId = ClusterId::must(7);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The simplest executor there is: a client must not need another.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
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

/// A server's place: a directory, and after the first start an address.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    address: Option<SocketAddr>,
    server: Option<PdServer>,
}

impl World {
    /// A server of a new directory.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut world = Self { dir, address: None, server: None };
        world.start();
        world
    }

    pub(crate) fn options(&self) -> ServeOptions {
        ServeOptions {
            cluster: Some(CLUSTER),
            config: PdConfig::manual(),
            ..ServeOptions::new(self.dir.path())
        }
    }

    pub(crate) fn start(&mut self) {
        let address = self.address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).expect("the address is free");
        let server = serve(listener, self.options()).expect("the directory is good");
        self.address = Some(server.address());
        self.server = Some(server);
    }

    /// Ends the server without a word.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("it runs").kill();
    }

    pub(crate) fn stop(&mut self) {
        self.server.take().expect("it runs").stop();
    }

    pub(crate) fn server(&self) -> &PdServer {
        self.server.as_ref().expect("it runs")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("it ran")
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        vec![self.address().to_string()]
    }

    pub(crate) fn client(&self) -> GrpcPdClient {
        GrpcPdClient::connect(&self.endpoints(), patient()).expect("the server is there")
    }
}

/// A deadline that only a broken client meets.
pub(crate) fn patient() -> ClientOptions {
    ClientOptions { deadline: Duration::from_secs(60), ..ClientOptions::default() }
}

pub(crate) fn info(id: u64, address: &str) -> StoreInfo {
    StoreInfo {
        id: StoreId::must(id),
        address: address.to_owned(),
        labels: vec![("zone".to_owned(), format!("z{id}"))],
        lifecycle: StoreLifecycle::Up,
    }
}

pub(crate) fn first_region(id: u64, peer: u64, store: u64) -> Region {
    Region {
        id: RegionId::must(id),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(peer), StoreId::must(store))],
    }
}
