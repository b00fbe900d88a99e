//! A client of raftkv as lean as the one of etcd: regions from PD once, again after an error;
//! requests one by one, or many in a message.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use raftstore_grpc::{
    ProtobufCodec,
    pb::{errorpb, kvrpcpb, metapb, pdpb, tikvpb},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use transport_traits::BoxError;

use crate::{Ask, Options, Target, key};

/// Most commands of one message.
const BATCH: usize = 256;

const PATIENCE: Duration = Duration::from_secs(120);

type Sent = tikvpb::BatchCommandsRequest_Request;
type Answered = tikvpb::BatchCommandsResponse_Response;

struct Node {
    channels: Vec<Channel>,
    /// Streams of batches, one on each connection.
    streams: Vec<mpsc::UnboundedSender<(Sent, oneshot::Sender<Answered>)>>,
}

#[derive(Clone)]
struct Route {
    region: metapb::Region,
    leader: metapb::Peer,
}

pub(crate) struct Cluster {
    pd: Channel,
    cluster: u64,
    batched: bool,
    nodes: BTreeMap<u64, Node>,
    routes: RwLock<BTreeMap<Bytes, Route>>,
    /// When routes were last asked for.
    asked: Mutex<Instant>,
}

fn channel(address: &str) -> Result<Channel, BoxError> {
    let address = address.trim_start_matches("http://");
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect_lazy())
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, BoxError>
where
    Q: protobuf::Message,
    A: protobuf::Message,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProtobufCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
}

impl Cluster {
    /// Finds the nodes, cuts the keys into regions, and waits until leaders are spread.
    pub(crate) async fn connect(options: &Options) -> Result<Self, BoxError> {
        let pd = channel(options.endpoints.first().ok_or("no endpoint of PD")?)?;
        let members: pdpb::GetMembersResponse =
            call(&pd, "/pdpb.PD/GetMembers", pdpb::GetMembersRequest::default()).await?;
        let mut this = Self {
            pd,
            cluster: members.get_header().cluster_id,
            batched: options.target == Target::RaftkvBatch,
            nodes: BTreeMap::new(),
            routes: RwLock::default(),
            asked: Mutex::new(Instant::now()),
        };
        let mut request = pdpb::GetAllStoresRequest::default();
        request.set_header(this.header());
        let stores: pdpb::GetAllStoresResponse =
            call(&this.pd, "/pdpb.PD/GetAllStores", request).await?;
        for store in &stores.stores {
            let channels = (0..options.connections)
                .map(|_| channel(&store.address))
                .collect::<Result<Vec<_>, _>>()?;
            let mut streams = Vec::new();
            if this.batched {
                for channel in &channels {
                    streams.push(stream(channel.clone()));
                }
            }
            this.nodes.insert(store.id, Node { channels, streams });
        }
        this.cut(options).await?;
        Ok(this)
    }

    fn header(&self) -> pdpb::RequestHeader {
        let mut header = pdpb::RequestHeader::default();
        header.set_cluster_id(self.cluster);
        header
    }

    async fn learn(&self) -> Result<(), BoxError> {
        let mut request = pdpb::ScanRegionsRequest::default();
        request.set_header(self.header());
        request.set_limit(i32::MAX);
        let answer: pdpb::ScanRegionsResponse =
            call(&self.pd, "/pdpb.PD/ScanRegions", request).await?;
        let routes = answer
            .regions
            .iter()
            .filter(|known| known.has_leader() && known.get_leader().store_id != 0)
            .map(|known| {
                let (region, leader) = (known.get_region().clone(), known.get_leader().clone());
                (region.start_key.clone(), Route { region, leader })
            })
            .collect();
        *self.routes.write() = routes;
        Ok(())
    }

    /// Learns again, unless somebody else just did.
    async fn learn_again(&self) -> Result<(), BoxError> {
        {
            let mut asked = self.asked.lock();
            if asked.elapsed() < Duration::from_millis(20) {
                return Ok(());
            }
            *asked = Instant::now();
        }
        self.learn().await
    }

    fn route(&self, key: &Bytes) -> Option<Route> {
        let routes = self.routes.read();
        let (_, route) =
            routes.range::<Bytes, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        let end = &route.region.end_key;
        (end.is_empty() || key < end).then(|| route.clone())
    }

