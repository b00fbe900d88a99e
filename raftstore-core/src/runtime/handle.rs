//! Decides how a node is spoken to: by clients, by the transport, by those who look on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::Sender;
use engine_traits::KvEngine;
use parking_lot::RwLock;
use raftstore_proto::{
    BusyReason, Command, Epoch, PeerId, RaftMessage, RegionError, RegionId, Response, StoreId,
};
use transport_traits::{Inbox, SnapDirection, SnapKey, SnapStore, SnapshotStatus};

use super::{
    counters::NodeCounters,
    router::{Callback, Reply},
    shared::{LaneInput, Refused, Shared},
};
use crate::{
    Event, FatalError, MonoTime, ReplyId, StoreMetrics, read::LocalReader,
    snap::build::check_received, store::PeerStatus,
};

/// How long a client should stay away from a full queue, in milliseconds: a few turns.
const BUSY_BACKOFF_MS: u64 = 20;

/// A way to speak to a node, cheap to clone. It outlives the node: everything is then
/// answered with [`RegionError::Stopping`].
#[derive(Debug)]
pub struct NodeHandle<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    store: StoreId,
    shared: Arc<Shared>,
    snaps: Arc<dyn SnapStore>,
    /// Taken away at the end, so that the engine is closed however many handles are left.
    reader: RwLock<Option<LocalReader<K>>>,
}

impl<K: std::fmt::Debug> std::fmt::Debug for Inner<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle")
            .field("store", &self.store)
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl<K> Clone for NodeHandle<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: KvEngine> NodeHandle<K> {
    pub(super) fn new(
        store: StoreId,
        shared: Arc<Shared>,
        snaps: Arc<dyn SnapStore>,
        reader: LocalReader<K>,
    ) -> Self {
        let reader = RwLock::new(Some(reader));
        Self { inner: Arc::new(Inner { store, shared, snaps, reader }) }
    }

    /// Lets go of the engine.
    pub(super) fn close_reader(&self) {
        *self.inner.reader.write() = None;
    }

    /// The store's id.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.inner.store
    }

    /// The node's clock.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        self.inner.shared.clock.now()
    }

    /// Hands a command in. Never blocks: a full queue is an answer too. A read under the
    /// lease is carried out on this thread (D11).
    pub fn command(&self, command: Command) -> Reply {
        self.inner.shared.counters.commands.add(1);
        if let Some(response) = self.read_here(&command) {
            return Reply::ready(response);
        }
        let (id, reply) = self.inner.shared.router.enter();
        if let Some(id) = id {
            self.queue(id, command);
        }
        reply
    }

    /// Hands a command in and has its answer given to `callback`, possibly before this
    /// returns. The callback must neither block nor panic.
    pub fn command_with(&self, command: Command, callback: Callback) {
        self.inner.shared.counters.commands.add(1);
        if let Some(response) = self.read_here(&command) {
            callback(response);
        } else if let Some(id) = self.inner.shared.router.enter_callback(callback) {
            self.queue(id, command);
        }
    }

    fn read_here(&self, command: &Command) -> Option<Response> {
        let shared = &self.inner.shared;
        if command.header.peer.store != self.inner.store || shared.failure.has_failed() {
            return None;
        }
        let read = {
            let reader = self.inner.reader.read();
            reader.as_ref()?.read(command, || shared.clock.now())
        };
        match read {
            // A store that has failed meanwhile serves nothing any more.
            Ok(response) => response.filter(|_| !shared.failure.has_failed()).inspect(|_| {
                shared.counters.local_reads.add(1);
                shared.counters.answers.add(1);
            }),
            Err(error) => {
                let region = Some(command.header.region);
                shared.failure.fail(FatalError::engine("reading for a client", region)(error));
                None
            }
        }
    }

    fn queue(&self, reply: ReplyId, command: Command) {
        let region = command.header.region;
        self.offer(reply, region, Event::Command { reply, command });
    }

    fn offer(&self, reply: ReplyId, region: RegionId, event: Event) {
        let shared = &self.inner.shared;
        let error = match shared.offer(region, event) {
            Ok(()) => return,
            Err(Refused::Full) => {
                RegionError::ServerIsBusy { reason: BusyReason::Queue, backoff_ms: BUSY_BACKOFF_MS }
            }
            Err(Refused::Gone) => RegionError::Stopping,
        };
        shared.counters.refused_commands.add(1);
        shared.router.answer(reply, Response::error(0, error));
    }

    /// Has a region cut at user keys, with ids that PD gives. The answer names the parts in
    /// key order; the new ones serve as soon as they have elected a leader.
    pub fn split_region(&self, region: RegionId, epoch: Epoch, keys: Vec<Bytes>) -> Reply {
        let shared = &self.inner.shared;
        let (id, reply) = shared.router.enter();
        if let Some(id) = id {
            let event = Event::SplitRegion { reply: Some(id), region, epoch, keys };
            self.offer(id, region, event);
        }
        reply
    }

    /// Callers who have no answer yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.shared.router.waiting()
    }

    /// What the node's threads have done.
    #[must_use]
    pub fn counters(&self) -> NodeCounters {
        self.inner.shared.counters.snapshot()
    }

    /// What each lane has done, in the order of lanes. A lane that does not answer in time,
    /// or has ended, is left out.
    #[must_use]
    pub fn lane_metrics(&self, timeout: Duration) -> Vec<StoreMetrics> {
        self.ask(timeout, LaneInput::Metrics)
    }

    /// The peers of the store as they are now, lane by lane. Lanes that do not answer in
    /// time, or have ended, are left out.
    #[must_use]
    pub fn peers(&self, timeout: Duration) -> Vec<PeerStatus> {
        self.ask(timeout, LaneInput::Peers).into_iter().flatten().collect()
    }

    fn ask<T>(&self, timeout: Duration, question: impl Fn(Sender<T>) -> LaneInput) -> Vec<T> {
        let deadline = Instant::now() + timeout;
        let asked: Vec<_> = self
            .inner
            .shared
            .lanes
            .iter()
            .map(|link| {
                let (sender, answer) = crossbeam_channel::bounded(1);
                let _ = link.significant.send(question(sender));
                answer
            })
            .collect();
        asked.into_iter().filter_map(|answer| answer.recv_deadline(deadline).ok()).collect()
    }

    /// The error that has stopped the store, if one has.
    #[must_use]
    pub fn fatal(&self) -> Option<Arc<FatalError>> {
        self.inner.shared.failure.error()
    }

    /// Waits until the store fails, which gives the error, or has been stopped; `timeout`
    /// at most.
    #[must_use]
    pub fn wait_fatal(&self, timeout: Option<Duration>) -> Option<Arc<FatalError>> {
        self.inner.shared.failure.wait(timeout)
    }
}

