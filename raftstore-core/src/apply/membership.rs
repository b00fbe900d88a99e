//! What a membership change makes of a region.
//!
//! A single change takes effect at once. Several changes enter a *joint configuration*:
//! voters that come or go are marked as such, and until the configuration is left both the
//! old and the new voters must agree. No changes at all leave it.
//!
//! The rule of `conf_ver`, alike on every replica: it rises by the number of changes that are
//! made at once, and on leaving by the number of peers whose role becomes final. So it rises
//! with every step, and tells how many changes a region has seen.

use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerRole, Region, RegionError};

/// The region after `changes`.
///
/// A learner is promoted by adding the same peer as a voter, a voter demoted by adding it as
/// a learner. A removal must name the peer that is there, not just its store: another
/// incarnation is another peer (H59).
///
/// # Errors
/// `ConfChangeRejected` if the changes do not fit the members. The region stays as it is.
pub(super) fn change(region: &Region, changes: &[PeerChange]) -> Result<Region, RegionError> {
    if changes.is_empty() {
        return leave(region);
    }
    if region.is_joint() {
        return rejected("the joint configuration has to be left first");
    }
    let jointly = changes.len() > 1;
    let mut after = region.clone();
    for (at, change) in changes.iter().enumerate() {
        let same = |other: &PeerChange| {
            other.peer.id == change.peer.id || other.peer.store == change.peer.store
        };
        if changes[..at].iter().any(same) {
            return rejected("two changes for one peer or store");
        }
        execute(&mut after, change, jointly)?;
    }
    if jointly && !after.is_joint() {
        return rejected("several changes that are about learners only");
    }
    if !after.peers.iter().any(|left| left.role.votes_after()) {
        return rejected("no voter would be left");
    }
    after.epoch.conf_ver += changes.len() as u64;
    Ok(after)
}

/// Every mark becomes a final role.
fn leave(region: &Region) -> Result<Region, RegionError> {
    let mut after = region.clone();
    for peer in &mut after.peers {
        let role = match peer.role {
            PeerRole::Voter | PeerRole::Learner => continue,
            PeerRole::IncomingVoter => PeerRole::Voter,
            PeerRole::DemotingVoter => PeerRole::Learner,
        };
        peer.role = role;
        after.epoch.conf_ver += 1;
    }
    if after.epoch == region.epoch {
        return rejected("there is no joint configuration to leave");
    }
    Ok(after)
}

fn execute(region: &mut Region, change: &PeerChange, jointly: bool) -> Result<(), RegionError> {
    let peer = change.peer;
    let known = region.peers.iter().position(|known| known.store == peer.store);
    let known_role = match known.map(|at| region.peers[at]) {
        Some(known) if known.is_same_replica(&peer) => Some(known.role),
        Some(_) if change.kind == ChangeKind::RemoveNode => {
            return rejected("another peer is on that store");
        }
        Some(_) => return rejected("a peer is already on that store"),
        None => None,
    };
    let role = match (change.kind, known_role) {
        (ChangeKind::AddNode, None | Some(PeerRole::Learner)) => {
            if jointly {
                PeerRole::IncomingVoter
            } else {
                PeerRole::Voter
            }
        }
        (ChangeKind::AddLearner, None) => PeerRole::Learner,
        (ChangeKind::AddLearner, Some(PeerRole::Voter)) => {
            if jointly {
                PeerRole::DemotingVoter
            } else {
                PeerRole::Learner
            }
        }
        (ChangeKind::AddNode | ChangeKind::AddLearner, Some(_)) => {
            return rejected("a peer is already on that store");
        }
        (ChangeKind::RemoveNode, None) => return rejected("no peer is on that store"),
        (ChangeKind::RemoveNode, Some(PeerRole::Voter)) if jointly => {
            // It would have to vote on until the configuration is left, unlisted.
            return rejected("a joint step removes no voter");
        }
        (ChangeKind::RemoveNode, Some(_)) => {
            region.peers.retain(|known| !known.is_same_replica(&peer));
            return Ok(());
        }
    };
    match known {
        Some(at) => region.peers[at].role = role,
        None if region.peer(peer.id).is_some() => return rejected("the peer id is in use"),
        None => region.peers.push(Peer { role, ..peer }),
    }
    Ok(())
}

