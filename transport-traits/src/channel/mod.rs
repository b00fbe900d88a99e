//! A transport between stores of one process: messages are moved, not encoded.
//!
//! Every registered store has a bounded queue and a thread that empties it into the
//! store's [`Inbox`]. Snapshot messages take another way: a few threads of the hub copy
//! the region snapshot from the sender's store of snapshots to the receiver's and hand
//! the message over afterwards. Tests can cut directions and filter messages.

mod endpoint;
mod faults;
mod transfer;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::{Mutex, RwLock};
use raftstore_proto::{MessageKind, Peer, RaftMessage, RegionId, StoreId};

use self::{
    endpoint::{Endpoint, QueueLimits, Refused},
    faults::Faults,
    transfer::{Transfer, TransferQueue},
};
use crate::{Connect, Inbox, SendError, SnapKey, SnapStore, Transport};

pub use self::faults::MessageFilter;

/// Bounds of a [`ChannelHub`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Messages that may wait for one store.
    pub queue_messages_max: usize,
    /// Bytes of messages that may wait for one store; a single message may exceed it.
    pub queue_bytes_max: usize,
    /// Threads that copy snapshots, so many at a time.
    pub snapshot_threads: usize,
    /// Snapshot messages that may wait for such a thread.
    pub snapshot_queue_max: usize,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            queue_messages_max: 8192,
            queue_bytes_max: 64 << 20,
            snapshot_threads: 3,
            snapshot_queue_max: 64,
        }
    }
}

