//! Places where a test may make the code wrong on purpose.
//!
//! A simulator that finds nothing proves nothing until it has been shown to find what was
//! put there. Production code uses [`NoHooks`], whose answer is a constant.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Bug {
    /// Followers acknowledge before their write is durable.
    AckBeforePersist,
    /// Log writes are not synced.
    SkipLogSync,
    /// The apply state is written in a later batch than its data.
    ApplyStateOutsideBatch,
    /// The lease is three times too long.
    LeaseTooLong,
    /// Lease reads are served without asking the lease.
    LeaseUnchecked,
    /// A tombstone does not prevent the return of the removed peer.
    TombstoneIgnored,
    /// The vote is not written.
    VoteForgotten,
    /// Log entries are removed before the data that replaced them is durable.
    LogRemovedEarly,
    /// Queued reads are answered without waiting for the applied index.
    ReadBeforeApplied,
    /// Proposals are answered when they are proposed.
    AnswerBeforeCommit,
    /// An overwritten proposal is answered as if it had been applied.
    StaleAnsweredOk,
    /// A conf change is applied by raft without regard to the snapshot that contains it.
    ConfChangeTwice,
    /// The epoch is not checked when a command is executed.
    ApplyIgnoresEpoch,
    /// The range is not cleared before a snapshot is installed.
    InstallOverOldData,
    /// A restarted voter votes at once.
    VoteRightAfterStart,
    /// The commit index is not repaired from the applied index at start.
    CommitNotRepaired,
    /// A claim of removal is obeyed whatever peer it names.
    GcWithoutPeerId,
    /// Removal of the acknowledgement of a snapshot until it is installed.
    SnapshotAckedEarly,
    /// A destroyed peer's tombstone is not waited for before its log is removed.
    DestroyOutOfOrder,
    /// Restart does not redo an interrupted snapshot installation.
    InstallNotRedone,
    /// A joint configuration is entered and left with one and the same entry.
    JointSkipped,
    /// A peer that is built in a joint configuration knows of the new half only.
    JointHalfForgotten,
    /// Nobody ends a joint configuration unless told to.
    JointNeverLeft,
    /// A leader that has applied its own demotion leads on.
    LeadsWithoutVote,
    /// A split puts its regions on disk without looking for records of them (H12).
    SplitIgnoresRecords,
    /// Regions that a split does not put here take their ranges all the same (H14).
    SkippedPartRegistered,
    /// The data of regions that a split does not put here is kept.
    LeftoversKept,
    /// The lease lives on over a committed split (H36).
    LeaseOverSplit,
    /// A split-born peer writes before the records of its region are durable (D4).
    SplitBornAtOnce,
    /// A split-born peer forgets what the one it replaces has promised (H9).
    SplitForgetsVote,
    /// A split does not look at the membership its ids were given for (H25).
    SplitIgnoresConfVer,
    /// Reads that a split finds waiting are served from the range as it was.
    ReadsAcrossSplit,
    /// A snapshot is taken in although another region holds a part of its range (H18).
    SnapshotOverLiveRegion,
    /// What a snapshot does not cover of the region's former range is kept.
    SnapshotLeavesRest,
    /// The snapshot of the engine is taken before the batch is written (H46).
    SnapshotBeforeFlush,
    /// Installations overtake the deletion of ranges (H52).
    InstallBeforeDeletion,
    /// The data of a destroyed peer is kept.
    DestroyKeepsData,
    /// A destroyed peer leaves no tombstone.
    TombstoneMissing,
    /// Reads join a question that was asked before they came (H37).
    ReadIndexJoined,
    /// Reads that want a quorum asked are served without.
    QuorumUnasked,
    /// The lease outlives the order to hand over (H38).
    LeaseOverTransfer,
    /// The lease counts from the confirmation, not from what is confirmed.
    LeaseFromConfirmation,
    /// Callers of admin commands are answered before the store has done its part (H58).
    AdminAnsweredEarly,
    /// Reads that wait are forgotten when their peer goes (H28).
    ReadersForgotten,
    /// Whoever waits for split ids is forgotten when PD gives none (H28).
    SplitAskForgotten,
    /// Learners count as voters after a start.
    LearnersCount,
    /// The vote of a peer without data is not written (H9).
    EarlyVoteForgotten,
    /// The checksums of entries that arrive are not looked at (D21).
    EntriesUnchecked,
    /// Proofs count as they come, whatever replaced what they prove (R35).
    ProofsAsTheyCome,
}

/// A place in the core that a test may want to stop at, slow down or fail in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Point {
    /// The data part of a group of rounds is written, the log part is not.
    BetweenSave,
    /// A leader's messages are about to leave.
    BeforeLeaderSend,
    /// Another peer's messages are about to leave, after its write.
    BeforeFollowerSend,
    /// The installation of a region snapshot begins.
    BeforeApplySnapshot,
    /// A region snapshot is installed and its record is about to be written.
    AfterApplySnapshot,
    /// A split is about to be taken in by the store.
    BeforeSplit,
    /// A peer is about to be destroyed.
    BeforeDestroy,
}

/// Decides which planted bugs are on, and what happens at named points.
pub trait Hooks: Clone + Send + Sync + 'static {
    /// Whether `bug` is on.
    #[must_use]
    fn planted(&self, bug: Bug) -> bool;

    /// Execution has come to `point`. May block or panic, nothing else.
    #[inline]
    fn reach(&self, point: Point) {
        let _ = point;
    }
}

/// No bugs planted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    #[inline]
    fn planted(&self, _: Bug) -> bool {
        false
    }
}
