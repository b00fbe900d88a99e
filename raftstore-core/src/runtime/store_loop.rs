//! Decides what a lane does next: the driver's turn around `handle`, `ready` and
//! `on_persisted`, and where each effect goes.
//!
//! One turn takes what has come through the channel that never drops, then a bounded batch
//! of messages and commands, then a tick if one is due; then it asks for rounds until there
//! are none. Writes go to the writer first, so that the disk works while messages leave.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TryRecvError, select};
use engine_traits::{KvEngine, RaftEngine};
use parking_lot::Mutex;
use raftstore_proto::{MessageKind, RaftMessage};
use transport_traits::{SnapshotStatus, Transport};

use super::{
    apply_pool::ApplyPool,
    fail_points::FailPoints,
    shared::{LaneInlets, LaneInput, Queued, Shared},
    workers::SyncWanted,
};
use crate::{Config, Effects, Event, FatalError, MonoTime, PdRequest, Ready, Store, Task, Writes};

/// Where a lane's effects go. Every way but the transport ends when its lanes are gone.
pub(super) struct Outlets<K: KvEngine, R: RaftEngine> {
    pub(super) writer: Sender<Writes<K, R>>,
    pub(super) apply: ApplyPool,
    pub(super) region: Sender<Task>,
    pub(super) check: Sender<Task>,
    pub(super) compact: Sender<Task>,
    pub(super) sync: Sender<SyncWanted>,
    pub(super) pd: Sender<PdRequest>,
    pub(super) transport: Arc<Mutex<Box<dyn Transport>>>,
}

impl<K: KvEngine, R: RaftEngine> Clone for Outlets<K, R> {
    fn clone(&self) -> Self {
        Self {
            writer: self.writer.clone(),
            apply: self.apply.clone(),
            region: self.region.clone(),
            check: self.check.clone(),
            compact: self.compact.clone(),
            sync: self.sync.clone(),
            pd: self.pd.clone(),
            transport: Arc::clone(&self.transport),
        }
    }
}

/// Longer than any clock runs, short enough to be added to it.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// One lane on its thread.
pub(super) struct StoreLoop<K: KvEngine, R: RaftEngine> {
    store: Store<K, R, FailPoints>,
    inlets: LaneInlets,
    outlets: Outlets<K, R>,
    shared: Arc<Shared>,
    config: Arc<Config>,
    next_tick: MonoTime,
    /// Rounds at the writer.
    in_flight: u64,
    is_stopping: bool,
}

impl<K: KvEngine, R: RaftEngine> StoreLoop<K, R> {
    pub(super) fn new(
        store: Store<K, R, FailPoints>,
        inlets: LaneInlets,
        outlets: Outlets<K, R>,
        shared: Arc<Shared>,
        config: Arc<Config>,
    ) -> Self {
        let next_tick = shared.clock.now() + config.raft_base_tick_interval;
        let (in_flight, is_stopping) = (0, false);
        Self { store, inlets, outlets, shared, config, next_tick, in_flight, is_stopping }
    }

    /// Runs until it is stopped and its last round is durable, or the store fails.
    pub(super) fn run(mut self) -> Result<(), FatalError> {
        loop {
            self.settle()?;
            if self.shared.failure.has_failed() || (self.is_stopping && self.in_flight == 0) {
                return Ok(());
            }
            self.wait()?;
            let begun = Instant::now();
            self.take_significant()?;
            self.take_events()?;
            self.tick()?;
            self.settle()?;
            let lane = self.store.lane().0;
            self.shared.timings.turn.end(begun, format_args!("a turn of lane {lane}"));
        }
    }

    /// Blocks until something is to be done, and does the first of it.
    fn wait(&mut self) -> Result<(), FatalError> {
        let due = crossbeam_channel::at(self.shared.clock.instant(self.next_tick));
        select! {
            recv(self.inlets.significant) -> input => match input {
                Ok(input) => self.on_input(input),
                Err(_) => Ok(()),
            },
            recv(self.inlets.events) -> event => match event {
                Ok(queued) => self.take(queued),
                Err(_) => Ok(()),
            },
            recv(self.shared.failure.quit()) -> _ => Ok(()),
            recv(due) -> _ => Ok(()),
        }
    }

