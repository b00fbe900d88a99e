//! What a store takes in and what it asks for: events, effects, tasks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use engine_traits::Snapshot;
use pd_client::{Order, RegionHeartbeat, RegionRoute, StoreStats};
use raftstore_proto::{
    Cf, Command, DiskUsage, Epoch, PeerId, RaftMessage, Region, RegionId, Response,
};
use transport_traits::{SnapDirection, SnapKey, SnapshotStatus};

use crate::{
    apply::{ApplyEvent, ApplyTask},
    hash::RegionHash,
    meta::LaneId,
};

/// A waiting caller. Answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

/// Whether the result of a piece of work is of no use any more. Clones speak of the same
/// work, wherever they are: whoever asked for it says so, whoever does it looks now and then.
#[derive(Clone, Debug, Default)]
pub struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Nobody wants the result any more.
    pub fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether nobody wants it any more.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A raft message came. If it carries a raft snapshot, `snapshot` names the bytes
    /// that are at rest here, with their size in bytes.
    Message {
        /// The message.
        message: Box<RaftMessage>,
        /// The region snapshot received with it.
        snapshot: Option<(SnapKey, u64)>,
    },
    /// A client or PD asks for something.
    Command {
        /// Who waits.
        reply: ReplyId,
        /// What is asked.
        command: Command,
    },
    /// Somebody wants a region cut at user keys, with ids that PD gives (5.8).
    SplitRegion {
        /// Who waits.
        reply: Option<ReplyId>,
        /// The region.
        region: RegionId,
        /// The region's epoch as the asker knows it; the version must be right.
        epoch: Epoch,
        /// Where to cut: ascending, inside the region.
        keys: Vec<Bytes>,
    },
    /// A split on another lane has put a region of this one on disk.
    SplitBorn(Box<SplitBorn>),
    /// One base tick has passed.
    Tick,
    /// Messages of `region` to `to` do not get through.
    Unreachable {
        /// The region.
        region: RegionId,
        /// The peer.
        to: PeerId,
    },
    /// The transfer of a snapshot has ended.
    SnapshotStatus {
        /// The region.
        region: RegionId,
        /// The receiving peer.
        to: PeerId,
        /// How it ended.
        status: SnapshotStatus,
    },
    /// Results of the apply pool.
    Applied(Vec<ApplyEvent>),
    /// Every KV write up to this number is durable.
    KvDurable(u64),
    /// A task has ended.
    TaskDone(TaskDone),
    /// PD answers or orders.
    Pd(PdAnswer),
    /// Stop: answer everybody, take nothing more.
    Stop,
    /// How full the store is from now on. A driver that says nothing has room.
    DiskUsage(DiskUsage),
    /// A client asks several regions of this lane for reads at once. Answered with one
    /// entry of [`Effects::batches`].
    BatchSnapshot {
        /// Who waits.
        reply: ReplyId,
        /// Reads only. Each is answered for itself.
        commands: Vec<Command>,
    },
}

/// What may happen now. Independent of each other; messages to one store keep their order.
#[derive(Debug, Default)]
pub struct Effects {
    /// To other stores.
    pub messages: Vec<RaftMessage>,
    /// To waiting callers.
    pub answers: Vec<(ReplyId, Response)>,
    /// To the apply pool, in this order per region.
    pub apply: Vec<ApplyTask>,
    /// To the workers, in this order.
    pub tasks: Vec<Task>,
    /// To PD.
    pub pd: Vec<PdRequest>,
    /// To other lanes of the store: never dropped, never blocking, in this order.
    pub lanes: Vec<(LaneId, Event)>,
    /// Engine snapshots that belong to answers given with these effects, for callers in
    /// this process. A caller that wants only the answer leaves them.
    pub moments: Vec<(ReplyId, Moment)>,
    /// To callers of [`Event::BatchSnapshot`]: one answer per command, in their order;
    /// `None` for what needs a quorum to be asked, which the caller does command by command.
    pub batches: Vec<(ReplyId, Vec<Option<Response>>)>,
}

