//! Draws membership changes that make sense: between three and five members wander over the
//! stores, as voters and learners, one change at a time or several jointly.

use raftstore_proto::{
    AdminCommand, ChangeKind, Peer, PeerChange, PeerId, PeerRole, Region, StoreId,
};

use crate::rng::Rng;

/// Members a region is not shrunk below.
const FEWEST: usize = 3;
/// Members a region is not grown beyond.
const MOST: usize = 5;

/// What a change is drawn from.
pub(crate) struct Churn<'a> {
    /// The region as its leader knows it.
    pub(crate) region: &'a Region,
    /// The leader.
    pub(crate) leader: Peer,
    /// Stores without a member.
    pub(crate) free: Vec<StoreId>,
    /// Where chance comes from.
    pub(crate) rng: &'a mut Rng,
    /// Gives an id that no peer has had.
    pub(crate) new_id: &'a mut dyn FnMut() -> PeerId,
}

impl Churn<'_> {
    /// A command for the leader, if anything makes sense.
    pub(crate) fn draw(&mut self) -> Option<AdminCommand> {
        if self.region.is_joint() {
            // Mostly the store is to end it by itself. Whatever is not leaving is refused.
            return if self.rng.chance(300) {
                Some(AdminCommand::ChangePeerV2(Vec::new()))
            } else if self.rng.chance(200) {
                self.single().map(AdminCommand::ChangePeer)
            } else {
                None
            };
        }
        if self.rng.chance(400) {
            let changes = self.several();
            if changes.len() > 1 {
                return Some(AdminCommand::ChangePeerV2(changes));
            }
        }
        let change = self.single()?;
        // Either form of one change is the same.
        Some(if self.rng.chance(100) {
            AdminCommand::ChangePeerV2(vec![change])
        } else {
            AdminCommand::ChangePeer(change)
        })
    }

    fn single(&mut self) -> Option<PeerChange> {
        let learner = self.region.peers.iter().find(|peer| peer.role == PeerRole::Learner);
        if let Some(learner) = learner.copied() {
            let kind =
                if self.rng.chance(800) { ChangeKind::AddNode } else { ChangeKind::RemoveNode };
            return Some(PeerChange { kind, peer: Peer { role: PeerRole::Voter, ..learner } });
        }
        let members = self.region.peers.len();
        if !self.free.is_empty() && (members < FEWEST || (members < MOST && self.rng.chance(500))) {
            return Some(self.addition());
        }
        let others: Vec<Peer> =
            self.region.peers.iter().copied().filter(|peer| peer.id != self.leader.id).collect();
        if others.len() < 2 {
            return None;
        }
        let peer = *self.rng.pick(&others);
        let demote = self.rng.chance(250);
        let kind = if demote { ChangeKind::AddLearner } else { ChangeKind::RemoveNode };
        Some(PeerChange { kind, peer })
    }

    /// A member on a free store.
    fn addition(&mut self) -> PeerChange {
        let at = self.rng.index(self.free.len());
        let (store, id) = (self.free.swap_remove(at), (self.new_id)());
        if self.rng.chance(700) {
            PeerChange { kind: ChangeKind::AddLearner, peer: Peer::learner(id, store) }
        } else {
            PeerChange { kind: ChangeKind::AddNode, peer: Peer::voter(id, store) }
        }
    }

    /// A joint step: each member may change its role, learners may go, and new members come.
    /// The leader may be among those that are demoted.
    fn several(&mut self) -> Vec<PeerChange> {
        let mut changes = Vec::new();
        let mut voters =
            self.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count();
        let mut members = self.region.peers.len();
        for peer in &self.region.peers {
            let kind = match peer.role {
                PeerRole::Learner if self.rng.chance(700) => {
                    voters += 1;
                    ChangeKind::AddNode
                }
                PeerRole::Learner if self.rng.chance(500) => {
                    members -= 1;
                    ChangeKind::RemoveNode
                }
                PeerRole::Voter if voters > 2 && self.rng.chance(400) => {
                    voters -= 1;
                    ChangeKind::AddLearner
                }
                _ => continue,
            };
            changes.push(PeerChange { kind, peer: *peer });
        }
        while members < MOST && !self.free.is_empty() && self.rng.chance(600) {
            members += 1;
            changes.push(self.addition());
        }
        changes
    }
}
