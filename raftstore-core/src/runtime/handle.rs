//! Decides how a node is spoken to: by clients, by the transport, by those who look on.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::Sender;
use engine_traits::{Cf, KvEngine, Range};
use parking_lot::RwLock;
use raftstore_proto::{
    Body, BusyReason, Command, Epoch, Header, Operation, PeerId, RaftMessage, RegionError,
    RegionId, Response, StoreId,
};
use transport_traits::{Inbox, SnapDirection, SnapKey, SnapStore, SnapshotStatus};

use super::{
    counters::NodeCounters,
    exposition::exposition,
    hash::{RangeAsk, RangeHashResult},
    router::{BatchResult, Callback, Promise, Reply, SnapshotResult},
    shared::{LaneInput, Refused, Shared},
};
use crate::{
    Event, FatalError, LaneId, MonoTime, ReplyId, StoreMetrics,
    consistency::{RangeHashError, RangeQuestion},
    read::LocalReader,
    snap::build::check_received,
    store::PeerStatus,
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
    /// To the thread that hashes.
    asks: Sender<RangeAsk>,
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
        asks: Sender<RangeAsk>,
        reader: LocalReader<K>,
    ) -> Self {
        let reader = RwLock::new(Some(reader));
        Self { inner: Arc::new(Inner { store, shared, snaps, asks, reader }) }
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

    /// Asks for the region named by `header` as of one moment, under the lease on this
    /// thread if that is possible, else through its lane. Never blocks.
    pub fn snapshot(&self, header: Header) -> Reply<SnapshotResult> {
        self.inner.shared.counters.commands.add(1);
        let here = self.serve_here(header.region, |reader, clock| reader.snapshot(&header, clock));
        if let Some(Some(snapshot)) = here {
            self.count_served_here(1);
            return Reply::ready(Ok(snapshot.erase()));
        }
        let (id, reply) = self.inner.shared.router.enter_snapshot();
        if let Some(id) = id {
            self.queue(id, snap(header));
        }
        reply
    }

    /// Asks for several regions at once, as of as few moments as possible. Never blocks.
    ///
    /// Each is answered for itself, in the order of `headers`; `None` for those of which a
    /// quorum would have to be asked first: ask for them one by one.
    pub fn batch_snapshot(&self, headers: Vec<Header>) -> Reply<BatchResult> {
        let shared = &self.inner.shared;
        shared.counters.commands.add(1);
        let Some(first) = headers.first() else {
            return Reply::ready(Vec::new());
        };
        let here = self.serve_here(first.region, |reader, clock| reader.snapshots(&headers, clock));
        let results: BatchResult = match here {
            Some(served) => served.into_iter().map(|it| it.map(|it| Ok(it.erase()))).collect(),
            None => vec![None; headers.len()],
        };
        let served = results.iter().filter(|result| result.is_some()).count();
        self.count_served_here(served as u64);
        let mut by_lane: BTreeMap<LaneId, (Vec<usize>, Vec<Command>)> = BTreeMap::new();
        for (position, header) in headers.into_iter().enumerate() {
            if results[position].is_none() {
                let (positions, commands) =
                    by_lane.entry(shared.lane_of(header.region)).or_default();
                positions.push(position);
                commands.push(snap(header));
            }
        }
        if by_lane.is_empty() {
            return Reply::ready(results);
        }
        let parts = by_lane.values().map(|(positions, _)| positions.clone()).collect();
        let (ids, reply) = shared.router.enter_batch(results, parts);
        for (id, (lane, (_, commands))) in ids.into_iter().zip(by_lane) {
            if let Some(id) = id {
                let event = Event::BatchSnapshot { reply: id, commands };
                self.take_refusal(id, shared.offer_lane(lane, event));
            }
        }
        reply
    }

    fn read_here(&self, command: &Command) -> Option<Response> {
        if command.header.peer.store != self.inner.store {
            return None;
        }
        let read =
            |reader: &LocalReader<K>, clock: &dyn Fn() -> MonoTime| reader.read(command, clock);
        self.serve_here(command.header.region, read)?.inspect(|_| self.count_served_here(1))
    }

    /// Reads on this thread, unless the store has failed or ended. A failure to read fails
    /// the store.
    fn serve_here<T>(
        &self,
        region: RegionId,
        read: impl FnOnce(&LocalReader<K>, &dyn Fn() -> MonoTime) -> Result<T, engine_traits::Error>,
    ) -> Option<T> {
        let shared = &self.inner.shared;
        if shared.failure.has_failed() {
            return None;
        }
        let read = {
            let reader = self.inner.reader.read();
            read(reader.as_ref()?, &|| shared.clock.now())
        };
        match read {
            // A store that has failed meanwhile serves nothing any more.
            Ok(served) => (!shared.failure.has_failed()).then_some(served),
            Err(error) => {
                let doing = "reading for a client";
                shared.failure.fail(FatalError::engine(doing, Some(region))(error));
                None
            }
        }
    }

    fn count_served_here(&self, reads: u64) {
        self.inner.shared.counters.local_reads.add(reads);
        self.inner.shared.counters.answers.add(reads);
    }

    fn queue(&self, reply: ReplyId, command: Command) {
        let region = command.header.region;
        let taken = self.inner.shared.offer(region, Event::Command { reply, command });
        self.take_refusal(reply, taken);
    }

    /// A lane that does not take a question is an answer too.
    fn take_refusal(&self, reply: ReplyId, taken: Result<(), Refused>) {
        let error = match taken {
            Ok(()) => return,
            Err(Refused::Full) => {
                RegionError::ServerIsBusy { reason: BusyReason::Queue, backoff_ms: BUSY_BACKOFF_MS }
            }
            Err(Refused::Gone) => RegionError::Stopping,
        };
        let shared = &self.inner.shared;
        shared.counters.refused_commands.add(1);
        shared.router.answer(reply, Response::error(0, error), None);
    }

    /// Has a region cut at user keys, with ids that PD gives. The answer names the parts in
    /// key order; the new ones serve as soon as they have elected a leader.
    pub fn split_region(&self, region: RegionId, epoch: Epoch, keys: Vec<Bytes>) -> Reply {
        let shared = &self.inner.shared;
        let (id, reply) = shared.router.enter();
        if let Some(id) = id {
            let event = Event::SplitRegion { reply: Some(id), region, epoch, keys };
            self.take_refusal(id, shared.offer(region, event));
        }
        reply
    }

    /// Asks for the hash of part of a region, as of the index at which it was hashed last.
    /// With such answers of two stores
    /// [`first_difference`](crate::consistency::first_difference) finds where they differ.
    /// Outside of the region's range there are no rows. Never blocks.
    pub fn range_hash(
        &self,
        region: RegionId,
        index: u64,
        cf: Cf,
        range: Range<'_>,
    ) -> Reply<RangeHashResult> {
        let (promise, reply) = Promise::new(Err(RangeHashError::Stopping));
        let (start, end) = (range.start.to_vec(), range.end.to_vec());
        let question = RangeQuestion { ticket: 0, region, index, cf, start, end };
        // A thread that has ended drops the promise, which answers.
        drop(self.inner.asks.send(RangeAsk { question, promise }));
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

    /// All figures of the node in the text format that Prometheus reads. Lanes that do not
    /// answer in time, or have ended, are left out.
    #[must_use]
    pub fn metrics_text(&self, timeout: Duration) -> String {
        let shared = &self.inner.shared;
        exposition(&self.lane_metrics(timeout), &self.counters(), &shared.timings)
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

/// The question for a region and an engine snapshot that belongs to it.
fn snap(header: Header) -> Command {
    Command { header, body: Body::Operations(vec![Operation::Snap]) }
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