const fn rejected<T>(why: &'static str) -> Result<T, RegionError> {
    Err(RegionError::ConfChangeRejected { why })
}

#[cfg(test)]
mod tests {
    use raftstore_proto::{Epoch, PeerId, RegionId, StoreId};

    use super::*;

    const fn voter(id: u64, store: u64) -> Peer {
        Peer::voter(PeerId::must(id), StoreId::must(store))
    }

    const fn learner(id: u64, store: u64) -> Peer {
        Peer::learner(PeerId::must(id), StoreId::must(store))
    }

    fn region(peers: &[Peer]) -> Region {
        let mut region = Region::uninitialized(RegionId::must(1));
        region.epoch = Epoch { conf_ver: 4, version: 2 };
        region.peers = peers.to_vec();
        region
    }

    fn run(peers: &[Peer], kind: ChangeKind, peer: Peer) -> Result<Vec<Peer>, &'static str> {
        match change(&region(peers), &[PeerChange { kind, peer }]) {
            Ok(after) => {
                assert_eq!(after.epoch, Epoch { conf_ver: 5, version: 2 });
                Ok(after.peers)
            }
            Err(RegionError::ConfChangeRejected { why }) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn adds() {
        let one = [voter(1, 1)];
        assert_eq!(run(&one, ChangeKind::AddNode, voter(2, 2)), Ok(vec![one[0], voter(2, 2)]));
        let added = run(&one, ChangeKind::AddLearner, voter(2, 2));
        assert_eq!(added, Ok(vec![one[0], learner(2, 2)]), "the kind gives the role");
        // The role in a request to add a voter does not matter either.
        assert_eq!(run(&one, ChangeKind::AddNode, learner(2, 2)), Ok(vec![one[0], voter(2, 2)]));
    }

    #[test]
    fn promotes_the_same_learner_in_place() {
        let peers = [learner(2, 2), voter(1, 1)];
        let after = run(&peers, ChangeKind::AddNode, voter(2, 2));
        assert_eq!(after, Ok(vec![voter(2, 2), voter(1, 1)]));
        let other = run(&peers, ChangeKind::AddNode, voter(3, 2));
        assert_eq!(other, Err("a peer is already on that store"));
    }

    #[test]
    fn refuses_duplicates() {
        let peers = [voter(1, 1), learner(2, 2)];
        for (kind, peer) in [
            (ChangeKind::AddNode, voter(1, 1)),
            (ChangeKind::AddNode, voter(3, 1)),
            (ChangeKind::AddLearner, learner(2, 2)),
            (ChangeKind::AddLearner, learner(3, 1)),
        ] {
            assert_eq!(run(&peers, kind, peer), Err("a peer is already on that store"));
        }
        assert_eq!(run(&peers, ChangeKind::AddNode, voter(2, 3)), Err("the peer id is in use"));
    }

    /// H59: a removal by store alone could drop another incarnation than raft removes.
    #[test]
    fn h59_removes_the_very_peer() {
        let peers = [voter(1, 1), voter(2, 2)];
        assert_eq!(run(&peers, ChangeKind::RemoveNode, voter(2, 2)), Ok(vec![peers[0]]));
        let other = run(&peers, ChangeKind::RemoveNode, voter(3, 2));
        assert_eq!(other, Err("another peer is on that store"));
        assert_eq!(
            run(&peers, ChangeKind::RemoveNode, voter(2, 3)),
            Err("no peer is on that store")
        );
    }

    #[test]
    fn a_voter_is_always_left() {
        let peers = [voter(1, 1), learner(2, 2)];
        let last = run(&peers, ChangeKind::RemoveNode, voter(1, 1));
        assert_eq!(last, Err("no voter would be left"));
        assert_eq!(run(&peers, ChangeKind::RemoveNode, learner(2, 2)), Ok(vec![peers[0]]));
    }

    #[test]
    fn demotes_a_voter_in_place() {
        let peers = [voter(1, 1), voter(2, 2)];
        let after = run(&peers, ChangeKind::AddLearner, learner(1, 1));
        assert_eq!(after, Ok(vec![learner(1, 1), voter(2, 2)]));
        let last = run(&[voter(1, 1), learner(2, 2)], ChangeKind::AddLearner, learner(1, 1));
        assert_eq!(last, Err("no voter would be left"));
    }

    const fn with(role: PeerRole, peer: Peer) -> Peer {
        Peer { role, ..peer }
    }

    fn several(peers: &[Peer], changes: &[(ChangeKind, Peer)]) -> Result<Region, &'static str> {
        let changes: Vec<PeerChange> =
            changes.iter().map(|(kind, peer)| PeerChange { kind: *kind, peer: *peer }).collect();
        change(&region(peers), &changes).map_err(|error| match error {
            RegionError::ConfChangeRejected { why } => why,
            other => panic!("{other}"),
        })
    }

