//! What a leader takes on while stores run out of room, and where it leads then.
//!
//! A store that is almost full takes no new data from clients, but executes what others
//! propose, and does upkeep. A full one takes no entries at all: it votes, answers for what
//! it has, and can be moved away from. Neither is made the leader. Every message says how
//! full its sender's store is, so that a leader promises nothing that too few replicas have
//! room for.

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{
    AdminCommand, Body, ChangeKind, DiskUsage, Operation, PeerChange, PeerId, RegionError,
};

use super::{Peer, membership};
use crate::{context::Context, hooks::Hooks};

/// How full the leader's store, and those of a quorum, may be for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowance {
    own: DiskUsage,
    quorum: DiskUsage,
}

/// A full store takes no entries, whatever they do, so that no quorum can rest on it.
fn allowance(body: &Body) -> Allowance {
    let (own, quorum) = match body {
        Body::Operations(operations) if frees_space(operations) => {
            (DiskUsage::Full, DiskUsage::AlmostFull)
        }
        Body::Operations(_) => (DiskUsage::Normal, DiskUsage::Normal),
        Body::Admin(AdminCommand::ChangePeer(change)) if is_removal(change) => {
            (DiskUsage::Full, DiskUsage::AlmostFull)
        }
        Body::Admin(AdminCommand::ChangePeerV2(changes)) if changes.is_empty() => {
            (DiskUsage::Full, DiskUsage::AlmostFull)
        }
        Body::Admin(AdminCommand::CompactLog { .. } | AdminCommand::TransferLeader(_)) => {
            (DiskUsage::Full, DiskUsage::AlmostFull)
        }
        Body::Admin(_) => (DiskUsage::AlmostFull, DiskUsage::AlmostFull),
        Body::Status(_) => (DiskUsage::Full, DiskUsage::Full),
    };
    Allowance { own, quorum }
}

const fn is_removal(change: &PeerChange) -> bool {
    matches!(change.kind, ChangeKind::RemoveNode)
}

fn frees_space(operations: &[Operation]) -> bool {
    let frees =
        |operation| matches!(operation, &Operation::Delete { .. } | &Operation::DeleteRange { .. });
    operations.iter().all(frees)
}

impl<R: RaftEngine> Peer<R> {
    /// Notes what a member said of its store.
    pub(super) fn note_disk(&mut self, member: PeerId, usage: DiskUsage) {
        if usage == DiskUsage::Normal {
            self.short_of_room.remove(&member);
        } else {
            self.short_of_room.insert(member, usage);
        }
    }

    /// Whether there is room for what the command brings: here, and with a quorum of members
    /// that were heard from lately. While nobody is short of room nobody is asked.
    pub(super) fn check_room<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
        body: &Body,
    ) -> Result<(), RegionError> {
        if self.short_of_room.is_empty() && ctx.disk == DiskUsage::Normal {
            return Ok(());
        }
        let allowed = allowance(body);
        let usage_of = |id: PeerId| {
            if id == self.replica.id {
                // What its own store is allowed is asked for by itself.
                return DiskUsage::Normal;
            }
            self.short_of_room.get(&id).copied().unwrap_or_default()
        };
        let members = self.members(ctx.now, ctx.config.election_timeout() * 4);
        let lacks_quorum = |votes: fn(&membership::Member) -> bool| {
            let half = || members.iter().filter(|member| votes(member));
            let takes = |member: &&membership::Member| {
                member.heard && usage_of(member.id) <= allowed.quorum
            };
            let is_short = half().any(|member| usage_of(member.id) > allowed.quorum);
            is_short && half().filter(takes).count() <= half().count() / 2
        };
        if ctx.disk <= allowed.own
            && !lacks_quorum(|member| member.incoming)
            && !lacks_quorum(|member| member.outgoing)
        {
            return Ok(());
        }
        let is_short = |id: PeerId| {
            if id == self.replica.id {
                return ctx.disk > allowed.own;
            }
            usage_of(id) > allowed.quorum
        };
        let short = self.region().peers.iter().filter(|peer| is_short(peer.id));
        Err(RegionError::DiskFull { stores: short.map(|peer| peer.store).collect() })
    }

    /// Whether all who lag behind the log are on stores that are full. raft asks again when
    /// it hears from them.
    pub(super) fn nobody_takes_snapshots(&self) -> bool {
        let mut behind = self.pending_peers().into_iter().peekable();
        behind.peek().is_some() && behind.all(|peer| self.is_full(peer.id))
    }

    /// Whether a member's store takes no entries.
    pub(super) fn is_full(&self, member: PeerId) -> bool {
        self.short_of_room.get(&member) == Some(&DiskUsage::Full)
    }

    /// Whether a member's store has room to lead.
    pub(super) fn has_room_to_lead(&self, member: PeerId) -> bool {
        !self.short_of_room.contains_key(&member)
    }

    /// To whom a leader hands over whose own store runs out of room: a member that has all
    /// there is, on a store that has room.
    pub(crate) fn leads_better<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
    ) -> Option<AdminCommand> {
        if !self.is_leader() || ctx.disk == DiskUsage::Normal {
            return None;
        }
        let mut members = self.members(ctx.now, ctx.config.election_timeout() * 4);
        members.retain(|member| {
            member.id != self.replica.id && self.has_room_to_lead(member.id) && !member.in_snapshot
        });
        let heir = membership::heir(&members)?;
        self.region().peer(heir).copied().map(AdminCommand::TransferLeader)
    }
}
