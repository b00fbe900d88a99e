//! Which membership changes and leader transfers a leader takes on. Pure.

use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerId, PeerRole, Region, RegionError};

/// What a leader knows of one member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) id: PeerId,
    pub(crate) voter: bool,
    pub(crate) matched: u64,
    pub(crate) in_snapshot: bool,
    /// Heard from within two election timeouts.
    pub(crate) heard: bool,
}

/// The leader's view when a change is asked for.
#[derive(Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) region: &'a Region,
    pub(crate) leader: PeerId,
    pub(crate) members: &'a [Member],
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    /// The leader has applied an entry of its term.
    pub(crate) applied_own_term: bool,
    /// A change is proposed and not applied.
    pub(crate) change_pending: bool,
}

/// Whether the leader may propose `change` (H30).
pub(crate) fn admit_change(s: &Situation<'_>, change: &PeerChange) -> Result<(), RegionError> {
    if !s.applied_own_term {
        return Err(RegionError::NotReady);
    }
    if s.change_pending {
        return Err(RegionError::ConfChangePending);
    }
    fits_members(s, change)?;
    keeps_quorum(s, change)
}

/// Whether the change makes sense for the current peers.
fn fits_members(s: &Situation<'_>, change: &PeerChange) -> Result<(), RegionError> {
    let rejected = |why| Err(RegionError::ConfChangeRejected { why });
    let known = s.region.peer_on(change.peer.store);
    match change.kind {
        ChangeKind::AddNode => match known {
            None if s.region.peer(change.peer.id).is_some() => {
                rejected("the peer id is already used on another store")
            }
            None => Ok(()),
            Some(peer) if peer.id != change.peer.id => {
                rejected("duplicated: the store already has a peer of this region")
            }
            Some(peer) if peer.role == PeerRole::Learner => Ok(()),
            Some(_) => rejected("duplicated: the peer is already a voter"),
        },
        ChangeKind::AddLearner => match known {
            None if s.region.peer(change.peer.id).is_some() => {
                rejected("the peer id is already used on another store")
            }
            None => Ok(()),
            Some(peer) if peer.id != change.peer.id => {
                rejected("duplicated: the store already has a peer of this region")
            }
            Some(peer) if peer.role == PeerRole::Learner => {
                rejected("duplicated: the peer is already a learner")
            }
            Some(_) if change.peer.id == s.leader => rejected("the leader cannot demote itself"),
            Some(_) => Ok(()),
        },
        ChangeKind::RemoveNode => match known {
            None => rejected("missing: the store has no peer of this region"),
            Some(peer) if peer.id != change.peer.id => {
                rejected("missing: the store's peer has another id")
            }
            Some(_) if change.peer.id == s.leader => rejected("the leader cannot remove itself"),
            Some(_) => Ok(()),
        },
    }
}

/// Whether a quorum of the members after the change can go on from the log at once, and
/// whether those lately heard from remain a majority if they are one now.
fn keeps_quorum(s: &Situation<'_>, change: &PeerChange) -> Result<(), RegionError> {
    let before: Vec<Member> = s.members.iter().filter(|member| member.voter).copied().collect();
    let mut after = before.clone();
    match change.kind {
        ChangeKind::AddNode => {
            let known = s.members.iter().find(|member| member.id == change.peer.id);
            after.push(known.copied().unwrap_or(Member {
                id: change.peer.id,
                voter: true,
                matched: 0,
                in_snapshot: false,
                heard: false,
            }));
        }
        ChangeKind::RemoveNode | ChangeKind::AddLearner => {
            after.retain(|member| member.id != change.peer.id);
        }
    }
    if after.len() == before.len() {
        // No voter comes or goes.
        return Ok(());
    }
    if after.is_empty() {
        return Err(RegionError::ConfChangeUnsafe { why: "no voter would be left" });
    }
    if before.len() == 1 && after.len() == 2 && change.kind == ChangeKind::AddNode {
        // The classical first step; a driver that can wait adds a learner first (W16).
        return Ok(());
    }
    let quorum = after.len() / 2 + 1;
    let reachable =
        after.iter().filter(|member| member.matched + 1 >= s.first_index && !member.in_snapshot);
    if reachable.count() < quorum {
        return Err(RegionError::ConfChangeUnsafe {
            why: "too few members could go on from the log",
        });
    }
    let heard = |members: &[Member]| members.iter().filter(|member| member.heard).count();
    if heard(&before) > before.len() / 2 && heard(&after) < quorum {
        return Err(RegionError::ConfChangeUnsafe {
            why: "too few members were heard from lately",
        });
    }
    Ok(())
}

