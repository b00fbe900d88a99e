//! The plans under which each planted bug shows itself soon.

use std::sync::Arc;

use raftstore_core::Bug;

use super::{Clocks, Plan};
use crate::{
    queue::{MILLI, SECOND},
    rng::Rng,
};

impl Plan {
    /// The run of `seed` with `bug` planted. Where the usual mix of faults would need very
    /// many seeds, the faults that the bug is about are made likely.
    #[must_use]
    pub fn for_bug(seed: u64, bug: Bug) -> Self {
        let mut plan = Self { bug: Some(bug), ..Self::draw(seed) };
        let mut rng = Rng::fork(seed, "bug");
        plan.losing_power(bug, &mut rng);
        plan.doubting_leaders(bug, &mut rng);
        plan.changing_members(bug, &mut rng);
        plan.cutting_regions(bug, &mut rng);
        plan
    }

    /// Bugs of what is durable: stores crash and lose power.
    fn losing_power(&mut self, bug: Bug, rng: &mut Rng) {
        let rates = &mut self.faults;
        match bug {
            Bug::SkipLogSync | Bug::AckBeforePersist | Bug::VoteForgotten => {
                rates.crash = Some(rng.between(1, 4) * SECOND);
                rates.power_loss = 800;
                rates.blackout = Some(6 * SECOND);
            }
            Bug::ApplyStateOutsideBatch
            | Bug::LogRemovedEarly
            | Bug::CommitNotRepaired
            | Bug::InstallNotRedone => {
                rates.crash = Some(rng.between(1, 3) * SECOND);
                rates.power_loss = 800;
                rates.at_step = 500;
            }
            Bug::ProofsAsTheyCome => {
                self.pace.write = *rng.pick(&[100 * MILLI, 500 * MILLI]);
                rates.transfer = Some(rng.between(300, 1_500) * MILLI);
                rates.partition = Some(rng.between(2, 5) * SECOND);
            }
            Bug::EntriesUnchecked => self.weather.entry_damage = 20,
            _ => {}
        }
    }

    /// Bugs of leases, votes and reads: leaders are cut off, and clocks are exact.
    fn doubting_leaders(&mut self, bug: Bug, rng: &mut Rng) {
        let rates = &mut self.faults;
        match bug {
            Bug::LeaseTooLong
            | Bug::LeaseUnchecked
            | Bug::QuorumUnasked
            | Bug::LeaseFromConfirmation
            | Bug::ReadIndexJoined => {
                rates.partition = Some(rng.between(2, 5) * SECOND);
                rates.one_way = Some(rng.between(1, 5) * SECOND);
                self.weather.late = *rng.pick(&[0, 50]);
                self.clocks = Clocks::PERFECT;
            }
            Bug::VoteRightAfterStart => {
                // A member restarts fast, while another one has not heard of the leader for
                // long: it is the third that makes the leader's lease.
                self.stores = 3;
                self.regions = 8;
                rates.partition = None;
                rates.one_way = Some(rng.between(300, 800) * MILLI);
                rates.crash = Some(rng.between(100, 300) * MILLI);
                rates.power_loss = 0;
                rates.at_step = 0;
                self.restart_after = 30 * MILLI;
                self.load.reads_per_second = 40;
                self.load.keys = 2;
                self.clocks = Clocks::PERFECT;
            }
            Bug::LeaseOverTransfer => {
                rates.transfer = Some(rng.between(200, 1_000) * MILLI);
                rates.one_way = Some(rng.between(1, 5) * SECOND);
                self.weather.late = 20;
                self.clocks = Clocks::PERFECT;
            }
            _ => {}
        }
    }

