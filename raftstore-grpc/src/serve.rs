//! Taking connections: how many, from where, and how long one may take to begin.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::Routes, transport::Server};

use crate::{
    Tls,
    connection::{Connection, PeerInfo, Place, Socket},
};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause after the system gave no connection, out of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Who may connect, and how this server shows who it is. Without it, anybody may, and
    /// everybody on the way can read and change what is said.
    pub tls: Option<Tls>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Of these, from one address.
    pub connections_per_address_max: usize,
    /// From the taking of a connection until it has to speak HTTP/2.
    pub handshake_timeout: Duration,
    /// Calls at a time on one connection.
    pub calls_per_connection_max: u32,
    /// Bytes of the headers of one call.
    pub header_bytes_max: u32,
    /// Bytes of one call that may be on their way without having been read.
    pub stream_window_bytes: u32,
    /// The same for a connection.
    pub connection_window_bytes: u32,
    /// After this silence a connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// It has to answer within this time.
    pub keepalive_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            tls: None,
            connections_max: 4096,
            connections_per_address_max: 2048,
            handshake_timeout: Duration::from_secs(5),
            calls_per_connection_max: 1024,
            header_bytes_max: 16 << 10,
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 8 << 20,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
        }
    }
}

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $field:ident,)*) => {
        /// What a server has done so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ServerFigures {
            $($(#[doc = $doc])+ pub $field: u64,)*
            /// Connections now.
            pub connections: u64,
        }

        impl ServerFigures {
            /// Every counter: its name, what it counts, its value.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), concat!($($doc),+), self.$field),)*]
            }
        }

        /// Counts what a server does. Clones count together.
        #[derive(Clone, Debug, Default)]
        pub struct ServerCounters(Arc<Counters>);

        #[derive(Debug, Default)]
        struct Counters {
            $($field: AtomicU64,)*
            connections: AtomicU64,
        }

        impl ServerCounters {
            /// What has been done so far.
            #[must_use]
            pub fn figures(&self) -> ServerFigures {
                ServerFigures {
                    $($field: self.0.$field.load(Ordering::Relaxed),)*
                    connections: self.0.connections.load(Ordering::Relaxed),
                }
            }
        }
    };
}

figures! {
    /// Connections that were taken and began to speak.
    accepted,
    /// Connections closed at once because there were too many.
    refused_full,
    /// Connections closed at once because there were too many from their address.
    refused_address,
    /// Connections that did not begin to speak in time.
    refused_slow,
    /// Connections without a certificate that is trusted, or with one of a name that is not
    /// allowed.
    refused_tls,
    /// Connections that spoke something else.
    refused_protocol,
    /// Connections that ended before they spoke.
    refused_ended,
    /// Times the system gave no connection.
    accept_errors,
}

impl ServerCounters {
    fn count(&self, which: impl Fn(&Counters) -> &AtomicU64) {
        which(&self.0).fetch_add(1, Ordering::Relaxed);
    }
}

/// How many connections there are, and from where.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Mutex<BTreeMap<IpAddr, usize>>,
    counters: ServerCounters,
}

enum Full {
    Server,
    Address,
}

impl Places {
    fn take(self: &Arc<Self>, address: IpAddr, config: &ServerConfig) -> Result<Place, Full> {
        let mut taken = self.taken.lock();
        // Counted beside the map: adding up thousands of addresses for each connection would
        // be a gift to who opens them.
        let all = &self.counters.0.connections;
        if all.load(Ordering::Relaxed) >= config.connections_max as u64 {
            return Err(Full::Server);
        }
        let here = taken.entry(address).or_default();
        if *here >= config.connections_per_address_max {
            return Err(Full::Address);
        }
        *here += 1;
        all.fetch_add(1, Ordering::Relaxed);
        Ok(Place { address, places: Arc::clone(self) })
    }

    pub(crate) fn give_back(&self, address: IpAddr) {
        let mut taken = self.taken.lock();
        if let Some(here) = taken.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&address);
            }
        }
        self.counters.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves calls on connections that `listener` takes, until `shutdown` is over; then takes no