/// Why a hub does not take a store, or cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The hub has been closed.
    #[error("the hub is closed")]
    Closed,
    /// The system gave no thread.
    #[error("cannot start a transport thread")]
    Thread {
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What a [`ChannelHub`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounters {
    /// Messages taken, without snapshot messages.
    pub messages: u64,
    /// Messages lost to cuts and filters.
    pub filtered: u64,
    /// Messages for stores that were not there.
    pub unreachable: u64,
    /// Messages refused because a queue was full.
    pub refused: u64,
    /// Snapshots delivered.
    pub snapshots_finished: u64,
    /// Snapshots not delivered.
    pub snapshots_failed: u64,
    /// Bytes of snapshots copied.
    pub snapshot_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    messages: AtomicU64,
    filtered: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    snapshots_finished: AtomicU64,
    snapshots_failed: AtomicU64,
    snapshot_bytes: AtomicU64,
}

/// What the threads of a hub share.
struct Shared {
    config: ChannelConfig,
    endpoints: RwLock<BTreeMap<StoreId, Arc<Endpoint>>>,
    faults: Faults,
    transfers: TransferQueue,
    counters: Counters,
    is_closed: AtomicBool,
}

impl Shared {
    fn endpoint(&self, store: StoreId) -> Option<Arc<Endpoint>> {
        self.endpoints.read().get(&store).cloned()
    }

    /// Closes an end; what waited for it did not get through.
    fn close_endpoint(&self, endpoint: &Endpoint) {
        for (from, message) in endpoint.close() {
            if let Some(sender) = self.endpoint(from) {
                self.report_unreachable(&sender, message.region(), message.to_peer());
                sender.wake();
            }
        }
    }

    fn report_unreachable(&self, sender: &Endpoint, region: Option<RegionId>, to: Option<Peer>) {
        self.counters.unreachable.fetch_add(1, Ordering::Relaxed);
        if let (Some(region), Some(to)) = (region, to) {
            sender.push_unreachable(region, to.id);
        }
    }
}

/// The hub and its threads; the last handle that goes ends them.
struct Hub {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Hub {
    fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), HubError> {
        let thread = thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|source| HubError::Thread { source })?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.transfers.close();
        let endpoints = std::mem::take(&mut *self.shared.endpoints.write());
        for endpoint in endpoints.values() {
            endpoint.close();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // An inbox that drops the last handle runs on one of these threads.
            if thread.thread().id() != thread::current().id() {
                // A panic was already reported by the panic hook.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

/// Connects the stores of one process. Clones are the same hub.
#[derive(Clone)]
pub struct ChannelHub {
    hub: Arc<Hub>,
}

impl ChannelHub {
    /// A hub without stores.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn new(config: ChannelConfig) -> Result<Self, HubError> {
        let shared = Arc::new(Shared {
            config,
            endpoints: RwLock::default(),
            faults: Faults::default(),
            transfers: TransferQueue::default(),
            counters: Counters::default(),
            is_closed: AtomicBool::new(false),
        });
        let hub = Hub { shared, threads: Mutex::default() };
        for number in 0..config.snapshot_threads.max(1) {
            let shared = Arc::clone(&hub.shared);
            hub.spawn(format!("snap-send-{number}"), move || shared.transfers.run(&shared))?;
        }
        Ok(Self { hub: Arc::new(hub) })
    }

    /// Connects a store that is about to start.
    #[must_use]
    pub fn connect(&self) -> Connect {
        let hub = self.clone();
        Box::new(move |store, inbox, snaps| Ok(Box::new(hub.register(store, inbox, snaps)?)))
    }

    /// Makes `store` reachable and gives the handle it sends with.
    ///
    /// A store registered before under the same id is unregistered first: its handles are
    /// closed.
    ///
    /// # Errors
    /// If the hub is closed, or the store's thread cannot be started.
    pub fn register(
        &self,
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
    ) -> Result<ChannelTransport, HubError> {
        let shared = &self.hub.shared;
        let limits = QueueLimits {
            messages_max: shared.config.queue_messages_max,
            bytes_max: shared.config.queue_bytes_max,
        };
        let endpoint = Arc::new(Endpoint::new(store, inbox, snaps, limits));
        let older = {
            let mut endpoints = shared.endpoints.write();
            // Under the lock that `close` takes, or a store could slip in behind it.
            if shared.is_closed.load(Ordering::Acquire) {
                return Err(HubError::Closed);
            }
            endpoints.insert(store, Arc::clone(&endpoint))
        };
        if let Some(older) = older {
            shared.close_endpoint(&older);
        }
        let running = Arc::clone(&endpoint);
        if let Err(error) = self.hub.spawn(format!("inbox-{store}"), move || running.run()) {
            self.unregister(store);
            return Err(error);
        }
        Ok(ChannelTransport { hub: Arc::clone(&self.hub), endpoint, unflushed: Vec::new() })
    }

    /// Makes `store` unreachable: its handles are closed, what waits for it is reported
    /// as unreachable to the senders, its snapshot transfers fail and are reported.
    ///
    /// A call of its inbox that is under way may still end after this returns.
    pub fn unregister(&self, store: StoreId) {
        let shared = &self.hub.shared;
        let endpoint = shared.endpoints.write().remove(&store);
        if let Some(endpoint) = endpoint {
            shared.close_endpoint(&endpoint);
        }
    }

    /// Closes every handle, reports every transfer that has not ended as failed, and ends
    /// the threads. No inbox is called after this returns.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Loses everything that `from` sends to `to` from now on.
    pub fn cut(&self, from: StoreId, to: StoreId) {
        self.hub.shared.faults.cut(from, to);
    }

    /// Takes a cut of this direction back.
    pub fn heal(&self, from: StoreId, to: StoreId) {
        self.hub.shared.faults.heal(from, to);
    }

    /// Takes all cuts and the filter back.
    pub fn heal_all(&self) {
        self.hub.shared.faults.clear();
    }

    /// Loses the messages for which `filter` says no; it is asked once per message, on the
    /// sender's thread, for snapshot messages on one of the hub's.
    pub fn set_filter(&self, filter: Option<Arc<MessageFilter>>) {
        self.hub.shared.faults.set_filter(filter);
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> ChannelCounters {
        let counters = &self.hub.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ChannelCounters {
            messages: get(&counters.messages),
            filtered: get(&counters.filtered),
            unreachable: get(&counters.unreachable),
            refused: get(&counters.refused),
            snapshots_finished: get(&counters.snapshots_finished),
            snapshots_failed: get(&counters.snapshots_failed),
            snapshot_bytes: get(&counters.snapshot_bytes),
        }
    }
}

impl fmt::Debug for ChannelHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.hub.shared;
        f.debug_struct("ChannelHub")
            .field("stores", &shared.endpoints.read().keys().collect::<Vec<_>>())
            .field("faults", &shared.faults)
            .field("counters", &shared.counters)
            .finish_non_exhaustive()
    }
}

/// The handle a store sends with. Clones send for the same store, one per thread.
///
/// A message to a store that is not registered is taken, and reported as unreachable
/// through the sender's inbox.
pub struct ChannelTransport {
    hub: Arc<Hub>,
    endpoint: Arc<Endpoint>,
    /// Ends that hold something of ours and were not woken yet.
    unflushed: Vec<Arc<Endpoint>>,
}

impl ChannelTransport {
    fn send_snapshot(&self, to: Peer, message: RaftMessage) -> Result<(), SendError> {
        let key = SnapKey::announced_by(&message).ok_or(SendError::NoSnapshot)?;
        let from = Arc::clone(&self.endpoint);
        let transfer = Transfer { from, to, key, message };
        let shared = &self.hub.shared;
        shared.transfers.push(transfer, shared.config.snapshot_queue_max).map_err(|refused| {
            match refused {
                Refused::Closed => SendError::Closed,
                Refused::Full => self.full(to.store),
            }
        })
    }

    fn full(&self, to: StoreId) -> SendError {
        self.hub.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        SendError::Full(to)
    }

    fn remember(&mut self, endpoint: Arc<Endpoint>) {
        if !self.unflushed.iter().any(|known| Arc::ptr_eq(known, &endpoint)) {
            self.unflushed.push(endpoint);
        }
    }

    /// Tells our own inbox that a message for `to` was lost.
    fn lose(&mut self, region: Option<RegionId>, to: Peer) {
        self.hub.shared.report_unreachable(&self.endpoint, region, Some(to));
        self.remember(Arc::clone(&self.endpoint));
    }
}

impl Transport for ChannelTransport {
    fn send(&mut self, message: RaftMessage) -> Result<(), SendError> {
        let to = message.to_peer().ok_or(SendError::NoTarget)?;
        if self.endpoint.is_closed() {
            return Err(SendError::Closed);
        }
        if message.kind() == Some(MessageKind::Snapshot) {
            return self.send_snapshot(to, message);
        }
        let shared = &self.hub.shared;
        if !shared.faults.passes(self.endpoint.store, to.store, &message) {
            shared.counters.filtered.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let region = message.region();
        let Some(target) = shared.endpoint(to.store) else {
            self.lose(region, to);
            return Ok(());
        };
        match target.push(self.endpoint.store, message) {
            Ok(()) => {
                shared.counters.messages.fetch_add(1, Ordering::Relaxed);
                self.remember(target);
                Ok(())
            }
            Err(Refused::Full) => {
                target.wake();
                Err(self.full(to.store))
            }
            // Unregistered since it was looked up.
            Err(Refused::Closed) => {
                self.lose(region, to);
                Ok(())
            }
        }
    }

    fn flush(&mut self) {
        for endpoint in self.unflushed.drain(..) {
            endpoint.wake();
        }
    }
}

impl Clone for ChannelTransport {
    fn clone(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
            endpoint: Arc::clone(&self.endpoint),
            unflushed: Vec::new(),
        }
    }
}

impl Drop for ChannelTransport {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for ChannelTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelTransport").field("store", &self.endpoint.store).finish()
    }
}