/// The data engine at the moment at which an answer's reads were allowed. Together with the
/// region in the answer it is a [`RegionSnapshot`](crate::read::RegionSnapshot).
#[derive(Clone)]
pub struct Moment(pub Arc<dyn Snapshot>);

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment").finish_non_exhaustive()
    }
}

impl Effects {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.answers.is_empty()
            && self.apply.is_empty()
            && self.tasks.is_empty()
            && self.pd.is_empty()
            && self.lanes.is_empty()
            && self.moments.is_empty()
            && self.batches.is_empty()
    }

    /// Adds `other` behind what is here.
    pub fn append(&mut self, mut other: Self) {
        self.messages.append(&mut other.messages);
        self.answers.append(&mut other.answers);
        self.apply.append(&mut other.apply);
        self.tasks.append(&mut other.tasks);
        self.pd.append(&mut other.pd);
        self.lanes.append(&mut other.lanes);
        self.moments.append(&mut other.moments);
        self.batches.append(&mut other.batches);
    }
}

/// Work for a worker.
#[derive(Debug)]
pub enum Task {
    /// Make the KV engine durable: sample the write counter, sync, then report the sample
    /// with [`Event::KvDurable`] to every lane.
    SyncKv,
    /// Install a received snapshot (region worker). Ends in [`TaskDone::Installed`].
    Install {
        /// Range and members as of the snapshot.
        region: Region,
        /// The replica.
        peer: PeerId,
        /// Its incarnation number, to be given back.
        incarnation: u64,
        /// Which bytes.
        key: SnapKey,
    },
    /// Stop installing, as soon as a slice is finished (region worker). The install then
    /// ends as cancelled.
    CancelInstall {
        /// The region.
        region: RegionId,
        /// Which attempt.
        incarnation: u64,
    },
    /// Remove all user data of the encoded range `[start, end)` (region worker, in order
    /// with installs). Nobody owns the range any more.
    DeleteRange {
        /// First data key.
        start: Vec<u8>,
        /// End data key, exclusive.
        end: Vec<u8>,
        /// A split had left the range to nobody, where this region would have been. Ends
        /// in [`TaskDone::RangeDeleted`] then.
        left_by: Option<RegionId>,
    },
    /// Look where a region should be cut (split check). Ends in [`TaskDone::SplitChecked`].
    CheckSplit {
        /// Range and version.
        region: Region,
        /// The incarnation that asks, to be given back.
        incarnation: u64,
        /// What is wanted.
        goal: CheckGoal,
    },
    /// Give space of deleted keys back (compaction).
    Compact {
        /// The family.
        cf: Cf,
        /// Data keys `[start, end)`; `None` for all.
        range: Option<(Vec<u8>, Vec<u8>)>,
    },
    /// Remove region snapshots of this lane that nobody knows of (region worker). One that
    /// has just been finished may not be known yet: it takes two such tasks in a row.
    CollectSnapshots {
        /// The lane, and how many there are.
        lane: (LaneId, u16),
        /// Those in use.
        known: Vec<(SnapDirection, SnapKey)>,
    },
    /// Remove a region snapshot's bytes.
    DeleteSnapshot {
        /// Which kind.
        direction: SnapDirection,
        /// Which one.
        key: SnapKey,
    },
}

