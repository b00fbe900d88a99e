//! Decides when regions are hashed and questions about them answered, and for how long a
//! snapshot of the engine is kept for such questions.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, select};
use engine_traits::KvEngine;

use super::{router::Promise, shared::Shared};
use crate::{
    Event, FatalError,
    consistency::{HashJob, HashWorker, RangeHash, RangeHashError, RangeQuestion},
};

/// What a question about a range comes to.
pub type RangeHashResult = Result<RangeHash, RangeHashError>;

/// A question, and who waits for its answer.
pub(super) struct RangeAsk {
    pub(super) question: RangeQuestion,
    pub(super) promise: Promise<RangeHashResult>,
}

/// The thread that hashes regions.
pub(super) struct HashThread<K: KvEngine> {
    worker: HashWorker<K::Snapshot>,
    jobs: Receiver<HashJob<K::Snapshot>>,
    asks: Receiver<RangeAsk>,
    keep: Duration,
    shared: Arc<Shared>,
    /// Who waits for which ticket.
    waiting: BTreeMap<u64, Promise<RangeHashResult>>,
    last_ticket: u64,
    /// When what is kept has to go.
    forget_at: Instant,
}

impl<K: KvEngine> HashThread<K> {
    pub(super) fn new(
        worker: HashWorker<K::Snapshot>,
        jobs: Receiver<HashJob<K::Snapshot>>,
        asks: Receiver<RangeAsk>,
        keep: Duration,
        shared: Arc<Shared>,
    ) -> Self {
        let (waiting, forget_at) = (BTreeMap::new(), Instant::now());
        Self { worker, jobs, asks, keep, shared, waiting, last_ticket: 0, forget_at }
    }

    /// Hashes until no apply thread is left, or the store fails. Questions that are left
    /// then are answered when they are dropped.
    pub(super) fn run(mut self) -> Result<(), FatalError> {
        loop {
            if self.worker.is_idle() && !self.wait() {
                return Ok(());
            }
            while let Ok(job) = self.jobs.try_recv() {
                self.take_job(job);
            }
            while let Ok(ask) = self.asks.try_recv() {
                self.take_ask(ask);
            }
            if self.shared.failure.has_failed() {
                return Ok(());
            }
            self.slice();
        }
    }

    /// Blocks until there is something to do. Gives whether there ever will be.
    fn wait(&mut self) -> bool {
        if self.worker.keeps() && self.forget_at <= Instant::now() {
            self.worker.forget();
        }
        let forget = if self.worker.keeps() {
            crossbeam_channel::at(self.forget_at)
        } else {
            crossbeam_channel::never()
        };
        select! {
            recv(self.jobs) -> job => match job {
                Ok(job) => self.take_job(job),
                Err(_) => return false,
            },
            // Handles outlive the node, and so does this channel.
            recv(self.asks) -> ask => ask.map_or((), |ask| self.take_ask(ask)),
            recv(forget) -> _ => self.worker.forget(),
            recv(self.shared.failure.quit()) -> _ => return false,
        }
        true
    }

    fn take_job(&mut self, job: HashJob<K::Snapshot>) {
        if let Some(refused) = self.worker.push(job) {
            self.shared.tell(refused.region(), Event::TaskDone(refused));
        }
    }

    fn take_ask(&mut self, ask: RangeAsk) {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, ask.promise);
        self.worker.ask(RangeQuestion { ticket: self.last_ticket, ..ask.question });
    }

    fn slice(&mut self) {
        let begun = Instant::now();
        let slice = self.worker.step();
        self.shared.timings.hash_slice.end(begun, format_args!("a slice of hashing"));
        if let Some(done) = slice.done {
            self.shared.counters.regions_hashed.add(1);
            self.shared.tell(done.region(), Event::TaskDone(done));
            self.forget_at = Instant::now() + self.keep;
            if self.keep.is_zero() {
                self.worker.forget();
            }
        }
        if let Some((ticket, answer)) = slice.answer
            && let Some(promise) = self.waiting.remove(&ticket)
        {
            promise.keep(answer);
        }
    }
}
