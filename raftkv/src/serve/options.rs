//! What can be set of a node: on the command line, in a file, or not at all. The command line
//! counts more than the file.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use raftstore_core::{Config, ConfigError};
use raftstore_grpc::TlsFiles;
use serde::Deserialize;

/// Where a node listens unless it is told.
const ADDRESS: &str = "127.0.0.1:20160";

/// What can be set of a node on the command line.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ServeArguments {
    /// A file of settings: those of the command line, without their dashes, and the store's own
    /// in a table of the name raftstore
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store lives. Made if it is not there
    #[arg(long, alias = "data-dir", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where it listens [default: 127.0.0.1:20160]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<SocketAddr>,
    /// Where other stores and clients reach it, if that is elsewhere: host and port
    #[arg(long, value_name = "ADDRESS")]
    advertise_addr: Option<String>,
    /// Where the placement driver is reached; several of them with commas in between
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pd: Vec<String>,
    /// What it keeps its data in [default: redb]
    #[arg(long, value_enum)]
    engine: Option<DataEngine>,
    /// What it keeps its raft logs in [default: raft-engine, or memory beside data in memory]
    #[arg(long, value_enum)]
    raft_log: Option<LogEngine>,
    /// Where the store is, for placement: zone=east,host=h1
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    labels: Vec<String>,
    /// Where figures and states are told over HTTP; nowhere unless an address is given
    #[arg(long, value_name = "ADDRESS")]
    status_addr: Option<SocketAddr>,
    /// Bytes of memory for pages of the data engine
    #[arg(long, value_name = "BYTES")]
    cache_bytes: Option<usize>,
    /// Certificates of the authorities that are trusted, in PEM. With it, PD, other stores and
    /// clients have to show a certificate, and are shown one
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
    /// Common names of the certificates of stores: only they may send messages and snapshots
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "ca")]
    store_names: Vec<String>,
}

/// What holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DataEngine {
    /// A file of redb.
    Redb,
    /// A folder of RocksDB.
    Rocksdb,
    /// Memory: nothing outlives the process.
    Mem,
}

/// What holds the raft logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogEngine {
    /// Append-only files of raft-engine.
    RaftEngine,
    /// A file of redb.
    Redb,
    /// A folder of RocksDB.
    Rocksdb,
    /// Memory: nothing outlives the process.
    Mem,
}

impl DataEngine {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Rocksdb => "rocksdb",
            Self::Mem => "mem",
        }
    }
}

impl LogEngine {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RaftEngine => "raft-engine",
            Self::Redb => "redb",
            Self::Rocksdb => "rocksdb",
            Self::Mem => "mem",
        }
    }
}

/// A file of settings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct FileOptions {
    dir: Option<PathBuf>,
    addr: Option<SocketAddr>,
    advertise_addr: Option<String>,
    pd: Vec<String>,
    engine: Option<DataEngine>,
    raft_log: Option<LogEngine>,
    labels: BTreeMap<String, String>,
    status_addr: Option<SocketAddr>,
    cache_bytes: Option<usize>,
    security: Option<FileSecurity>,
    raftstore: toml::Table,
}

/// The certificates of a node, in a file of settings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FileSecurity {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    #[serde(default)]
    allowed_names: Vec<String>,
    #[serde(default)]
    store_names: Vec<String>,
}

/// How a node shows who it is, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) files: TlsFiles,
    /// Who may send messages and snapshots; empty for whoever may connect.
    pub(crate) store_names: Vec<String>,
}

/// Everything that is set of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) addr: SocketAddr,
    pub(crate) advertise_addr: Option<String>,
    pub(crate) pd: Vec<String>,
    pub(crate) engine: DataEngine,
    pub(crate) raft_log: LogEngine,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) status_addr: Option<SocketAddr>,
    pub(crate) cache_bytes: Option<usize>,
    pub(crate) security: Option<Security>,
    pub(crate) config: Config,
}

