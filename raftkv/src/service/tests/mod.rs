//! The service as a client meets it: over gRPC, in front of three stores of this process.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine_traits::mem::{MemEngine, MemRaftLog};
use pd_client::{
    PdClient,
    mock::{MockPd, PdConfig},
};
use raftstore_core::{
    Config,
    runtime::{Node, NodeOptions},
};
use raftstore_grpc::pb::{
    errorpb,
    kvrpcpb::{Context, RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse},
};
use raftstore_proto::{
    ClusterId, PeerRole, Region, StoreId,
    wire::{epoch_to_pb, peer_to_pb},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use transport_traits::{ChannelConfig, ChannelHub};

use super::{RawService, stubs::tikv_client::TikvClient};

mod commands;
mod refusals;
mod rows;
mod streams;

const CLUSTER: ClusterId = ClusterId::must(5);
const DEADLINE: Duration = Duration::from_secs(60);

type Client = TikvClient<Channel>;

struct Fixture {
    pd: MockPd,
    nodes: Vec<Node<MemEngine>>,
    clients: BTreeMap<StoreId, Client>,
    _hub: ChannelHub,
}

impl Fixture {
    /// Three stores with a replica each.
    async fn start() -> Self {
        Self::with(Config { raft_entry_max_size: 1 << 20, ..Config::in_process() }).await
    }

    async fn with(config: Config) -> Self {
        let pd = MockPd::new(CLUSTER, PdConfig { max_replicas: 3, ..PdConfig::default() });
        let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
        let (mut nodes, mut clients) = (Vec::new(), BTreeMap::new());
        for address in ["store-1", "store-2", "store-3"] {
            let (kv, log) = (MemEngine::new(), MemRaftLog::new());
            let pd = Arc::new(pd.clone());
            let options = NodeOptions {
                config: config.clone(),
                ..NodeOptions::new(CLUSTER, address, kv, log, pd, hub.connect())
            };
            let node = Node::start(options).unwrap();
            clients.insert(node.store(), serve(&node).await);
            nodes.push(node);
        }
        let this = Self { pd, nodes, clients, _hub: hub };
        let voters = |region: &Region| {
            region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count()
        };
        let all_vote =
            || this.pd.with_core(|core, _| core.regions().all(|it| voters(&it.region) == 3));
        wait_until("three voters", || async { all_vote().then_some(()) }).await;
        this
    }

    /// The region of a key as PD knows it, with its leader.
    async fn route(&self, key: &str) -> (Region, StoreId) {
        wait_until("a leader", || async {
            let route = self.pd.region_by_key(Bytes::copy_from_slice(key.as_bytes())).await;
            let route = route.unwrap()?;
            Some((route.region, route.leader?.store))
        })
        .await
    }

    fn client(&self, store: StoreId) -> Client {
        self.clients[&store].clone()
    }

    /// A request for the leader of the region of `key`, sent until no region refuses it.
    async fn ask<A, F: Future<Output = A>>(
        &self,
        key: &str,
        mut send: impl FnMut(Client, Context) -> F,
        region_error: impl Fn(&A) -> Option<&errorpb::Error>,
    ) -> A {
        let mut told: Option<(Region, StoreId)> = None;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (region, store) = match told.take() {
                Some(told) => told,
                None => self.route(key).await,
            };
            let answer = send(self.client(store), context(&region, store)).await;
            match region_error(&answer) {
                None => return answer,
                Some(error) => {
                    assert!(Instant::now() < deadline, "refused to the end: {error:?}");
                    let leader = error.not_leader.as_ref().and_then(|it| it.leader.as_ref());
                    told = leader.map(|it| (region, StoreId::must(it.store_id)));
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn put(&self, key: &str, value: &str) {
        let send = |mut client: Client, context| {
            let mut request = RawPutRequest::default();
            request.set_context(context);
            request.key = bytes(key);
            request.value = bytes(value);
            async move { client.raw_put(request).await.unwrap().into_inner() }
        };
        let answer: RawPutResponse = self.ask(key, send, |it| it.region_error.as_ref()).await;
        assert_eq!(answer.error, "");
    }

    async fn get(&self, key: &str) -> Option<String> {
        let send = |mut client: Client, context| {
            let request = get_request(context, key);
            async move { client.raw_get(request).await.unwrap().into_inner() }
        };
        let answer: RawGetResponse = self.ask(key, send, |it| it.region_error.as_ref()).await;
        assert_eq!(answer.error, "");
        let value = String::from_utf8(answer.value.to_vec()).unwrap();
        assert!(!answer.not_found || value.is_empty());
        (!answer.not_found).then_some(value)
    }

    /// A request with the context that the leader of the region of `key` takes.
    async fn leader(&self, key: &str) -> (Client, Context) {
        let send = |mut client: Client, context: Context| {
            let request = get_request(context.clone(), key);
            async move {
                let answer = client.raw_get(request).await.unwrap().into_inner();
                (answer, client, context)
            }
        };
        let (_, client, context) = self.ask(key, send, |(it, ..)| it.region_error.as_ref()).await;
        (client, context)
    }
}

/// Serves a node on a port of its own.
async fn serve(node: &Node<MemEngine>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = RawService::new(node.handle()).into_server();
    let server = Server::builder().add_service(server);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    TikvClient::connect(format!("http://{address}")).await.unwrap()
}

/// Polls until `look` gives something.
async fn wait_until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn context(region: &Region, store: StoreId) -> Context {
    let mut context = Context { region_id: region.id.get(), ..Default::default() };
    context.set_region_epoch(epoch_to_pb(region.epoch));
    context.peer = region.peer_on(store).map(peer_to_pb).into();
    context
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn get_request(context: Context, key: &str) -> RawGetRequest {
    let mut request = RawGetRequest::default();
    request.set_context(context);
    request.key = bytes(key);
    request
}

fn put_request(context: &Context, key: &str, value: &str) -> RawPutRequest {
    let mut request = RawPutRequest::default();
    request.set_context(context.clone());
    request.key = bytes(key);
    request.value = bytes(value);
    request
}
