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
use raftstore_proto::{OperationResponse, RegionError, Response, ResponseBody};

use crate::{Moment, ReplyId, read::RegionSnapshot};

/// Callers are spread over so many locks, by their number.
const SHARDS: usize = 16;

/// What a caller that does not wait gives instead. Runs on a thread of the store: it must
/// neither block nor panic.
pub type Callback = Box<dyn FnOnce(Response) + Send>;

enum Waiter {
    Slot(Arc<Slot<Response>>),
    Callback(Callback),
    Snapshot(Arc<Slot<SnapshotResult>>),
    Part(Part),
}

impl Waiter {
    /// One answer, for whatever was asked.
    fn answer(self, response: Response, moment: Option<&Moment>) {
        match self {
            Self::Slot(slot) => slot.fill(response),
            Self::Callback(callback) => {
                // The answer has been given; what the caller made of it is not the store's.
                if catch_unwind(AssertUnwindSafe(|| callback(response))).is_err() {
                    tracing::error!("a caller's callback panicked");
                }
            }
            Self::Snapshot(slot) => slot.fill(region_snapshot(response, moment)),
            Self::Part(part) => {
                let all = part.positions.iter().map(|_| Some(response.clone())).collect();
                part.fill(all, moment);
            }
        }
    }
}

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<SlotState<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct SlotState<T> {
    answer: Option<T>,
    waker: Option<Waker>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let state = Mutex::new(SlotState { answer: None, waker: None });
        Self { state, filled: Condvar::new() }
    }
}

