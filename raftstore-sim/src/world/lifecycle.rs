//! Starting, stopping and killing stores.

use crate::engine::SimKv;
use std::{collections::VecDeque, sync::Arc};

use raftstore_core::{
    Config, Event, Store, StoreMeta, StoreOptions,
    apply::ApplyWorker,
    consistency::HashWorker,
    read::{LocalReader, Views},
    snap::RegionWorker,
    split_check::{CheckWorker, SizeAndKeys},
};
use raftstore_proto::StoreId;
use transport_traits::{SnapDirection, SnapKey, SnapStore};

use super::{
    Node, NodeStep, Step, World,
    lane::error_chain,
    node::{ApplySlot, CutPoint, Input, Lane, Running},
};
use crate::{
    counters::Sometimes,
    disk::Crash,
    invariants::{Violation, check_disk},
    plan::TICK,
    planted::Planted,
    queue::MILLI,
};

impl World {
    /// Starts a store from what is on its disk. One that runs goes on.
    pub fn start_store(&mut self, store: u64) {
        let config = Arc::clone(&self.plan.config);
        let hooks = Planted(self.plan.bug);
        let Some(node) = self.nodes.get_mut(&store) else { return };
        if node.running.is_some() {
            return;
        }
        node.life += 1;
        let observers = node.observers.clone();
        observers.start();
        let meta = Arc::new(StoreMeta::of_life(node.life));
        let views = Arc::new(Views::default());
        let received = received_snapshots(node);
        let options = StoreOptions {
            config: Arc::clone(&config),
            store: StoreId::must(store),
            kv: node.disk.kv.clone(),
            raft: node.disk.log.clone(),
            meta: Arc::clone(&meta),
            views: Arc::clone(&views),
            received,
            hooks,
            observers: observers.clone(),
        };
        let stores = match Store::open(options, node.clock(self.now)) {
            Ok(stores) => stores,
            Err(error) => {
                let detail = format!("store {store}: {}", error_chain(&error));
                return self.fail(Violation::new("every store starts again", detail));
            }
        };
        let lanes: Vec<Lane> = stores
            .into_iter()
            .map(|store| Lane { store, inbox: VecDeque::new(), turn_scheduled: false, seen: None })
            .collect();
        let count = lanes.len();
        let batch = usize::try_from(config.snap_apply_batch_size).unwrap_or(usize::MAX);
        let kv = node.disk.kv.clone();
        node.running = Some(Running {
            reader: LocalReader::new(Arc::clone(&views), kv.clone()),
            meta,
            lanes,
            waiting_rounds: VecDeque::new(),
            writer_busy: false,
            apply: (0..self.plan.apply_workers)
                .map(|_| ApplySlot {
                    worker: ApplyWorker::new(kv.clone(), hooks).with_observers(observers.clone()),
                    queue: VecDeque::new(),
                    busy: false,
                })
                .collect(),
            region_worker: RegionWorker::new(kv, Arc::new(node.disk.snaps.clone()), hooks, batch),
            region_busy: false,
            check_worker: check_worker(&node.disk.kv, &config),
            check_busy: false,
            builds: VecDeque::new(),
            build_busy: false,
            hash_worker: HashWorker::new(config.consistency_slice),
            hash_busy: false,
            sync_wanted: false,
            sync_busy: false,
        });
        let life = node.life;
        self.transcript.event(self.now, store, 0, format_args!("starts, life {life}"));
        self.pd.store_started(self.now, store);
        for lane in 0..count {
            self.node_after(0, store, NodeStep::Turn(lane));
            let phase = self.pace_rng.below(TICK);
            self.node_after(phase, store, NodeStep::Tick(lane));
        }
    }

    /// Ends a store without asking it. What it had written is judged.
    pub fn crash_store(&mut self, store: u64, crash: Crash) {
        self.harvest(store);
        let Some(node) = self.nodes.get_mut(&store) else { return };
        if node.running.take().is_none() {
            return;
        }
        node.observers.stop();
        node.cut = None;
        node.stopping = None;
        node.disk_fault_armed = false;
        node.paused_until = 0;
        node.disk.crash(crash, &mut self.fault_rng);
        self.counters.hit(match crash {
            Crash::Kill => Sometimes::Kills,
            Crash::PowerLoss => Sometimes::PowerLosses,
        });
        self.transcript.event(self.now, store, 0, format_args!("dies: {crash:?}"));
        self.process_ended(store);
    }

    /// Forgets what was promised to, and seen of, a process that is gone.
    fn process_ended(&mut self, store: u64) {
        for reply in self.answers.store_died(store) {
            self.reply_lost(reply);
        }
        if let Some(node) = self.nodes.get_mut(&store) {
            node.still.clear();
            node.waiting_steps.clear();
        }
        self.checks.monotonic.store_died(store);
        self.checks.silence.store_died(store);
        self.checks.epochs.store_died(store);
        self.checks.state_machine.store_died(store);
        let node = &self.nodes[&store];
        let checked = check_disk(
            store,
            &node.disk.kv,
            &node.disk.log,
            &self.checks.ledger,
            &mut self.checks.silence,
        );
        self.require(checked);
    }

