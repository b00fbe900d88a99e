//! A client that never guesses: it says of each write whether it has happened, has not, or may
//! have. Whoever judges a history needs to know.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use raftstore_grpc::{
    ProtobufCodec,
    pb::{errorpb, kvrpcpb, metapb, pdpb},
};
use raftstore_sim::oracle::{Action, History, Outcome};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Between two attempts.
const BACK_OFF: Duration = Duration::from_millis(30);

/// What became of one request.
enum Attempt<T> {
    Done(T),
    /// It has certainly not happened and will not.
    Refused(String),
    /// It may have happened, or happen yet.
    Unknown(String),
}

/// Where a key is kept, and who leads there.
#[derive(Clone, Debug)]
struct Route {
    region: metapb::Region,
    leader: metapb::Peer,
}

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: Mutex<History>,
    pub(crate) begun: Instant,
    pub(crate) next_value: AtomicU64,
    pub(crate) is_over: AtomicBool,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) unknown: AtomicU64,
    /// What the last request that failed was answered.
    pub(crate) last_failure: Mutex<String>,
    /// Who has read or written since the last wish to see everybody do so.
    pub(crate) alive: Mutex<BTreeMap<u32, u64>>,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            history: Mutex::default(),
            begun: Instant::now(),
            next_value: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            last_failure: Mutex::default(),
            alive: Mutex::default(),
        })
    }

    fn failed(&self, why: String) {
        *self.last_failure.lock().expect("nobody panics with it") = why;
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

pub(crate) struct Client {
    number: u32,
    shared: Arc<Shared>,
    pd: SocketAddr,
    cluster: u64,
    channels: BTreeMap<String, Channel>,
    addresses: BTreeMap<u64, String>,
    routes: BTreeMap<Vec<u8>, Route>,
}

impl Client {
    pub(crate) fn new(number: u32, shared: Arc<Shared>, pd: SocketAddr) -> Self {
        let (channels, addresses, routes) = Default::default();
        Self { number, shared, pd, cluster: 0, channels, addresses, routes }
    }

    /// Writes and reads keys in turn until the run is over.
    pub(crate) async fn run(mut self, keys: u64) {
        let mut turn = u64::from(self.number);
        while !self.shared.is_over.load(Ordering::Relaxed) {
            turn = turn
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let key = format!("k{:03}", (turn >> 33) % keys).into_bytes();
            let done = if (turn >> 60).is_multiple_of(2) {
                self.write(&key).await
            } else {
                self.read(&key).await
            };
            if done {
                let mut alive = self.shared.alive.lock().expect("nobody panics with it");
                *alive.entry(self.number).or_default() += 1;
            }
        }
    }

    async fn write(&mut self, key: &[u8]) -> bool {
        let value = self.shared.next_value.fetch_add(1, Ordering::Relaxed);
        let id = {
            let mut history = self.shared.history.lock().expect("nobody panics with it");
            history.begin(key, self.number, self.shared.now(), Action::Write(value))
        };
        let until = Instant::now() + ANSWER;
        loop {
            let attempt = self.put(key, value).await;
            let outcome = match attempt {
                Attempt::Done(()) => {
                    self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                    Outcome::Done(self.shared.now())
                }
                Attempt::Unknown(why) => {
                    self.shared.failed(why);
                    self.shared.unknown.fetch_add(1, Ordering::Relaxed);
                    self.forget(key);
                    return false;
                }
                Attempt::Refused(why) if Instant::now() < until => {
                    self.shared.failed(why);
                    self.forget(key);
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
                Attempt::Refused(_) => Outcome::Refused,
            };
            self.shared.history.lock().expect("nobody panics with it").end(&id, outcome);
            return matches!(outcome, Outcome::Done(_));
        }
    }

    async fn read(&mut self, key: &[u8]) -> bool {
        let id = {
            let mut history = self.shared.history.lock().expect("nobody panics with it");
            history.begin(key, self.number, self.shared.now(), Action::Read(0))
        };
        match self.get(key).await {
            Attempt::Done(value) => {
                let now = self.shared.now();
                let mut history = self.shared.history.lock().expect("nobody panics with it");
                history.end_read(&id, value, now);
                true
            }
            // A read that failed saw nothing, and changes nothing.
            Attempt::Refused(why) | Attempt::Unknown(why) => {
                self.shared.failed(why);
                {
                    let mut history = self.shared.history.lock().expect("nobody panics with it");
                    history.end(&id, Outcome::Refused);
                }
                self.forget(key);
                tokio::time::sleep(BACK_OFF).await;
                false
            }
        }
    }

    async fn put(&mut self, key: &[u8], value: u64) -> Attempt<()> {
        let (context, channel) = match self.context(key).await {
            Ok(found) => found,
            Err(why) => return Attempt::Refused(why),
        };
        let mut request = kvrpcpb::RawPutRequest::default();
        request.set_context(context);
        request.set_key(Bytes::copy_from_slice(key));
        request.set_value(value.to_be_bytes().to_vec().into());
        let answer: Result<kvrpcpb::RawPutResponse, Status> =
            call(channel, "/tikvpb.Tikv/RawPut", request).await;
        match answer {
            Err(status) => Attempt::Unknown(status.to_string()),
            Ok(answer) if answer.has_region_error() => judged(answer.get_region_error()),
            Ok(answer) if !answer.error.is_empty() => Attempt::Unknown(answer.error),
            Ok(_) => Attempt::Done(()),
        }
    }

    async fn get(&mut self, key: &[u8]) -> Attempt<u64> {
        let (context, channel) = match self.context(key).await {
            Ok(found) => found,
            Err(why) => return Attempt::Refused(why),
        };
        let mut request = kvrpcpb::RawGetRequest::default();
        request.set_context(context);
        request.set_key(Bytes::copy_from_slice(key));
        let answer: Result<kvrpcpb::RawGetResponse, Status> =
            call(channel, "/tikvpb.Tikv/RawGet", request).await;
        match answer {
            Err(status) => Attempt::Unknown(status.to_string()),
            Ok(answer) if answer.has_region_error() => judged(answer.get_region_error()),
            Ok(answer) if !answer.error.is_empty() => Attempt::Unknown(answer.error),
            Ok(answer) if answer.not_found => Attempt::Done(0),
            Ok(answer) => match answer.value.as_ref().try_into() {
                Ok(value) => Attempt::Done(u64::from_be_bytes(value)),
                // No client wrote such a value: the history will not have it.
                Err(_) => Attempt::Done(u64::MAX),
            },
        }
    }

    fn forget(&mut self, key: &[u8]) {
        self.routes.remove(key);
    }

    /// What a request for `key` says of where it goes, and the way there.
    async fn context(&mut self, key: &[u8]) -> Result<(kvrpcpb::Context, Channel), String> {
        if !self.routes.contains_key(key) {
            let route = self.locate(key).await.map_err(|status| status.to_string())?;
            self.routes.insert(key.to_vec(), route);
        }
        let Route { region, leader } = self.routes[key].clone();
        let address = self.address(leader.store_id).await.map_err(|status| status.to_string())?;
        let channel = self.channel(&address)?;
        let mut context = kvrpcpb::Context::default();
        context.set_region_id(region.id);
        context.set_region_epoch(region.get_region_epoch().clone());
        context.set_peer(leader);
        Ok((context, channel))
    }

    fn channel(&mut self, address: &str) -> Result<Channel, String> {
        if let Some(channel) = self.channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| error.to_string())?;
        let channel = endpoint.connect_timeout(ANSWER).timeout(ANSWER).connect_lazy();
        self.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    fn pd_header(&self) -> pdpb::RequestHeader {
        let mut header = pdpb::RequestHeader::default();
        header.set_cluster_id(self.cluster);
        header
    }

    async fn pd(&mut self) -> Result<Channel, Status> {
        let channel = self.channel(&self.pd.to_string()).map_err(Status::internal)?;
        if self.cluster == 0 {
            let request = pdpb::GetMembersRequest::default();
            let answer: pdpb::GetMembersResponse =
                call(channel.clone(), "/pdpb.PD/GetMembers", request).await?;
            self.cluster = answer.get_header().cluster_id;
        }
        Ok(channel)
    }

    async fn locate(&mut self, key: &[u8]) -> Result<Route, Status> {
        let channel = self.pd().await?;
        let mut request = pdpb::GetRegionRequest::default();
        request.set_header(self.pd_header());
        request.set_region_key(Bytes::copy_from_slice(key));
        let mut answer: pdpb::GetRegionResponse =
            call(channel, "/pdpb.PD/GetRegion", request).await?;
        if !answer.has_region() || !answer.has_leader() {
            return Err(Status::unavailable("no region or no leader known"));
        }
        let (mut leader, region) = (answer.take_leader(), answer.take_region());
        // PD may know a former leader: sometimes somebody else is asked.
        let other = self.shared.next_value.load(Ordering::Relaxed);
        if other.is_multiple_of(4) && !region.peers.is_empty() {
            let at = usize::try_from(other / 4).unwrap_or_default() % region.peers.len();
            leader = region.peers[at].clone();
        }
        Ok(Route { region, leader })
    }

    async fn address(&mut self, store: u64) -> Result<String, Status> {
        if let Some(address) = self.addresses.get(&store) {
            return Ok(address.clone());
        }
        let channel = self.pd().await?;
        let mut request = pdpb::GetStoreRequest::default();
        request.set_header(self.pd_header());
        request.set_store_id(store);
        let answer: pdpb::GetStoreResponse = call(channel, "/pdpb.PD/GetStore", request).await?;
        let address = answer.get_store().address.clone();
        if address.is_empty() {
            return Err(Status::unavailable("the store has no address"));
        }
        self.addresses.insert(store, address.clone());
        Ok(address)
    }
}

/// Asks for the region of `key` to be cut there.
pub(crate) async fn split(shared: Arc<Shared>, pd: SocketAddr, key: &[u8]) -> Result<(), String> {
    let mut client = Client::new(u32::MAX, shared, pd);
    let (context, channel) = client.context(key).await?;
    let mut request = kvrpcpb::SplitRegionRequest::default();
    request.set_context(context);
    request.mut_split_keys().push(Bytes::copy_from_slice(key));
    let answer: kvrpcpb::SplitRegionResponse = call(channel, "/tikvpb.Tikv/SplitRegion", request)
        .await
        .map_err(|status: Status| status.to_string())?;
    match answer.has_region_error() {
        true => Err(format!("{:?}", answer.get_region_error())),
        false => Ok(()),
    }
}

fn judged<T>(error: &errorpb::Error) -> Attempt<T> {
    let said = format!("{error:?}");
    // Of these the store has never proposed the command.
    let is_sure = error.has_not_leader()
        || error.has_region_not_found()
        || error.has_epoch_not_match()
        || error.has_key_not_in_region()
        || error.has_store_not_match()
        || error.has_server_is_busy()
        || error.has_disk_full();
    if is_sure { Attempt::Refused(said) } else { Attempt::Unknown(said) }
}

async fn call<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: protobuf::Message,
    A: protobuf::Message,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProtobufCodec::<Q, A>::default();
    let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}
