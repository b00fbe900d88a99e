//! The worker that hashes regions, so that their replicas can be compared.

use crate::engine::SimSnapshot;
use raftstore_core::{
    Event, TaskDone,
    consistency::{HashJob, RangeHash, RangeHashError, RangeQuestion},
};

use super::{NodeStep, World};
use crate::{counters::Sometimes, queue::MICRO};

impl World {
    pub(super) fn queue_hashes(&mut self, store: u64, jobs: Vec<HashJob<SimSnapshot>>) {
        for job in jobs {
            let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
            else {
                return;
            };
            if let Some(refused) = running.hash_worker.push(job) {
                self.event_arrives(store, Event::TaskDone(refused));
            }
        }
        self.start_hash(store);
    }

    fn start_hash(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        if running.hash_busy || running.hash_worker.is_idle() {
            return;
        }
        running.hash_busy = true;
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.region_work);
        self.node_after(delay, store, NodeStep::Hash);
    }

    pub(super) fn hash_slice(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        running.hash_busy = false;
        if let Some(done) = running.hash_worker.step().done {
            if let TaskDone::Hashed { region, index, hash, .. } = &done {
                let line = format_args!("hashed {index}: {hash:?}");
                self.transcript.event(self.now, store, region.get(), line);
                if hash.is_some() {
                    self.counters.hit(Sometimes::RegionsHashed);
                }
            }
            self.event_arrives(store, Event::TaskDone(done));
        }
        self.start_hash(store);
    }

    /// Asks a store for the hash of part of the region that it hashed last. Takes no time.
    ///
    /// # Errors
    /// As the store's worker says; a store that is down is stopping.
    pub fn range_hash(
        &mut self,
        store: u64,
        question: RangeQuestion,
    ) -> Result<RangeHash, RangeHashError> {
        let running = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut());
        let worker = &mut running.ok_or(RangeHashError::Stopping)?.hash_worker;
        let ticket = question.ticket;
        worker.ask(question);
        loop {
            // Questions come first, so no job ends meanwhile.
            match worker.step().answer {
                Some((answered, answer)) if answered == ticket => return answer,
                _ => {}
            }
        }
    }
}
