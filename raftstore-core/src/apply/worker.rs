//! The order of an apply worker's duties: which task ends a batch, and what is said when.
//!
//! All tasks of a run share one batch. It is written when it is full, before a snapshot of
//! the engine is taken, and before a region's Applier is replaced or dropped, so that
//! progress of two incarnations never mixes. Nothing about a batch is said before its
//! write has returned and has its number.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
};

use engine_traits::{Durability, KvEngine, Reader, WriteBatch};
use raftstore_proto::{Cf, Entry, PeerId, Region, RegionError, RegionId, Response, wire::record};
use transport_traits::{SnapKey, SnapStore};

use super::{
    Applier, ApplyEvent, ApplyResult, ApplyTask, ApplyWork, Proposal, Registration,
    applier::{Env, Step},
    pending::{Pending, Progress},
    split::Births,
};
use crate::{
    consistency::HashJob,
    error::FatalError,
    event::{BuiltSnapshot, GivenUp, ReplyId},
    hooks::{Bug, Hooks, NoHooks},
    keys,
    meta::StoreMeta,
    observe::{AppliedBatch, Observers},
    snap::build::{self, BuildError},
};

/// Owns the Appliers of its regions and carries out what they fill in.
///
/// After [`ApplyWorker::run`] has failed or panicked nothing may be run any more; `stop`
/// then still answers everybody.
pub struct ApplyWorker<K: KvEngine, H: Hooks = NoHooks> {
    kv: K,
    hooks: H,
    observers: Observers,
    appliers: BTreeMap<RegionId, Applier>,
    /// Newest incarnation that was destroyed here, of regions without an Applier. Tells a
    /// late task from one that should not exist.
    destroyed: BTreeMap<RegionId, u64>,
    /// Tasks of this run that are not yet begun.
    queue: VecDeque<ApplyTask>,
    pending: Pending<K::WriteBatch>,
    outcome: ApplyOutcome<K>,
}

/// What came of a run.
#[must_use = "callers wait for the answers, the store for the events"]
pub struct ApplyOutcome<K: KvEngine> {
    /// To waiting callers. Their writes have returned.
    pub answers: Vec<(ReplyId, Response)>,
    /// For the store, in order per region. A long run may give several results per region.
    pub events: Vec<ApplyEvent>,
    /// Region snapshots to be built, from engine snapshots taken here.
    pub builds: Vec<SnapBuild<K::Snapshot>>,
    /// Regions to be hashed, from engine snapshots taken here.
    pub hashes: Vec<HashJob<K::Snapshot>>,
}

/// A region snapshot to be built.
///
/// One comes for every request to a running Applier, whatever index was asked for: the
/// store compares `key.index` with it and asks again, since a request that goes unanswered
/// would never be repeated.
#[derive(Debug)]
pub struct SnapBuild<S> {
    /// Range and members as of `key`.
    pub region: Region,
    /// The incarnation that asked.
    pub incarnation: u64,
    /// Which moment of the region the snapshot shows.
    pub key: SnapKey,
    /// The engine at that moment.
    pub snapshot: S,
    /// Whether the store that asked has stopped wanting it. It has to be told that the work
    /// has ended all the same.
    pub given_up: GivenUp,
}

impl<S: Reader> SnapBuild<S> {
    /// Does it, see [`build`](build::build).
    ///
    /// # Errors
    /// Nothing is left at rest then.
    pub fn build(
        &self,
        snaps: &dyn SnapStore,
        chunk_bytes: usize,
    ) -> Result<BuiltSnapshot, BuildError> {
        build::build(&self.region, self.key, &self.snapshot, &self.given_up, snaps, chunk_bytes)
    }
}

impl<K: KvEngine> Default for ApplyOutcome<K> {
    fn default() -> Self {
        Self { answers: Vec::new(), events: Vec::new(), builds: Vec::new(), hashes: Vec::new() }
    }
}

impl<K: KvEngine> std::fmt::Debug for ApplyOutcome<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApplyOutcome")
            .field("answers", &self.answers)
            .field("events", &self.events)
            .field("builds", &self.builds.len())
            .field("hashes", &self.hashes)
            .finish()
    }
}

