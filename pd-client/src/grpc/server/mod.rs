//! The in-process PD as a server that keeps its state on disk.

mod accept;
mod answers;
mod disk;
mod promises;
mod service;
mod state;
mod streams;
mod tso;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use raftstore_proto::ClusterId;
use tokio::{runtime::Runtime, sync::watch};
use tonic::transport::Server;

use self::{accept::Doorman, service::Service, state::State, streams::Streams};
use crate::{
    grpc::{secure::SecureAccept, stubs::p_d_server::PDServer},
    mock::{PdConfig, PdCore},
};

/// Bytes of a request. The largest that makes sense is a report of a split into many.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How long the answer to a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls of one connection at a time.
const CALLS_MAX: u32 = 256;
/// Bytes of a call's headers.
const HEADERS_MAX: u32 = 16 << 10;
/// After how long without a word a connection is asked for a sign of life, and how long it
/// may take to give one.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How often what need not be on disk before an answer is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long calls may take to end when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a PD is served.
#[derive(Clone)]
pub struct ServeOptions {
    /// Where its state lives. Made if it is not there; one server uses it at a time.
    pub dir: PathBuf,
    /// The cluster: a new directory becomes this one's, an old one must be. Without it, a
    /// new directory gets an id of its own.
    pub cluster: Option<ClusterId>,
    /// What PD aims for. The number of replicas that a client has set counts more.
    pub config: PdConfig,
    /// Where clients reach the server, as host and port; the listener's address if it is
    /// `None`.
    pub advertise: Option<String>,
    /// Secures connections; plain ones are refused then.
    pub secure: Option<SecureAccept>,
}

impl ServeOptions {
    /// A server with its state in `dir` and everything else as usual.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cluster: None,
            config: PdConfig::default(),
            advertise: None,
            secure: None,
        }
    }
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions")
            .field("dir", &self.dir)
            .field("cluster", &self.cluster)
            .field("config", &self.config)
            .field("advertise", &self.advertise)
            .field("secure", &self.secure.is_some())
            .finish()
    }
}

