//! What waits for one connection: bounded, in order, and lost as a whole when the connection
//! breaks.
//!
//! Three have to do with a queue. The store's thread puts messages in and wakes the other
//! end when it flushes. The stream that hyper polls takes them out in batches. The task that
//! keeps the connection alive begins and ends such streams, one after the other.

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use raftstore_proto::{PeerId, RaftMessage, RegionId};
use tokio::time::Sleep;
use tokio_stream::Stream;

use crate::{config::GrpcConfig, counters::Counters};

/// Of so many messages that were sent last it is remembered whom they were for: they are the
/// ones that were still on their way when a connection broke.
const RECENT_MAX: usize = 1024;

/// Why a message did not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    /// There is no connection, and it is not the time to try again.
    Down,
}

/// Whom messages were lost for.
pub(crate) type Lost = BTreeSet<(RegionId, PeerId)>;

#[derive(Default)]
struct State {
    messages: VecDeque<RaftMessage>,
    /// Bytes of `messages`, near enough.
    size_bytes: usize,
    /// The receivers of what was sent last.
    recent: VecDeque<(RegionId, PeerId)>,
    /// Counts streams. One of another number than this has ended.
    stream: u64,
    /// Whether the stream may take messages: the other side has shown who it is.
    is_open: bool,
    is_down: bool,
    /// No more messages come; the stream ends after the last.
    is_draining: bool,
    /// Of whoever waits for messages.
    waker: Option<Waker>,
}

/// The queue of one connection.
pub(crate) struct Queue {
    messages_max: usize,
    bytes_max: usize,
    batch_messages_max: usize,
    batch_bytes_max: usize,
    batch_wait: Duration,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

impl Queue {
    pub(crate) fn new(config: &GrpcConfig, counters: Arc<Counters>) -> Self {
        Self {
            messages_max: config.queue_messages_max,
            bytes_max: config.queue_bytes_max,
            batch_messages_max: config.batch_messages_max,
            batch_bytes_max: config.batch_bytes_max,
            batch_wait: config.batch_wait,
            counters,
            state: Mutex::default(),
        }
    }

    /// Puts a message of `size_bytes` in. The other end hears of it at the next
    /// [`Queue::wake`].
    pub(crate) fn push(&self, message: RaftMessage, size_bytes: usize) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.is_down {
            return Err(Refused::Down);
        }
        // A single message of any size passes, or it could never be sent.
        let is_over = !state.messages.is_empty()
            && state.size_bytes.saturating_add(size_bytes) > self.bytes_max;
        if is_over || state.messages.len() >= self.messages_max {
            return Err(Refused::Full);
        }
        state.size_bytes += size_bytes;
        state.messages.push_back(message);
        Ok(())
    }

    /// Tells the other end that there is something.
    pub(crate) fn wake(&self) {
        let waker = self.state.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for messages, while there is no stream.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if state.messages.is_empty() {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// A stream that takes nothing until it is opened.
    pub(crate) fn begin(self: &Arc<Self>) -> Batches {
        let mut state = self.state.lock();
        state.stream += 1;
        state.is_open = false;
        Batches { queue: Arc::clone(self), number: state.stream, wait: None }
    }

    /// Lets the stream that was begun last take messages.
    pub(crate) fn open(&self) {
        self.state.lock().is_open = true;
        self.wake();
    }

    /// Ends the stream, if there is one, in order: what is in the queue stays.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.stream += 1;
        state.is_open = false;
        state.recent.clear();
    }

    /// Ends the stream and gives up all there is. Nothing is taken until
    /// [`Queue::try_again`].
    pub(crate) fn fail(&self) -> Lost {
        let mut state = self.state.lock();
        state.stream += 1;
        state.is_open = false;
        state.is_down = true;
        state.size_bytes = 0;
        let mut lost: Lost = state.recent.drain(..).collect();
        self.counters.lost_messages.add(state.messages.len() as u64);
        lost.extend(state.messages.drain(..).filter_map(|message| receiver(&message)));
        lost
    }

    /// Takes messages again after a failure.
    pub(crate) fn try_again(&self) {
        self.state.lock().is_down = false;
    }

    /// Lets the stream end when the queue is empty.
    pub(crate) fn drain(&self) {
        self.state.lock().is_draining = true;
        self.wake();
    }
}

/// Whom a message is for.
fn receiver(message: &RaftMessage) -> Option<(RegionId, PeerId)> {
    Some((message.region()?, message.to_peer()?.id))
}

/// The messages of a queue in batches, for one stream.
pub(crate) struct Batches {
    queue: Arc<Queue>,
    number: u64,
    /// Runs while a batch waits for more.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Batches {
    /// Whether what is there shall go.
    fn is_due(
        wait: &mut Option<Pin<Box<Sleep>>>,
        queue: &Queue,
        state: &State,
        context: &mut Context<'_>,
    ) -> bool {
        let is_full = state.messages.len() >= queue.batch_messages_max
            || state.size_bytes >= queue.batch_bytes_max;
        if queue.batch_wait.is_zero() || is_full || state.is_draining {
            return true;
        }
        let running = wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(queue.batch_wait)));
        running.as_mut().poll(context).is_ready()
    }
}

impl State {
    /// The next batch, of one message at least.
    fn take(&mut self, queue: &Queue) -> (Vec<RaftMessage>, usize) {
        let count = self.messages.len().min(queue.batch_messages_max);
        let mut batch = Vec::with_capacity(count);
        let mut batch_bytes = 0;
        while let Some(message) = self.messages.front() {
            let size_bytes = message.encoded_len_hint();
            let is_full = batch.len() >= queue.batch_messages_max
                || batch_bytes + size_bytes > queue.batch_bytes_max;
            if !batch.is_empty() && is_full {
                break;
            }
            batch_bytes += size_bytes;
            if self.recent.len() >= RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.extend(receiver(message));
            batch.extend(self.messages.pop_front());
        }
        self.size_bytes = self.size_bytes.saturating_sub(batch_bytes);
        (batch, batch_bytes)
    }
}

impl Stream for Batches {
    type Item = Vec<RaftMessage>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let queue = &*this.queue;
        let mut state = queue.state.lock();
        if state.stream != this.number {
            return Poll::Ready(None);
        }
        if state.is_open && !state.messages.is_empty() {
            if Self::is_due(&mut this.wait, queue, &state, context) {
                this.wait = None;
                let (batch, size_bytes) = state.take(queue);
                drop(state);
                queue.counters.sent_batches.add(1);
                queue.counters.sent_messages.add(batch.len() as u64);
                queue.counters.sent_bytes.add(size_bytes as u64);
                return Poll::Ready(Some(batch));
            }
        } else if state.is_open && state.is_draining {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
