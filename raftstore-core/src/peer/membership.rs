//! Which membership changes and leader transfers a leader takes on. Pure.

use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerId, PeerRole, Region, RegionError};

/// What a leader knows of one member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) id: PeerId,
    /// Votes in the configuration that holds, or will once a joint change is left.
    pub(crate) incoming: bool,
    /// Votes in the half of a joint configuration that will go.
    pub(crate) outgoing: bool,
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

/// Whether the leader may propose `changes`: one to take effect at once, several to enter a
/// joint configuration, none to leave it (H30).
pub(crate) fn admit_change(s: &Situation<'_>, changes: &[PeerChange]) -> Result<(), RegionError> {
    if !s.applied_own_term {
        return Err(RegionError::NotReady);
    }
    if s.change_pending {
        return Err(RegionError::ConfChangePending);
    }
    if changes.is_empty() {
        // Whoever agreed to entering agrees to leaving: no quorum is asked for.
        return admit_leaving(s);
    }
    if s.region.is_joint() {
        return rejected("in joint: the joint configuration has to be left first");
    }
    let jointly = changes.len() > 1;
    for (at, change) in changes.iter().enumerate() {
        if changes[..at].iter().any(|other| other.peer.id == change.peer.id) {
            return rejected("two changes for one peer");
        }
        if changes[..at].iter().any(|other| other.peer.store == change.peer.store) {
            return rejected("two changes for one store");
        }
        fits_members(s, change, jointly)?;
    }
    if jointly && changes.iter().all(|change| concerns_learners(s, change)) {
        // No role would show that the region is joint, and nobody could tell it to leave.
        return rejected("several changes that are about learners only: make one after the other");
    }
    keeps_quorum(s, changes)
}

const fn rejected(why: &'static str) -> Result<(), RegionError> {
    Err(RegionError::ConfChangeRejected { why })
}

fn admit_leaving(s: &Situation<'_>) -> Result<(), RegionError> {
    if !s.region.is_joint() {
        return rejected("there is no joint configuration to leave");
    }
    if s.region.peer(s.leader).is_none_or(|own| !own.role.votes_after()) {
        return rejected("leaving would demote the leader: transfer leadership first");
    }
    Ok(())
}

/// Whether a change adds, removes or keeps a learner, and touches no voter.
fn concerns_learners(s: &Situation<'_>, change: &PeerChange) -> bool {
    let is_voter = s.region.peer(change.peer.id).is_some_and(|peer| peer.role.votes_after());
    change.kind != ChangeKind::AddNode && !is_voter
}

/// Whether the change makes sense for the current peers.
fn fits_members(s: &Situation<'_>, change: &PeerChange, jointly: bool) -> Result<(), RegionError> {
    let known = s.region.peer_on(change.peer.store);
    match (change.kind, known) {
        (ChangeKind::AddNode | ChangeKind::AddLearner, None) => {
            if s.region.peer(change.peer.id).is_some() {
                return rejected("the peer id is already used on another store");
            }
            Ok(())
        }
        (ChangeKind::RemoveNode, None) => rejected("missing: the store has no peer of this region"),
        (ChangeKind::RemoveNode, Some(peer)) if peer.id != change.peer.id => {
            rejected("missing: the store's peer has another id")
        }
        (_, Some(peer)) if peer.id != change.peer.id => {
            rejected("duplicated: the store already has a peer of this region")
        }
        (ChangeKind::AddNode, Some(peer)) => match peer.role {
            PeerRole::Learner => Ok(()),
            _ => rejected("duplicated: the peer is already a voter"),
        },
        (ChangeKind::AddLearner, Some(peer)) => match peer.role {
            PeerRole::Learner => rejected("duplicated: the peer is already a learner"),
            // Jointly it leads on as a voter of the old half, and hands over before the end.
            _ if change.peer.id == s.leader && !jointly => {
                rejected("the leader cannot demote itself")
            }
            _ => Ok(()),
        },
        (ChangeKind::RemoveNode, Some(peer)) => {
            if change.peer.id == s.leader {
                rejected("the leader cannot remove itself")
            } else if jointly && peer.role == PeerRole::Voter {
                rejected("a joint step removes no voter: demote it first")
            } else {
                Ok(())
            }
        }
    }
}

