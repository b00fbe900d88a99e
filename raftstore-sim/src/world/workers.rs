//! The workers of a store: apply pool, region worker, snapshot builder, data engine sync.

use crate::engine::SimKv;
use engine_traits::KvEngine;
use raftstore_core::{
    Event, InstallOutcome, Task, TaskDone,
    apply::{ApplyEvent, ApplyOutcome, ApplyTask, ApplyWork, ExecResult},
};
use raftstore_proto::{ChangeKind, PeerChange, PeerRole, Region, RegionId};

use super::{
    NodeStep, World,
    node::{CutPoint, Input},
};
use crate::{counters::Sometimes, queue::MICRO};

/// Most tasks an apply worker takes at once.
const APPLY_BATCH: usize = 64;
/// The applied index of a region that has executed nothing.
const INITIAL_INDEX: u64 = 5;

impl World {
    pub(super) fn queue_apply(&mut self, store: u64, task: ApplyTask) {
        self.watch_apply_task(store, &task);
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        let slot = running.slot_of(task.region);
        running.apply[slot].queue.push_back(task);
        self.start_apply(store, slot);
    }

    fn start_apply(&mut self, store: u64, slot: usize) {
        let Some(running) = self
            .nodes
            .get_mut(&store)
            .filter(|node| node.stopping.is_none())
            .and_then(|node| node.running.as_mut())
        else {
            return;
        };
        let slot_state = &mut running.apply[slot];
        if slot_state.busy || slot_state.queue.is_empty() {
            return;
        }
        slot_state.busy = true;
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.apply / 2);
        self.node_after(delay, store, NodeStep::Apply(slot));
    }

    pub(super) fn apply(&mut self, store: u64, slot: usize) {
        let Some(node) = self.nodes.get_mut(&store) else { return };
        if let Some(crash) = node.cut_at(CutPoint::BeforeApply) {
            return self.crash_at(store, crash, CutPoint::BeforeApply);
        }
        let Some(running) = node.running.as_mut() else { return };
        let slot_state = &mut running.apply[slot];
        let take = slot_state.queue.len().min(APPLY_BATCH);
        let tasks: Vec<_> = slot_state.queue.drain(..take).collect();
        let result = slot_state.worker.run(tasks, &running.meta);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => return self.fatal(store, &error),
        };
        let crash = node.cut_at(CutPoint::BeforeApplyAnswers);
        if let Some(crash) = crash {
            return self.crash_at(store, crash, CutPoint::BeforeApplyAnswers);
        }
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.apply / 2);
        self.node_after(delay, store, NodeStep::Applied(slot, outcome));
    }

    pub(super) fn deliver_applied(
        &mut self,
        store: u64,
        slot: usize,
        outcome: ApplyOutcome<SimKv>,
    ) {
        let life = self.nodes[&store].life;
        for (reply, response) in outcome.answers {
            self.answer(store, life, reply.0, response);
        }
        self.watch_apply_events(store, &outcome.events);
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        running.apply[slot].busy = false;
        running.builds.extend(outcome.builds);
        let mut by_lane: Vec<Vec<ApplyEvent>> = running.lanes.iter().map(|_| Vec::new()).collect();
        for event in outcome.events {
            let lane = running.lane_of(Some(event_region(&event)));
            by_lane[lane].push(event);
        }
        for (lane, events) in by_lane.into_iter().enumerate() {
            if !events.is_empty() {
                self.push(store, lane, Input::Event(Event::Applied(events)));
            }
        }
        self.queue_hashes(store, outcome.hashes);
        self.start_apply(store, slot);
        self.start_build(store);
        self.go_on_stopping(store);
    }

    fn watch_apply_events(&mut self, store: u64, events: &[ApplyEvent]) {
        for event in events {
            let ApplyEvent::Applied(result) = event else { continue };
            let region = result.region.get();
            self.transcript.event(
                self.now,
                store,
                region,
                format_args!("applied {}", result.state.applied),
            );
            for exec in &result.exec {
                match exec {
                    ExecResult::ChangePeer { index, applied: Some((changes, after)) } => {
                        self.count_change(changes, after);
                        self.checks.members.note(after);
                        let checked = self.checks.ledger.check_shape(store, *index, after);
                        self.require(checked);
                        self.transcript.event(
                            self.now,
                            store,
                            region,
                            format_args!("members {:?}", after.peers),
                        );
                    }
                    ExecResult::ChangePeer { index, applied: None } => {
                        let checked = self.checks.ledger.check_refused(store, region, *index);
                        self.require(checked);
                    }
                    ExecResult::Split { index, derived, parts, .. } => {
                        self.counters.hit(Sometimes::Splits);
                        self.checks.members.note(derived);
                        let checked = self.checks.ledger.check_shape(store, *index, derived);
                        self.require(checked);
                        for part in parts {
                            self.checks.members.note(&part.region);
                            let checked =
                                self.checks.ledger.check_shape(store, INITIAL_INDEX, &part.region);
                            self.require(checked);
                        }
                        let count = parts.len();
                        let line = format_args!("is cut, {count} new regions: {parts:?}");
                        self.transcript.event(self.now, store, region, line);
                    }
                    ExecResult::Truncate { .. } => self.counters.hit(Sometimes::LogCuts),
                    ExecResult::ComputeHash { .. } | ExecResult::VerifyHash { .. } => {}
                }
            }
        }
    }

    fn count_change(&mut self, changes: &[PeerChange], after: &Region) {
        let what = match changes {
            [] => Sometimes::JointsLeft,
            [_] => Sometimes::ConfChanges,
            _ => Sometimes::JointsEntered,
        };
        self.counters.hit(what);
        for change in changes.iter().filter(|change| change.kind == ChangeKind::AddLearner) {
            let role = after.peer(change.peer.id).map(|peer| peer.role);
            let demoting = role == Some(PeerRole::DemotingVoter);
            self.counters.hit(if demoting {
                Sometimes::Demotions
            } else {
                Sometimes::LearnersAdded
            });
        }
    }

    /// Looks at what is handed to be executed: it is committed.
    fn watch_apply_task(&mut self, store: u64, task: &ApplyTask) {
        let region = task.region.get();
        match &task.work {
            ApplyWork::Register(registration) => {
                let applied = registration.state.applied;
                self.checks.state_machine.register(store, region, task.incarnation, applied);
                if registration.region.is_initialized() {
                    self.checks.members.note(&registration.region);
                    if applied == INITIAL_INDEX {
                        self.checks.ledger.begin(&registration.region);
                    }
                }
            }
            ApplyWork::Entries { entries, .. } => {
                let handed =
                    self.checks.state_machine.hand(store, region, task.incarnation, entries);
                self.require(handed);
                for entry in entries {
                    self.watch_committed(store, region, entry);
                }
            }
            ApplyWork::Snapshot { .. } | ApplyWork::Destroy => {}
        }
    }

    pub(super) fn queue_region_task(&mut self, store: u64, task: Task) {
        if let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut()) {
            running.region_worker.push(task);
        }
        self.start_region(store);
    }

    fn start_region(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        if running.region_busy || running.region_worker.is_idle() {
            return;
        }
        running.region_busy = true;
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.region_work);
        self.node_after(delay, store, NodeStep::Region);
    }

    pub(super) fn region_slice(&mut self, store: u64) {
        let Some(node) = self.nodes.get_mut(&store) else { return };
        let Some(running) = node.running.as_mut() else { return };
        let outcome = match running.region_worker.step(&running.meta.numbers) {
            Ok(outcome) => outcome,
            Err(error) => return self.fatal(store, &error),
        };
        running.region_busy = false;
        if let Some(crash) = node.cut_at(CutPoint::AfterRegionSlice) {
            return self.crash_at(store, crash, CutPoint::AfterRegionSlice);
        }
        let delay = 10 * MICRO + self.pace_rng.exponential(200 * MICRO);
        if !outcome.done.is_empty() {
            self.node_after(delay, store, NodeStep::RegionDone(outcome.done));
        }
        self.start_region(store);
    }

    pub(super) fn region_done(&mut self, store: u64, done: Vec<TaskDone>) {
        for task in done {
            if let TaskDone::Installed { region, outcome, .. } = &task {
                match outcome {
                    InstallOutcome::Done { .. } => {
                        self.counters.hit(Sometimes::SnapshotsInstalled);
                    }
                    InstallOutcome::Cancelled => self.counters.hit(Sometimes::InstallsCancelled),
                    InstallOutcome::BadContent => {}
                }
                self.transcript.event(
                    self.now,
                    store,
                    region.get(),
                    format_args!("install ended: {outcome:?}"),
                );
            }
            self.event_arrives(store, Event::TaskDone(task));
        }
    }

    fn start_build(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        if running.build_busy || running.builds.is_empty() {
            return;
        }
        running.build_busy = true;
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.region_work);
        self.node_after(delay, store, NodeStep::Build);
    }

    pub(super) fn build(&mut self, store: u64) {
        let chunk = usize::try_from(self.plan.config.snapshot_chunk_bytes).unwrap_or(usize::MAX);
        let Some(node) = self.nodes.get_mut(&store) else { return };
        let Some(running) = node.running.as_mut() else { return };
        running.build_busy = false;
        let Some(job) = running.builds.pop_front() else { return };
        let built = job.build(&node.disk.snaps, chunk).ok();
        let (region, incarnation) = (job.region.id, job.incarnation);
        if built.is_some() {
            self.counters.hit(Sometimes::SnapshotsBuilt);
        }
        self.transcript.event(self.now, store, region.get(), format_args!("built {}", job.key));
        self.event_arrives(store, Event::TaskDone(TaskDone::Built { region, incarnation, built }));
        self.start_build(store);
    }

    pub(super) fn queue_check(&mut self, store: u64, task: Task) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        running.check_worker.push(task);
        self.start_check(store);
    }

    fn start_check(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        if running.check_busy || running.check_worker.is_idle() {
            return;
        }
        running.check_busy = true;
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.region_work);
        self.node_after(delay, store, NodeStep::Check);
    }

    pub(super) fn check_slice(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        running.check_busy = false;
        match running.check_worker.step() {
            Ok(slice) => {
                for done in slice.done {
                    self.event_arrives(store, Event::TaskDone(done));
                }
                self.start_check(store);
            }
            Err(error) => self.fatal(store, &error),
        }
    }

    /// The store wants its data engine durable.
    pub(super) fn want_sync(&mut self, store: u64) {
        if let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut()) {
            running.sync_wanted = true;
        }
        self.start_sync(store);
    }

    fn start_sync(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        if running.sync_busy || !running.sync_wanted {
            return;
        }
        running.sync_busy = true;
        running.sync_wanted = false;
        // W4: sampled before the engine is called.
        let sample = running.meta.numbers.written();
        let delay = 10 * MICRO + self.pace_rng.exponential(self.plan.pace.kv_sync);
        self.node_after(delay, store, NodeStep::SyncKv(sample));
    }

    pub(super) fn sync_kv(&mut self, store: u64, sample: u64) {
        let Some(node) = self.nodes.get_mut(&store) else { return };
        if let Err(error) = node.disk.kv.sync() {
            return self.engine_failed(store, &error);
        }
        if let Some(crash) = node.cut_at(CutPoint::BeforeKvDurable) {
            return self.crash_at(store, crash, CutPoint::BeforeKvDurable);
        }
        let delay = 10 * MICRO + self.pace_rng.exponential(100 * MICRO);
        self.node_after(delay, store, NodeStep::KvDurable(sample));
    }

    pub(super) fn kv_durable(&mut self, store: u64, number: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        running.meta.numbers.publish_durable(number);
        running.sync_busy = false;
        for lane in 0..running.lanes.len() {
            self.push(store, lane, Input::Event(Event::KvDurable(number)));
        }
        self.start_sync(store);
    }
}

fn event_region(event: &ApplyEvent) -> RegionId {
    match event {
        ApplyEvent::Applied(result) => result.region,
        ApplyEvent::Destroyed { region, .. } | ApplyEvent::Damaged { region, .. } => *region,
    }
}