impl<T> Slot<T> {
    fn fill(&self, answer: T) {
        let waker = {
            let mut state = self.state.lock();
            state.answer = Some(answer);
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
pub struct Reply<T = Response>(Arc<Slot<T>>);

impl<T> Reply<T> {
    /// One that is there already.
    pub(super) fn ready(answer: T) -> Self {
        let slot = Slot::default();
        slot.fill(answer);
        Self(Arc::new(slot))
    }

    /// Blocks until the answer is there.
    #[must_use]
    pub fn wait(self) -> T {
        let mut state = self.0.state.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            self.0.filled.wait(&mut state);
        }
    }

    /// Blocks until the answer is there, but not longer than `timeout`.
    ///
    /// # Errors
    /// The reply itself, if the answer has not come.
    pub fn wait_for(self, timeout: Duration) -> Result<T, Self> {
        let taken = {
            let mut state = self.0.state.lock();
            if state.answer.is_none() {
                let waiting = |state: &mut SlotState<T>| state.answer.is_none();
                let _ = self.0.filled.wait_while_for(&mut state, waiting, timeout);
            }
            state.answer.take()
        };
        taken.ok_or(self)
    }
}

impl<T> Future for Reply<T> {
    type Output = T;

    /// # Panics
    /// If polled after it gave the answer.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.state.lock();
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(answer);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The other end of a [`Reply`], for answers that do not go through the router. Dropped, it
/// gives the answer it was made with.
#[derive(Debug)]
pub(super) struct Promise<T> {
    slot: Arc<Slot<T>>,
    fallback: Option<T>,
}

impl<T> Promise<T> {
    pub(super) fn new(fallback: T) -> (Self, Reply<T>) {
        let slot = Arc::new(Slot::default());
        (Self { slot: Arc::clone(&slot), fallback: Some(fallback) }, Reply(slot))
    }

    pub(super) fn keep(mut self, answer: T) {
        self.fallback = Some(answer);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.fallback.take() {
            self.slot.fill(answer);
        }
    }
}

/// A region as of one moment, or why it cannot be had.
pub type SnapshotResult = Result<RegionSnapshot, RegionError>;

/// What came of each command of a batch, in its order; `None` for a region that has to be
/// asked for by itself, because a quorum must be asked.
pub type BatchResult = Vec<Option<SnapshotResult>>;

/// The commands of a batch that one lane answers.
struct Part {
    gather: Arc<Gather>,
    /// Where its answers belong in the batch.
    positions: Vec<usize>,
}

/// A batch whose parts come in.
struct Gather {
    slot: Arc<Slot<BatchResult>>,
    state: Mutex<GatherState>,
}

struct GatherState {
    results: BatchResult,
    parts_missing: usize,
}

impl Part {
    fn fill(self, answers: Vec<Option<Response>>, moment: Option<&Moment>) {
        let complete = {
            let mut state = self.gather.state.lock();
            for (position, answer) in self.positions.into_iter().zip(answers) {
                state.results[position] = answer.map(|answer| region_snapshot(answer, moment));
            }
            state.parts_missing -= 1;
            (state.parts_missing == 0).then(|| std::mem::take(&mut state.results))
        };
        if let Some(results) = complete {
            self.gather.slot.fill(results);
        }
    }
}

/// The region of an answer to a `Snap`, with the engine's snapshot that belongs to it.
fn region_snapshot(response: Response, moment: Option<&Moment>) -> SnapshotResult {
    let answers = match response.body {
        Ok(ResponseBody::Operations(answers)) => answers,
        Ok(ResponseBody::Admin(_) | ResponseBody::Status(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    match (answers.into_iter().next(), moment) {
        (Some(OperationResponse::Snap(region)), Some(Moment(snapshot))) => {
            Ok(RegionSnapshot::new(Arc::clone(snapshot), Arc::new(region)))
        }
        // The lanes answer a `Snap` with a region and a moment, so this is not reached; an
        // error is better than a snapshot of something else.
        _ => Err(RegionError::ReadNotReady),
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

    /// Enters a caller who waits for a region snapshot.
    pub(super) fn enter_snapshot(&self) -> (Option<ReplyId>, Reply<SnapshotResult>) {
        let slot = Arc::new(Slot::default());
        (self.enter_waiter(Waiter::Snapshot(Arc::clone(&slot))), Reply(slot))
    }

    /// Enters a caller whose batch is answered in parts. `results` holds what is known
    /// already; `parts` are the positions that each of the questions is about, of which
    /// there must be at least one. The ids are in the order of the parts.
    pub(super) fn enter_batch(
        &self,
        results: BatchResult,
        parts: Vec<Vec<usize>>,
    ) -> (Vec<Option<ReplyId>>, Reply<BatchResult>) {
        let slot = Arc::new(Slot::default());
        let state = Mutex::new(GatherState { results, parts_missing: parts.len() });
        let gather = Arc::new(Gather { slot: Arc::clone(&slot), state });
        let enter = |positions| {
            let gather = Arc::clone(&gather);
            self.enter_waiter(Waiter::Part(Part { gather, positions }))
        };
        (parts.into_iter().map(enter).collect(), Reply(slot))
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
        waiter.answer(stopping(), None);
        None
    }

    /// Answers a caller, unless it has been answered.
    pub(super) fn answer(
        &self,
        reply: ReplyId,
        response: Response,
        moment: Option<&Moment>,
    ) -> bool {
        let waiter = self.take(reply);
        let is_first = waiter.is_some();
        if let Some(waiter) = waiter {
            waiter.answer(response, moment);
        }
        is_first
    }

    /// Answers one part of a batch, unless it has been answered.
    ///
    /// # Panics
    /// If the caller has not asked for a batch.
    pub(super) fn answer_part(
        &self,
        reply: ReplyId,
        answers: Vec<Option<Response>>,
        moment: Option<&Moment>,
    ) -> bool {
        match self.take(reply) {
            Some(Waiter::Part(part)) => {
                part.fill(answers, moment);
                true
            }
            Some(Waiter::Slot(_) | Waiter::Callback(_) | Waiter::Snapshot(_)) => {
                unreachable!("the answers of a batch for a caller with one question")
            }
            None => false,
        }
    }

    fn take(&self, reply: ReplyId) -> Option<Waiter> {
        self.shard(reply).lock().waiting.remove(&reply)
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
                waiter.answer(stopping(), None);
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

    use engine_traits::{KvEngine, mem::MemEngine};
    use raftstore_proto::{Epoch, Peer, PeerId, Region, RegionId, StoreId};

    use super::*;

    fn response(term: u64) -> Response {
        Response::ok(term, ResponseBody::Operations(Vec::new()))
    }

    #[test]
    fn h28_the_first_answer_is_the_only_one() {
        let router = Router::default();
        let (id, reply) = router.enter();
        let id = id.unwrap();
        assert!(router.answer(id, response(1), None));
        assert!(!router.answer(id, response(2), None));
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
        assert!(!router.answer(early, response(1), None));
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
    fn h28_a_promise_is_kept_or_falls_back() {
        let (promise, reply) = Promise::new(1);
        promise.keep(2);
        assert_eq!(reply.wait(), 2);
        let (promise, reply) = Promise::new(1);
        drop(promise);
        assert_eq!(reply.wait(), 1);
    }

    #[test]
    fn a_reply_that_has_not_come_can_be_waited_for_again() {
        let router = Router::default();
        let (id, reply) = router.enter();
        let reply = reply.wait_for(Duration::ZERO).unwrap_err();
        assert!(router.answer(id.unwrap(), response(3), None));
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
        assert!(router.answer(id.unwrap(), response(4), None));
        woken.recv().unwrap();
        assert!(Pin::new(&mut reply).poll(&mut context).is_ready());
    }

    fn snap(region: u64) -> Response {
        let region = Region {
            id: RegionId::must(region),
            start_key: bytes::Bytes::new(),
            end_key: bytes::Bytes::new(),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![Peer::voter(PeerId::must(7), StoreId::must(1))],
        };
        Response::ok(6, ResponseBody::Operations(vec![OperationResponse::Snap(region)]))
    }

    fn moment() -> Moment {
        Moment(Arc::new(MemEngine::default().snapshot().unwrap()))
    }

    fn regions(results: &BatchResult) -> Vec<Option<Result<u64, RegionError>>> {
        let id = |it: &SnapshotResult| {
            it.as_ref().map(|it| it.region().id.get()).map_err(RegionError::clone)
        };
        results.iter().map(|result| result.as_ref().map(id)).collect()
    }

    #[test]
    fn a_snapshot_is_a_region_with_its_moment() {
        let router = Router::default();
        let (id, reply) = router.enter_snapshot();
        assert!(router.answer(id.unwrap(), snap(3), Some(&moment())));
        assert_eq!(reply.wait().unwrap().region().id.get(), 3);
        let (id, reply) = router.enter_snapshot();
        assert!(router.answer(id.unwrap(), snap(3), None));
        assert_eq!(reply.wait().unwrap_err(), RegionError::ReadNotReady);
    }

    /// The parts come in any order; the caller gets all of them once, as it asked.
    #[test]
    fn a_batch_is_answered_once_in_the_order_asked() {
        let router = Router::default();
        let known = vec![None, None, Some(Err(RegionError::NotReady)), None, None];
        let (ids, reply) = router.enter_batch(known, vec![vec![1, 4], vec![0, 3]]);
        let [first, second] = ids.as_slice() else { panic!("two parts: {ids:?}") };
        let answers = vec![Some(snap(40)), None];
        assert!(router.answer_part(second.unwrap(), answers.clone(), Some(&moment())));
        assert!(!router.answer_part(second.unwrap(), answers, Some(&moment())));
        let reply = reply.wait_for(Duration::ZERO).unwrap_err();
        let stale = Response::error(1, RegionError::StaleCommand);
        assert!(router.answer_part(
            first.unwrap(),
            vec![Some(stale), Some(snap(14))],
            Some(&moment())
        ));
        let results = regions(&reply.wait());
        let expected = [
            Some(Ok(40)),
            Some(Err(RegionError::StaleCommand)),
            Some(Err(RegionError::NotReady)),
            None,
            Some(Ok(14)),
        ];
        assert_eq!(results, expected);
        assert_eq!(router.waiting(), 0);
    }

    #[test]
    fn h28_a_batch_is_answered_whole_when_a_part_is_refused_or_the_store_ends() {
        let router = Router::default();
        let (ids, reply) = router.enter_batch(vec![None; 3], vec![vec![2], vec![0, 1]]);
        assert!(router.answer(ids[1].unwrap(), Response::error(0, RegionError::NotReady), None));
        router.close();
        let refused = |error: RegionError| Some(Err(error));
        let expected = [
            refused(RegionError::NotReady),
            refused(RegionError::NotReady),
            refused(RegionError::Stopping),
        ];
        assert_eq!(regions(&reply.wait()), expected);
        let (ids, reply) = router.enter_batch(vec![None], vec![vec![0]]);
        assert_eq!(ids, [None]);
        assert_eq!(regions(&reply.wait()), [refused(RegionError::Stopping)]);
    }
}