    fn take_significant(&mut self) -> Result<(), FatalError> {
        // What comes in meanwhile is of the next turn, or this could go on for ever.
        for _ in 0..self.inlets.significant.len() {
            match self.inlets.significant.try_recv() {
                Ok(input) => self.on_input(input)?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn take_events(&mut self) -> Result<(), FatalError> {
        for _ in 0..self.config.messages_per_tick {
            match self.inlets.events.try_recv() {
                Ok(queued) => self.take(queued)?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// One tick at most: after a stall the missed ones are not made up for, or every peer
    /// would campaign at once.
    fn tick(&mut self) -> Result<(), FatalError> {
        let now = self.shared.clock.now();
        if now < self.next_tick || self.is_stopping {
            return Ok(());
        }
        let next = self.next_tick + self.config.raft_base_tick_interval;
        self.next_tick = if next > now { next } else { now + self.config.raft_base_tick_interval };
        self.store.handle(now, Event::Tick)
    }

    fn on_input(&mut self, input: LaneInput) -> Result<(), FatalError> {
        match input {
            LaneInput::Event(event) => self.handle(event),
            LaneInput::Proofs(proofs) => {
                for proof in proofs {
                    self.in_flight -= 1;
                    let effects = self.store.on_persisted(self.shared.clock.now(), proof)?;
                    self.perform(effects);
                }
                Ok(())
            }
            LaneInput::Metrics(to) => {
                // Who asked may have stopped waiting.
                let _ = to.try_send(self.store.metrics().clone());
                Ok(())
            }
            LaneInput::Peers(to) => {
                let _ = to.try_send(self.store.inspect());
                Ok(())
            }
            LaneInput::Stop => {
                self.is_stopping = true;
                // A tick that is due would wake the loop for nothing.
                self.next_tick = self.shared.clock.now() + FOREVER;
                self.handle(Event::Stop)
            }
        }
    }

    fn take(&mut self, queued: Queued) -> Result<(), FatalError> {
        let Queued { at, event } = queued;
        if let Some(at) = at {
            self.shared.timings.request_wait.record(at.elapsed());
        }
        self.handle(event)
    }

    fn handle(&mut self, event: Event) -> Result<(), FatalError> {
        self.store.handle(self.shared.clock.now(), event)
    }

    fn settle(&mut self) -> Result<(), FatalError> {
        while let Some(Ready { early, writes }) = self.store.ready()? {
            if let Some(writes) = writes {
                self.in_flight += 1;
                // A writer that is gone has failed the store.
                let _ = self.outlets.writer.send(writes);
            }
            self.perform(early);
        }
        Ok(())
    }

    fn perform(&mut self, effects: Effects) {
        // From a failure on: no vote, no acknowledgement, nothing (D15).
        if self.shared.failure.has_failed() {
            return;
        }
        let Effects { messages, answers, apply, tasks, pd, lanes, moments, batches } = effects;
        for (lane, event) in lanes {
            self.shared.tell_lane(lane, event);
        }
        if !apply.is_empty() {
            self.outlets.apply.push(apply);
        }
        let moments: BTreeMap<_, _> = moments.into_iter().collect();
        for (reply, response) in answers {
            self.shared.answer(reply, response, moments.get(&reply));
        }
        for (reply, part) in batches {
            self.shared.answer_part(reply, part, moments.get(&reply));
        }
        if !messages.is_empty() {
            self.send(messages);
        }
        for task in tasks {
            // Workers end after the lanes, unless the store has failed.
            match task {
                Task::SyncKv => drop(self.outlets.sync.send(SyncWanted)),
                Task::CheckSplit { .. } => drop(self.outlets.check.send(task)),
                Task::Compact { .. } => drop(self.outlets.compact.send(task)),
                Task::Install { .. }
                | Task::CancelInstall { .. }
                | Task::DeleteRange { .. }
                | Task::CollectSnapshots { .. }
                | Task::DeleteSnapshot { .. } => drop(self.outlets.region.send(task)),
            }
        }
        for request in pd {
            drop(self.outlets.pd.send(request));
        }
    }

    fn send(&self, messages: Vec<RaftMessage>) {
        let mut refused = Vec::new();
        {
            let mut transport = self.outlets.transport.lock();
            for message in messages {
                let (region, to) = (message.region(), message.to_peer());
                let is_snapshot = message.kind() == Some(MessageKind::Snapshot);
                match transport.send(message) {
                    Ok(()) => self.shared.counters.sent_messages.add(1),
                    Err(error) => {
                        tracing::debug!(?region, ?to, %error, "message not sent");
                        refused.push((region, to, is_snapshot));
                    }
                }
            }
            transport.flush();
        }
        self.shared.counters.unsent_messages.add(refused.len() as u64);
        for (region, to, is_snapshot) in refused {
            let (Some(region), Some(to)) = (region, to) else { continue };
            // Every snapshot is reported on, also one that never left (R39).
            let event = if is_snapshot {
                Event::SnapshotStatus { region, to: to.id, status: SnapshotStatus::Failed }
            } else {
                Event::Unreachable { region, to: to.id }
            };
            self.shared.tell(region, event);
        }
    }
}