    async fn cut(&self, options: &Options) -> Result<(), BoxError> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.learn().await?;
            let known = self.routes.read().len() as u64;
            if known >= options.regions {
                break;
            }
            if Instant::now() > until {
                return Err(format!("{known} regions of {} with a leader", options.regions).into());
            }
            for part in 1..options.regions {
                let cut = key(options.keys * part / options.regions);
                let Some(route) = self.route(&cut) else { continue };
                if route.region.start_key == cut {
                    continue;
                }
                let mut request = kvrpcpb::SplitRegionRequest::default();
                request.set_context(context(&route));
                request.mut_split_keys().push(cut);
                let node = self.nodes.get(&route.leader.store_id).ok_or("unknown store")?;
                let _: Result<kvrpcpb::SplitRegionResponse, _> =
                    call(&node.channels[0], "/tikvpb.Tikv/SplitRegion", request).await;
                self.learn().await?;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Leaders on every node, if the placement driver spreads them in time.
        let spread = Instant::now() + Duration::from_secs(20);
        loop {
            self.learn().await?;
            let mut led = BTreeMap::<u64, u64>::new();
            self.routes
                .read()
                .values()
                .for_each(|it| *led.entry(it.leader.store_id).or_default() += 1);
            let fair = options.regions / (self.nodes.len() as u64 + 1);
            let is_fair = led.len() == self.nodes.len() && led.values().all(|led| *led >= fair);
            if is_fair || options.regions < self.nodes.len() as u64 || Instant::now() > spread {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) async fn ask(&self, client: u64, ask: &Ask) -> Result<(), BoxError> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match self.attempt(client, ask).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => {
                    self.learn_again().await?;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    }

    async fn attempt(&self, client: u64, ask: &Ask) -> Result<(), BoxError> {
        let (Ask::Put(key, _) | Ask::Get(key)) = ask;
        let route = self.route(key).ok_or("no route")?;
        let node = self.nodes.get(&route.leader.store_id).ok_or("unknown store")?;
        let at = usize::try_from(client)? % node.channels.len();
        match ask {
            Ask::Put(key, value) => {
                let mut request = kvrpcpb::RawPutRequest::default();
                request.set_context(context(&route));
                request.set_key(key.clone());
                request.set_value(value.clone());
                let answer: kvrpcpb::RawPutResponse = if self.batched {
                    let mut sent = Sent::default();
                    sent.set_RawPut(request);
                    batched(&node.streams[at], sent).await?.take_RawPut()
                } else {
                    call(&node.channels[at], "/tikvpb.Tikv/RawPut", request).await?
                };
                checked(answer.region_error.as_ref(), &answer.error)
            }
            Ask::Get(key) => {
                let mut request = kvrpcpb::RawGetRequest::default();
                request.set_context(context(&route));
                request.set_key(key.clone());
                let answer: kvrpcpb::RawGetResponse = if self.batched {
                    let mut sent = Sent::default();
                    sent.set_RawGet(request);
                    batched(&node.streams[at], sent).await?.take_RawGet()
                } else {
                    call(&node.channels[at], "/tikvpb.Tikv/RawGet", request).await?
                };
                checked(answer.region_error.as_ref(), &answer.error)?;
                if answer.not_found { Err("the key is not there".into()) } else { Ok(()) }
            }
        }
    }
}

fn checked(region: Option<&errorpb::Error>, error: &str) -> Result<(), BoxError> {
    match region {
        Some(region) => Err(format!("{region:?}").into()),
        None if !error.is_empty() => Err(error.into()),
        None => Ok(()),
    }
}

fn context(route: &Route) -> kvrpcpb::Context {
    let mut context = kvrpcpb::Context::default();
    context.set_region_id(route.region.id);
    context.set_region_epoch(route.region.get_region_epoch().clone());
    context.set_peer(route.leader.clone());
    context
}

async fn batched(
    stream: &mpsc::UnboundedSender<(Sent, oneshot::Sender<Answered>)>,
    sent: Sent,
) -> Result<Answered, BoxError> {
    let (answer, answered) = oneshot::channel();
    stream.send((sent, answer)).map_err(|_| "the stream has ended")?;
    Ok(answered.await?)
}

/// Gathers commands into messages while the one before is on its way, and hands answers out.
fn stream(channel: Channel) -> mpsc::UnboundedSender<(Sent, oneshot::Sender<Answered>)> {
    let (sender, mut asks) = mpsc::unbounded_channel::<(Sent, oneshot::Sender<Answered>)>();
    tokio::spawn(async move {
        let waiting = Arc::new(Mutex::new(BTreeMap::<u64, oneshot::Sender<Answered>>::new()));
        let (messages, outgoing) = mpsc::unbounded_channel();
        let gather = {
            let waiting = Arc::clone(&waiting);
            async move {
                let (mut next, mut some) = (0_u64, Vec::with_capacity(BATCH));
                while asks.recv_many(&mut some, BATCH).await > 0 {
                    let mut message = tikvpb::BatchCommandsRequest::default();
                    {
                        let mut waiting = waiting.lock();
                        for (sent, answer) in some.drain(..) {
                            next += 1;
                            waiting.insert(next, answer);
                            message.mut_requests().push(sent);
                            message.mut_request_ids().push(next);
                        }
                    }
                    if messages.send(message).is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
        };
        let hand_out = async move {
            let mut grpc = Grpc::new(channel);
            grpc.ready().await?;
            let codec =
                ProtobufCodec::<tikvpb::BatchCommandsRequest, tikvpb::BatchCommandsResponse>::default();
            let path = PathAndQuery::from_static("/tikvpb.Tikv/BatchCommands");
            let outgoing = Request::new(UnboundedReceiverStream::new(outgoing));
            let mut answers = grpc.streaming(outgoing, path, codec).await?.into_inner();
            while let Some(mut answer) = answers.message().await? {
                let ids = answer.take_request_ids();
                let mut waiting = waiting.lock();
                for (id, response) in ids.into_iter().zip(answer.take_responses()) {
                    if let Some(caller) = waiting.remove(&id) {
                        let _ = caller.send(response);
                    }
                }
            }
            Ok::<_, BoxError>(())
        };
        // Whoever still waits when one of them ends learns it from the closed channel.
        tokio::select! {
            () = gather => {}
            _ = hand_out => {}
        }
    });
    sender
}