impl<K: KvEngine, H: Hooks> std::fmt::Debug for ApplyWorker<K, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApplyWorker")
            .field("appliers", &self.appliers)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl<K: KvEngine, H: Hooks> ApplyWorker<K, H> {
    /// A worker without regions.
    #[must_use]
    pub fn new(kv: K, hooks: H) -> Self {
        let pending = Pending::new(kv.write_batch());
        Self {
            kv,
            hooks,
            observers: Observers::default(),
            appliers: BTreeMap::new(),
            destroyed: BTreeMap::new(),
            queue: VecDeque::new(),
            pending,
            outcome: ApplyOutcome::default(),
        }
    }

    /// The same with observers: those the store was opened with.
    #[must_use]
    pub fn with_observers(self, observers: Observers) -> Self {
        Self { observers, ..self }
    }

    /// Carries out tasks in order and writes what they leave in the batch.
    ///
    /// # Errors
    /// An engine failure, an entry that cannot be understood, or entries for a region that
    /// was never registered. The store must stop; [`ApplyWorker::stop`] answers everybody.
    ///
    /// # Panics
    /// If a task breaks the order of entries.
    pub fn run(
        &mut self,
        tasks: Vec<ApplyTask>,
        meta: &StoreMeta,
    ) -> Result<ApplyOutcome<K>, FatalError> {
        self.queue.extend(tasks);
        while let Some(task) = self.queue.pop_front() {
            self.execute(task, meta)?;
        }
        self.flush(meta)?;
        Ok(std::mem::take(&mut self.outcome))
    }

    /// Answers everybody who waits, and forgets all regions. Nothing is written any more.
    #[must_use = "callers wait for the answers"]
    pub fn stop(&mut self) -> Vec<(ReplyId, Response)> {
        // Answers of a failed run whose writes had returned keep what they say.
        let mut answers = std::mem::take(&mut self.outcome).answers;
        let unwritten = std::mem::take(&mut self.pending.answers).into_iter();
        let progress = std::mem::take(&mut self.pending.progress).into_values();
        let unwritten = unwritten.chain(progress.flat_map(|progress| progress.answers));
        answers.extend(
            unwritten.map(|(reply, it)| (reply, Response::error(it.term, RegionError::Stopping))),
        );
        for applier in self.appliers.values_mut() {
            applier.refuse_all(&RegionError::Stopping, &mut answers);
        }
        self.appliers.clear();
        for task in std::mem::take(&mut self.queue) {
            if let ApplyWork::Entries { term, proposals, .. } = task.work {
                refuse(&proposals, term, &RegionError::Stopping, &mut answers);
            }
        }
        answers
    }

    /// How many callers wait for entries that have not come yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.appliers.values().map(Applier::waiting).sum()
    }

    /// The Applier of a region.
    #[must_use]
    pub fn applier(&self, region: RegionId) -> Option<&Applier> {
        self.appliers.get(&region)
    }

    fn execute(&mut self, task: ApplyTask, meta: &StoreMeta) -> Result<(), FatalError> {
        let ApplyTask { region, incarnation, work } = task;
        match work {
            ApplyWork::Register(registration) => {
                self.flush_region(region, meta)?;
                self.register(region, incarnation, *registration);
                Ok(())
            }
            ApplyWork::Entries { term, entries, proposals } => {
                self.entries(region, incarnation, term, &entries, proposals, meta)
            }
            ApplyWork::Snapshot { request_index, given_up } => {
                self.snapshot(region, incarnation, request_index, given_up, meta)
            }
            ApplyWork::Destroy => {
                self.flush_region(region, meta)?;
                self.destroy(region, incarnation);
                Ok(())
            }
        }
    }

    fn register(&mut self, region: RegionId, incarnation: u64, registration: Registration) {
        assert_eq!(region, registration.region.id, "registration names another region");
        self.destroyed.remove(&region);
        let applier = Applier::new(incarnation, registration);
        if let Some(mut replaced) = self.appliers.insert(region, applier) {
            assert!(
                replaced.incarnation <= incarnation,
                "region {region}: incarnation {incarnation} registered after {}",
                replaced.incarnation
            );
            replaced.refuse_all(&RegionError::StaleCommand, &mut self.outcome.answers);
        }
    }

    fn entries(
        &mut self,
        region: RegionId,
        incarnation: u64,
        term: u64,
        entries: &[Entry],
        proposals: Vec<Proposal>,
        meta: &StoreMeta,
    ) -> Result<(), FatalError> {
        if !self.is_current(region, incarnation) {
            let error = RegionError::RegionNotFound { region };
            refuse(&proposals, term, &error, &mut self.outcome.answers);
            return self.expect_late(region, incarnation, entries);
        }
        if let Some(applier) = self.appliers.get_mut(&region) {
            applier.wait_for(term, proposals, &mut self.outcome.answers);
        }
        for entry in entries {
            if entry.flags().split || entry.flags().conditional {
                // Records and rows that this very batch holds count as there.
                self.flush(meta)?;
            }
            let Some(applier) = self.appliers.get_mut(&region) else { break };
            let births = StoreBirths {
                kv: &self.kv,
                meta,
                blind: self.hooks.planted(Bug::SplitIgnoresRecords),
                failure: Cell::new(None),
            };
            let (hooks, observers) = (&self.hooks, &self.observers);
            let env = Env { hooks, births: &births, rows: &self.kv, observers };
            let step = applier.apply(entry, &mut self.pending, &env)?;
            if let Some(failure) = births.failure.take() {
                return Err(failure);
            }
            if step == Step::Damaged {
                self.flush(meta)?;
                let index = entry.index();
                self.outcome.events.push(ApplyEvent::Damaged { region, incarnation, index });
                break;
            }
            if step == Step::Hash {
                self.hash(region, incarnation, entry.index(), meta)?;
            }
            if self.pending.is_full() {
                self.flush(meta)?;
            }
        }
        Ok(())
    }

    /// Takes an engine snapshot right behind entry `index`: it must hold everything up to
    /// that entry, and nothing of a later one.
    fn hash(
        &mut self,
        region: RegionId,
        incarnation: u64,
        index: u64,
        meta: &StoreMeta,
    ) -> Result<(), FatalError> {
        self.flush(meta)?;
        let snapshot = self
            .kv
            .snapshot()
            .map_err(FatalError::engine("taking a snapshot of the engine", Some(region)))?;
        if let Some(applier) = self.appliers.get(&region) {
            let region = applier.region().clone();
            self.outcome.hashes.push(HashJob { region, incarnation, index, snapshot });
        }
        Ok(())
    }

    fn is_current(&self, region: RegionId, incarnation: u64) -> bool {
        self.appliers.get(&region).is_some_and(|applier| applier.incarnation == incarnation)
    }

    /// H60: committed entries without an Applier are lost, unless their peer is gone.
    fn expect_late(
        &self,
        region: RegionId,
        incarnation: u64,
        entries: &[Entry],
    ) -> Result<(), FatalError> {
        let current = self.appliers.get(&region).map(|applier| applier.incarnation);
        let newest = current.or_else(|| self.destroyed.get(&region).copied());
        if entries.is_empty() || newest.is_some_and(|newest| incarnation <= newest) {
            return Ok(());
        }
        Err(FatalError::inconsistent(
            "executing committed entries",
            Some(region),
            format!("incarnation {incarnation} was never registered"),
        ))
    }

    fn snapshot(
        &mut self,
        region: RegionId,
        incarnation: u64,
        request_index: u64,
        given_up: GivenUp,
        meta: &StoreMeta,
    ) -> Result<(), FatalError> {
        if !self.is_current(region, incarnation) {
            return Ok(());
        }
        // The snapshot must show what the apply state says, in both directions (H46).
        if !self.hooks.planted(Bug::SnapshotBeforeFlush) {
            self.flush(meta)?;
        }
        let Some(applier) = self.appliers.get(&region).filter(|applier| applier.is_running())
        else {
            return Ok(());
        };
        let snapshot = self
            .kv
            .snapshot()
            .map_err(FatalError::engine("taking a snapshot of the engine", Some(region)))?;
        let state = applier.state();
        if state.applied < request_index {
            tracing::debug!(%region, applied = state.applied, request_index, "early snapshot");
        }
        let key = SnapKey { region, term: state.applied_term, index: state.applied };
        let region = applier.region().clone();
        self.outcome.builds.push(SnapBuild { region, incarnation, key, snapshot, given_up });
        Ok(())
    }

    fn destroy(&mut self, region: RegionId, incarnation: u64) {
        if !self.is_current(region, incarnation) {
            return;
        }
        if let Some(mut applier) = self.appliers.remove(&region) {
            let error = applier.not_found();
            applier.refuse_all(&error, &mut self.outcome.answers);
            self.destroyed.insert(region, incarnation);
            self.outcome.events.push(ApplyEvent::Destroyed { region, incarnation });
        }
    }

    /// Writes the batch if it holds anything of `region`.
    fn flush_region(&mut self, region: RegionId, meta: &StoreMeta) -> Result<(), FatalError> {
        if self.pending.progress.contains_key(&region) { self.flush(meta) } else { Ok(()) }
    }

    /// Writes the batch with the apply states of its regions, then lets out what waited.
    fn flush(&mut self, meta: &StoreMeta) -> Result<(), FatalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.hooks.planted(Bug::ApplyStateOutsideBatch) {
            self.write(meta)?;
        }
        for (region, progress) in &self.pending.progress {
            seal(*region, progress, &mut self.pending.fill.batch);
        }
        let kv_number = self.write(meta)?;
        self.outcome.answers.append(&mut self.pending.answers);
        for (region, progress) in std::mem::take(&mut self.pending.progress) {
            let Progress { incarnation, state, exec, answers, metrics, observed, .. } = progress;
            if !observed.is_empty()
                && let Some(applier) = self.appliers.get(&region)
            {
                let (region, commands) = (applier.region(), &observed);
                self.observers.applied(&AppliedBatch { region, state, commands });
            }
            self.outcome.events.push(ApplyEvent::Applied(Box::new(ApplyResult {
                region,
                incarnation,
                state,
                kv_number,
                exec,
                answers,
                metrics,
            })));
        }
        Ok(())
    }

    fn write(&mut self, meta: &StoreMeta) -> Result<u64, FatalError> {
        let batch = self.pending.replace_batch(self.kv.write_batch());
        self.kv
            .write(batch, Durability::Buffered)
            .map_err(FatalError::engine("writing applied entries", None))?;
        Ok(meta.numbers.next_written())
    }
}

