//! `raftkv pd`: a placement driver for a small cluster, in a process of its own.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
};

use pd_client::{
    grpc::{self, PdServer, ServeError, ServeOptions},
    mock::PdConfig,
};
use raftstore_grpc::{Tls, TlsError, TlsFiles};
use raftstore_proto::ClusterId;
use tokio::signal::unix::{SignalKind, signal};

/// What can be set of a placement driver.
#[derive(Debug, clap::Args)]
pub(crate) struct PdArguments {
    /// Where its state lives. Made if it is not there
    #[arg(long, value_name = "DIR", default_value = "raftkv-pd")]
    dir: PathBuf,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2379")]
    addr: SocketAddr,
    /// Where stores and clients reach it, if that is elsewhere: host and port
    #[arg(long, value_name = "ADDRESS")]
    advertise_addr: Option<String>,
    /// The cluster it serves. Without it, a new directory gets a number of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cluster_id: Option<u64>,
    /// Voters each region shall have
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=32))]
    max_replicas: u64,
    /// Keys of store labels that say where a store is, the widest place first, such as
    /// zone,rack,host
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    location_labels: Vec<String>,
    /// Certificates of the authorities that are trusted, in PEM. With it, who connects must
    /// show a certificate of theirs
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// Its own certificate
    #[arg(long, value_name = "FILE", requires = "ca")]
    cert: Option<PathBuf>,
    /// The key of its certificate
    #[arg(long, value_name = "FILE", requires = "ca")]
    key: Option<PathBuf>,
    /// Common names of those who may connect; without it, everybody with a certificate may
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "ca")]
    allowed_names: Vec<String>,
}

impl PdArguments {
    fn certificates(&self) -> Result<Option<Tls>, TlsError> {
        let (Some(ca), Some(certificate), Some(key)) =
            (self.ca.clone(), self.cert.clone(), self.key.clone())
        else {
            return Ok(None);
        };
        let allowed_names = self.allowed_names.clone();
        Tls::load(TlsFiles { ca, certificate, key, allowed_names }).map(Some)
    }
}

/// Serves until the process is asked to end.
pub(crate) fn run(arguments: PdArguments) -> ExitCode {
    let tls = match arguments.certificates() {
        Ok(tls) => tls,
        Err(error) => return failed(&in_full(&error), 2),
    };
    match start(arguments, tls) {
        Ok(server) => {
            let _ = writeln!(
                io::stdout(),
                "PD of cluster {} listens on {}, reached at {}",
                server.cluster(),
                server.address(),
                server.url()
            );
            let asked = until_asked_to_end();
            server.stop();
            match asked {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&format!("signals cannot be waited for: {error}"), 1),
            }
        }
        Err(error) => {
            let status = match error {
                ServeError::Start(_) => 1,
                _ => 2,
            };
            failed(&in_full(&error), status)
        }
    }
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

fn failed(text: &str, status: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "raftkv: {text}");
    ExitCode::from(status)
}

fn start(arguments: PdArguments, tls: Option<Tls>) -> Result<PdServer, ServeError> {
    let listener = TcpListener::bind(arguments.addr).map_err(|source| {
        ServeError::Start(io::Error::new(source.kind(), format!("{}: {source}", arguments.addr)))
    })?;
    let config = PdConfig {
        max_replicas: usize::try_from(arguments.max_replicas).unwrap_or(usize::MAX),
        location_labels: arguments.location_labels,
        ..PdConfig::default()
    };
    let options = ServeOptions {
        cluster: arguments.cluster_id.and_then(ClusterId::new),
        config,
        advertise: arguments.advertise_addr,
        secure: tls.map(grpc::tls_accept),
        ..ServeOptions::new(arguments.dir)
    };
    grpc::serve(listener, options)
}

/// Waits for an interrupt, or for a polite request to end.
fn until_asked_to_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut requests = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = requests.recv() => {}
        }
        Ok(())
    })
}
