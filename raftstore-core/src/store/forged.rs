//! Which raft messages no store of this kind would send to this peer. raft takes much for
//! granted of what its members say, and ends the process where it is wrong; one message that
//! was mangled, or made up, shall not end a store.
//!
//! Whatever is refused here is refused whole, and counted: a true sender sends it again, or
//! something newer. What a member may truly say is never refused, however late it comes.

use raft::eraftpb::{ConfState, MessageType};
use raftstore_proto::{MessageKind, RaftMessage, Region};

/// What the receiving peer has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    /// Its term. What was said in an earlier one is old, and raft makes nothing of it.
    pub(super) term: u64,
    /// Whether it leads.
    pub(super) leads: bool,
    /// Last entry of its log, whether durable or not.
    pub(super) last_index: u64,
    /// Its commit index.
    pub(super) committed: u64,
    /// Term of the entry there, if it is still known.
    pub(super) committed_term: Option<u64>,
}

impl Receiver {
    /// A peer without data, or one that is yet to be created.
    pub(super) const EMPTY: Self =
        Self { term: 0, leads: false, last_index: 0, committed: 0, committed_term: None };
}

/// Whether nobody can have meant this.
pub(super) fn is_forged(message: &RaftMessage, receiver: &Receiver) -> bool {
    let (Some(kind), Some(from), Some(to)) =
        (message.kind(), message.from_peer(), message.to_peer())
    else {
        return true;
    };
    let raft = message.raft();
    // A question is passed on in its asker's name.
    let speaks_for_itself = raft.from == from.id.get() || kind == MessageKind::ReadIndex;
    if !speaks_for_itself || raft.to != to.id.get() {
        return true;
    }
    match kind {
        // What only a peer itself, or its clients, may ask of raft (R11, H32).
        kind if kind.is_local() => true,
        MessageKind::Propose | MessageKind::TransferLeader => true,
        // raft takes the first entry for granted. Questions alone have no term.
        MessageKind::ReadIndex => raft.entries.len() != 1 || from.id == to.id,
        // raft takes what has no term for its own.
        _ if raft.term == 0 => true,
        MessageKind::ReadIndexResponse => raft.entries.len() != 1,
        // Never more than what this peer has acknowledged.
        MessageKind::Heartbeat => raft.term >= receiver.term && raft.commit > receiver.last_index,
        MessageKind::Append => is_forged_append(message, receiver),
        MessageKind::AppendResponse => is_forged_answer(message, receiver),
        _ => false,
    }
}

/// Entries follow each other and their place, and a leader has all that is committed.
fn is_forged_append(message: &RaftMessage, receiver: &Receiver) -> bool {
    let raft = message.raft();
    let behind = receiver.committed_term.is_some_and(|term| raft.log_term < term);
    if raft.term >= receiver.term && raft.index >= receiver.committed && behind {
        return true;
    }
    let (mut index, mut term) = (raft.index, raft.log_term);
    for entry in &raft.entries {
        if index.checked_add(1) != Some(entry.index) || entry.term < term || entry.term > raft.term
        {
            return true;
        }
        (index, term) = (entry.index, entry.term);
    }
    false
}

/// Nobody has more of a leader's log than the leader; a refusal points back.
fn is_forged_answer(message: &RaftMessage, receiver: &Receiver) -> bool {
    let raft = message.raft();
    debug_assert_eq!(raft.msg_type, MessageType::MsgAppendResponse);
    if !receiver.leads || raft.term != receiver.term {
        return false;
    }
    // Snapshots are sent when the leader finds them needed, not on request.
    raft.index > receiver.last_index
        || (raft.reject && raft.reject_hint > raft.index)
        || raft.request_snapshot != 0
}

/// Whether raft would count votes by the members that the snapshot's region lists.
pub(super) fn has_members_of(members: &ConfState, region: &Region, expected: &ConfState) -> bool {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    let same = |a: &[u64], b: &[u64]| sorted(a) == sorted(b);
    let mut ids: Vec<u64> = region.peers.iter().map(|peer| peer.id.get()).collect();
    let mut stores: Vec<u64> = region.peers.iter().map(|peer| peer.store.get()).collect();
    for all in [&mut ids, &mut stores] {
        all.sort_unstable();
        all.dedup();
    }
    let are_distinct = ids.len() == region.peers.len() && stores.len() == region.peers.len();
    are_distinct
        && !expected.voters.is_empty()
        && same(&members.voters, &expected.voters)
        && same(&members.voters_outgoing, &expected.voters_outgoing)
        && same(&members.learners, &expected.learners)
        && same(&members.learners_next, &expected.learners_next)
}

#[cfg(test)]
mod tests;
