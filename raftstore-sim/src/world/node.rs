//! One simulated store: what its process holds while it runs, and what is left when it
//! does not.

use crate::engine::{SimKv, SimLog, SimSnapshot};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use raftstore_core::{
    Event, LaneId, MonoTime, Persisted, Store, StoreMeta, Writes,
    apply::{ApplyTask, ApplyWorker, SnapBuild},
    consistency::HashWorker,
    observe::Observers,
    read::LocalReader,
    snap::RegionWorker,
    split_check::CheckWorker,
};
use raftstore_proto::{Cf, RegionId};

use super::{NodeStep, stages::Stage};
use crate::{
    disk::{Crash, Disk},
    invariants::Chronicle,
    planted::Planted,
    queue::Nanos,
};

/// Something for a lane's next turn.
#[derive(Debug)]
pub(super) enum Input {
    Event(Event),
    Proof(Persisted),
}

/// One lane of a running store.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) store: Store<SimKv, SimLog, Planted>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) turn_scheduled: bool,
    /// The peers when last looked at, by region. `None` before the first look.
    pub(super) seen: Option<Vec<SeenPeer>>,
}

/// What is remembered of a peer between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenPeer {
    pub(super) region: u64,
    pub(super) peer: u64,
    /// Where its log was cut.
    pub(super) truncated: u64,
}

/// One apply worker of a running store.
#[derive(Debug)]
pub(super) struct ApplySlot {
    pub(super) worker: ApplyWorker<SimKv, Planted>,
    pub(super) queue: VecDeque<ApplyTask>,
    pub(super) busy: bool,
}

/// Everything that dies with the process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) meta: Arc<StoreMeta>,
    pub(crate) reader: LocalReader<SimKv>,
    pub(super) lanes: Vec<Lane>,
    pub(super) waiting_rounds: VecDeque<Writes<SimKv, SimLog>>,
    pub(super) writer_busy: bool,
    pub(super) apply: Vec<ApplySlot>,
    pub(super) region_worker: RegionWorker<SimKv, Planted>,
    pub(super) region_busy: bool,
    pub(super) check_worker: CheckWorker<SimKv>,
    pub(super) check_busy: bool,
    pub(super) builds: VecDeque<SnapBuild<SimSnapshot>>,
    pub(super) build_busy: bool,
    pub(super) hash_worker: HashWorker<SimSnapshot>,
    pub(super) hash_busy: bool,
    pub(super) sync_wanted: bool,
    pub(super) sync_busy: bool,
}

/// A chosen moment in a store's work at which it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutPoint {
    /// A round is ready; none of its early effects has happened.
    BeforeEarlyEffects,
    /// Some of the early effects have happened.
    AmongEarlyEffects,
    /// Rounds are about to be written.
    BeforeWrite,
    /// The data part is written, the log part is not.
    BetweenKvAndLog,
    /// Some rounds of a group are written.
    InsideGroup,
    /// The write has returned, nobody knows yet.
    BeforeProof,
    /// The proof was taken in, none of the late effects has happened.
    BeforeLateEffects,
    /// Some of the late effects have happened.
    AmongLateEffects,
    /// Committed entries wait to be executed.
    BeforeApply,
    /// They are executed and written, nobody knows yet.
    BeforeApplyAnswers,
    /// A slice of a snapshot was installed, or a range was removed.
    AfterRegionSlice,
    /// The data engine was synced, nobody knows yet.
    BeforeKvDurable,
}

impl CutPoint {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::BeforeEarlyEffects,
        Self::AmongEarlyEffects,
        Self::BeforeWrite,
        Self::BetweenKvAndLog,
        Self::InsideGroup,
        Self::BeforeProof,
        Self::BeforeLateEffects,
        Self::AmongLateEffects,
        Self::BeforeApply,
        Self::BeforeApplyAnswers,
        Self::AfterRegionSlice,
        Self::BeforeKvDurable,
    ];
}

/// A family, and a range of data keys; `None` for all.
pub type Compaction = (Cf, Option<(Vec<u8>, Vec<u8>)>);

