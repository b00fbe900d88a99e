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
/// Not among them: [`Bug::ApplyIgnoresEpoch`], which does harm only once ranges change,
/// and [`Bug::SnapshotAckedEarly`], which misleads PD and breaks no promise to a client. Nor yet
/// [`Bug::VoteRightAfterStart`], [`Bug::ConfChangeTwice`] and [`Bug::GcWithoutPeerId`]: the faults drawn
/// so far bring their harm about too rarely.
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
];

/// The bug of this name.
#[must_use]
pub fn bug_named(name: &str) -> Option<Bug> {
    BUGS.iter().find(|(_, known)| *known == name).map(|(bug, _)| *bug)
}
