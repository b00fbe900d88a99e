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
