//! The transport as its embedder holds it, and the handle a store sends with.

use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};

use parking_lot::RwLock;
use raftstore_proto::{ClusterId, MessageKind, Peer, RaftMessage, StoreId};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    time::sleep,
};
use tonic::service::Routes;
use transport_traits::{Connect, Inbox, SendError, SnapKey, SnapStore, StoreResolver, Transport};

use crate::{
    config::{ConfigError, GrpcConfig},
    counters::{Counters, GrpcCounters},
    frame::Reading,
    lane,
    queue::{Queue, Refused},
    server,
    session::Session,
    snapshot::{Rate, Transfer},
};

/// An address that is being looked up is asked for so often, at this distance.
const LOOKUP_TRIES: u32 = 40;
const LOOKUP_PAUSE: Duration = Duration::from_millis(5);

/// Why there is no transport, or why it does not take a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// The settings are not allowed.
    #[error("bad configuration of the transport")]
    Config(#[from] ConfigError),
    /// The system gives no threads.
    #[error("threads of the transport cannot be started")]
    Threads(#[from] io::Error),
    /// The transport has been closed.
    #[error("the transport is closed")]
    Closed,
}

/// What the tasks and threads of a transport share.
pub(crate) struct Shared {
    pub(crate) config: GrpcConfig,
    pub(crate) cluster: ClusterId,
    pub(crate) resolver: Arc<dyn StoreResolver>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) runtime: Handle,
    /// Snapshots that may be sent at a time, and received.
    pub(crate) snapshot_sends: Semaphore,
    pub(crate) snapshot_receives: Arc<Semaphore>,
    pub(crate) snapshot_send_rate: Rate,
    pub(crate) snapshot_receive_rate: Rate,
    store: RwLock<Store>,
}

#[derive(Default)]
struct Store {
    session: Option<Arc<Session>>,
    is_closed: bool,
}

impl Shared {
    /// The store that is connected now.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.store.read().session.clone().filter(|session| !session.is_closed())
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading { limits: self.config.limits(), counters: Arc::clone(&self.counters) }
    }

    /// Where a store is, once it has been looked up.
    pub(crate) async fn locate(&self, store: StoreId) -> Option<String> {
        self.counters.lookups.add(1);
        for _ in 0..LOOKUP_TRIES {
            if let Some(address) = self.resolver.resolve(store) {
                return Some(address);
            }
            sleep(LOOKUP_PAUSE).await;
        }
        self.counters.failed_lookups.add(1);
        None
    }

    fn detach(&self, session: &Arc<Session>) {
        {
            let mut store = self.store.write();
            if store.session.as_ref().is_some_and(|now| Arc::ptr_eq(now, session)) {
                store.session = None;
            }
        }
        session.close(self.config.drain_timeout);
    }
}

/// The tasks of a transport; the last handle that goes ends them.
struct Owner {
    shared: Arc<Shared>,
    runtime: RwLock<Option<Runtime>>,
}

