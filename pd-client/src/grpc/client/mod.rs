//! A client of PD: of the server here, or of another that speaks the protocol.

mod backoff;
mod calls;
mod members;
mod reports;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc as blocking,
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use raftstore_grpc::pb::{pdpb, pdpb::ErrorType};
use raftstore_proto::{ClusterId, RegionId, StoreId};
use tokio::{runtime::Runtime, sync::mpsc};
use tonic::{Code, Response, Status, transport::Channel};

use self::{backoff::Backoff, members::Members, reports::OrdersOfStores};
use super::{answer::Answer, secure::SecureConnect, stubs::p_d_client::PDClient};
use crate::{Error, Result};

/// Regions whose last report is remembered before old ones are forgotten.
const REPORTED_MAX: usize = 1 << 16;
/// How long they are remembered at least, in seconds.
const REPORTED_FOR_S: u64 = 3600;

/// How PD is asked.
#[derive(Clone)]
pub struct ClientOptions {
    /// The cluster it must serve; without it, the client takes what it finds.
    pub cluster: Option<ClusterId>,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How long a question may take with all its attempts.
    pub deadline: Duration,
    /// Secures connections, to every PD.
    pub secure: Option<SecureConnect>,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("cluster", &self.cluster)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("deadline", &self.deadline)
            .field("secure", &self.secure.is_some())
            .finish()
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            cluster: None,
            attempt_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
            secure: None,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    retries: AtomicU64,
    streams_lost: AtomicU64,
    orders: AtomicU64,
    orders_unsupported: AtomicU64,
    orders_refused: AtomicU64,
    reports_refused: AtomicU64,
}

/// What a client has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Attempts after the first.
    pub retries: u64,
    /// Streams for reports that ended, or could not be opened.
    pub streams_lost: u64,
    /// Orders that came.
    pub orders: u64,
    /// Orders that no store can carry out, such as to merge regions.
    pub orders_unsupported: u64,
    /// Orders that make no sense, or are another cluster's.
    pub orders_refused: u64,
    /// Reports that PD refused.
    pub reports_refused: u64,
}

struct Inner {
    cluster: ClusterId,
    options: ClientOptions,
    members: Members,
    counters: Counters,
    orders: OrdersOfStores,
    reports: mpsc::Sender<pdpb::RegionHeartbeatRequest>,
    /// When each region, and each store, reported last, in seconds of the Unix epoch.
    reported: Mutex<(BTreeMap<RegionId, u64>, BTreeMap<StoreId, u64>)>,
}

/// The threads that a client's calls run on.
struct Owner {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A client of PD with threads of its own: its calls may be awaited under any executor. Clones
/// are the same client; with the last one its calls end.
///
/// A question goes to the PD that leads, and again, after a pause, as long as there is no
/// answer and its deadline has not passed; it then fails with
/// [`Error::Unavailable`]. A question that PD was asked twice may
/// have been answered twice: of ids some are lost then, and a cluster may turn out to be
/// bootstrapped by oneself.
#[derive(Clone)]
pub struct GrpcPdClient {
    owner: Arc<Owner>,
}

impl fmt::Debug for GrpcPdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcPdClient")
            .field("cluster", &self.owner.inner.cluster)
            .field("members", &self.owner.inner.members)
            .finish_non_exhaustive()
    }
}

impl GrpcPdClient {
    /// Finds out which cluster the PDs at `endpoints` (host and port, with or without
    /// `http://` or `https://`) serve. Waits for that up to the deadline, on the calling thread.
    ///
    /// # Errors
    /// `Invalid` and `Refused` for endpoints that cannot be, `WrongCluster` if they serve
    /// another cluster than they should or different ones, `Unavailable` if none answers.
    pub fn connect(endpoints: &[String], options: ClientOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pd-client")
            .enable_all()
            .build()
            .map_err(|error| Error::Unavailable { source: Some(error.into()) })?;
        let members = {
            let _context = runtime.enter();
            Members::new(endpoints, options.attempt_timeout, options.secure.clone())?
        };
        let (answer, answered) = blocking::channel();
        let (cluster, deadline) = (options.cluster, options.deadline);
        runtime.spawn(async move {
            let found = tokio::time::timeout(deadline, find(&members, cluster));
            let found = found.await.unwrap_or(Err(Error::Unavailable { source: None }));
            // Whoever waits is there.
            let _ = answer.send(found.map(|cluster| (cluster, members)));
        });
        let found = answered.recv().unwrap_or(Err(Error::Unavailable { source: None }));
        let (cluster, members) = match found {
            Ok(found) => found,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let (reports, sent) = mpsc::channel(reports::REPORTS_MAX);
        let inner = Arc::new(Inner {
            cluster,
            options,
            members,
            counters: Counters::default(),
            orders: OrdersOfStores::default(),
            reports,
            reported: Mutex::default(),
        });
        runtime.spawn(reports::run(Arc::downgrade(&inner), sent));
        Ok(Self { owner: Arc::new(Owner { inner, runtime: Some(runtime) }) })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn counters(&self) -> ClientCounters {
        let counters = &self.owner.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientCounters {
            retries: read(&counters.retries),
            streams_lost: read(&counters.streams_lost),
            orders: read(&counters.orders),
            orders_unsupported: read(&counters.orders_unsupported),
            orders_refused: read(&counters.orders_refused),
            reports_refused: read(&counters.reports_refused),
        }
    }

    /// Runs a future on the client's threads: it may use their clock and network wherever it
    /// is awaited.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let runtime = self.owner.runtime.as_ref().ok_or(Error::Unavailable { source: None })?;
        let outcome = runtime.spawn(work(Arc::clone(&self.owner.inner))).await;
        outcome.unwrap_or(Err(Error::Unavailable { source: None }))
    }

    /// Asks the leader.
    async fn ask<A, F>(
        &self,
        question: impl Fn(PDClient<Channel>, pdpb::RequestHeader) -> F + Send + Sync + 'static,
    ) -> Result<A>
    where
        A: Answer + Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        self.run(|inner| async move { inner.ask(question).await }).await
    }
}

