//! The simulated world: stores, network, PD and clients under one clock and one seed.
//!
//! The driver of a store here is the same loop as under threads, cut into steps at seeded
//! moments: a lane's turn, a write of the writer, the arrival of its proof, a run of an
//! apply worker, the arrival of its results, a slice of the region worker, a sync. A store
//! can die at each border between two steps, and at chosen points inside them.

mod delivery;
mod harvest;
mod hashing;
mod lane;
mod lifecycle;
mod node;
mod reads;
mod stages;
mod status;
mod watch;
mod workers;
mod writer;

use crate::engine::SimKv;
use std::{collections::BTreeMap, fmt};

use self::node::Input;
pub use self::{
    node::{Compaction, CutPoint, Node},
    stages::Stage,
};
use crate::{
    client::Clients,
    counters::Counters,
    faults::FaultStep,
    invariants::{
        ElectionSafety, Epochs, Ledger, Members, Monotonic, Silence, StateMachine, Violation, Votes,
    },
    network::{Envelope, Network},
    oracle::{Answers, History},
    pd::Pd,
    plan::Plan,
    queue::{Nanos, Queue},
    rng::Rng,
    splits::Again,
    transcript::Transcript,
};
use raftstore_core::{Event, Moment, Persisted, apply::ApplyOutcome};
use raftstore_proto::Response;

/// A step of one life of one store.
#[derive(Debug)]
pub(crate) enum NodeStep {
    /// A base tick is due in a lane.
    Tick(usize),
    /// A lane takes what waits for it.
    Turn(usize),
    /// The writer writes what waits for it.
    Write,
    /// The writer reports.
    Proofs(Vec<Persisted>),
    /// An apply worker takes what waits for it.
    Apply(usize),
    /// An apply worker reports.
    Applied(usize, ApplyOutcome<SimKv>),
    /// The region worker does a slice.
    Region,
    /// The region worker reports.
    RegionDone(Vec<raftstore_core::TaskDone>),
    /// A region snapshot is built.
    Build,
    /// The split check does a slice.
    Check,
    /// The hash worker does a slice.
    Hash,
    /// The data engine is synced; the number is what had been written when it began.
    SyncKv(u64),
    /// The sync is reported.
    KvDurable(u64),
    /// Something comes for the lane of its region.
    Event(Event),
}

/// Something that happens in the world.
pub(crate) enum Step {
    /// In one life of one store.
    Node { store: u64, life: u64, step: NodeStep },
    /// A message arrives.
    Arrive(Box<Envelope>),
    /// A region snapshot arrives, or fails to.
    SnapshotArrives(Box<delivery::Transfer>),
    /// A report reaches PD.
    Pd { store: u64, life: u64, request: Box<raftstore_core::PdRequest> },
    /// A client of a table wakes up.
    Client { table: u64 },
    /// A client waits no longer.
    Timeout { call: u64 },
    /// A client tries again.
    Retry { call: u64 },
    /// A region is asked once more to be cut.
    Split(Box<Again>),
    /// Something breaks, or is mended.
    Fault(FaultStep),
    /// A store is started.
    Start { store: u64 },
}

/// A world.
pub struct World {
    /// The present.
    pub now: Nanos,
    /// What it was made from.
    pub plan: Plan,
    /// The stores, by number.
    pub nodes: BTreeMap<u64, Node>,
    /// The network between them.
    pub network: Network,
    /// PD.
    pub pd: Pd,
    /// What happened.
    pub transcript: Transcript,
    /// How often rare things happened.
    pub counters: Counters,
    /// What clients saw.
    pub history: History,
    /// Who waits for an answer.
    pub answers: Answers,
    /// Answers to questions put by hand, by reply id.
    pub(crate) direct: BTreeMap<u64, Option<Response>>,
    /// Answers to batches put by hand, by reply id.
    pub(crate) batches: BTreeMap<u64, Option<Vec<Option<Response>>>>,
    /// Engine snapshots that came with answers to questions put by hand.
    pub(crate) moments: BTreeMap<u64, Moment>,
    /// The clients.
    pub(crate) clients: Clients,
    pub(crate) queue: Queue<Step>,
    /// Durations of steps.
    pub(crate) pace_rng: Rng,
    /// Kinds and moments of faults.
    pub(crate) fault_rng: Rng,
    pub(crate) checks: Checks,
    pub(crate) violation: Option<(Nanos, Violation)>,
    /// Whether faults may still begin.
    pub(crate) faults_on: bool,
    pub(crate) steps: u64,
}

