//! Mutual TLS: who is at the other end, proved by certificates of one authority.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::name::common_name;

/// Files are looked at for changes when a connection is made, this often at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What HTTP/2 is called in the handshake.
const HTTP2: &[u8] = b"h2";

/// Where the certificates of a process lie, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted.
    pub ca: PathBuf,
    /// The process's own certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// Common names of those who may connect. Empty, whoever has a certificate of the
    /// authority may.
    pub allowed_names: Vec<String>,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not in PEM: {detail}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What was found.
        detail: String,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", file.display())]
    NoCertificate {
        /// Which.
        file: PathBuf,
    },
    /// There is no key in the file.
    #[error("{} holds no private key", file.display())]
    NoKey {
        /// Which.
        file: PathBuf,
    },
    /// A certificate of an authority cannot be one.
    #[error("{} holds a certificate that is of no use: {detail}", file.display())]
    Authority {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Certificate and key do not belong together, or are of no use.
    #[error("{} and {} do not go together: {detail}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What is wrong with them.
        detail: String,
    },
    /// A name that is allowed is empty.
    #[error("an allowed common name is empty")]
    EmptyName,
}

/// When a file was changed last, and how long it is; `None` if it cannot be seen.
type Stamp = Option<(SystemTime, u64)>;

/// What connections are made with.
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    stamps: [Stamp; 3],
    looked: Instant,
}

struct Inner {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
    reloads: AtomicU64,
    failures: AtomicU64,
}

/// Certificates of a process, for both ends of connections. Clones are the same.
///
/// The files are read again when they have changed, so that certificates can be renewed
/// while the process runs: connections made from then on use the new ones. If what is new is
/// of no use, the old remain, and it is told of in the log.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file is wrong, and what about it.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        if files.allowed_names.iter().any(String::is_empty) {
            return Err(TlsError::EmptyName);
        }
        let loaded = Mutex::new(load(&files)?);
        let (reloads, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { files, loaded, reloads, failures })))
    }

    /// Reads the files again, changed or not.
    ///
    /// # Errors
    /// Which file is wrong, and what about it. What was read before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = load(&self.0.files);
        let mut now = self.0.loaded.lock();
        match loaded {
            Ok(loaded) => {
                *now = loaded;
                self.0.reloads.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.0.failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// How often changed files were read, and how often that failed.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.0.reloads), get(&self.0.failures))
    }

    /// Takes files that have changed, if it is time to look.
    fn look(&self) {
        {
            let mut loaded = self.0.loaded.lock();
            if loaded.looked.elapsed() < LOOK_INTERVAL {
                return;
            }
            loaded.looked = Instant::now();
            let stamps = stamps(&self.0.files);
            if stamps == loaded.stamps {
                return;
            }
            // Looked at once: files that are of no use are not read again until they change.
            loaded.stamps = stamps;
        }
        match self.reload() {
            Ok(()) => tracing::info!("certificates have been read anew"),
            Err(error) => tracing::error!(%error, "changed certificates are not used"),
        }
    }

    /// Secures a connection that was taken; gives the common name of who is at its other end.
    ///
    /// # Errors
    /// If the other end has no certificate that is trusted, or one whose name is not allowed.
    pub async fn accept(
        &self,
        socket: TcpStream,
    ) -> io::Result<(server::TlsStream<TcpStream>, Option<Arc<str>>)> {
        self.look();
        let config = Arc::clone(&self.0.loaded.lock().server);
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let name = certificates.and_then(|all| all.first()).and_then(|first| common_name(first));
        let allowed = &self.0.files.allowed_names;
        if !allowed.is_empty() && !allowed.iter().any(|allowed| Some(&**allowed) == name) {
            let name = name.unwrap_or("none");
            let text = format!("the common name of its certificate, {name:?}, is not allowed");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let name = name.map(Arc::from);
        Ok((stream, name))
    }

    /// Secures a connection that was made to `host`, a name or an address, which the other
    /// end's certificate must be for.
    ///
    /// # Errors
    /// If the other end has no certificate that is trusted, or does not trust ours.
    pub async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        self.look();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let config = Arc::clone(&self.0.loaded.lock().client);
        TlsConnector::from(config).connect(name, socket).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.files).finish_non_exhaustive()
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 3] {
    [&files.ca, &files.certificate, &files.key].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
    // Before the files are read: what changes meanwhile is seen as changed.
    let stamps = stamps(files);
    let provider = Arc::new(ring::default_provider());
    let authority = |detail: String| TlsError::Authority { file: files.ca.clone(), detail };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| authority(error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let own = certificates(&files.certificate)?;
    let key = key(&files.key)?;
    let server = server_config(&provider, &roots, own.clone(), key.clone_key());
    let client = client_config(&provider, &roots, own, key);
    let pair = |detail: String| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        detail,
    };
    let server = server.map_err(|why| match why {
        Unusable::Authority(detail) => authority(detail),
        Unusable::Pair(detail) => pair(detail),
    })?;
    let client = client.map_err(|error| pair(error.to_string()))?;
    Ok(Loaded {
        server: Arc::new(server),
        client: Arc::new(client),
        stamps,
        looked: Instant::now(),
    })
}

enum Unusable {
    Authority(String),
    Pair(String),
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Unusable> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| Unusable::Authority(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable::Pair(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own, key)
        .map_err(|error| Unusable::Pair(error.to_string()))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(own, key)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

/// All certificates of a file, one at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found
        .map_err(|error| TlsError::Pem { file: file.to_owned(), detail: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(found)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => TlsError::NoKey { file: file.to_owned() },
        error => TlsError::Pem { file: file.to_owned(), detail: error.to_string() },
    })
}

#[cfg(test)]
mod tests;
