//! The members of a group as raft has them, and changes of them in raft's own terms.

use engine_traits::RaftEngine;
use raft::eraftpb::{ConfChange, ConfChangeType};
use raftstore_proto::{ChangeKind, PeerChange, Region};

use super::{super::storage::conf_state_of, RaftGroup};

impl<R: RaftEngine> RaftGroup<R> {
    /// raft's configuration as it stands, for a peer list: voters and learners, sorted.
    pub(crate) fn members(&self) -> (Vec<u64>, Vec<u64>) {
        let state = self.raw.raft.prs().conf().to_conf_state();
        let (mut voters, mut learners) = (state.voters, state.learners);
        voters.sort_unstable();
        learners.sort_unstable();
        (voters, learners)
    }

    /// Whether raft's members are those of `region` (I7).
    pub(crate) fn agrees_with(&self, region: &Region) -> bool {
        let mut state = conf_state_of(region);
        state.mut_voters().sort_unstable();
        state.mut_learners().sort_unstable();
        let (voters, learners) = self.members();
        state.voters == voters && state.learners == learners
    }
}

/// See [`RaftGroup::progress`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) matched: u64,
    pub(crate) in_snapshot: bool,
}

pub(super) fn conf_change_of(change: &PeerChange) -> ConfChange {
    let mut conf_change = ConfChange::default();
    conf_change.set_change_type(match change.kind {
        ChangeKind::AddNode => ConfChangeType::AddNode,
        ChangeKind::RemoveNode => ConfChangeType::RemoveNode,
        ChangeKind::AddLearner => ConfChangeType::AddLearnerNode,
    });
    conf_change.node_id = change.peer.id.get();
    conf_change
}
