//! A lane's turn: take in what waits, ask what to do, do it.

use crate::engine::{SimKv, SimLog};
use raftstore_core::{Effects, Event, FatalError, PdAnswer, Ready, Task};

use raftstore_proto::RegionId;

use super::{
    NodeStep, Step, World,
    node::{CutPoint, Input, Running},
};
use crate::{disk::Crash, plan::TICK, queue::MICRO};

/// What a turn brought, in order.
#[derive(Default)]
struct TurnOutput {
    late: Vec<Effects>,
    rounds: Vec<Ready<SimKv, SimLog>>,
    ticked: bool,
    proofs: usize,
    /// Regions that the events were about.
    touched: Vec<RegionId>,
    /// Events were about more than single regions.
    touched_all: bool,
}

impl World {
    /// Puts something into a lane's inbox and sees to it that it gets a turn.
    pub(super) fn push(&mut self, store: u64, lane: usize, input: Input) {
        let mean = self.plan.pace.turn;
        let delay = 5 * MICRO + self.pace_rng.exponential(mean);
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        let lane_state = &mut running.lanes[lane];
        lane_state.inbox.push_back(input);
        if !lane_state.turn_scheduled {
            lane_state.turn_scheduled = true;
            self.node_after(delay, store, NodeStep::Turn(lane));
        }
    }

    /// Puts an event into the inbox of the lane it is for; some are for all of them.
    pub(crate) fn event_arrives(&mut self, store: u64, event: Event) {
        let Some(running) = self.nodes[&store].running.as_ref() else { return };
        let lane = running.lane_of(region_of(&event));
        self.push(store, lane, Input::Event(event));
    }

    pub(super) fn turn(&mut self, store: u64, lane: usize) {
        let Some(node) = self.nodes.get_mut(&store) else { return };
        let now = node.clock(self.now);
        let Some(running) = node.running.as_mut() else { return };
        running.lanes[lane].turn_scheduled = false;
        let most = self.plan.config.messages_per_tick;
        let outcome = take_turn(running, lane, most, now);
        if !running.lanes[lane].inbox.is_empty() {
            running.lanes[lane].turn_scheduled = true;
            self.node_after(20 * MICRO, store, NodeStep::Turn(lane));
        }
        let output = match outcome {
            Ok(output) => output,
            Err(error) => return self.fatal(store, &error),
        };
        if output.ticked {
            // Counted from when the tick was taken in: a late tick is never followed by
            // early ones, or followers would lose patience too soon.
            let span = self.nodes[&store].span(TICK);
            self.node_after(span, store, NodeStep::Tick(lane));
        }
        let touched = (!output.touched_all && output.proofs == 0).then_some(output.touched);
        self.watch_lane(store, lane, touched.as_deref());
        let life = self.nodes[&store].life;
        let proofs = output.proofs > 0;
        for effects in output.late {
            if !self.effects_with_cuts(
                store,
                life,
                effects,
                proofs.then_some((CutPoint::BeforeLateEffects, CutPoint::AmongLateEffects)),
            ) {
                return;
            }
        }
        for ready in output.rounds {
            let cuts = Some((CutPoint::BeforeEarlyEffects, CutPoint::AmongEarlyEffects));
            if !self.effects_with_cuts(store, life, ready.early, cuts) {
                return;
            }
            if let Some(writes) = ready.writes {
                self.queue_round(store, writes);
            }
        }
    }

    /// Performs effects, unless the store is to die before or among them. Gives whether it
    /// lives.
    fn effects_with_cuts(
        &mut self,
        store: u64,
        life: u64,
        mut effects: Effects,
        cuts: Option<(CutPoint, CutPoint)>,
    ) -> bool {
        if let Some((before, among)) = cuts
            && let Some(node) = self.nodes.get_mut(&store)
        {
            if let Some(crash) = node.cut_at(before) {
                self.crash_at(store, crash, before);
                return false;
            }
            if !effects.messages.is_empty()
                && let Some(crash) = node.cut_at(among)
            {
                let some = self.fault_rng.index(effects.messages.len());
                effects.messages.truncate(some);
                effects.answers.truncate(self.fault_rng.index(effects.answers.len() + 1));
                effects.apply.clear();
                effects.tasks.clear();
                effects.pd.clear();
                effects.lanes.clear();
                self.perform(store, effects);
                self.crash_at(store, crash, among);
                return false;
            }
        }
        self.perform(store, effects);
        self.nodes[&store].life == life && self.nodes[&store].is_up()
    }

    /// Carries effects out.
    pub(super) fn perform(&mut self, store: u64, effects: Effects) {
        let life = self.nodes[&store].life;
        for message in effects.messages {
            self.send(store, message);
        }
        for (reply, moment) in effects.moments {
            self.keep_moment(reply.0, moment);
        }
        for (reply, response) in effects.answers {
            self.answer(store, life, reply.0, response);
        }
        for (reply, answers) in effects.batches {
            self.answer_batch(store, life, reply.0, answers);
        }
        for task in effects.apply {
            self.queue_apply(store, task);
        }
        for (lane, event) in effects.lanes {
            self.push(store, usize::from(lane.0), Input::Event(event));
        }
        for task in effects.tasks {
            self.start_task(store, task);
        }
        for request in effects.pd {
            let mean = self.plan.pd_weather.mean_delay;
            let delay = 200 * MICRO + self.pace_rng.exponential(mean);
            self.after(delay, Step::Pd { store, life, request: Box::new(request) });
        }
    }

