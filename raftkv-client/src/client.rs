//! The client.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use raftstore_grpc::{
    ProtobufCodec,
    pb::{errorpb, kvrpcpb, metapb, pdpb},
};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::{
    ClientError,
    batch::{Answered, BatchStream, Sent},
    error::Failed,
    routes::{Route, Routes},
};

/// Least wait between two attempts.
const BACK_OFF: Duration = Duration::from_millis(2);

/// How a client goes about it.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Many commands in a message, or one by one.
    pub batched: bool,
    /// Connections to each store.
    pub connections: usize,
    /// How long a request is tried.
    pub patience: Duration,
    /// How long one attempt waits for its answer.
    pub answer_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            batched: false,
            connections: 4,
            patience: Duration::from_secs(20),
            answer_timeout: Duration::from_secs(5),
        }
    }
}

/// The attempts at one request.
struct Attempts {
    begun: Instant,
    patience: Duration,
    wait: Duration,
    is_repeatable: bool,
}

impl Attempts {
    fn new(patience: Duration, is_repeatable: bool) -> Self {
        Self { begun: Instant::now(), patience, wait: BACK_OFF, is_repeatable }
    }

    /// Waits until it is time to try again, or gives up.
    async fn after(&mut self, failed: Failed) -> Result<(), ClientError> {
        let pause = match failed {
            Failed::Refused(what) => return Err(ClientError::Refused { what }),
            Failed::Unknown(what) if !self.is_repeatable => {
                return Err(ClientError::Unknown { what });
            }
            Failed::Busy(_, pause) => pause,
            Failed::Unknown(_) | Failed::Elsewhere(_) => self.wait,
        };
        if self.begun.elapsed() + pause > self.patience {
            return Err(ClientError::TimedOut { patience: self.patience, last: failed.said() });
        }
        tokio::time::sleep(pause).await;
        self.wait = (self.wait * 2).min(Duration::from_millis(200));
        Ok(())
    }
}

/// Tries `$attempt` until it works, time is up, or it must not be tried again. A macro, because
/// futures of closures that borrow cannot yet be sent between threads.
macro_rules! until_it_works {
    ($client:expr, $key:expr, $is_repeatable:expr, |$route:ident| $attempt:block) => {{
        let mut attempts = Attempts::new($client.0.options.patience, $is_repeatable);
        loop {
            let tried = match $client.route($key).await {
                Ok(found) => {
                    let $route = &found;
                    async { $attempt }.await
                }
                Err(failed) => Err(failed),
            };
            match tried {
                Ok(answer) => break Ok(answer),
                Err(failed) => attempts.after(failed).await?,
            }
        }
    }};
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// What a conditional write found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Whether the value was replaced.
    pub swapped: bool,
    /// The value before; `None` if there was none.
    pub previous: Option<Bytes>,
}

#[derive(Debug)]
struct Store {
    channels: Vec<Channel>,
    streams: Mutex<Vec<Option<BatchStream>>>,
}

#[derive(Debug)]
struct Inner {
    options: ClientOptions,
    pd: Vec<Channel>,
    /// Which of them is asked.
    pd_at: AtomicUsize,
    cluster: u64,
    stores: Mutex<BTreeMap<u64, Arc<Store>>>,
    routes: Routes,
    /// Spreads requests over connections.
    turn: AtomicUsize,
}

/// See the crate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

fn lazily(address: &str, options: &ClientOptions) -> Result<Channel, ClientError> {
    let bare = address.trim().trim_start_matches("http://");
    let bad = || ClientError::BadAddress { address: address.to_owned() };
    let (host, port) = bare.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(format!("http://{bare}")).map_err(|_| bad())?;
    Ok(endpoint
        .connect_timeout(options.answer_timeout)
        .timeout(options.answer_timeout)
        .tcp_nodelay(true)
        .connect_lazy())
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: protobuf::Message,
    A: protobuf::Message,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProtobufCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(path);
    Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
}

