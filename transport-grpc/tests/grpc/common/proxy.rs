//! A way between stores that can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
};

/// Passes on to one address what comes to its own, while it is not cut.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    is_cut: Arc<watch::Sender<bool>>,
    /// Bytes that pass before the next cut, of one connection; it heals at once.
    passes: Arc<AtomicU64>,
}

impl Proxy {
    pub fn start(runtime: &Handle, to: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a port");
        listener.set_nonblocking(true).expect("the system allows it");
        let address = listener.local_addr().expect("it is bound");
        let this = Self {
            address,
            is_cut: Arc::new(watch::Sender::new(false)),
            passes: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let proxy = this.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("it is open");
            while let Ok((socket, _)) = listener.accept().await {
                if !*proxy.is_cut.borrow() {
                    tokio::spawn(proxy.clone().pass(socket, to));
                }
            }
        });
        this
    }

    /// Breaks every connection and lets none through.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub fn heal(&self) {
        self.is_cut.send_replace(false);
    }

    /// Breaks the first connection that has brought so many bytes from now on.
    pub fn cut_after(&self, bytes: u64) {
        self.passes.store(bytes, Ordering::SeqCst);
    }

    async fn pass(self, mut inner: TcpStream, to: SocketAddr) {
        let Ok(mut outer) = TcpStream::connect(to).await else { return };
        let mut is_cut = self.is_cut.subscribe();
        let (mut from_inner, mut to_inner) = inner.split();
        let (mut from_outer, mut to_outer) = outer.split();
        let counted = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(read @ 1..) = from_inner.read(&mut buffer).await {
                let spent = |left: u64| (left < u64::MAX).then(|| left.saturating_sub(read as u64));
                let _ = self.passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent);
                let is_last =
                    self.passes.compare_exchange(0, u64::MAX, Ordering::SeqCst, Ordering::SeqCst);
                if is_last.is_ok() || to_outer.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = counted => {}
            _ = tokio::io::copy(&mut from_outer, &mut to_inner) => {}
            _ = is_cut.wait_for(|is_cut| *is_cut) => {}
        }
    }
}