    /// The store dies at a chosen point.
    pub(super) fn crash_at(&mut self, store: u64, crash: Crash, point: CutPoint) {
        self.counters.hit(Sometimes::CutsAtSteps);
        self.transcript.event(self.now, store, 0, format_args!("is cut: {point:?}"));
        self.crash_store(store, crash);
        self.restart_later(store);
    }

    /// Starts a dead store again after a while, if it is one that is.
    pub(crate) fn restart_later(&mut self, store: u64) {
        if self.nodes[&store].restarts {
            let mean = self.plan.restart_after;
            let delay = 10 * MILLI + self.fault_rng.exponential(mean);
            self.after(delay, Step::Start { store });
        }
    }

    /// An engine failed outside of the core's own calls.
    pub(super) fn engine_failed(&mut self, store: u64, error: &engine_traits::Error) {
        let detail = error_chain(error);
        self.transcript.event(self.now, store, 0, format_args!("engine failed: {detail}"));
        if self.nodes[&store].disk_fault_armed {
            self.counters.hit(Sometimes::DiskFailures);
            self.crash_store(store, Crash::Kill);
            self.restart_later(store);
        } else {
            self.fail(Violation::new("engines fail on command only", detail));
        }
    }

    /// Stops a store in order and waits until it is down. It does not come back by itself.
    pub fn stop_store(&mut self, store: u64) {
        self.begin_stop(store, false);
        while self.nodes.get(&store).is_some_and(Node::is_up) && self.violation.is_none() {
            self.step();
        }
    }

    /// Has a store stop in order as soon as the apply runs that are under way have ended,
    /// and start again after a while if `comes_back`.
    pub(crate) fn begin_stop(&mut self, store: u64, comes_back: bool) {
        let Some(node) = self.nodes.get_mut(&store).filter(|node| node.is_up()) else { return };
        node.stopping = Some(comes_back);
        self.let_all_go_on(store);
        self.go_on_stopping(store);
    }

    /// Ends a store that is to stop, unless apply runs are under way.
    pub(super) fn go_on_stopping(&mut self, store: u64) {
        let Some(comes_back) = self.nodes[&store].stopping else { return };
        if self.has_answers_on_the_way(store) || self.violation.is_some() {
            return;
        }
        self.stop_now(store);
        if comes_back {
            self.restart_later(store);
        }
    }

    /// Everybody who waits must be answered (H27, H28, H33).
    fn stop_now(&mut self, store: u64) {
        let life = self.nodes[&store].life;
        let lanes = self.nodes[&store].running.as_ref().map_or(0, |running| running.lanes.len());
        self.transcript.event(self.now, store, 0, format_args!("stops in order"));
        for lane in 0..lanes {
            if let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
            {
                running.lanes[lane].inbox.push_back(Input::Event(Event::Stop));
            }
            let waits = |world: &Self| {
                world.nodes[&store]
                    .running
                    .as_ref()
                    .is_some_and(|running| !running.lanes[lane].inbox.is_empty())
            };
            while waits(self) && self.violation.is_none() {
                self.turn(store, lane);
            }
        }
        let mut answers = Vec::new();
        if let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut()) {
            for slot in &mut running.apply {
                for task in slot.queue.drain(..).collect::<Vec<_>>() {
                    // Executing is allowed until the end; here the process is in a hurry.
                    match slot.worker.run(vec![task], &running.meta) {
                        Ok(outcome) => {
                            answers.extend(outcome.answers);
                            for event in outcome.events {
                                if let raftstore_core::apply::ApplyEvent::Applied(result) = event {
                                    answers.extend(result.answers);
                                }
                            }
                        }
                        Err(_) => break,
                    }
                }
                answers.extend(slot.worker.stop());
            }
        }
        for (reply, response) in answers {
            self.answer(store, life, reply.0, response);
        }
        self.finish_stop(store);
    }

    fn finish_stop(&mut self, store: u64) {
        if self.nodes[&store].running.is_none() {
            return;
        }
        let owed = self.answers.require_none_from(store);
        if let Err(fault) = owed {
            self.fail(Violation::new("a clean stop answers everybody", fault.to_string()));
        }
        self.harvest(store);
        self.counters.hit(Sometimes::CleanStops);
        if let Some(node) = self.nodes.get_mut(&store) {
            node.running = None;
            node.observers.stop();
            node.stopping = None;
            node.cut = None;
            node.disk_fault_armed = false;
            node.disk.crash(Crash::Kill, &mut self.fault_rng);
        }
        self.process_ended(store);
    }

    fn has_answers_on_the_way(&self, store: u64) -> bool {
        self.nodes[&store]
            .running
            .as_ref()
            .is_some_and(|running| running.apply.iter().any(|slot| slot.busy))
    }
}

/// Region snapshots that a store had received before it ended, with their sizes in bytes.
fn received_snapshots(node: &Node) -> Vec<(SnapKey, u64)> {
    let listed = node.disk.snaps.list().unwrap_or_default().into_iter();
    listed
        .filter(|(direction, _, _)| *direction == SnapDirection::Received)
        .map(|(_, key, size)| (key, size))
        .collect()
}

fn check_worker(kv: &SimKv, config: &Config) -> CheckWorker<SimKv> {
    CheckWorker::new(kv.clone(), Arc::new(SizeAndKeys::of(config)))
}
