//! Makes the core wrong on purpose, in one place at a time.

use raftstore_core::{Bug, Hooks};

/// Plants one bug, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted(pub Option<Bug>);

impl Hooks for Planted {
    #[inline]
    fn planted(&self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }
}

/// Every bug the simulator must find, with a name for the command line.
///
/// Not among them, since it is not yet shown how many seeds they take:
/// [`Bug::VoteRightAfterStart`], [`Bug::QuorumUnasked`], [`Bug::LeaseOverSplit`],
/// [`Bug::ReadsAcrossSplit`], [`Bug::SnapshotLeavesRest`], [`Bug::SnapshotBeforeFlush`],
/// [`Bug::ReadIndexJoined`], [`Bug::LeaseOverTransfer`], [`Bug::LeaseFromConfirmation`] and
/// [`Bug::EarlyVoteForgotten`].
pub const BUGS: &[(Bug, &str)] = &[
    (Bug::AckBeforePersist, "ack-before-persist"),
    (Bug::SkipLogSync, "skip-log-sync"),
    (Bug::ApplyStateOutsideBatch, "apply-state-outside-batch"),
    (Bug::LeaseTooLong, "lease-too-long"),
    (Bug::LeaseUnchecked, "lease-unchecked"),
    (Bug::TombstoneIgnored, "tombstone-ignored"),
    (Bug::VoteForgotten, "vote-forgotten"),
    (Bug::LogRemovedEarly, "log-removed-early"),
    (Bug::ReadBeforeApplied, "read-before-applied"),
    (Bug::AnswerBeforeCommit, "answer-before-commit"),
    (Bug::StaleAnsweredOk, "stale-answered-ok"),
    (Bug::InstallOverOldData, "install-over-old-data"),
    (Bug::CommitNotRepaired, "commit-not-repaired"),
    (Bug::DestroyOutOfOrder, "destroy-out-of-order"),
    (Bug::InstallNotRedone, "install-not-redone"),
    (Bug::JointSkipped, "joint-skipped"),
    (Bug::JointHalfForgotten, "joint-half-forgotten"),
    (Bug::JointNeverLeft, "joint-never-left"),
    (Bug::LeadsWithoutVote, "leads-without-vote"),
    (Bug::ApplyIgnoresEpoch, "apply-ignores-epoch"),
    (Bug::GcWithoutPeerId, "gc-without-peer-id"),
    (Bug::ConfChangeTwice, "conf-change-twice"),
    (Bug::SnapshotAckedEarly, "snapshot-acked-early"),
    (Bug::SplitIgnoresRecords, "split-ignores-records"),
    (Bug::SkippedPartRegistered, "skipped-part-registered"),
    (Bug::LeftoversKept, "leftovers-kept"),
    (Bug::SplitBornAtOnce, "split-born-at-once"),
    (Bug::SplitForgetsVote, "split-forgets-vote"),
    (Bug::SplitIgnoresConfVer, "split-ignores-conf-ver"),
    (Bug::SnapshotOverLiveRegion, "snapshot-over-live-region"),
    (Bug::InstallBeforeDeletion, "install-before-deletion"),
    (Bug::DestroyKeepsData, "destroy-keeps-data"),
    (Bug::TombstoneMissing, "tombstone-missing"),
    (Bug::AdminAnsweredEarly, "admin-answered-early"),
    (Bug::ReadersForgotten, "readers-forgotten"),
    (Bug::SplitAskForgotten, "split-ask-forgotten"),
    (Bug::LearnersCount, "learners-count"),
    (Bug::EntriesUnchecked, "entries-unchecked"),
    (Bug::ProofsAsTheyCome, "proofs-as-they-come"),
];

/// The bug of this name.
#[must_use]
pub fn bug_named(name: &str) -> Option<Bug> {
    BUGS.iter().find(|(_, known)| *known == name).map(|(bug, _)| *bug)
}