/// The invariants that remember something.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) elections: ElectionSafety,
    pub(crate) ledger: Ledger,
    pub(crate) members: Members,
    pub(crate) monotonic: Monotonic,
    pub(crate) epochs: Epochs,
    pub(crate) silence: Silence,
    pub(crate) state_machine: StateMachine,
    pub(crate) votes: Votes,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("seed", &self.plan.seed)
            .field("violation", &self.violation)
            .finish_non_exhaustive()
    }
}

impl World {
    /// A world with the stores of `plan`, all of them down and empty.
    #[must_use]
    pub fn new(plan: Plan, transcript: Transcript) -> Self {
        let seed = plan.seed;
        let mut rng = Rng::fork(seed, "clocks");
        let nodes = (1..=plan.stores)
            .map(|id| {
                let most = plan.clocks.drift_ppm;
                let drift = i64::try_from(rng.below(most * 2 + 1)).unwrap_or(0)
                    - i64::try_from(most).unwrap_or(0);
                (id, Node::new(id, drift, rng.below(1 << 40)))
            })
            .collect();
        Self {
            now: 0,
            nodes,
            network: Network::new(seed, plan.weather),
            pd: Pd::new(&plan),
            transcript,
            counters: Counters::default(),
            history: History::default(),
            answers: Answers::default(),
            direct: BTreeMap::new(),
            batches: BTreeMap::new(),
            moments: BTreeMap::new(),
            clients: Clients::new(&plan),
            queue: Queue::default(),
            pace_rng: Rng::fork(seed, "pace"),
            fault_rng: Rng::fork(seed, "faults"),
            checks: Checks::default(),
            violation: None,
            faults_on: false,
            steps: 0,
            plan,
        }
    }

    /// The first violation and when it was seen.
    #[must_use]
    pub const fn violation(&self) -> Option<&(Nanos, Violation)> {
        self.violation.as_ref()
    }

    /// How many steps were taken.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        self.transcript.event(self.now, 0, 0, format_args!("VIOLATION {violation}"));
        if self.violation.is_none() {
            self.violation = Some((self.now, violation));
        }
    }

    /// Takes note of a violation, if there is one.
    pub(crate) fn require(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked {
            self.fail(violation);
        }
    }

    /// Lets time pass until `until`, or until something is violated.
    pub fn run_until(&mut self, until: Nanos) {
        while self.violation.is_none() && self.queue.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Takes the next step. Gives whether there was one.
    pub fn step(&mut self) -> bool {
        let Some((at, step)) = self.queue.pop() else { return false };
        self.now = at.max(self.now);
        self.steps += 1;
        match step {
            Step::Node { store, life, step } => self.node_step(store, life, step),
            Step::Arrive(envelope) => self.arrive(*envelope),
            Step::SnapshotArrives(transfer) => self.snapshot_arrives(*transfer),
            Step::Pd { store, life, request } => self.pd_step(store, life, *request),
            Step::Client { table } => self.client_wakes(table),
            Step::Timeout { call } => self.client_timeout(call),
            Step::Retry { call } => self.client_retry(call),
            Step::Split(wish) => self.utter(*wish),
            Step::Fault(fault) => self.fault_step(fault),
            Step::Start { store } => self.start_store(store),
        }
        true
    }

    pub(crate) fn after(&mut self, delay: Nanos, step: Step) {
        self.queue.schedule(self.now + delay, step);
    }

    pub(crate) fn node_after(&mut self, delay: Nanos, store: u64, step: NodeStep) {
        let life = self.nodes[&store].life;
        self.after(delay, Step::Node { store, life, step });
    }

    fn node_step(&mut self, store: u64, life: u64, step: NodeStep) {
        let Some(node) = self.nodes.get(&store) else { return };
        if node.life != life || node.running.is_none() {
            return;
        }
        if node.paused_until > self.now {
            let until = node.paused_until;
            self.queue.schedule(until, Step::Node { store, life, step });
            return;
        }
        let Some(step) = self.keep_back(store, step) else { return };
        match step {
            NodeStep::Tick(lane) => self.push(store, lane, Input::Event(Event::Tick)),
            NodeStep::Turn(lane) => self.turn(store, lane),
            NodeStep::Write => self.write(store),
            NodeStep::Proofs(proofs) => self.deliver_proofs(store, proofs),
            NodeStep::Apply(slot) => self.apply(store, slot),
            NodeStep::Applied(slot, outcome) => self.deliver_applied(store, slot, outcome),
            NodeStep::Region => self.region_slice(store),
            NodeStep::RegionDone(done) => self.region_done(store, done),
            NodeStep::Build => self.build(store),
            NodeStep::Check => self.check_slice(store),
            NodeStep::Hash => self.hash_slice(store),
            NodeStep::SyncKv(sample) => self.sync_kv(store, sample),
            NodeStep::KvDurable(number) => self.kv_durable(store, number),
            NodeStep::Event(event) => self.event_arrives(store, event),
        }
    }
}
