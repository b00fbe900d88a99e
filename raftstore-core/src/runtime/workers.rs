//! Decides when slow work is done: snapshots installed and ranges deleted one slice after
//! the other, the data engine synced once for all who wait, snapshots built beside it all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, TryRecvError, select};
use engine_traits::{Cf, KvEngine, Range};
use transport_traits::SnapStore;

use super::{fail_points::FailPoints, shared::Shared};
use crate::{
    Event, FatalError, InstallOutcome, StoreMeta, Task, TaskDone,
    apply::SnapBuild,
    keys,
    snap::{RegionWorker, build::BuildError},
    split_check::CheckWorker,
};

/// The thread that installs snapshots and deletes ranges.
pub(super) struct RegionThread<K: KvEngine> {
    pub(super) worker: RegionWorker<K, FailPoints>,
    pub(super) meta: Arc<StoreMeta>,
    pub(super) tasks: Receiver<Task>,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine> RegionThread<K> {
    /// Works until no lane is left, or the store fails. An install that is interrupted is
    /// done over after the next start.
    pub(super) fn run(mut self) -> Result<(), FatalError> {
        loop {
            if self.worker.is_idle() {
                select! {
                    recv(self.tasks) -> task => match task {
                        Ok(task) => self.worker.push(task),
                        Err(_) => return Ok(()),
                    },
                    recv(self.shared.failure.quit()) -> _ => return Ok(()),
                }
            }
            // Before every slice, so that a cancel takes effect between two of them.
            loop {
                match self.tasks.try_recv() {
                    Ok(task) => self.worker.push(task),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if self.shared.failure.has_failed() {
                return Ok(());
            }
            let begun = Instant::now();
            let slice = self.worker.step(&self.meta.numbers)?;
            let timing = &self.shared.timings.region_slice;
            timing.end(begun, format_args!("a slice of installing or deleting"));
            self.shared.counters.installed_bytes.add(slice.written_bytes);
            for done in slice.done {
                self.tell(done);
            }
        }
    }

    fn tell(&self, done: TaskDone) {
        if let TaskDone::Installed { outcome: InstallOutcome::Done { .. }, .. } = &done {
            self.shared.counters.snapshots_installed.add(1);
        }
        self.shared.tell(done.region(), Event::TaskDone(done));
    }
}

/// The thread that looks where regions should be cut.
pub(super) struct CheckThread<K: KvEngine> {
    pub(super) worker: CheckWorker<K>,
    pub(super) tasks: Receiver<Task>,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine> CheckThread<K> {
    /// Works until no lane is left, or the store fails.
    pub(super) fn run(mut self) -> Result<(), FatalError> {
        loop {
            select! {
                recv(self.tasks) -> task => match task {
                    Ok(task) => self.worker.push(task),
                    Err(_) => return Ok(()),
                },
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
            }
            while !self.worker.is_idle() {
                // Nothing of a look is worth keeping a stop waiting.
                if self.shared.failure.has_failed() || self.tasks_have_ended() {
                    return Ok(());
                }
                let begun = Instant::now();
                let slice = self.worker.step()?;
                let timing = &self.shared.timings.check_slice;
                timing.end(begun, format_args!("a slice of a split check"));
                for done in slice.done {
                    self.shared.tell(done.region(), Event::TaskDone(done));
                }
            }
        }
    }

    fn tasks_have_ended(&mut self) -> bool {
        loop {
            match self.tasks.try_recv() {
                Ok(task) => self.worker.push(task),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }
}

/// The thread that has the data engine give space back.
pub(super) struct CompactThread<K: KvEngine> {
    pub(super) kv: K,
    pub(super) tasks: Receiver<Task>,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine> CompactThread<K> {
    /// Works until no lane is left, or the store fails.
    pub(super) fn run(self) -> Result<(), FatalError> {
        loop {
            select! {
                recv(self.tasks) -> task => match task {
                    Ok(Task::Compact { cf, range }) => self.compact(cf, range.as_ref()),
                    Ok(_) => {}
                    Err(_) => return Ok(()),
                },
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
            }
        }
    }

    fn compact(&self, cf: Cf, range: Option<&(Vec<u8>, Vec<u8>)>) {
        let all = (keys::DATA_MIN.to_vec(), keys::DATA_MAX.to_vec());
        let (start, end) = range.unwrap_or(&all);
        let begun = Instant::now();
        // The data is unharmed, and the next time may do better.
        if let Err(error) = self.kv.compact(cf, Range::new(start, end)) {
            tracing::warn!(?cf, %error, "compaction failed");
        }
        self.shared.timings.compaction.end(begun, format_args!("compaction of {cf:?}"));
        self.shared.counters.compactions.add(1);
    }
}

/// Somebody waits for the data engine to be durable.
pub(super) struct SyncWanted;

/// The thread that makes the data engine durable.
pub(super) struct SyncThread<K: KvEngine> {
    pub(super) kv: K,
    pub(super) meta: Arc<StoreMeta>,
    pub(super) wanted: Receiver<SyncWanted>,
    pub(super) interval: Duration,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine> SyncThread<K> {
    /// Syncs at once when somebody waits, and every interval in which something was
    /// written. Once no lane is left, a last time: the next start has less to replay.
    pub(super) fn run(self) -> Result<(), FatalError> {
        let mut due = Instant::now() + self.interval;
        loop {
            let (is_asked, is_last) = select! {
                recv(self.wanted) -> wanted => (wanted.is_ok(), wanted.is_err()),
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
                recv(crossbeam_channel::at(due)) -> _ => (false, false),
            };
            // Those who asked before the sample is taken are served by this sync.
            while self.wanted.try_recv().is_ok() {}
            if self.shared.failure.has_failed() {
                return Ok(());
            }
            if is_asked || self.meta.numbers.written() > self.meta.numbers.durable() {
                self.sync()?;
            }
            if is_last {
                return Ok(());
            }
            due = Instant::now() + self.interval;
        }
    }

    fn sync(&self) -> Result<(), FatalError> {
        // The sample comes first: only writes that had returned by then are covered (W4).
        let number = self.meta.numbers.written();
        let begun = Instant::now();
        self.kv.sync().map_err(FatalError::engine("making the data durable", None))?;
        self.shared.timings.kv_sync.end(begun, format_args!("sync of the data engine"));
        self.meta.numbers.publish_durable(number);
        self.shared.counters.kv_syncs.add(1);
        self.shared.tell_all(|| Event::KvDurable(number));
        Ok(())
    }
}

/// A thread that builds region snapshots. Several of them share one queue.
pub(super) struct BuildThread<K: KvEngine> {
    pub(super) builds: Receiver<SnapBuild<K::Snapshot>>,
    pub(super) snaps: Arc<dyn SnapStore>,
    pub(super) chunk_bytes: usize,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine> BuildThread<K> {
    /// Builds until no apply thread is left, or the store fails.
    pub(super) fn run(self) -> Result<(), FatalError> {
        loop {
            let job = select! {
                recv(self.builds) -> job => match job {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                },
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
            };
            if self.shared.failure.has_failed() {
                return Ok(());
            }
            self.build(&job);
        }
    }

    fn build(&self, job: &SnapBuild<K::Snapshot>) {
        let begun = Instant::now();
        let built = match job.build(&*self.snaps, self.chunk_bytes) {
            Ok(built) => {
                self.shared.counters.snapshots_built.add(1);
                Some(built)
            }
            Err(BuildError::GivenUp { key }) => {
                tracing::debug!(%key, "region snapshot given up");
                None
            }
            // Not fatal: raft asks again, here or elsewhere (H49).
            Err(error) => {
                self.shared.counters.snapshots_failed.add(1);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "region snapshot was not built");
                None
            }
        };
        let (region, incarnation) = (job.region.id, job.incarnation);
        let timing = &self.shared.timings.snapshot_build;
        timing.end(begun, format_args!("building a snapshot of region {region}"));
        let done = TaskDone::Built { region, incarnation, built };
        self.shared.tell(region, Event::TaskDone(done));
    }
}