/// Why settings cannot be used: which, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why, from the parser.
        detail: String,
    },
    /// A setting of the store's own.
    #[error("[raftstore] {0}")]
    Store(#[from] ConfigError),
    /// Something must be said and is not.
    #[error("{0}")]
    Missing(&'static str),
    /// A label that is no pair.
    #[error("--labels {found}: a label is a key and a value, such as zone=east")]
    Label {
        /// What was given.
        found: String,
    },
    /// Two engines that do not go together.
    #[error("--engine {engine} does not go with --raft-log {raft_log}: {rule}")]
    Engines {
        /// The data engine.
        engine: &'static str,
        /// What holds the logs.
        raft_log: &'static str,
        /// What would.
        rule: &'static str,
    },
    /// This program was built without it.
    #[error("this raftkv was built without RocksDB: build it with --features rocksdb")]
    NotBuilt,
}

impl Options {
    /// Reads the file, if one is named, and puts the command line over it.
    pub(crate) fn read(arguments: ServeArguments) -> Result<Self, OptionsError> {
        let file = match &arguments.config {
            Some(path) => read_file(path)?,
            None => FileOptions::default(),
        };
        Self::merge(arguments, file)
    }

    fn merge(arguments: ServeArguments, file: FileOptions) -> Result<Self, OptionsError> {
        let config = Config::from_table(&file.raftstore)?;
        config.validate()?;
        let engine = arguments.engine.or(file.engine).unwrap_or(DataEngine::Redb);
        let otherwise =
            if engine == DataEngine::Mem { LogEngine::Mem } else { LogEngine::RaftEngine };
        let raft_log = arguments.raft_log.or(file.raft_log).unwrap_or(otherwise);
        check_engines(engine, raft_log)?;
        let pd = if arguments.pd.is_empty() { file.pd } else { arguments.pd };
        if pd.is_empty() {
            return Err(OptionsError::Missing("where is PD? Name it with --pd HOST:PORT"));
        }
        let mut labels: Vec<_> = file.labels.into_iter().collect();
        if !arguments.labels.is_empty() {
            labels = arguments.labels.into_iter().map(label).collect::<Result<_, _>>()?;
        }
        let default_addr = || ADDRESS.parse().expect("it is an address");
        let addr: SocketAddr = arguments.addr.or(file.addr).unwrap_or_else(default_addr);
        let security = match (arguments.ca, arguments.cert, arguments.key) {
            (Some(ca), Some(certificate), Some(key)) => {
                let allowed_names = arguments.allowed_names;
                let files = TlsFiles { ca, certificate, key, allowed_names };
                Some(Security { files, store_names: arguments.store_names })
            }
            _ => file.security.map(|of_file| {
                let FileSecurity { ca, cert, key, allowed_names, store_names } = of_file;
                let files = TlsFiles { ca, certificate: cert, key, allowed_names };
                Security { files, store_names }
            }),
        };
        let advertise_addr = arguments.advertise_addr.or(file.advertise_addr);
        if addr.ip().is_unspecified() && advertise_addr.is_none() {
            let why = "nobody reaches a store at its any-address: name one with --advertise-addr";
            return Err(OptionsError::Missing(why));
        }
        Ok(Self {
            dir: arguments.dir.or(file.dir).unwrap_or_else(|| PathBuf::from("raftkv-store")),
            addr,
            advertise_addr,
            pd,
            engine,
            raft_log,
            labels,
            status_addr: arguments.status_addr.or(file.status_addr),
            cache_bytes: arguments.cache_bytes.or(file.cache_bytes),
            security,
            config,
        })
    }
}

fn read_file(path: &Path) -> Result<FileOptions, OptionsError> {
    let text = fs::read_to_string(path)
        .map_err(|source| OptionsError::Read { path: path.to_path_buf(), source })?;
    toml::from_str(&text).map_err(|error| {
        let detail = error.to_string().trim_end().replace('\n', " ");
        OptionsError::Syntax { path: path.to_path_buf(), detail }
    })
}

fn label(text: String) -> Result<(String, String), OptionsError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(OptionsError::Label { found: text }),
    }
}

