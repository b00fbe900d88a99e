//! One accepted connection, after its handshake.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::serve::Places;

/// Who is at the other end of a connection. Handlers find it among the extensions of a
/// request.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The common name in its certificate; `None` without TLS, or if there is none in it.
    pub name: Option<Arc<str>>,
}

/// What bytes travel over.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Does the same with either.
macro_rules! either {
    ($socket:expr, $inner:ident => $do:expr) => {
        match $socket {
            Socket::Plain($inner) => $do,
            Socket::Tls($inner) => $do,
        }
    };
}

/// A connection that the server may have: it has begun to speak HTTP/2.
pub(crate) struct Connection {
    /// Read during the handshake, to be read again.
    begun: Bytes,
    socket: Socket,
    peer: PeerInfo,
    /// Counted while it lives.
    _place: Place,
}

impl Connection {
    pub(crate) fn new(begun: Bytes, socket: Socket, peer: PeerInfo, place: Place) -> Self {
        Self { begun, socket, peer, _place: place }
    }
}

/// One of the places for connections; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.address);
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return either!(&mut self.socket, inner => Pin::new(inner).poll_read(context, buffer));
        }
        let length = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun[..length]);
        self.begun.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.socket, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.socket, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.socket, inner => Pin::new(inner).poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.socket, inner => Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.socket, inner => inner.is_write_vectored())
    }
}