    /// Bugs of membership, destruction and region snapshots: members come and go.
    fn changing_members(&mut self, bug: Bug, rng: &mut Rng) {
        let rates = &mut self.faults;
        match bug {
            Bug::GcWithoutPeerId => {
                rates.churn = Some(rng.between(200, 500) * MILLI);
                rates.one_way = Some(rng.between(1, 4) * SECOND);
                self.regions = 2;
                self.weather.duplicate = 300;
                self.weather.late = 100;
            }
            Bug::DestroyOutOfOrder => {
                rates.churn = Some(rng.between(200, 800) * MILLI);
                rates.crash = Some(rng.between(300, 1_000) * MILLI);
                rates.power_loss = 1_000;
                rates.at_step = 300;
                self.pace.kv_sync = 300 * MILLI;
            }
            Bug::ConfChangeTwice => {
                // Replicas that apply slowly are sent snapshots of what they have yet to do.
                rates.churn = Some(rng.between(200, 600) * MILLI);
                rates.one_way = Some(rng.between(1, 3) * SECOND);
                self.regions = 4;
                self.pace.apply = *rng.pick(&[300 * MILLI, SECOND, 3 * SECOND]);
                self.weather.mean_snapshot_delay = 5 * MILLI;
                self.weather.snapshot_loss = 0;
                let config = Arc::make_mut(&mut self.config);
                config.raft_log_gc_threshold = 1;
                config.raft_log_gc_count_limit = 20;
            }
            Bug::JointSkipped
            | Bug::JointHalfForgotten
            | Bug::JointNeverLeft
            | Bug::LeadsWithoutVote => {
                rates.churn = Some(rng.between(300, 1_000) * MILLI);
                rates.crash = Some(rng.between(1, 3) * SECOND);
                rates.partition = Some(rng.between(2, 4) * SECOND);
                self.pace.apply = *rng.pick(&[MILLI, 30 * MILLI]);
            }
            Bug::TombstoneIgnored
            | Bug::TombstoneMissing
            | Bug::DestroyKeepsData
            | Bug::InstallOverOldData
            | Bug::InstallBeforeDeletion
            | Bug::SnapshotAckedEarly
            | Bug::SnapshotBeforeFlush
            | Bug::EarlyVoteForgotten
            | Bug::ReadersForgotten => {
                rates.churn = Some(rng.between(500, 2_000) * MILLI);
                self.weather.late = 20;
                self.weather.duplicate = 20;
            }
            Bug::LearnersCount => {
                rates.churn = Some(rng.between(500, 2_000) * MILLI);
                rates.crash = Some(rng.between(1, 3) * SECOND);
            }
            _ => {}
        }
    }

    /// Bugs of splits: regions are cut while members change, stores crash or apply slowly.
    fn cutting_regions(&mut self, bug: Bug, rng: &mut Rng) {
        let rates = &mut self.faults;
        match bug {
            Bug::SplitIgnoresRecords | Bug::SkippedPartRegistered | Bug::LeftoversKept => {
                // A member that comes while the region is cut is sent what was before; until
                // that arrives, the part cut off may come to its store, and go again.
                self.stores = 4;
                self.regions = 2;
                rates.split = Some(rng.between(300, 1_000) * MILLI);
                rates.churn = Some(rng.between(100, 400) * MILLI);
                self.weather.mean_snapshot_delay = *rng.pick(&[SECOND, 3 * SECOND]);
                self.weather.snapshot_loss = 0;
            }
            Bug::SplitForgetsVote
            | Bug::SplitIgnoresConfVer
            | Bug::SnapshotOverLiveRegion
            | Bug::SnapshotLeavesRest => {
                // Replicas that come late to the split of a region whose members change.
                rates.split = Some(rng.between(500, 2_000) * MILLI);
                rates.churn = Some(rng.between(300, 1_500) * MILLI);
                rates.one_way = Some(rng.between(1, 4) * SECOND);
                self.pace.apply = *rng.pick(&[MILLI, 300 * MILLI, SECOND]);
            }
            Bug::SplitBornAtOnce | Bug::SplitAskForgotten => {
                rates.split = Some(rng.between(500, 1_500) * MILLI);
                rates.crash = Some(rng.between(1, 3) * SECOND);
                rates.power_loss = 900;
                rates.pd_absence = Some(4 * SECOND);
            }
            Bug::LeaseOverSplit | Bug::ReadsAcrossSplit | Bug::ApplyIgnoresEpoch => {
                rates.split = Some(rng.between(300, 1_000) * MILLI);
                self.pace.apply = *rng.pick(&[30 * MILLI, 300 * MILLI, SECOND]);
                self.clocks = Clocks::PERFECT;
            }
            _ => {}
        }
    }
}