/// more, lets calls end that have begun, and returns.
///
/// # Errors
/// If the server ends by itself, which it does on no fault of a connection's.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    config: ServerConfig,
    counters: ServerCounters,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (sender, connections) = mpsc::channel::<io::Result<Connection>>(16);
    let (end, is_over) = watch::channel(());
    let places = Arc::new(Places { taken: Mutex::default(), counters: counters.clone() });
    let door = Door { config: config.clone(), counters, places, sender };
    tokio::spawn(door.run(listener, is_over));
    let stop = async {
        shutdown.await;
        // Nobody is let in any more; the port is free when the door's task has ended.
        drop(end);
    };
    Server::builder()
        .max_concurrent_streams(config.calls_per_connection_max)
        .http2_max_header_list_size(config.header_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop)
        .await
}

/// Lets connections in.
#[derive(Clone)]
struct Door {
    config: ServerConfig,
    counters: ServerCounters,
    places: Arc<Places>,
    sender: mpsc::Sender<io::Result<Connection>>,
}

impl Door {
    async fn run(self, listener: TcpListener, mut is_over: watch::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // The server has ended, or is about to.
                _ = is_over.changed() => return,
                () = self.sender.closed() => return,
            };
            match accepted {
                Ok((socket, address)) => self.receive(socket, address),
                Err(error) => {
                    self.counters.count(|all| &all.accept_errors);
                    tracing::warn!(%error, "no connection can be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Begins the handshake of a connection, if there is a place for it.
    fn receive(&self, socket: TcpStream, address: SocketAddr) {
        let place = match self.places.take(address.ip(), &self.config) {
            Ok(place) => place,
            Err(Full::Server) => return self.counters.count(|all| &all.refused_full),
            Err(Full::Address) => return self.counters.count(|all| &all.refused_address),
        };
        let this = self.clone();
        tokio::spawn(async move {
            let limit = this.config.handshake_timeout;
            let tls = this.config.tls.as_ref();
            match timeout(limit, handshake(socket, address, tls, place)).await {
                Ok(Ok(connection)) => {
                    this.counters.count(|all| &all.accepted);
                    // A server that has ended takes none.
                    let _ = this.sender.send(Ok(connection)).await;
                }
                Ok(Err(NotBegun::Protocol)) => this.counters.count(|all| &all.refused_protocol),
                Ok(Err(NotBegun::Ended)) => this.counters.count(|all| &all.refused_ended),
                Ok(Err(NotBegun::Tls(error))) => {
                    tracing::warn!(%address, %error, "a connection is refused");
                    this.counters.count(|all| &all.refused_tls);
                }
                Err(_) => this.counters.count(|all| &all.refused_slow),
            }
        });
    }
}

/// Why a connection did not begin.
enum NotBegun {
    /// It ended.
    Ended,
    /// It spoke something else.
    Protocol,
    /// It did not show who it is, or must not be here.
    Tls(io::Error),
}

/// Waits for the first bytes, secured if that is wanted.
async fn handshake(
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<&Tls>,
    place: Place,
) -> Result<Connection, NotBegun> {
    // Small answers must not wait for larger ones.
    socket.set_nodelay(true).map_err(|_| NotBegun::Ended)?;
    let (socket, name) = match tls {
        None => {
            let mut socket = socket;
            begin(&mut socket).await?;
            (Socket::Plain(socket), None)
        }
        Some(tls) => {
            let (mut socket, name) = tls.accept(socket).await.map_err(NotBegun::Tls)?;
            begin(&mut socket).await?;
            (Socket::Tls(Box::new(socket)), name)
        }
    };
    let peer = PeerInfo { address, name };
    Ok(Connection::new(Bytes::from_static(PREFACE), socket, peer, place))
}

/// Reads what HTTP/2 begins with.
async fn begin(socket: &mut (impl AsyncRead + Unpin)) -> Result<(), NotBegun> {
    let mut begun = [0; PREFACE.len()];
    let mut length = 0;
    while length < begun.len() {
        match socket.read(&mut begun[length..]).await {
            Ok(0) | Err(_) => return Err(NotBegun::Ended),
            Ok(read) => length += read,
        }
        if begun[..length] != PREFACE[..length] {
            return Err(NotBegun::Protocol);
        }
    }
    Ok(())
}