    fn start_task(&mut self, store: u64, task: Task) {
        let region = match &task {
            Task::Install { region, .. } => region.id.get(),
            Task::CancelInstall { region, .. } => region.get(),
            Task::CheckSplit { region, .. } => region.id.get(),
            Task::SyncKv
            | Task::DeleteRange { .. }
            | Task::DeleteSnapshot { .. }
            | Task::Compact { .. }
            | Task::CollectSnapshots { .. } => 0,
        };
        self.transcript.event(self.now, store, region, format_args!("task {}", task_name(&task)));
        match task {
            Task::SyncKv => self.want_sync(store),
            Task::DeleteSnapshot { direction, key } => {
                use transport_traits::SnapStore as _;
                // Failing to remove a file is no reason to do anything but leave it.
                let _ = self.nodes[&store].disk.snaps.delete(direction, key);
            }
            Task::CheckSplit { .. } => self.queue_check(store, task),
            // The engine in memory has nothing to give back.
            Task::Compact { cf, range } => {
                if let Some(node) = self.nodes.get_mut(&store) {
                    node.compactions.push((cf, range));
                }
            }
            Task::Install { .. }
            | Task::CancelInstall { .. }
            | Task::DeleteRange { .. }
            | Task::CollectSnapshots { .. } => {
                self.queue_region_task(store, task);
            }
        }
    }

    /// A store said that it must stop.
    pub(super) fn fatal(&mut self, store: u64, error: &FatalError) {
        let excused = self.nodes[&store].disk_fault_armed;
        let chain = error_chain(error);
        self.transcript.event(self.now, store, 0, format_args!("stops: {chain}"));
        if excused {
            self.counters.hit(crate::counters::Sometimes::DiskFailures);
            self.crash_store(store, Crash::Kill);
            self.restart_later(store);
        } else {
            self.fail(crate::invariants::Violation::new(
                "no store stops without a failing disk",
                format!("store {store}: {chain}"),
            ));
        }
    }
}

/// The one region an event is about, if it is about one.
fn region_of(event: &Event) -> Option<RegionId> {
    match event {
        Event::Message { message, .. } => message.region(),
        Event::Command { command, .. } => Some(command.header.region),
        Event::Unreachable { region, .. } | Event::SnapshotStatus { region, .. } => Some(*region),
        Event::TaskDone(done) => Some(done.region()),
        Event::Pd(PdAnswer::Order(order)) => Some(order.region),
        Event::Pd(PdAnswer::SplitIds { region, .. }) | Event::SplitRegion { region, .. } => {
            Some(*region)
        }
        Event::SplitBorn(born) => Some(born.region.id),
        Event::Pd(PdAnswer::Validated { region, .. }) => Some(*region),
        // A batch is of regions of one lane, and touches none of them.
        Event::BatchSnapshot { commands, .. } => {
            commands.first().map(|command| command.header.region)
        }
        Event::Applied(_)
        | Event::Tick
        | Event::KvDurable(_)
        | Event::DiskUsage(_)
        | Event::Stop => None,
    }
}

fn take_turn(
    running: &mut Running,
    lane: usize,
    most: usize,
    now: raftstore_core::MonoTime,
) -> Result<TurnOutput, FatalError> {
    let mut output = TurnOutput::default();
    let lane = &mut running.lanes[lane];
    let take = lane.inbox.len().min(most);
    for input in lane.inbox.drain(..take) {
        match input {
            Input::Event(event) => {
                output.ticked |= matches!(event, Event::Tick);
                match region_of(&event) {
                    Some(region) if output.touched.contains(&region) => {}
                    Some(region) => output.touched.push(region),
                    None => output.touched_all = true,
                }
                lane.store.handle(now, event)?;
            }
            Input::Proof(proof) => {
                output.proofs += 1;
                let effects = lane.store.on_persisted(now, proof)?;
                if !effects.is_empty() {
                    output.late.push(effects);
                }
            }
        }
    }
    while let Some(ready) = lane.store.ready()? {
        output.rounds.push(ready);
    }
    Ok(output)
}

const fn task_name(task: &Task) -> &'static str {
    match task {
        Task::SyncKv => "sync",
        Task::Install { .. } => "install",
        Task::CancelInstall { .. } => "cancel install",
        Task::DeleteRange { .. } => "delete range",
        Task::DeleteSnapshot { .. } => "delete snapshot",
        Task::CheckSplit { .. } => "split check",
        Task::Compact { .. } => "compact",
        Task::CollectSnapshots { .. } => "collect snapshots",
    }
}

/// An error with all its causes.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