impl Client {
    /// A client of the cluster that the placement driver at one of `endpoints` serves.
    ///
    /// # Errors
    /// `BadAddress`; `Placement` if none of them answers.
    pub async fn connect(
        endpoints: &[String],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let pd = endpoints
            .iter()
            .map(|address| lazily(address, &options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut last = "no address was given".to_owned();
        for (at, channel) in pd.iter().enumerate() {
            let asked: Result<pdpb::GetMembersResponse, Status> =
                call(channel, "/pdpb.PD/GetMembers", pdpb::GetMembersRequest::default()).await;
            match asked {
                Ok(answer) if answer.get_header().cluster_id != 0 => {
                    let cluster = answer.get_header().cluster_id;
                    return Ok(Self(Arc::new(Inner {
                        options,
                        pd,
                        pd_at: AtomicUsize::new(at),
                        cluster,
                        stores: Mutex::default(),
                        routes: Routes::default(),
                        turn: AtomicUsize::new(0),
                    })));
                }
                Ok(_) => last = format!("{} names no cluster", endpoints[at]),
                Err(status) => last = format!("{}: {status}", endpoints[at]),
            }
        }
        Err(ClientError::Placement { what: last })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&self, key: Bytes) -> Result<Option<Bytes>, ClientError> {
        until_it_works!(self, &key, true, |route| {
            let mut request = kvrpcpb::RawGetRequest::default();
            request.set_context(route.context());
            request.set_key(key.clone());
            let mut answer: kvrpcpb::RawGetResponse = if self.0.options.batched {
                let mut sent = Sent::default();
                sent.set_RawGet(request);
                self.batched(route, sent).await?.take_RawGet()
            } else {
                self.unary(route, "/tikvpb.Tikv/RawGet", request).await?
            };
            self.told(route, answer.region_error.as_ref(), &answer.error)?;
            Ok((!answer.not_found).then(|| answer.take_value()))
        })
    }

    /// Stores a value.
    ///
    /// # Errors
    /// See [`ClientError`]. After `TimedOut` the value may be there or not, or come later.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<(), ClientError> {
        until_it_works!(self, &key, true, |route| {
            let mut request = kvrpcpb::RawPutRequest::default();
            request.set_context(route.context());
            request.set_key(key.clone());
            request.set_value(value.clone());
            let answer: kvrpcpb::RawPutResponse = if self.0.options.batched {
                let mut sent = Sent::default();
                sent.set_RawPut(request);
                self.batched(route, sent).await?.take_RawPut()
            } else {
                self.unary(route, "/tikvpb.Tikv/RawPut", request).await?
            };
            self.told(route, answer.region_error.as_ref(), &answer.error)
        })
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// As for [`Client::put`].
    pub async fn delete(&self, key: Bytes) -> Result<(), ClientError> {
        until_it_works!(self, &key, true, |route| {
            let mut request = kvrpcpb::RawDeleteRequest::default();
            request.set_context(route.context());
            request.set_key(key.clone());
            let answer: kvrpcpb::RawDeleteResponse =
                self.unary(route, "/tikvpb.Tikv/RawDelete", request).await?;
            self.told(route, answer.region_error.as_ref(), &answer.error)
        })
    }

    /// Replaces a value by `new` if it is `expected`; `None` for no value.
    ///
    /// # Errors
    /// See [`ClientError`]. It is tried again only where nothing was done: else `Unknown`.
    pub async fn compare_and_swap(
        &self,
        key: Bytes,
        expected: Option<Bytes>,
        new: Bytes,
    ) -> Result<Swap, ClientError> {
        until_it_works!(self, &key, false, |route| {
            let mut request = kvrpcpb::RawCASRequest::default();
            request.set_context(route.context());
            request.set_key(key.clone());
            request.set_value(new.clone());
            match &expected {
                Some(value) => request.set_previous_value(value.clone()),
                None => request.set_previous_not_exist(true),
            }
            let mut answer: kvrpcpb::RawCASResponse =
                self.unary(route, "/tikvpb.Tikv/RawCompareAndSwap", request).await?;
            self.told(route, answer.region_error.as_ref(), &answer.error)?;
            let previous = (!answer.previous_not_exist).then(|| answer.take_previous_value());
            Ok(Swap { swapped: answer.succeed, previous })
        })
    }

    /// The first `limit` rows from `start` on, over as many regions as it takes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scan(&self, start: Bytes, limit: u32) -> Result<Vec<Row>, ClientError> {
        let (mut rows, mut from) = (Vec::new(), start);
        loop {
            let left = limit - u32::try_from(rows.len()).unwrap_or(limit);
            let found = until_it_works!(self, &from, true, |route| {
                let mut request = kvrpcpb::RawScanRequest::default();
                request.set_context(route.context());
                request.set_start_key(from.clone());
                request.set_limit(left);
                let mut answer: kvrpcpb::RawScanResponse =
                    self.unary(route, "/tikvpb.Tikv/RawScan", request).await?;
                self.told(route, answer.region_error.as_ref(), "")?;
                let pairs = answer.take_kvs().into_iter();
                let of_region: Vec<Row> = pairs
                    .map(|mut pair| Row { key: pair.take_key(), value: pair.take_value() })
                    .collect();
                Ok((of_region, route.region.end_key.clone()))
            });
            let (some, end) = found?;
            rows.extend(some);
            if rows.len() >= limit as usize || end.is_empty() {
                return Ok(rows);
            }
            from = end;
        }
    }

    /// Cuts the region of `key` there, unless it begins there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn split(&self, key: Bytes) -> Result<(), ClientError> {
        until_it_works!(self, &key, true, |route| {
            if route.region.start_key == key {
                return Ok(());
            }
            let mut request = kvrpcpb::SplitRegionRequest::default();
            request.set_context(route.context());
            request.mut_split_keys().push(key.clone());
            let answer: kvrpcpb::SplitRegionResponse =
                self.unary(route, "/tikvpb.Tikv/SplitRegion", request).await?;
            self.told(route, answer.region_error.as_ref(), "")?;
            self.0.routes.forget(&route.region.start_key);
            Ok(())
        })
    }