/// Asks endpoints until one answers.
async fn find(members: &Members, cluster: Option<ClusterId>) -> Result<ClusterId> {
    let mut backoff = Backoff::default();
    loop {
        match members.cluster(cluster).await {
            Err(Error::Unavailable { .. }) => tokio::time::sleep(backoff.next_pause()).await,
            outcome => return outcome,
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// From the last report of `who` until now.
fn interval<K: Ord>(reported: &mut BTreeMap<K, u64>, who: K) -> pdpb::TimeInterval {
    let now_s = now_s();
    if reported.len() >= REPORTED_MAX {
        reported.retain(|_, last_s| *last_s + REPORTED_FOR_S > now_s);
    }
    let mut interval = pdpb::TimeInterval::new();
    interval.start_timestamp = reported.insert(who, now_s).unwrap_or(now_s).min(now_s);
    interval.end_timestamp = now_s;
    interval
}

/// What an attempt came to.
enum Attempt<A> {
    Answered(A),
    Failed(Error),
    /// Perhaps next time, perhaps elsewhere.
    Retry(Error),
}

impl Inner {
    fn header(&self) -> pdpb::RequestHeader {
        let mut header = pdpb::RequestHeader::new();
        header.cluster_id = self.cluster.get();
        header.caller_id = "raftstore".to_owned();
        header
    }

    fn region_interval(&self, region: RegionId) -> pdpb::TimeInterval {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        interval(&mut reported.0, region)
    }

    fn store_interval(&self, store: StoreId) -> pdpb::TimeInterval {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        interval(&mut reported.1, store)
    }

    async fn ask<A, F>(
        &self,
        question: impl Fn(PDClient<Channel>, pdpb::RequestHeader) -> F,
    ) -> Result<A>
    where
        A: Answer,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = tokio::time::Instant::now() + self.options.deadline;
        let mut backoff = Backoff::default();
        loop {
            let attempt = tokio::time::timeout_at(deadline, self.attempt(&question)).await;
            let error = match attempt {
                Ok(Attempt::Answered(answer)) => return Ok(answer),
                Ok(Attempt::Failed(error)) => return Err(error),
                Ok(Attempt::Retry(error)) => error,
                Err(_) => Error::Unavailable { source: None },
            };
            let pause = backoff.next_pause();
            if tokio::time::Instant::now() + pause >= deadline {
                return Err(error);
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<A, F>(
        &self,
        question: &impl Fn(PDClient<Channel>, pdpb::RequestHeader) -> F,
    ) -> Attempt<A>
    where
        A: Answer,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let leader = match self.members.leader(self.cluster).await {
            Ok(leader) => leader,
            Err(error @ Error::WrongCluster { .. }) => return Attempt::Failed(error),
            Err(error) => return Attempt::Retry(error),
        };
        let asked = question(leader.stub.clone(), self.header());
        let status = match tokio::time::timeout(self.options.attempt_timeout, asked).await {
            Ok(Ok(answer)) => return self.judge(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("PD takes too long to answer"),
        };
        match status.code() {
            Code::Unimplemented => Attempt::Failed(Error::Unsupported("this call, by this PD")),
            Code::InvalidArgument | Code::OutOfRange | Code::PermissionDenied => {
                Attempt::Failed(Error::Refused(status.message().to_owned()))
            }
            // Another leads now, the connection is gone, or another cluster's PD has taken the
            // address: that shows when the leader is looked for again.
            _ => {
                self.members.doubt(&leader);
                Attempt::Retry(Error::Unavailable { source: Some(status.into()) })
            }
        }
    }

    fn judge<A: Answer>(&self, answer: A) -> Attempt<A> {
        let header = answer.header();
        if header.cluster_id != self.cluster.get() {
            let theirs = ClusterId::new(header.cluster_id);
            return Attempt::Failed(theirs.map_or_else(
                || Error::Refused("PD names no cluster in its answer".to_owned()),
                |theirs| Error::WrongCluster { ours: self.cluster, theirs },
            ));
        }
        if header.has_error() {
            Attempt::Failed(refusal(header.get_error()))
        } else {
            Attempt::Answered(answer)
        }
    }
}

/// A refusal in the words of this crate, as far as it has them.
fn refusal(error: &pdpb::Error) -> Error {
    match error.get_field_type() {
        ErrorType::NOT_BOOTSTRAPPED => Error::NotBootstrapped,
        ErrorType::ALREADY_BOOTSTRAPPED => Error::AlreadyBootstrapped,
        _ if error.message.contains("is stale") => Error::Stale,
        _ => Error::Refused(error.message.clone()),
    }
}