impl Owner {
    fn close(&self) {
        let session = {
            let mut store = self.shared.store.write();
            store.is_closed = true;
            store.session.take()
        };
        if let Some(session) = session {
            session.close(self.shared.config.drain_timeout);
        }
        if let Some(runtime) = self.runtime.write().take() {
            // Threads that wait for a medium are left to themselves.
            runtime.shutdown_background();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Moves the messages and region snapshots of one store over gRPC. Clones are the same
/// transport. See the crate's documentation for how it is put together with a server.
#[derive(Clone)]
pub struct GrpcTransport {
    owner: Arc<Owner>,
}

impl GrpcTransport {
    /// A transport without a store, in the cluster of this id. It finds other stores by
    /// `resolver`. Its tasks run on `runtime`; without one it starts threads of its own.
    ///
    /// # Errors
    /// If the settings are not allowed, or threads cannot be started.
    pub fn new(
        config: GrpcConfig,
        cluster: ClusterId,
        resolver: Arc<dyn StoreResolver>,
        runtime: Option<Handle>,
    ) -> Result<Self, GrpcError> {
        config.validate()?;
        let (own, handle) = match runtime {
            Some(handle) => (None, handle),
            None => {
                let own = Builder::new_multi_thread()
                    .worker_threads(config.worker_threads)
                    .thread_name("raft-grpc")
                    .enable_all()
                    .build()?;
                let handle = own.handle().clone();
                (Some(own), handle)
            }
        };
        let shared = Shared {
            snapshot_sends: Semaphore::new(config.snapshot_sends_max),
            snapshot_receives: Arc::new(Semaphore::new(config.snapshot_receives_max)),
            snapshot_send_rate: Rate::new(config.snapshot_bytes_per_second),
            snapshot_receive_rate: Rate::new(config.snapshot_bytes_per_second),
            config,
            cluster,
            resolver,
            counters: Arc::default(),
            runtime: handle,
            store: RwLock::default(),
        };
        let owner = Owner { shared: Arc::new(shared), runtime: RwLock::new(own) };
        Ok(Self { owner: Arc::new(owner) })
    }

    /// Where the transport's tasks run.
    #[must_use]
    pub fn runtime(&self) -> Handle {
        self.owner.shared.runtime.clone()
    }

    /// Adds the calls of other stores to those that a server answers. They come before any
    /// service of the same name in `routes`, which answers the rest.
    #[must_use]
    pub fn add_to(&self, routes: Routes) -> Routes {
        routes.into_axum_router().merge(server::router(&self.owner.shared)).into()
    }

    /// Connects a store that is about to start.
    #[must_use]
    pub fn connect(&self) -> Connect {
        let this = self.clone();
        Box::new(move |store, inbox, snaps| Ok(Box::new(this.attach(store, inbox, snaps)?)))
    }

    /// Connects a store: calls for it go to `inbox`, region snapshots are sent from and
    /// received into `snaps`. A store that was connected before is let go first.
    ///
    /// # Errors
    /// If the transport is closed.
    pub fn attach(
        &self,
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
    ) -> Result<GrpcSender, GrpcError> {
        let shared = &self.owner.shared;
        let session = Arc::new(Session::new(store, inbox, snaps, Arc::clone(&shared.counters)));
        let older = {
            let mut store = shared.store.write();
            if store.is_closed {
                return Err(GrpcError::Closed);
            }
            store.session.replace(Arc::clone(&session))
        };
        if let Some(older) = older {
            older.close(shared.config.drain_timeout);
        }
        Ok(GrpcSender {
            shared: Arc::clone(shared),
            session,
            peers: BTreeMap::new(),
            unflushed: Vec::new(),
        })
    }

    /// Takes nothing more, lets what was taken leave within the drain timeout, ends the
    /// streams of other stores, and reports every transfer that has not ended as failed. The
    /// store is not called after this returns.
    ///
    /// Blocks; must not be called on a thread of an async runtime.
    pub fn close(&self) {
        self.owner.close();
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> GrpcCounters {
        self.owner.shared.counters.snapshot()
    }
}

impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.owner.shared;
        f.debug_struct("GrpcTransport")
            .field("cluster", &shared.cluster)
            .field("session", &shared.store.read().session)
            .finish_non_exhaustive()
    }
}

/// The handle a store sends with. Dropped, it lets the store go: what was taken leaves within
/// the drain timeout, and the store is not called any more.
pub struct GrpcSender {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// Those spoken to before.
    peers: BTreeMap<StoreId, Arc<lane::Peer>>,
    /// Queues that hold something of ours and were not woken yet.
    unflushed: Vec<Arc<Queue>>,
}

impl GrpcSender {
    fn peer(&mut self, store: StoreId) -> &lane::Peer {
        let (shared, session) = (&self.shared, &self.session);
        self.peers.entry(store).or_insert_with(|| {
            let start = || Arc::new(lane::Peer::start(store, shared, session));
            Arc::clone(session.peers.write().entry(store).or_insert_with(start))
        })
    }

    fn send_snapshot(&self, to: Peer, message: RaftMessage) -> Result<(), SendError> {
        let key = SnapKey::announced_by(&message).ok_or(SendError::NoSnapshot)?;
        let (shared, session) = (Arc::clone(&self.shared), Arc::clone(&self.session));
        let queue_max = shared.config.snapshot_queue_max;
        let Some(report) = session.begin_transfer(key.region, to.id, queue_max) else {
            return Err(self.count(Refused::Full, to.store));
        };
        let runtime = shared.runtime.clone();
        let transfer = Transfer { shared, session: Arc::clone(&session), report, to, key, message };
        session.spawn(&runtime, transfer.run());
        Ok(())
    }

    fn count(&self, refused: Refused, store: StoreId) -> SendError {
        match refused {
            Refused::Full => {
                self.shared.counters.full_messages.add(1);
                SendError::Full(store)
            }
            Refused::Down => {
                self.shared.counters.unreachable_messages.add(1);
                SendError::Unreachable(store)
            }
        }
    }
}

impl Transport for GrpcSender {
    fn send(&mut self, message: RaftMessage) -> Result<(), SendError> {
        let to = message.to_peer().ok_or(SendError::NoTarget)?;
        if self.session.is_closed() {
            return Err(SendError::Closed);
        }
        let size_bytes = message.encoded_len_hint();
        let max_bytes = self.shared.config.message_bytes_max();
        if size_bytes > max_bytes {
            self.shared.counters.too_large_messages.add(1);
            return Err(SendError::TooLarge { size_bytes, max_bytes });
        }
        if message.kind() == Some(MessageKind::Snapshot) {
            return self.send_snapshot(to, message);
        }
        let region = message.region();
        let queue = Arc::clone(self.peer(to.store).queue(region));
        match queue.push(message, size_bytes) {
            Ok(()) => {
                self.shared.counters.taken_messages.add(1);
                if !self.unflushed.iter().any(|known| Arc::ptr_eq(known, &queue)) {
                    self.unflushed.push(queue);
                }
                Ok(())
            }
            Err(refused) => {
                queue.wake();
                Err(self.count(refused, to.store))
            }
        }
    }

    fn flush(&mut self) {
        for queue in self.unflushed.drain(..) {
            queue.wake();
        }
    }
}

impl Drop for GrpcSender {
    fn drop(&mut self) {
        self.flush();
        self.shared.detach(&self.session);
    }
}

impl fmt::Debug for GrpcSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcSender").field("session", &self.session).finish_non_exhaustive()
    }
}
