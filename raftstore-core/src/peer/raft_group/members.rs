//! The members of a group as raft has them, and changes of them in raft's own terms.

use engine_traits::RaftEngine;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};
use raftstore_proto::{ChangeKind, EntryFlags, PeerChange, Region, RegionError};

use super::{super::storage::conf_state_of, Entry, RaftGroup};

/// See [`RaftGroup::progress`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) matched: u64,
    pub(crate) in_snapshot: bool,
}

impl<R: RaftEngine> RaftGroup<R> {
    /// What a leader knows of its members, by peer id in no order.
    pub(crate) fn progress(&self) -> impl Iterator<Item = (u64, Progress)> + '_ {
        let is_leader = self.is_leader();
        self.raw.raft.prs().iter().filter(move |_| is_leader).map(|(id, progress)| {
            (
                *id,
                Progress {
                    matched: progress.matched,
                    in_snapshot: progress.state == raft::ProgressState::Snapshot,
                },
            )
        })
    }

    /// Who votes: in the configuration that holds, or will once a joint change is left; and
    /// in the half of a joint configuration that will go, which is empty without one. Sorted.
    pub(crate) fn voters(&self) -> (Vec<u64>, Vec<u64>) {
        let state = self.raw.raft.prs().conf().to_conf_state();
        let (mut incoming, mut outgoing) = (state.voters, state.voters_outgoing);
        incoming.sort_unstable();
        outgoing.sort_unstable();
        (incoming, outgoing)
    }

    /// Whether raft's members are those of `region` (I7).
    pub(crate) fn agrees_with(&self, region: &Region) -> bool {
        let sorted = |state: &raft::eraftpb::ConfState| {
            let mut lists = [
                state.voters.clone(),
                state.voters_outgoing.clone(),
                state.learners.clone(),
                state.learners_next.clone(),
            ];
            lists.iter_mut().for_each(|list| list.sort_unstable());
            lists
        };
        let state = self.raw.raft.prs().conf().to_conf_state();
        sorted(&state) == sorted(&conf_state_of(region)) && !state.auto_leave
    }

    /// Whether this peer alone decides: the only voter, of both halves if there are two.
    pub(crate) fn is_sole_voter(&self) -> bool {
        let own = self.raw.raft.id;
        let voters = self.raw.raft.prs().conf().voters().ids();
        self.raw.raft.promotable() && voters.iter().all(|id| id == own)
    }

    /// Proposes a membership change whose entry carries `command`: one change takes effect at
    /// once, several enter a joint configuration, none leave it.
    ///
    /// # Errors
    /// As [`RaftGroup::propose`]; `ConfChangePending` if raft refused it.
    pub(crate) fn propose_conf_change(
        &mut self,
        changes: &[PeerChange],
        command: Vec<u8>,
    ) -> Result<(u64, u64), RegionError> {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        let (index, term) = (self.last_index() + 1, self.term());
        let flags = EntryFlags { conf_change: true, ..EntryFlags::NONE };
        let region = self.region;
        let unencodable =
            |_| RegionError::InvalidCommand { why: "the membership change cannot be encoded" };
        // The entry's checksum is over the very bytes that raft makes of the change.
        let result = if let [change] = changes {
            let mut single = ConfChange::default();
            single.set_change_type(kind_of(change));
            single.node_id = change.peer.id.get();
            single.context = command.into();
            let data = single.write_to_bytes().map_err(unencodable)?;
            let context = Entry::context_for(region, index, term, flags, &data);
            self.raw.propose_conf_change(context, single)
        } else {
            let mut several = conf_change_of(changes);
            several.context = command.into();
            let data = several.write_to_bytes().map_err(unencodable)?;
            let context = Entry::context_for(region, index, term, flags, &data);
            self.raw.propose_conf_change(context, several)
        };
        let placed = self.proposed(result, index, term)?;
        // A change that raft refuses is appended as an empty normal entry (R12, H31).
        let refused = self
            .raw
            .raft
            .raft_log
            .unstable_entries()
            .last()
            .is_none_or(|entry| entry.data.is_empty());
        if refused { Err(RegionError::ConfChangePending) } else { Ok(placed) }
    }

    /// Tells raft of an applied membership change; one it already knows is no error (H51). To
    /// be followed by [`RaftGroup::follow_unless_voter`] before anything else.
    pub(crate) fn apply_conf_change(&mut self, changes: &[PeerChange]) {
        // raft refuses a change that its configuration already contains: a single one is then
        // without effect, and a joint one is neither entered nor left twice.
        let _ = self.raw.apply_conf_change(&conf_change_of(changes));
    }

    /// Stops leading once it is no voter any more.
    pub(crate) fn follow_unless_voter(&mut self) {
        if self.is_leader() && !self.raw.raft.promotable() {
            // Several paths assume that a leader is a member (R17, H66).
            self.step_down();
        }
    }
}

/// The change in raft's words. Raft shall leave a joint configuration when an entry says so,
/// not by itself: what it would do is forgotten with its leader (R40).
fn conf_change_of(changes: &[PeerChange]) -> ConfChangeV2 {
    let mut conf_change = ConfChangeV2::default();
    if changes.len() > 1 {
        conf_change.set_transition(ConfChangeTransition::Explicit);
    }
    let singles = changes.iter().map(|change| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind_of(change));
        single.node_id = change.peer.id.get();
        single
    });
    conf_change.set_changes(singles.collect());
    conf_change
}

const fn kind_of(change: &PeerChange) -> ConfChangeType {
    match change.kind {
        ChangeKind::AddNode => ConfChangeType::AddNode,
        ChangeKind::RemoveNode => ConfChangeType::RemoveNode,
        ChangeKind::AddLearner => ConfChangeType::AddLearnerNode,
    }
}