/// Looks for a birth's obstacles in memory and on disk.
struct StoreBirths<'a, K> {
    kv: &'a K,
    meta: &'a StoreMeta,
    /// Looks in memory only: a planted bug.
    blind: bool,
    /// The engine has failed: nothing that was decided since may be written.
    failure: Cell<Option<FatalError>>,
}

impl<K: KvEngine> Births for StoreBirths<'_, K> {
    fn claim(&self, region: RegionId, peer: PeerId) -> bool {
        // Memory first: what it has forgotten since is on disk by now.
        if !self.meta.claim_split(region, peer) {
            return false;
        }
        if self.blind {
            return true;
        }
        for key in [keys::region_state_key(region), keys::quarantine_key(region)] {
            match self.kv.get(Cf::Raft, &key) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    self.meta.release_split(region);
                    return false;
                }
                Err(error) => {
                    let failed =
                        FatalError::engine("looking for a split-born region", Some(region));
                    self.failure.set(Some(failed(error)));
                    return false;
                }
            }
        }
        true
    }
}

/// Puts where a region's data stands behind the data itself.
fn seal<B: WriteBatch>(region: RegionId, progress: &Progress, batch: &mut B) {
    let key = keys::apply_state_key(region);
    if progress.removed {
        batch.delete(Cf::Raft, &key);
    } else {
        batch.put(Cf::Raft, &key, &record::encode_apply_state(region, &progress.state));
    }
}

fn refuse(
    proposals: &[Proposal],
    term: u64,
    error: &RegionError,
    out: &mut Vec<(ReplyId, Response)>,
) {
    out.extend(proposals.iter().map(|it| (it.reply, Response::error(term, error.clone()))));
}

#[cfg(test)]
mod tests;
