//! How connections become secure: on either side a function of the caller's, so that this
//! crate is bound to no library for it.

use std::{future::Future, io, pin::Pin, sync::Arc};

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