/// Whether leadership may be handed to `to` (H32). `lag_max` is in entries.
pub(crate) fn admit_transfer(
    s: &Situation<'_>,
    to: &Peer,
    lag_max: u64,
) -> Result<(), &'static str> {
    let Some(target) = s.members.iter().find(|member| member.id == to.id) else {
        return Err("the target is not a member");
    };
    if !target.voter {
        return Err("the target is not a voter");
    }
    if s.members.iter().any(|member| member.in_snapshot) {
        return Err("a member waits for a snapshot");
    }
    if s.change_pending {
        return Err("a membership change is pending");
    }
    if s.last_index > target.matched + lag_max {
        return Err("the target lags too far behind");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raftstore_proto::{Epoch, RegionId, StoreId};

    use super::*;

    fn region(voters: u64) -> Region {
        Region {
            id: RegionId::must(1),
            start_key: Bytes::new(),
            end_key: Bytes::new(),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: (1..=voters).map(|i| Peer::voter(PeerId::must(i), StoreId::must(i))).collect(),
        }
    }

    fn members(voters: u64, healthy: u64) -> Vec<Member> {
        (1..=voters)
            .map(|i| Member {
                id: PeerId::must(i),
                voter: true,
                matched: if i <= healthy { 20 } else { 0 },
                in_snapshot: false,
                heard: i <= healthy,
            })
            .collect()
    }

    fn ask(
        region: &Region,
        members: &[Member],
        kind: ChangeKind,
        id: u64,
        store: u64,
    ) -> Result<(), RegionError> {
        let s = Situation {
            region,
            leader: PeerId::must(1),
            members,
            first_index: 10,
            last_index: 20,
            applied_own_term: true,
            change_pending: false,
        };
        let peer = Peer::voter(PeerId::must(id), StoreId::must(store));
        admit_change(&s, &PeerChange { kind, peer })
    }

    /// CC-06: with two of three healthy, neither a new member nor the loss of a healthy one
    /// is safe; the dead one may go, and so may one of two healthy ones after it.
    #[test]
    fn changes_that_would_lose_the_quorum_are_refused() {
        let (region, two_of_three) = (region(3), members(3, 2));
        assert!(matches!(
            ask(&region, &two_of_three, ChangeKind::RemoveNode, 2, 2),
            Err(RegionError::ConfChangeUnsafe { .. })
        ));
        assert!(matches!(
            ask(&region, &two_of_three, ChangeKind::AddNode, 4, 4),
            Err(RegionError::ConfChangeUnsafe { .. })
        ));
        assert_eq!(ask(&region, &two_of_three, ChangeKind::RemoveNode, 3, 3), Ok(()));
        assert_eq!(ask(&region, &two_of_three, ChangeKind::AddLearner, 4, 4), Ok(()));
    }

    #[test]
    fn the_leader_neither_removes_nor_demotes_itself() {
        let (region, all) = (region(3), members(3, 3));
        for kind in [ChangeKind::RemoveNode, ChangeKind::AddLearner] {
            assert!(matches!(
                ask(&region, &all, kind, 1, 1),
                Err(RegionError::ConfChangeRejected { .. })
            ));
        }
    }

    #[test]
    fn duplicates_and_strangers_are_rejected() {
        let (region, all) = (region(3), members(3, 3));
        for (kind, id, store) in [
            (ChangeKind::AddNode, 2, 2),
            (ChangeKind::AddNode, 9, 2),
            (ChangeKind::AddNode, 2, 9),
            (ChangeKind::AddLearner, 9, 2),
            (ChangeKind::RemoveNode, 9, 9),
            (ChangeKind::RemoveNode, 9, 2),
        ] {
            assert!(matches!(
                ask(&region, &all, kind, id, store),
                Err(RegionError::ConfChangeRejected { .. })
            ));
        }
    }

    /// TL-02, TL-05: no transfer while a member waits for a snapshot, nor to one that lags.
    #[test]
    fn transfers_to_members_that_cannot_lead_are_refused() {
        let region = region(3);
        let mut all = members(3, 3);
        let transfer = |all: &[Member], pending| {
            let s = Situation {
                region: &region,
                leader: PeerId::must(1),
                members: all,
                first_index: 10,
                last_index: 31,
                applied_own_term: true,
                change_pending: pending,
            };
            admit_transfer(&s, &Peer::voter(PeerId::must(2), StoreId::must(2)), 10)
        };
        assert!(transfer(&all, false).is_err());
        all[1].matched = 21;
        assert!(transfer(&all, false).is_ok());
        assert!(transfer(&all, true).is_err());
        all[2].in_snapshot = true;
        assert!(transfer(&all, false).is_err());
    }
}
