//! Which connections a server takes in: so many at a time, and those that begin as they
//! should, soon.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::grpc::secure::{Io, SecureAccept};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 1024;
/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection may take to begin so.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the system has no descriptor for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How many connections a server took in and refused.
#[derive(Debug, Default)]
pub(super) struct Doorman {
    pub(super) accepted: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_garbage: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A connection that has begun well.
pub(super) struct Connection {
    io: Box<dyn Io>,
    /// What was read of it already, and how much of that was passed on.
    head: &'static [u8],
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let (now, later) = self.head.split_at(self.head.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.head = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Takes in connections until `stopping` says so.
pub(super) fn connections(
    listener: TcpListener,
    secure: Option<SecureAccept>,
    doorman: Arc<Doorman>,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<Connection>> {
    let (inlet, begun) = mpsc::channel(16);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be taken in");
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                        continue;
                    }
                },
                () = super::stopped(&mut stopping) => return,
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                count(&doorman.refused_full);
                continue;
            };
            let (inlet, secure) = (inlet.clone(), secure.clone());
            let doorman = Arc::clone(&doorman);
            tokio::spawn(async move {
                match tokio::time::timeout(BEGIN_TIMEOUT, begin(stream, secure)).await {
                    Ok(Ok(io)) => {
                        count(&doorman.accepted);
                        let connection = Connection { io, head: PREFACE, _place: place };
                        // The server may have stopped.
                        let _ = inlet.send(Ok(connection)).await;
                    }
                    Ok(Err(_)) | Err(_) => count(&doorman.refused_garbage),
                }
            });
        }
    });
    ReceiverStream::new(begun)
}

async fn begin(stream: TcpStream, secure: Option<SecureAccept>) -> io::Result<Box<dyn Io>> {
    stream.set_nodelay(true)?;
    let mut io: Box<dyn Io> = match secure {
        Some(secure) => secure(stream).await?,
        None => Box::new(stream),
    };
    let mut head = [0; PREFACE.len()];
    io.read_exact(&mut head).await?;
    if head == *PREFACE { Ok(io) } else { Err(io::ErrorKind::InvalidData.into()) }
}
