//! `raftkv serve`: one store of a cluster, in a process of its own.
//!
//! Everything that may refuse comes before anything that others see: settings, the directory,
//! the port, PD, the engines. A store that is asked to end hands its leaders over, lets calls
//! end that have begun, and only then stops.

mod engines;
mod leaving;
mod options;
mod status;

use std::{
    error::Error,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use engine_traits::{KvEngine, RaftEngine};
use pd_client::{
    PdClient,
    grpc::{ClientOptions, GrpcPdClient, tls_connect},
};
use raftstore_core::{
    FatalError,
    runtime::{Node, NodeHandle, NodeOptions, StartError},
};
use raftstore_grpc::{ClientConfig, ServerConfig, ServerCounters, Tls, TlsError};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tonic::service::Routes;
use transport_grpc::{GrpcConfig, GrpcError, GrpcTransport, PdResolver};
use transport_traits::SnapStore;

pub(crate) use self::options::ServeArguments;
use self::{
    engines::{WithEngines, with_engines},
    options::{DataEngine, Options, OptionsError},
    status::StatusSources,
};
use crate::{
    layout::{Layout, LayoutError},
    machine::MachineError,
    service::RawService,
};

/// How long calls that have begun may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// How often PD is asked for before a start is given up, with a pause of three seconds.
const PD_ATTEMPTS: u32 = 60;

/// Why a node does not serve, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The settings cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The directory cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An engine cannot be opened.
    #[error(transparent)]
    Engines(#[from] MachineError),
    /// A port cannot be had.
    #[error("cannot listen on {address}: {source}: name another --{flag}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Whose address it is.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// PD is not there, or not the one expected.
    #[error("PD at {}: {source}", endpoints.join(", "))]
    Pd {
        /// Where it was looked for.
        endpoints: Vec<String>,
        /// What went wrong.
        source: pd_client::Error,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Security(#[from] TlsError),
    /// The transport does not start.
    #[error("the transport does not start")]
    Transport(#[from] GrpcError),
    /// The store does not start.
    #[error("the store does not start")]
    Start(#[from] StartError),
    /// The system gives no threads or signals.
    #[error("the system refuses")]
    System(#[from] io::Error),
    /// The store has stopped by itself.
    #[error("the store has stopped")]
    Fatal(#[source] Arc<FatalError>),
    /// The server has ended by itself.
    #[error("the server has ended")]
    Server(#[source] tonic::transport::Error),
}

impl ServeError {
    /// Whether whoever started the node can do something about it.
    const fn exit_status(&self) -> u8 {
        match self {
            Self::Options(_) | Self::Layout(_) | Self::Listen { .. } | Self::Security(_) => 2,
            _ => 1,
        }
    }
}

type Served = Result<(), ServeError>;

/// Serves until the process is asked to end.
pub(crate) fn run(arguments: ServeArguments) -> ExitCode {
    match Options::read(arguments).map_err(ServeError::from).and_then(|options| serve(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            let _ = writeln!(io::stderr(), "raftkv: {text}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn serve(options: &Options) -> Served {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_name("serve").enable_all().build()?;
    let tls = options.security.as_ref().map(|it| Tls::load(it.files.clone())).transpose()?;
    // Whoever asks from here on is heard.
    let ending = runtime.block_on(async { Ending::new() })?;
    let listener = bind(&runtime, options.addr, "addr")?;
    let status =
        options.status_addr.map(|address| bind(&runtime, address, "status-addr")).transpose()?;
    let _layout = match options.engine {
        DataEngine::Mem => None,
        engine => Some(Layout::open_node(&options.dir, engine.name(), options.raft_log.name())?),
    };
    let pd = connect_pd(&options.pd, tls.as_ref())?;
    let start = Start { runtime: &runtime, options, tls, listener, status, pd, ending };
    let served = with_engines(options, start);
    // Calls that hang do not keep the process.
    runtime.shutdown_timeout(DRAIN);
    served
}

fn bind(
    runtime: &Runtime,
    address: SocketAddr,
    flag: &'static str,
) -> Result<TcpListener, ServeError> {
    runtime.block_on(TcpListener::bind(address)).map_err(|source| ServeError::Listen {
        address,
        flag,
        source,
    })
}

/// Waits for PD as long as a start waits for anything of it.
fn connect_pd(endpoints: &[String], tls: Option<&Tls>) -> Result<Arc<GrpcPdClient>, ServeError> {
    let mut attempt = 1;
    loop {
        let secure = tls.cloned().map(tls_connect);
        let how = ClientOptions { secure, ..ClientOptions::default() };
        match GrpcPdClient::connect(endpoints, how) {
            Ok(pd) => return Ok(Arc::new(pd)),
            Err(error @ pd_client::Error::Unavailable { .. }) if attempt < PD_ATTEMPTS => {
                tracing::warn!(attempt, %error, "PD is looked for again");
                attempt += 1;
            }
            Err(source) => return Err(ServeError::Pd { endpoints: endpoints.to_vec(), source }),
        }
    }
}

/// How stores reach each other.
fn between_stores(options: &Options, tls: Option<Tls>) -> GrpcConfig {
    let names = options.security.as_ref().map(|security| security.store_names.clone());
    GrpcConfig {
        client: ClientConfig { tls, ..ClientConfig::default() },
        store_names: names.unwrap_or_default(),
        ..GrpcConfig::default()
    }
}

/// What a node is started with besides its engines.
struct Start<'a> {
    runtime: &'a Runtime,
    options: &'a Options,
    tls: Option<Tls>,
    listener: TcpListener,
    status: Option<TcpListener>,
    pd: Arc<GrpcPdClient>,
    ending: Ending,
}

impl WithEngines for Start<'_> {
    fn run<K: KvEngine, R: RaftEngine>(self, kv: K, raft: R, snaps: Arc<dyn SnapStore>) -> Served {
        let Self { runtime, options, tls, listener, status, pd, mut ending } = self;
        let address = listener.local_addr()?;
        let advertised = options.advertise_addr.clone().unwrap_or_else(|| address.to_string());
        let cluster = pd.cluster_id();
        let resolver = Arc::new(PdResolver::new(pd.clone()));
        let handle = Some(runtime.handle().clone());
        let transport =
            GrpcTransport::new(between_stores(options, tls.clone()), cluster, resolver, handle)?;
        let node = Node::start(NodeOptions {
            config: options.config.clone(),
            labels: options.labels.clone(),
            snaps,
            disk: disk_probe(options),
            ..NodeOptions::new(cluster, &*advertised, kv, raft, pd.clone(), transport.connect())
        })?;
        let service = RawService::new(node.handle()).into_server();
        let routes = transport.add_to(Routes::new(service));
        let (stop, is_over) = watch::channel(());
        let counters = ServerCounters::default();
        let server = raftstore_grpc::serve(
            listener,
            routes,
            ServerConfig { tls, ..ServerConfig::default() },
            counters.clone(),
            over(is_over.clone()),
        );
        let server = runtime.spawn(server);
        let told = status.as_ref().map(TcpListener::local_addr).transpose()?;
        if let Some(listener) = status {
            let sources = StatusSources {
                node: node.handle(),
                transport: transport.clone(),
                server: counters,
                cluster,
                address: advertised.clone(),
                engine: options.engine.name(),
                raft_log: options.raft_log.name(),
            };
            runtime.spawn(status::serve(listener, sources, over(is_over)));
        }
        announce(&node, &advertised, told);

        let asked = runtime.block_on(ending.wait(&node.handle()));
        let left = match asked {
            Asked::ToEnd => {
                let node = node.handle();
                // A second request is not to be kept waiting.
                let handing =
                    runtime.spawn_blocking(move || leaving::hand_over(&node, leaving::PATIENCE));
                runtime.block_on(async {
                    tokio::select! {
                        left = handing => left.unwrap_or_default(),
                        () = ending.asked() => 0,
                    }
                })
            }
            Asked::ByFailure => 0,
        };
        if left > 0 {
            tracing::warn!(left, "regions had nobody to be handed over to");
        }
        drop(stop);
        // Streams of other stores end with the store; what clients have asked is answered.
        let ended = node.stop();
        transport.close();
        let drained = runtime.block_on(async { tokio::time::timeout(DRAIN, server).await });
        ended.map_err(ServeError::Fatal)?;
        match drained {
            Ok(Ok(ended)) => ended.map_err(ServeError::Server),
            // Somebody does not let go of a call.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// Over once the sender has been dropped.
async fn over(mut is_over: watch::Receiver<()>) {
    while is_over.changed().await.is_ok() {}
}

/// One line for people and for programs that wait for it.
fn announce<K: KvEngine>(node: &Node<K>, address: &str, status: Option<SocketAddr>) {
    let status = status.map(|address| format!(", status on {address}")).unwrap_or_default();
    let line = format!("store {} serves on {address}{status}\n", node.store());
    // Who does not listen does not need it.
    let _ = io::stdout().write_all(line.as_bytes());
    let _ = io::stdout().flush();
}

fn disk_probe(options: &Options) -> Option<raftstore_core::runtime::DiskProbe> {
    (options.engine != DataEngine::Mem).then(|| {
        let dir = options.dir.clone();
        Box::new(move || disk_space(&dir)) as raftstore_core::runtime::DiskProbe
    })
}

fn disk_space(dir: &Path) -> io::Result<raftstore_core::runtime::DiskSpace> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(raftstore_core::runtime::DiskSpace {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Why a node ends.
enum Asked {
    ToEnd,
    ByFailure,
}

/// Those who may ask the process to end.
struct Ending {
    interrupts: Signal,
    requests: Signal,
}

impl Ending {
    fn new() -> io::Result<Self> {
        let interrupts = signal(SignalKind::interrupt())?;
        Ok(Self { interrupts, requests: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupts.recv() => {}
            _ = self.requests.recv() => {}
        }
    }

    async fn wait<K: KvEngine>(&mut self, node: &NodeHandle<K>) -> Asked {
        let node = node.clone();
        let failure = tokio::task::spawn_blocking(move || drop(node.wait_fatal(None)));
        tokio::select! {
            () = self.asked() => Asked::ToEnd,
            _ = failure => Asked::ByFailure,
        }
    }
}
