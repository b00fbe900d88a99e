//! Making connections.

use std::{io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::Tls;

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How the other end has to show who it is, and what it is shown.
    pub tls: Option<Tls>,
    /// Time for a connection to come about.
    pub connect_timeout: Duration,
    /// After this silence a connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// It has to answer within this time.
    pub keepalive_timeout: Duration,
    /// Bytes of one answer that may be on their way without having been read.
    pub stream_window_bytes: u32,
    /// The same for a connection.
    pub connection_window_bytes: u32,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            tls: None,
            connect_timeout: Duration::from_secs(3),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(3),
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 8 << 20,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// What was given is no address.
    #[error("{address:?} is no address: HOST:PORT is expected")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// Nobody answers there, or not as expected.
    #[error("no connection to {address}")]
    Failed {
        /// Where.
        address: String,
        /// What went wrong.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects to `address`, a host and a port.
///
/// A channel whose connection breaks makes another one to the same address when it is used
/// again.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(address: &str, config: &ClientConfig) -> Result<Channel, ConnectError> {
    let bad = || ConnectError::BadAddress { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| bad())?
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes);
    let to = address.to_owned();
    let connected = match config.tls.clone() {
        None => {
            let connector = tower::service_fn(move |_| {
                let to = to.clone();
                async move { dial(&to).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
        Some(tls) => {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let connector = tower::service_fn(move |_| {
                let (to, host, tls) = (to.clone(), host.clone(), tls.clone());
                async move { tls.connect(&host, dial(&to).await?).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
    };
    connected.map_err(|source| ConnectError::Failed { address: address.to_owned(), source })
}

async fn dial(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    // What is flushed must not wait for more.
    socket.set_nodelay(true)?;
    Ok(socket)
}
