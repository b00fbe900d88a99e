//! Decides who gets which answer: every caller exactly one, whatever happens (D8, H28).
//!
//! A caller is entered before its command is queued and taken out by the first answer. At
//! the end, planned or not, [`Router::close`] answers everybody who is still there and
//! every later caller at once. So whether somebody is answered never depends on what a
//! queue, an apply worker or a dead thread still held.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use raftstore_proto::{RegionError, Response};

use crate::ReplyId;

/// Callers are spread over so many locks, by their number.
const SHARDS: usize = 16;

/// What a caller that does not wait gives instead. Runs on a thread of the store: it must
/// neither block nor panic.
pub type Callback = Box<dyn FnOnce(Response) + Send>;

enum Waiter {
    Slot(Arc<Slot>),
    Callback(Callback),
}

impl Waiter {
    fn answer(self, response: Response) {
        match self {
            Self::Slot(slot) => slot.fill(response),
            Self::Callback(callback) => {
                // The answer has been given; what the caller made of it is not the store's.
                if catch_unwind(AssertUnwindSafe(|| callback(response))).is_err() {
                    tracing::error!("a caller's callback panicked");
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<SlotState>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    response: Option<Response>,
    waker: Option<Waker>,
}

impl Slot {
    fn fill(&self, response: Response) {
        let waker = {
            let mut state = self.state.lock();
            state.response = Some(response);
            state.waker.take()
        };
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// An answer that is to come. A future for those who poll, [`Reply::wait`] for those who
/// block. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "an answer is worth waiting for"]
pub struct Reply(Arc<Slot>);

impl Reply {
    /// One that is there already.
    pub(super) fn ready(response: Response) -> Self {
        let slot = Slot::default();
        slot.fill(response);
        Self(Arc::new(slot))
    }

    /// Blocks until the answer is there.
    #[must_use]
    pub fn wait(self) -> Response {
        let mut state = self.0.state.lock();
        loop {
            if let Some(response) = state.response.take() {
                return response;
            }
            self.0.filled.wait(&mut state);
        }
    }

    /// Blocks until the answer is there, but not longer than `timeout`.
    ///
    /// # Errors
    /// The reply itself, if the answer has not come.
    pub fn wait_for(self, timeout: Duration) -> Result<Response, Self> {
        let taken = {
            let mut state = self.0.state.lock();
            if state.response.is_none() {
                let waiting = |state: &mut SlotState| state.response.is_none();
                let _ = self.0.filled.wait_while_for(&mut state, waiting, timeout);
            }
            state.response.take()
        };
        taken.ok_or(self)
    }
}

impl Future for Reply {
    type Output = Response;

    /// # Panics
    /// If polled after it gave the answer.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let mut state = self.0.state.lock();
        if let Some(response) = state.response.take() {
            return Poll::Ready(response);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Keeps the callers until they are answered.
#[derive(Default)]
pub(super) struct Router {
    next: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    waiting: BTreeMap<ReplyId, Waiter>,
    is_closed: bool,
}

impl Router {
    /// Enters a caller who waits for a [`Reply`]; `None` for the id if it has been answered
    /// at once.
    pub(super) fn enter(&self) -> (Option<ReplyId>, Reply) {
        let slot = Arc::new(Slot::default());
        (self.enter_waiter(Waiter::Slot(Arc::clone(&slot))), Reply(slot))
    }

    /// Enters a caller who is called back; `None` if that has happened at once.
    pub(super) fn enter_callback(&self, callback: Callback) -> Option<ReplyId> {
        self.enter_waiter(Waiter::Callback(callback))
    }

    fn enter_waiter(&self, waiter: Waiter) -> Option<ReplyId> {
        let reply = ReplyId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        {
            let mut shard = self.shard(reply).lock();
            if !shard.is_closed {
                shard.waiting.insert(reply, waiter);
                return Some(reply);
            }
        }
        waiter.answer(stopping());
        None
    }

    /// Answers a caller, unless it has been answered.
    pub(super) fn answer(&self, reply: ReplyId, response: Response) -> bool {
        let waiter = self.shard(reply).lock().waiting.remove(&reply);
        let is_first = waiter.is_some();
        if let Some(waiter) = waiter {
            waiter.answer(response);
        }
        is_first
    }

    /// Answers everybody who waits, and everybody to come, that the store has stopped.
    pub(super) fn close(&self) {
        for shard in &self.shards {
            let left = {
                let mut shard = shard.lock();
                shard.is_closed = true;
                std::mem::take(&mut shard.waiting)
            };
            for waiter in left.into_values() {
                waiter.answer(stopping());
            }
        }
    }

    /// Callers who wait.
    pub(super) fn waiting(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().waiting.len()).sum()
    }

    fn shard(&self, reply: ReplyId) -> &Mutex<Shard> {
        let shard = usize::try_from(reply.0 % SHARDS as u64).expect("less than SHARDS");
        &self.shards[shard]
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

fn stopping() -> Response {
    Response::error(0, RegionError::Stopping)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use raftstore_proto::ResponseBody;

    use super::*;

    fn response(term: u64) -> Response {
        Response::ok(term, ResponseBody::Operations(Vec::new()))
    }

    #[test]
    fn h28_the_first_answer_is_the_only_one() {
        let router = Router::default();
        let (id, reply) = router.enter();
        let id = id.unwrap();
        assert!(router.answer(id, response(1)));
        assert!(!router.answer(id, response(2)));
        assert_eq!(reply.wait().term, 1);
        assert_eq!(router.waiting(), 0);
    }

    #[test]
    fn closing_answers_who_waits_and_who_comes() {
        let router = Router::default();
        let (sender, answers) = mpsc::channel();
        let callback = |sender: &mpsc::Sender<Response>| {
            let sender = sender.clone();
            Box::new(move |response| sender.send(response).unwrap())
        };
        let early = router.enter_callback(callback(&sender)).unwrap();
        let (_, reply) = router.enter();
        router.close();
        assert_eq!(reply.wait().body, Err(RegionError::Stopping));
        assert_eq!(answers.recv().unwrap().body, Err(RegionError::Stopping));
        assert!(!router.answer(early, response(1)));
        assert_eq!(router.enter_callback(callback(&sender)), None);
        assert_eq!(answers.recv().unwrap().body, Err(RegionError::Stopping));
        let (id, reply) = router.enter();
        assert_eq!(id, None);
        assert_eq!(reply.wait().body, Err(RegionError::Stopping));
    }

    #[test]
    fn a_callback_that_panics_hurts_nobody_else() {
        let router = Router::default();
        router.enter_callback(Box::new(|_| panic!("the caller's fault"))).unwrap();
        let replies: Vec<_> = (0..40).map(|_| router.enter().1).collect();
        router.close();
        for reply in replies {
            assert_eq!(reply.wait().body, Err(RegionError::Stopping));
        }
    }

    #[test]
    fn a_reply_that_has_not_come_can_be_waited_for_again() {
        let router = Router::default();
        let (id, reply) = router.enter();
        let reply = reply.wait_for(Duration::ZERO).unwrap_err();
        assert!(router.answer(id.unwrap(), response(3)));
        assert_eq!(reply.wait_for(Duration::ZERO).unwrap().term, 3);
    }

    #[test]
    fn a_polled_reply_wakes() {
        let router = Router::default();
        let (id, mut reply) = router.enter();
        let (sender, woken) = mpsc::sync_channel(1);
        struct Bell(mpsc::SyncSender<()>);
        impl std::task::Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.send(()).unwrap();
            }
        }
        let waker = Waker::from(Arc::new(Bell(sender)));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut reply).poll(&mut context).is_pending());
        assert!(router.answer(id.unwrap(), response(4)));
        woken.recv().unwrap();
        assert!(Pin::new(&mut reply).poll(&mut context).is_ready());
    }
}