    /// How many regions each store leads, as far as PD knows.
    ///
    /// # Errors
    /// `Placement`.
    pub async fn leaders(&self) -> Result<BTreeMap<u64, u64>, ClientError> {
        let mut request = pdpb::GetAllStoresRequest::default();
        request.set_header(self.header());
        let stores: pdpb::GetAllStoresResponse =
            self.pd("/pdpb.PD/GetAllStores", request).await.map_err(placement)?;
        let mut led: BTreeMap<u64, u64> = stores
            .stores
            .iter()
            .filter(|store| store.state != metapb::StoreState::Tombstone)
            .map(|store| (store.id, 0))
            .collect();
        let mut request = pdpb::ScanRegionsRequest::default();
        request.set_header(self.header());
        request.set_limit(i32::MAX);
        let answer: pdpb::ScanRegionsResponse =
            self.pd("/pdpb.PD/ScanRegions", request).await.map_err(placement)?;
        for region in answer.regions.iter().filter(|region| region.has_leader()) {
            *led.entry(region.get_leader().store_id).or_default() += 1;
        }
        Ok(led)
    }

    async fn route(&self, key: &Bytes) -> Result<Route, Failed> {
        if let Some(route) = self.0.routes.find(key) {
            return Ok(route);
        }
        let mut request = pdpb::GetRegionRequest::default();
        request.set_header(self.header());
        request.set_region_key(key.clone());
        let asked: Result<pdpb::GetRegionResponse, Status> =
            self.pd("/pdpb.PD/GetRegion", request).await;
        let mut answer = asked.map_err(|status| Failed::Elsewhere(status.to_string()))?;
        if !answer.has_region() {
            return Err(Failed::Elsewhere("PD knows no region of the key".to_owned()));
        }
        let region = answer.take_region();
        let mut leader = answer.take_leader();
        if leader.store_id == 0 {
            // Somebody will know better.
            let at = self.0.turn.fetch_add(1, Ordering::Relaxed) % region.peers.len().max(1);
            let peer = region.peers.get(at).cloned();
            leader = peer.ok_or_else(|| Failed::Elsewhere("the region has no peers".to_owned()))?;
        }
        let route = Route { region, leader };
        self.0.routes.learn(route.clone());
        Ok(route)
    }