/// A store of the simulated cluster.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// Counts starts. Whatever was scheduled for an earlier life never happens.
    pub life: u64,
    /// What survives.
    pub disk: Disk,
    /// What it has wanted compacted, in all its lives.
    pub compactions: Vec<Compaction>,
    /// Given to each of its lives when it begins; the chronicle is among them.
    pub observers: Observers,
    /// Believes what observers are told.
    pub chronicle: Chronicle,
    pub(crate) running: Option<Running>,
    /// The next chosen moment at which it dies, and how.
    pub(crate) cut: Option<(CutPoint, Crash)>,
    /// Whether an engine failure was armed that excuses a fatal error.
    pub(crate) disk_fault_armed: bool,
    /// It is to stop in order; whether it comes back then.
    pub(super) stopping: Option<bool>,
    /// Parts of its work that stand still, and what waits there.
    pub(super) still: BTreeSet<Stage>,
    pub(super) waiting_steps: Vec<NodeStep>,
    /// Nothing moves before this moment.
    pub(crate) paused_until: Nanos,
    /// Deviation of its clock from the world's, in millionths.
    pub(crate) drift_ppm: i64,
    /// What its clock shows beyond the world's, drift apart.
    clock_offset: i128,
    /// Its clock never shows less.
    clock_floor: i128,
    /// Whether it shall be started again by itself after a crash.
    pub(crate) restarts: bool,
}

impl Node {
    pub(super) fn new(id: u64, drift_ppm: i64, clock_offset: Nanos) -> Self {
        let chronicle = Chronicle::default();
        Self {
            id,
            life: 0,
            disk: Disk::default(),
            compactions: Vec::new(),
            observers: Observers::default().with(0, Arc::new(chronicle.clone())),
            chronicle,
            running: None,
            cut: None,
            disk_fault_armed: false,
            stopping: None,
            still: BTreeSet::new(),
            waiting_steps: Vec::new(),
            paused_until: 0,
            drift_ppm,
            clock_offset: i128::from(clock_offset),
            clock_floor: 0,
            restarts: true,
        }
    }

    /// Whether its process runs.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it is to stop in order.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// What its clock shows at `now`.
    #[must_use]
    pub fn clock(&self, now: Nanos) -> MonoTime {
        let shown = self.local(now).max(self.clock_floor);
        MonoTime::from_nanos(u64::try_from(shown).unwrap_or(u64::MAX))
    }

    fn local(&self, now: Nanos) -> i128 {
        let skew = i128::from(now) * i128::from(self.drift_ppm) / 1_000_000;
        i128::from(now) + self.clock_offset + skew
    }

    /// Its clock jumps. It is monotonic: a jump back makes it stand still for a while.
    pub(crate) fn jump(&mut self, now: Nanos, by: i64) {
        self.clock_floor = self.local(now).max(self.clock_floor);
        self.clock_offset += i128::from(by);
    }

    /// Its clock goes right from now on.
    pub(crate) fn steady(&mut self, now: Nanos) {
        self.clock_offset = self.local(now).max(self.clock_floor) - i128::from(now);
        self.drift_ppm = 0;
    }

    /// How long `span` of its own clock takes.
    pub(super) fn span(&self, span: Nanos) -> Nanos {
        let scaled = i128::from(span) * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        u64::try_from(scaled).unwrap_or(span)
    }

    /// Whether it dies here.
    pub(super) fn cut_at(&mut self, point: CutPoint) -> Option<Crash> {
        match self.cut {
            Some((chosen, crash)) if chosen == point => {
                self.cut = None;
                Some(crash)
            }
            _ => None,
        }
    }
}

impl Running {
    /// The lane of a region.
    pub(super) fn lane_of(&self, region: Option<RegionId>) -> usize {
        let lanes = u16::try_from(self.lanes.len()).expect("lanes are counted in 16 bits");
        region.map_or(0, |region| usize::from(LaneId::of(region, lanes).0))
    }

    /// The apply worker of a region.
    pub(super) fn slot_of(&self, region: RegionId) -> usize {
        usize::try_from(region.get() % self.apply.len() as u64).expect("below a length")
    }
}