/// Why a PD cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The aims make no sense.
    #[error("bad configuration of PD")]
    Config(#[source] crate::Error),
    /// Another process uses the directory.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The directory cannot be used.
    #[error("{} cannot be used", path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what was written. Nothing is changed.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The directory is another cluster's.
    #[error("the directory belongs to cluster {theirs}, not {ours}")]
    WrongCluster {
        /// The one that was asked for.
        ours: ClusterId,
        /// The directory's.
        theirs: ClusterId,
    },
    /// Clients could not find the server under the address it listens on.
    #[error("a server that listens on {0} needs an address to tell clients")]
    NoAddress(SocketAddr),
    /// The server cannot be started.
    #[error("PD cannot be served")]
    Start(#[source] io::Error),
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a server has seen, counted inside.
#[derive(Debug, Default)]
struct Counters {
    wrong_cluster: AtomicU64,
    refused: AtomicU64,
    orders_dropped: AtomicU64,
}

/// What a server has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Connections taken in.
    pub connections: u64,
    /// Connections closed at once because there were too many.
    pub connections_over_limit: u64,
    /// Connections that did not begin as they should, or not soon.
    pub connections_refused: u64,
    /// Calls of clients of other clusters.
    pub wrong_cluster: u64,
    /// Calls and reports that PD refused.
    pub refused: u64,
    /// Orders that found their store not listening.
    pub orders_dropped: u64,
}

/// A PD being served. Dropped, it ends like a process that is killed; [`PdServer::stop`] ends
/// it in order.
pub struct PdServer {
    runtime: Option<Runtime>,
    state: Arc<State>,
    counters: Arc<Counters>,
    doorman: Arc<Doorman>,
    address: SocketAddr,
    url: Arc<str>,
    stopping: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
}

impl fmt::Debug for PdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PdServer")
            .field("cluster", &self.state.cluster)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Serves a PD on `listener`, with threads of its own. When this returns, calls are answered.
///
/// # Errors
/// What [`ServeError`] lists. Nothing on disk was changed, unless it says that the disk failed.
pub fn serve(listener: TcpListener, options: ServeOptions) -> Result<PdServer, ServeError> {
    options.config.validate().map_err(ServeError::Config)?;
    let address = listener.local_addr().map_err(ServeError::Start)?;
    let host = match &options.advertise {
        Some(advertise) => advertise.clone(),
        None if address.ip().is_unspecified() => return Err(ServeError::NoAddress(address)),
        None => address.to_string(),
    };
    let scheme = if options.secure.is_some() { "https" } else { "http" };
    let url: Arc<str> = format!("{scheme}://{host}").into();
    let state = Arc::new(State::open(&options.dir, options.cluster, options.config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("pd")
        .enable_all()
        .build()
        .map_err(ServeError::Start)?;
    listener.set_nonblocking(true).map_err(ServeError::Start)?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(ServeError::Start)?
    };
    let (counters, doorman) = (Arc::<Counters>::default(), Arc::<Doorman>::default());
    let (stopping, stopped) = watch::channel(false);
    let service = Service {
        state: Arc::clone(&state),
        counters: Arc::clone(&counters),
        streams: Arc::<Streams>::default(),
        url: Arc::clone(&url),
        stopping: stopped,
    };
    let (ending, ended) = mpsc::channel();
    let doors = (listener, options.secure, Arc::clone(&doorman));
    runtime.spawn(run(service, doors, ending));
    Ok(PdServer { runtime: Some(runtime), state, counters, doorman, address, url, stopping, ended })
}

/// Waits until the server shall stop, or its handle is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn run(
    service: Service,
    (listener, secure, doorman): (tokio::net::TcpListener, Option<SecureAccept>, Arc<Doorman>),
    ending: mpsc::Sender<()>,
) {
    let state = Arc::clone(&service.state);
    let mut stopping = service.stopping.clone();
    let connections = accept::connections(listener, secure, doorman, stopping.clone());
    let mut stop_saving = stopping.clone();
    tokio::spawn({
        let state = Arc::clone(&state);
        async move {
            while tokio::time::timeout(SAVE_INTERVAL, stopped(&mut stop_saving)).await.is_err() {
                // It has been logged, and is tried again.
                let _ = state.save_now_and_then().await;
            }
        }
    });
    let calls = PDServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
    let served = Server::builder()
        .timeout(CALL_TIMEOUT)
        .max_concurrent_streams(CALLS_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(calls)
        .serve_with_incoming_shutdown(connections, async move { stopped(&mut stopping).await })
        .await;
    if let Err(error) = served {
        tracing::error!(error = in_full(&error), "PD is not served any more");
    }
    let _ = state.save_now_and_then().await;
    let _ = ending.send(());
}

impl PdServer {
    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients connect to, with its scheme.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The cluster served.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.state.cluster
    }

    /// What it has seen so far.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerCounters {
            connections: read(&self.doorman.accepted),
            connections_over_limit: read(&self.doorman.refused_full),
            connections_refused: read(&self.doorman.refused_garbage),
            wrong_cluster: read(&self.counters.wrong_cluster),
            refused: read(&self.counters.refused),
            orders_dropped: read(&self.counters.orders_dropped),
        }
    }

    /// Looks at the PD, or changes it, as of now (in ms). What it promises thereby is on disk
    /// when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If `look` does.
    pub fn with_core<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut PdCore, u64) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = mpsc::channel();
        let state = Arc::clone(&self.state);
        let runtime = self.runtime.as_ref().expect("it is taken by stop alone");
        runtime.spawn(async move {
            // Whoever waits is there.
            let _ = answer.send(state.change(look).await);
        });
        answered
            .recv()
            .expect("look panicked")
            .map_err(|status| io::Error::other(status.message().to_owned()))
    }

    /// Ends calls and streams and saves everything. When this returns, the directory is free.
    pub fn stop(mut self) {
        self.stopping.send_replace(true);
        if self.ended.recv_timeout(DRAIN_TIMEOUT).is_err() {
            tracing::warn!("calls to PD were cut off");
        }
        self.end();
    }

    /// Ends at once, like a process that is killed: what is being answered is not, and
    /// nothing is saved that was not. When this returns, the directory is free.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // On a thread of its own, because it may be the thread of another runtime that ends
        // this one, and such a thread may not wait.
        std::thread::scope(|scope| {
            scope.spawn(move || runtime.shutdown_timeout(DRAIN_TIMEOUT));
        });
    }
}

impl Drop for PdServer {
    fn drop(&mut self) {
        self.end();
    }
}