/// How a task ended.
#[derive(Debug)]
pub enum TaskDone {
    /// A region snapshot was built, or could not be.
    Built {
        /// The region.
        region: RegionId,
        /// The incarnation that asked.
        incarnation: u64,
        /// What raft shall send; `None` if it failed or was not wanted any more.
        built: Option<BuiltSnapshot>,
    },
    /// A snapshot was installed, or could not be.
    Installed {
        /// The region.
        region: RegionId,
        /// The incarnation it was for.
        incarnation: u64,
        /// How it went.
        outcome: InstallOutcome,
    },
    /// A region was looked at.
    SplitChecked {
        /// The region.
        region: RegionId,
        /// The incarnation that asked.
        incarnation: u64,
        /// The region's version then.
        version: u64,
        /// What was wanted.
        goal: CheckGoal,
        /// Rough bytes of keys and values.
        size_bytes: u64,
        /// Where to cut; empty for not at all.
        keys: Vec<Bytes>,
    },
    /// The data of a range that a split had left to nobody is gone.
    RangeDeleted {
        /// The region that would have been there.
        region: RegionId,
    },
    /// A region was hashed, or could not be. Comes once for every
    /// [`ExecResult::ComputeHash`](crate::apply::ExecResult).
    Hashed {
        /// The region.
        region: RegionId,
        /// The incarnation that asked.
        incarnation: u64,
        /// Index of the entry that asked.
        index: u64,
        /// What was found; `None` if it could not be read.
        hash: Option<RegionHash>,
    },
}

impl TaskDone {
    /// The region whose lane is to be told.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        match self {
            Self::Built { region, .. }
            | Self::Installed { region, .. }
            | Self::SplitChecked { region, .. }
            | Self::RangeDeleted { region }
            | Self::Hashed { region, .. } => *region,
        }
    }
}

/// What a look at a region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckGoal {
    /// Cut it if the split policy wants that.
    Auto,
    /// Find its middle, by bytes.
    Half,
}

/// A region that a split has put on disk, to be built by its lane.
#[derive(Clone, Debug)]
pub struct SplitBorn {
    /// Range and members.
    pub region: Region,
    /// The parent leads here: the new peer campaigns at once.
    pub campaign: bool,
    /// Number of the KV write that holds its records. Nothing is written to its log before
    /// that write is durable.
    pub kv_number: u64,
}

/// A region snapshot that rests in the snapshot store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltSnapshot {
    /// Its name.
    pub key: SnapKey,
    /// Range and members as of its index.
    pub region: Region,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// How the installation of a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallOutcome {
    /// All data is in the engine and the region is recorded as normal; durable once the
    /// KV engine is durable up to this number.
    Done {
        /// Number of the write that recorded it.
        kv_number: u64,
    },
    /// Stopped on request.
    Cancelled,
    /// The snapshot's content is bad; the replica must go (H50).
    BadContent,
}

/// A question or report for PD.
#[derive(Debug)]
pub enum PdRequest {
    /// A leader's report.
    RegionHeartbeat(RegionHeartbeat),
    /// A lane's share of the store's report, to be put together by a
    /// [`StoreReport`](crate::StoreReport). The driver fills in what only it can know: disk
    /// sizes, start time, snapshot traffic.
    StoreHeartbeat {
        /// The lane.
        lane: LaneId,
        /// What it knows.
        stats: StoreStats,
    },
    /// Is this peer still a member? Ends in [`PdAnswer::Validated`].
    ValidatePeer {
        /// The region.
        region: RegionId,
        /// The local peer.
        peer: PeerId,
    },
    /// Ids for a split. Ends in [`PdAnswer::SplitIds`], always: somebody may wait.
    AskSplit {
        /// Number of the question, to be given back.
        ask: u64,
        /// The region as it is.
        region: Region,
        /// New regions wanted.
        count: usize,
    },
    /// A split is done: its regions in key order. Informational.
    ReportSplit(Vec<Region>),
}

/// What PD said.
#[derive(Clone, Debug)]
pub enum PdAnswer {
    /// It wants something done.
    Order(Order),
    /// What it knows of a region whose local peer misses its leader; `None` for nothing.
    Validated {
        /// The region.
        region: RegionId,
        /// The local peer the question was about.
        peer: PeerId,
        /// What PD knows.
        route: Option<RegionRoute>,
    },
    /// Ids for a split.
    SplitIds {
        /// The region to be split.
        region: RegionId,
        /// Number of the question.
        ask: u64,
        /// For each new region its id and those of its peers; `None` if PD gave none.
        ids: Option<Vec<(RegionId, Vec<PeerId>)>>,
    },
}
