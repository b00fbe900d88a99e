//! Decides which thread applies a region: a fixed function of its id, so that a region's
//! entries are never on two threads (D10).

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crossbeam_channel::{Receiver, Sender, select};
use engine_traits::KvEngine;
use raftstore_proto::RegionId;

use super::{
    fail_points::{FailPoints, fail_point},
    shared::{LaneInput, Shared},
};
use crate::{
    Event, FatalError, LaneId, StoreMeta,
    apply::{ApplyEvent, ApplyOutcome, ApplyTask, ApplyWorker, SnapBuild},
    consistency::HashJob,
    observe::Observers,
};

/// Tasks taken from the queue at once; more would delay the first answers, fewer would
/// write smaller batches.
const TASKS_PER_RUN: usize = 256;

/// The ways into the apply threads.
#[derive(Clone, Debug)]
pub(super) struct ApplyPool {
    workers: Vec<Sender<Vec<ApplyTask>>>,
}

impl ApplyPool {
    /// A pool of `threads` threads, and what each of them reads.
    pub(super) fn new(threads: u16) -> (Self, Vec<Receiver<Vec<ApplyTask>>>) {
        let (workers, ends) = (0..threads).map(|_| crossbeam_channel::unbounded()).unzip();
        (Self { workers }, ends)
    }

    /// Hands tasks over, in order per region. The backlog is bounded by the lanes, which
    /// take no more proposals beyond it.
    pub(super) fn push(&self, tasks: Vec<ApplyTask>) {
        let threads = u16::try_from(self.workers.len()).expect("threads are counted in u16");
        let mut by_worker: Vec<Vec<ApplyTask>> = Vec::new();
        by_worker.resize_with(self.workers.len(), Vec::new);
        for task in tasks {
            by_worker[usize::from(LaneId::of(task.region, threads).0)].push(task);
        }
        for (worker, tasks) in self.workers.iter().zip(by_worker) {
            if !tasks.is_empty() {
                // A thread that is gone has failed the store; callers have been answered.
                let _ = worker.send(tasks);
            }
        }
    }
}

/// One apply thread.
pub(super) struct ApplyThread<K: KvEngine> {
    pub(super) kv: K,
    pub(super) meta: Arc<StoreMeta>,
    pub(super) observers: Observers,
    pub(super) tasks: Receiver<Vec<ApplyTask>>,
    pub(super) builds: Sender<SnapBuild<K::Snapshot>>,
    pub(super) hashes: Sender<HashJob<K::Snapshot>>,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine> ApplyThread<K> {
    /// Applies until no lane is left, or the store fails. Callers who still wait then are
    /// answered when the router is closed.
    pub(super) fn run(self) -> Result<(), FatalError> {
        let worker = ApplyWorker::new(self.kv.clone(), FailPoints);
        let mut worker = worker.with_observers(self.observers.clone());
        loop {
            let mut tasks = select! {
                recv(self.tasks) -> tasks => match tasks {
                    Ok(tasks) => tasks,
                    Err(_) => return Ok(()),
                },
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
            };
            while tasks.len() < TASKS_PER_RUN
                && let Ok(more) = self.tasks.try_recv()
            {
                tasks.extend(more);
            }
            if self.shared.failure.has_failed() {
                return Ok(());
            }
            fail_point!("apply_before_run");
            let (begun, count) = (Instant::now(), tasks.len());
            let span = tracing::trace_span!("apply", tasks = count).entered();
            let outcome = worker.run(tasks, &self.meta)?;
            drop(span);
            self.shared.timings.apply.end(begun, format_args!("{count} tasks applied"));
            self.publish(outcome);
        }
    }

    fn publish(&self, outcome: ApplyOutcome<K>) {
        let ApplyOutcome { answers, events, builds, hashes } = outcome;
        for (reply, response) in answers {
            self.shared.answer(reply, response, None);
        }
        let mut by_lane: BTreeMap<LaneId, Vec<ApplyEvent>> = BTreeMap::new();
        for event in events {
            by_lane.entry(self.shared.lane_of(region_of(&event))).or_default().push(event);
        }
        for (lane, events) in by_lane {
            let input = LaneInput::Event(Event::Applied(events));
            let _ = self.shared.link(lane).significant.send(input);
        }
        for build in builds {
            // The builders outlive the apply threads.
            let _ = self.builds.send(build);
        }
        for job in hashes {
            // So does who hashes.
            let _ = self.hashes.send(job);
        }
    }
}

fn region_of(event: &ApplyEvent) -> RegionId {
    match event {
        ApplyEvent::Applied(result) => result.region,
        ApplyEvent::Destroyed { region, .. } | ApplyEvent::Damaged { region, .. } => *region,
    }
}