    /// Takes from a refusal what it says about routes.
    fn told(
        &self,
        route: &Route,
        region: Option<&errorpb::Error>,
        error: &str,
    ) -> Result<(), Failed> {
        let routes = &self.0.routes;
        if let Some(told) = region {
            if told.has_not_leader() && told.get_not_leader().has_leader() {
                routes.leads(route.region.id, told.get_not_leader().get_leader());
            } else if told.has_epoch_not_match() {
                routes.forget(&route.region.start_key);
                for region in &told.get_epoch_not_match().current_regions {
                    let on_store = |peer: &&metapb::Peer| peer.store_id == route.leader.store_id;
                    let leader =
                        region.peers.iter().find(on_store).or_else(|| region.peers.first());
                    if let Some(leader) = leader.cloned() {
                        routes.learn(Route { region: region.clone(), leader });
                    }
                }
            } else if !told.has_server_is_busy() {
                routes.forget(&route.region.start_key);
            }
        }
        Failed::of_answer(region, error)
    }

    async fn unary<Q, A>(&self, route: &Route, path: &'static str, request: Q) -> Result<A, Failed>
    where
        Q: protobuf::Message,
        A: protobuf::Message,
    {
        let store = self.store(route.leader.store_id).await?;
        let at = self.0.turn.fetch_add(1, Ordering::Relaxed) % store.channels.len();
        call(&store.channels[at], path, request).await.map_err(|status| {
            self.0.routes.forget(&route.region.start_key);
            Failed::Unknown(status.to_string())
        })
    }

    async fn batched(&self, route: &Route, sent: Sent) -> Result<Answered, Failed> {
        let store = self.store(route.leader.store_id).await?;
        let at = self.0.turn.fetch_add(1, Ordering::Relaxed) % store.channels.len();
        let stream = {
            let mut streams = store.streams.lock();
            match &streams[at] {
                Some(stream) if !stream.is_closed() => stream.clone(),
                _ => streams[at].insert(BatchStream::open(store.channels[at].clone())).clone(),
            }
        };
        let answered = tokio::time::timeout(self.0.options.answer_timeout, stream.call(sent)).await;
        answered.ok().flatten().ok_or_else(|| {
            self.0.routes.forget(&route.region.start_key);
            Failed::Unknown("the stream has ended, or the answer did not come".to_owned())
        })
    }

    async fn store(&self, id: u64) -> Result<Arc<Store>, Failed> {
        if let Some(store) = self.0.stores.lock().get(&id) {
            return Ok(Arc::clone(store));
        }
        let mut request = pdpb::GetStoreRequest::default();
        request.set_header(self.header());
        request.set_store_id(id);
        let asked: Result<pdpb::GetStoreResponse, Status> =
            self.pd("/pdpb.PD/GetStore", request).await;
        let answer = asked.map_err(|status| Failed::Elsewhere(status.to_string()))?;
        let options = &self.0.options;
        let channels = (0..options.connections.max(1))
            .map(|_| lazily(&answer.get_store().address, options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failed::Elsewhere(error.to_string()))?;
        let streams = Mutex::new(vec![None; channels.len()]);
        let store = Arc::new(Store { channels, streams });
        self.0.stores.lock().insert(id, Arc::clone(&store));
        Ok(store)
    }

    fn header(&self) -> pdpb::RequestHeader {
        let mut header = pdpb::RequestHeader::default();
        header.set_cluster_id(self.0.cluster);
        header
    }

    async fn pd<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: protobuf::Message,
        A: protobuf::Message,
    {
        let at = self.0.pd_at.load(Ordering::Relaxed);
        let answer = call(&self.0.pd[at], path, request).await;
        if answer.is_err() {
            self.0.pd_at.store((at + 1) % self.0.pd.len(), Ordering::Relaxed);
        }
        answer
    }
}

fn placement(status: Status) -> ClientError {
    ClientError::Placement { what: status.to_string() }
}
