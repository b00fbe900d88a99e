//! Which regions each duty has to look at.
//!
//! What makes a region worth a look is noted when it happens, so that a duty costs as much
//! as there is to do, not as much as there are regions. Two kinds of sets: `led`,
//! `uninitialized`, `taking_in` and `quarantined` are exact, for the reports to PD count by
//! them; the others may hold too much, never too little, and whoever looks takes out what
//! needs it no more.

use std::collections::BTreeSet;

use raftstore_proto::RegionId;

use crate::MonoTime;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    /// Regions led here.
    pub(crate) led: BTreeSet<RegionId>,
    /// Peers without data that do not know their region yet.
    pub(crate) uninitialized: BTreeSet<RegionId>,
    /// Peers that take a snapshot in.
    pub(crate) taking_in: BTreeSet<RegionId>,
    /// Peers out of service.
    pub(crate) quarantined: BTreeSet<RegionId>,
    /// Peers whose commit index has moved since their raft state was last written.
    pub(crate) commits: BTreeSet<RegionId>,
    /// Logs that have grown, or are led by somebody new, and may be worth a cut.
    pub(crate) logs: BTreeSet<RegionId>,
    /// Regions that may be in a joint configuration.
    pub(crate) joint: BTreeSet<RegionId>,
    /// Peers that have made region snapshots which may be at rest still.
    pub(crate) generated: BTreeSet<RegionId>,
    /// Peers that may be sending a snapshot.
    pub(crate) sending: BTreeSet<RegionId>,
    /// Regions that may have become worth a look at their size.
    pub(crate) splits: BTreeSet<RegionId>,
    /// Regions with many deleted keys.
    pub(crate) compactions: BTreeSet<RegionId>,
    /// Regions to compare with their replicas, by when that was last begun.
    pub(crate) checks: BTreeSet<(MonoTime, RegionId)>,
}

impl Attention {
    /// The peer of `region`, last compared at `checked`, is gone.
    pub(crate) fn forget(&mut self, region: RegionId, checked: MonoTime) {
        for exact in
            [&mut self.led, &mut self.uninitialized, &mut self.taking_in, &mut self.quarantined]
        {
            exact.remove(&region);
        }
        self.checks.remove(&(checked, region));
    }
}
