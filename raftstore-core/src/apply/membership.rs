//! What a membership change makes of a region.

use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerRole, Region, RegionError};

/// The region after `change`: `conf_ver` one higher, the peer added, promoted or removed.
///
/// A learner is promoted by adding the same peer as a voter. A removal must name the peer
/// that is there, not just its store: another incarnation is another peer (H59).
///
/// # Errors
/// `ConfChangeRejected` if the change does not fit the members. The region stays as it is.
pub(super) fn change(region: &Region, change: &PeerChange) -> Result<Region, RegionError> {
    let mut after = region.clone();
    after.epoch.conf_ver += 1;
    let peer = change.peer;
    match change.kind {
        ChangeKind::AddNode => match position_on(region, &peer) {
            Some(at) if is_learner(&region.peers[at], &peer) => {
                after.peers[at].role = PeerRole::Voter;
            }
            Some(_) => return rejected("a peer is already on that store"),
            None => add(&mut after, Peer::voter(peer.id, peer.store))?,
        },
        ChangeKind::AddLearner => match position_on(region, &peer) {
            Some(_) => return rejected("a peer is already on that store"),
            None => add(&mut after, Peer::learner(peer.id, peer.store))?,
        },
        ChangeKind::RemoveNode => {
            let Some(at) = position_on(region, &peer) else {
                return rejected("no peer is on that store");
            };
            if !region.peers[at].is_same_replica(&peer) {
                return rejected("another peer is on that store");
            }
            after.peers.remove(at);
            if !after.peers.iter().any(|left| left.role == PeerRole::Voter) {
                return rejected("no voter would be left");
            }
        }
    }
    Ok(after)
}

fn position_on(region: &Region, peer: &Peer) -> Option<usize> {
    region.peers.iter().position(|known| known.store == peer.store)
}

fn is_learner(known: &Peer, peer: &Peer) -> bool {
    known.is_same_replica(peer) && known.role == PeerRole::Learner
}

fn add(region: &mut Region, peer: Peer) -> Result<(), RegionError> {
    if region.peer(peer.id).is_some() {
        return rejected("the peer id is in use");
    }
    region.peers.push(peer);
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
        match change(&region(peers), &PeerChange { kind, peer }) {
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
            (ChangeKind::AddLearner, learner(1, 1)),
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
}
