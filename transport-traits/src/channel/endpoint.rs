//! One store's end: what waits for its inbox, and the thread that hands it over.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use raftstore_proto::{PeerId, RaftMessage, RegionId, StoreId};

use crate::{Inbox, SnapStore};

/// Why a message did not enter a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

#[derive(Default)]
struct Queue {
    /// With the store each came from.
    messages: VecDeque<(StoreId, RaftMessage)>,
    /// Payload bytes of `messages`, near enough.
    size_bytes: usize,
    /// Reports wait here once each, however many messages were lost: a lost report would
    /// leave raft sending into the void, a queue of them could grow without bound.
    unreachable: BTreeSet<(RegionId, PeerId)>,
    is_closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.unreachable.is_empty()
    }
}

/// Bounds of an endpoint's queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// A registered store.
pub(super) struct Endpoint {
    pub(super) store: StoreId,
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) snaps: Arc<dyn SnapStore>,
    limits: QueueLimits,
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Endpoint {
    pub(super) fn new(
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
        limits: QueueLimits,
    ) -> Self {
        Self { store, inbox, snaps, limits, queue: Mutex::default(), wake: Condvar::new() }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed
    }

    /// Queues a message; the thread sees it at the next [`Endpoint::wake`] at the latest.
    pub(super) fn push(&self, from: StoreId, message: RaftMessage) -> Result<(), Refused> {
        let size_bytes = message.encoded_len_hint();
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return Err(Refused::Closed);
        }
        // A single message of any size passes, or it could never be sent.
        let is_over = !queue.messages.is_empty()
            && queue.size_bytes.saturating_add(size_bytes) > self.limits.bytes_max;
        if is_over || queue.messages.len() >= self.limits.messages_max {
            return Err(Refused::Full);
        }
        queue.size_bytes += size_bytes;
        queue.messages.push_back((from, message));
        Ok(())
    }

    /// Queues a report that messages did not get through.
    pub(super) fn push_unreachable(&self, region: RegionId, to: PeerId) {
        self.queue.lock().unreachable.insert((region, to));
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the thread and gives what was not handed over.
    pub(super) fn close(&self) -> VecDeque<(StoreId, RaftMessage)> {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        queue.unreachable.clear();
        queue.size_bytes = 0;
        let left = std::mem::take(&mut queue.messages);
        drop(queue);
        self.wake.notify_all();
        left
    }

    /// The thread: hands over what comes, in the order it came, until the end is closed.
    pub(super) fn run(&self) {
        let mut messages = VecDeque::new();
        loop {
            let unreachable = {
                let mut queue = self.queue.lock();
                while queue.is_empty() && !queue.is_closed {
                    self.wake.wait(&mut queue);
                }
                if queue.is_closed {
                    return;
                }
                queue.size_bytes = 0;
                std::mem::swap(&mut queue.messages, &mut messages);
                std::mem::take(&mut queue.unreachable)
            };
            for (region, to) in unreachable {
                contained(|| self.inbox.unreachable(region, to));
            }
            for (_, message) in messages.drain(..) {
                contained(|| self.inbox.message(message, None));
            }
        }
    }
}

/// Calls an inbox. Its panic is the store's own affair and must not end the thread that
/// tells it of later messages.
pub(super) fn contained(call: impl FnOnce()) {
    // The panic hook has told of it.
    let _ = catch_unwind(AssertUnwindSafe(call));
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("store", &self.store).finish_non_exhaustive()
    }
}