/// Data that outlives a crash beside logs that do not, or the other way round, is no store.
fn check_engines(engine: DataEngine, raft_log: LogEngine) -> Result<(), OptionsError> {
    let needs_rocksdb = engine == DataEngine::Rocksdb || raft_log == LogEngine::Rocksdb;
    if needs_rocksdb && !cfg!(feature = "rocksdb") {
        return Err(OptionsError::NotBuilt);
    }
    let rule = match (engine, raft_log) {
        (DataEngine::Redb, LogEngine::RaftEngine | LogEngine::Redb)
        | (DataEngine::Rocksdb, LogEngine::RaftEngine | LogEngine::Rocksdb)
        | (DataEngine::Mem, LogEngine::Mem) => return Ok(()),
        (DataEngine::Redb, _) => "use raft-engine or redb",
        (DataEngine::Rocksdb, _) => "use raft-engine or rocksdb",
        (DataEngine::Mem, _) => "beside data in memory only mem is of use",
    };
    Err(OptionsError::Engines { engine: engine.name(), raft_log: raft_log.name(), rule })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn merged(arguments: ServeArguments, file: &str) -> Result<Options, OptionsError> {
        Options::merge(arguments, toml::from_str(file).unwrap())
    }

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let file = r#"
            dir = "data"
            addr = "127.0.0.1:4000"
            pd = ["a:1", "b:2"]
            raft-log = "redb"
            [labels]
            zone = "east"
            [raftstore]
            raft-base-tick-interval = "100ms"
            raft-store-max-leader-lease = "900ms"
        "#;
        let arguments = ServeArguments {
            addr: Some("127.0.0.1:5000".parse().unwrap()),
            labels: vec!["zone=west".to_owned()],
            ..ServeArguments::default()
        };
        let options = merged(arguments, file).unwrap();
        assert_eq!(options.addr.port(), 5000);
        assert_eq!(options.dir, Path::new("data"));
        assert_eq!(options.pd, ["a:1", "b:2"]);
        assert_eq!((options.engine, options.raft_log), (DataEngine::Redb, LogEngine::Redb));
        assert_eq!(options.labels, [("zone".to_owned(), "west".to_owned())]);
        assert_eq!(options.config.raft_base_tick_interval, Duration::from_millis(100));
    }

    #[test]
    fn certificates_come_from_the_file_or_the_command_line() {
        let file = r#"
            pd = ["a:1"]
            [security]
            ca = "ca.pem"
            cert = "cert.pem"
            key = "key.pem"
            store-names = ["store"]
        "#;
        let security = merged(ServeArguments::default(), file).unwrap().security.unwrap();
        assert_eq!(security.files.certificate, Path::new("cert.pem"));
        assert_eq!(security.store_names, ["store"]);
        let arguments = ServeArguments {
            ca: Some("other-ca.pem".into()),
            cert: Some("other.pem".into()),
            key: Some("other-key.pem".into()),
            ..ServeArguments::default()
        };
        let security = merged(arguments, file).unwrap().security.unwrap();
        assert_eq!(security.files.ca, Path::new("other-ca.pem"));
        assert!(security.store_names.is_empty());
        assert!(toml::from_str::<FileOptions>("security = { ca = 'ca.pem' }").is_err());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let pd = || ServeArguments { pd: vec!["a:1".to_owned()], ..ServeArguments::default() };
        let said = |arguments, file| merged(arguments, file).unwrap_err().to_string();
        assert!(said(ServeArguments::default(), "").contains("--pd"));
        let labels = ServeArguments { labels: vec!["east".to_owned()], ..pd() };
        assert!(said(labels, "").contains("--labels east"));
        let any = ServeArguments { addr: Some("0.0.0.0:1".parse().unwrap()), ..pd() };
        assert!(said(any, "").contains("--advertise-addr"));
        assert!(said(pd(), "engine = 'mem'\nraft-log = 'redb'").contains("--raft-log redb"));
        assert!(said(pd(), "engine = 'redb'\nraft-log = 'mem'").contains("--raft-log mem"));
        assert!(said(pd(), "[raftstore]\nno-such = 1").contains("no-such"));
        assert!(toml::from_str::<FileOptions>("adr = '127.0.0.1:1'").is_err());
        if !cfg!(feature = "rocksdb") {
            assert!(said(pd(), "engine = 'rocksdb'").contains("--features rocksdb"));
        }
    }
}