/// Whether a quorum of the members after the change can go on from the log at once, and
/// whether those lately heard from remain a majority if they are one now. While a
/// configuration is joint, both hold for each of its halves.
fn keeps_quorum(s: &Situation<'_>, changes: &[PeerChange]) -> Result<(), RegionError> {
    let before: Vec<Member> = s.members.iter().filter(|member| member.incoming).copied().collect();
    // A lone voter has to begin somehow: members that do not exist yet are not held against
    // it. A driver that can wait adds learners first (W16).
    let lone = before.len() == 1;
    let mut after = before.clone();
    for change in changes {
        match change.kind {
            ChangeKind::AddNode => {
                let known = s.members.iter().find(|member| member.id == change.peer.id);
                after.push(known.copied().unwrap_or(Member {
                    id: change.peer.id,
                    incoming: true,
                    outgoing: false,
                    matched: if lone { s.last_index } else { 0 },
                    in_snapshot: false,
                    heard: lone,
                }));
            }
            ChangeKind::RemoveNode | ChangeKind::AddLearner => {
                after.retain(|member| member.id != change.peer.id);
            }
        }
    }
    let stays = |member: &Member| after.iter().any(|other| other.id == member.id);
    if after.len() == before.len() && before.iter().all(stays) {
        // No voter comes or goes.
        return Ok(());
    }
    if after.is_empty() {
        return Err(RegionError::ConfChangeUnsafe { why: "no voter would be left" });
    }
    let heard = |half: &[Member]| half.iter().filter(|member| member.heard).count();
    let is_heard = heard(&before) > before.len() / 2;
    let halves: &[&[Member]] = if changes.len() > 1 { &[&after, &before] } else { &[&after] };
    for half in halves {
        let quorum = half.len() / 2 + 1;
        let reachable =
            half.iter().filter(|member| member.matched + 1 >= s.first_index && !member.in_snapshot);
        if reachable.count() < quorum {
            return Err(RegionError::ConfChangeUnsafe {
                why: "too few members could go on from the log",
            });
        }
        if is_heard && heard(half) < quorum {
            return Err(RegionError::ConfChangeUnsafe {
                why: "too few members were heard from lately",
            });
        }
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
    if !target.incoming {
        return Err(if target.outgoing {
            "the target is being demoted"
        } else {
            "the target is not a voter"
        });
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

/// Who may best lead once the joint configuration is left, by a leader that may not.
pub(crate) fn heir(members: &[Member]) -> Option<PeerId> {
    let candidates = members.iter().filter(|member| member.incoming && member.heard);
    candidates.max_by_key(|member| (member.matched, std::cmp::Reverse(member.id))).map(|m| m.id)
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
                incoming: true,
                outgoing: false,
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
        ask_several(region, members, &[(kind, id, store)])
    }

    fn ask_several(
        region: &Region,
        members: &[Member],
        changes: &[(ChangeKind, u64, u64)],
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
        let change = |(kind, id, store): &(ChangeKind, u64, u64)| PeerChange {
            kind: *kind,
            peer: Peer::voter(PeerId::must(*id), StoreId::must(*store)),
        };
        admit_change(&s, &changes.iter().map(change).collect::<Vec<_>>())
    }

    /// The region with these roles, peers 1, 2, ... on stores of the same number, all healthy.
    fn with_roles(roles: &[PeerRole]) -> (Region, Vec<Member>) {
        let voters = roles.len() as u64;
        let (mut region, mut members) = (region(voters), members(voters, voters));
        for (at, role) in roles.iter().enumerate() {
            region.peers[at].role = *role;
        }
        let joint = region.is_joint();
        for (at, role) in roles.iter().enumerate() {
            members[at].incoming = role.votes_after();
            members[at].outgoing = joint && role.voted_before();
        }
        (region, members)
    }

    fn why(result: Result<(), RegionError>) -> &'static str {
        match result {
            Err(
                RegionError::ConfChangeRejected { why } | RegionError::ConfChangeUnsafe { why },
            ) => why,
            other => panic!("{other:?}"),
        }
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

    /// JC-04: each with its own reason.
    #[test]
    fn h30_joint_steps_that_make_no_sense_are_rejected() {
        use ChangeKind::{AddLearner, AddNode, RemoveNode};
        use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
        let (simple, healthy) = with_roles(&[Voter, Voter, Voter, Learner]);
        let ask = |changes: &[_]| ask_several(&simple, &healthy, changes);
        let reasons = [
            why(ask(&[(AddNode, 9, 9), (RemoveNode, 2, 2)])),
            why(ask(&[(AddNode, 9, 9), (RemoveNode, 1, 1)])),
            why(ask(&[(AddNode, 9, 9), (AddLearner, 9, 8)])),
            why(ask(&[(AddNode, 9, 9), (AddNode, 8, 9)])),
            why(ask(&[(AddLearner, 9, 9), (RemoveNode, 4, 4)])),
            why(ask(&[(AddLearner, 1, 1)])),
            why(ask(&[])),
        ];
        let distinct: std::collections::BTreeSet<_> = reasons.iter().collect();
        assert_eq!(distinct.len(), reasons.len(), "{reasons:?}");
        assert_eq!(ask(&[(AddLearner, 1, 1), (AddNode, 4, 4)]), Ok(()), "the leader, jointly");
        assert_eq!(ask(&[(AddLearner, 2, 2), (RemoveNode, 4, 4)]), Ok(()));

        let (joint, healthy) = with_roles(&[Voter, DemotingVoter, IncomingVoter]);
        assert_eq!(ask_several(&joint, &healthy, &[]), Ok(()));
        for more in [&[(AddLearner, 9, 9)][..], &[(AddNode, 9, 9), (AddLearner, 1, 1)]] {
            assert!(why(ask_several(&joint, &healthy, more)).starts_with("in joint"));
        }
        let (leaderless, healthy) = with_roles(&[DemotingVoter, Voter, IncomingVoter]);
        assert!(why(ask_several(&leaderless, &healthy, &[])).contains("demote the leader"));
    }

    /// H30: both halves of what would be joint can go on from the log and were heard from.
    #[test]
    fn h30_a_joint_step_needs_a_healthy_quorum_in_both_halves() {
        use ChangeKind::{AddLearner, AddNode};
        use PeerRole::{Learner, Voter};
        let roles = [Voter, Voter, Voter, Learner, Learner];
        let swap = [(AddLearner, 2, 2), (AddLearner, 3, 3), (AddNode, 4, 4), (AddNode, 5, 5)];
        let (region, healthy) = with_roles(&roles);
        assert_eq!(ask_several(&region, &healthy, &swap), Ok(()));
        // The old half {1, 2, 3} has no quorum without 2 and 3, the new one {1, 4, 5} none
        // without 4 and 5; each can do without one of them.
        for (silent, allowed) in
            [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true), (&[3], true)]
        {
            let mut lagging = healthy.clone();
            let mut waiting = healthy.clone();
            for at in silent {
                lagging[at - 1].matched = 3;
                waiting[at - 1].in_snapshot = true;
            }
            assert_eq!(ask_several(&region, &lagging, &swap).is_ok(), allowed, "{silent:?}");
            assert_eq!(ask_several(&region, &waiting, &swap).is_ok(), allowed, "{silent:?}");
        }
        let mut unheard = healthy.clone();
        unheard[3].heard = false;
        unheard[4].heard = false;
        assert!(why(ask_several(&region, &unheard, &swap)).contains("heard"));
        // New members count as lagging, unless a lone voter has to begin.
        let four = [(AddNode, 7, 7), (AddNode, 8, 8), (AddNode, 9, 9), (AddNode, 10, 10)];
        assert!(why(ask_several(&region, &healthy, &four)).contains("log"));
        let (lone, one) = with_roles(&[Voter]);
        assert_eq!(ask_several(&lone, &one, &four), Ok(()));
        let (with_learner, mut two) = with_roles(&[Voter, Learner]);
        two[1].in_snapshot = true;
        let promote = [(AddNode, 2, 2), (AddNode, 9, 9)];
        assert_eq!(ask_several(&with_learner, &two, &promote), Ok(()), "two of three are there");
        assert!(why(ask_several(&with_learner, &two, &promote[..1])).contains("log"));
    }

    /// H32: leadership goes to a voter that stays one.
    #[test]
    fn h32_a_member_being_demoted_is_not_handed_leadership() {
        use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
        let (region, all) = with_roles(&[Voter, DemotingVoter, IncomingVoter, Learner]);
        let s = Situation {
            region: &region,
            leader: PeerId::must(1),
            members: &all,
            first_index: 10,
            last_index: 20,
            applied_own_term: true,
            change_pending: false,
        };
        let to = |id| admit_transfer(&s, &Peer::voter(PeerId::must(id), StoreId::must(id)), 10);
        assert_eq!([2, 3, 4].map(|id| to(id).is_ok()), [false, true, false]);
        assert_ne!(to(2), to(4));
    }
}
