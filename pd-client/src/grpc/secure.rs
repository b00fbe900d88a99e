//! How connections become secure: on either side a function of the caller's. With
//! certificates it is [`tls_accept`] and [`tls_connect`].

use std::{future::Future, io, pin::Pin, sync::Arc};

use raftstore_grpc::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection as the protocol above sees it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What comes of securing a connection.
pub type Securing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Makes a secure connection of a plain one, or refuses it: a server's side.
pub type SecureAccept = Arc<dyn Fn(TcpStream) -> Securing + Send + Sync>;

/// Makes a secure connection of a plain one to the host that is named, or refuses it: a
/// client's side.
pub type SecureConnect = Arc<dyn Fn(TcpStream, String) -> Securing + Send + Sync>;

/// A server's side of TLS: whoever connects shows a certificate.
#[must_use]
pub fn tls_accept(tls: Tls) -> SecureAccept {
    Arc::new(move |stream| {
        let tls = tls.clone();
        Box::pin(async move {
            let (stream, _) = tls.accept(stream).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// A client's side of TLS: the PD shows a certificate for the host it is reached at, and the
/// client its own.
#[must_use]
pub fn tls_connect(tls: Tls) -> SecureConnect {
    Arc::new(move |stream, host| {
        let tls = tls.clone();
        Box::pin(async move {
            let stream = tls.connect(host.trim_matches(['[', ']']), stream).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}