    /// JC-01: marks while joint, final roles after; `conf_ver` counts both.
    #[test]
    fn several_changes_are_entered_and_left() {
        let peers = [voter(1, 1), voter(2, 2), learner(3, 3), learner(4, 4)];
        let joint = several(
            &peers,
            &[
                (ChangeKind::AddLearner, learner(2, 2)),
                (ChangeKind::AddNode, voter(3, 3)),
                (ChangeKind::RemoveNode, learner(4, 4)),
                (ChangeKind::AddNode, voter(5, 5)),
                (ChangeKind::AddLearner, learner(6, 6)),
            ],
        )
        .unwrap();
        assert!(joint.is_joint());
        assert_eq!(joint.epoch, Epoch { conf_ver: 9, version: 2 });
        assert_eq!(
            joint.peers,
            [
                voter(1, 1),
                with(PeerRole::DemotingVoter, voter(2, 2)),
                with(PeerRole::IncomingVoter, voter(3, 3)),
                with(PeerRole::IncomingVoter, voter(5, 5)),
                learner(6, 6),
            ]
        );
        let left = change(&joint, &[]).unwrap();
        assert!(!left.is_joint());
        assert_eq!(left.epoch, Epoch { conf_ver: 12, version: 2 });
        assert_eq!(
            left.peers,
            [voter(1, 1), learner(2, 2), voter(3, 3), voter(5, 5), learner(6, 6)]
        );
        assert_eq!(several(&left.peers, &[]), Err("there is no joint configuration to leave"));
        let again = PeerChange { kind: ChangeKind::AddNode, peer: voter(6, 6) };
        assert_eq!(
            change(&joint, &[again]),
            rejected("the joint configuration has to be left first")
        );
    }

    /// JC-04: what could not be told from the roles, or would take a vote from nobody's list.
    #[test]
    fn refuses_joint_steps_that_roles_cannot_show() {
        let peers = [voter(1, 1), voter(2, 2), learner(3, 3)];
        let add = (ChangeKind::AddNode, voter(5, 5));
        for (changes, why) in [
            ([add, (ChangeKind::RemoveNode, voter(2, 2))], "a joint step removes no voter"),
            (
                [(ChangeKind::RemoveNode, learner(3, 3)), (ChangeKind::AddLearner, learner(4, 4))],
                "several changes that are about learners only",
            ),
            ([add, (ChangeKind::AddLearner, learner(5, 5))], "two changes for one peer or store"),
            (
                [(ChangeKind::RemoveNode, learner(3, 3)), (ChangeKind::AddNode, voter(6, 3))],
                "two changes for one peer or store",
            ),
            ([add, (ChangeKind::AddNode, voter(2, 2))], "a peer is already on that store"),
            (
                [(ChangeKind::AddLearner, learner(1, 1)), (ChangeKind::AddLearner, learner(2, 2))],
                "no voter would be left",
            ),
        ] {
            assert_eq!(several(&peers, &changes), Err(why));
        }
    }
}