impl<K: KvEngine> Inbox for NodeHandle<K> {
    fn message(&self, message: RaftMessage, snapshot: Option<(SnapKey, u64)>) {
        let shared = &self.inner.shared;
        let Some(region) = message.region() else {
            shared.counters.lost_messages.add(1);
            return;
        };
        if let Some((key, _)) = snapshot
            && let Err(error) = check_received(&*self.inner.snaps, key)
        {
            tracing::warn!(%key, %error, "received snapshot is damaged, waiting for another");
            shared.counters.lost_messages.add(1);
            if let Err(error) = self.inner.snaps.delete(SnapDirection::Received, key) {
                tracing::warn!(%key, %error, "damaged snapshot not deleted");
            }
            return;
        }
        let is_snapshot = snapshot.is_some();
        let event = Event::Message { message: Box::new(message), snapshot };
        if is_snapshot {
            // The bytes at rest would have nobody who knows of them. The transport bounds
            // how many of these are on their way.
            shared.tell(region, event);
        } else if shared.offer(region, event).is_err() {
            shared.counters.lost_messages.add(1);
        }
    }

    fn unreachable(&self, region: RegionId, to: PeerId) {
        self.inner.shared.tell(region, Event::Unreachable { region, to });
    }

    fn snapshot_status(&self, region: RegionId, to: PeerId, status: SnapshotStatus) {
        self.inner.shared.tell(region, Event::SnapshotStatus { region, to, status });
    }
}
