//! Joint configurations: what raft is told, how often, and what a leader is afterwards.

use raftstore_proto::PeerRole;

use super::*;

fn peer(id: u64, role: PeerRole) -> Replica {
    Replica { id: PeerId::must(id), store: StoreId::must(id), role }
}

fn change(kind: ChangeKind, id: u64) -> PeerChange {
    PeerChange { kind, peer: peer(id, PeerRole::Voter) }
}

fn with_roles(roles: &[(u64, PeerRole)]) -> Region {
    let peers = roles.iter().map(|(id, role)| peer(*id, *role)).collect();
    Region { peers, ..region(&[1], &[]) }
}

/// Peer 1 as the leader of a region of which it is the only voter, its term durable.
fn lone_leader(learners: &[u64]) -> RaftGroup<MemRaftLog> {
    let mut group = group(&region(&[1], learners));
    group.campaign();
    settle(&mut group, 1);
    assert!(group.is_leader());
    group
}

/// Writes and applies what raft wants, as round `round` and the following.
fn settle(group: &mut RaftGroup<MemRaftLog>, mut round: u64) {
    while let Some(mut collected) = group.collect() {
        let last = collected.committed.last().map_or(0, Entry::index);
        group.launch(&mut collected, Some(round));
        let _ = group.on_round_durable(round);
        group.advance_apply(last);
        round += 1;
    }
}

/// H51, R36: raft may know a change from a snapshot already. Entering and leaving again
/// changes nothing, and its members are those of the region's roles throughout (I7).
#[test]
fn h51_a_change_that_raft_knows_has_no_effect() {
    use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
    let mut group = group(&region(&[1, 2], &[3]));
    let enter = [
        change(ChangeKind::AddLearner, 2),
        change(ChangeKind::AddNode, 3),
        change(ChangeKind::AddNode, 4),
        change(ChangeKind::AddLearner, 5),
    ];
    let joint = with_roles(&[
        (1, Voter),
        (2, DemotingVoter),
        (3, IncomingVoter),
        (4, IncomingVoter),
        (5, Learner),
    ]);
    for _ in 0..2 {
        group.apply_conf_change(&enter);
        assert!(group.agrees_with(&joint), "{:?}", group.voters());
    }
    assert!(!group.agrees_with(&region(&[1, 3, 4], &[2, 5])));
    for _ in 0..2 {
        group.apply_conf_change(&[]);
        assert!(group.agrees_with(&region(&[1, 3, 4], &[2, 5])), "{:?}", group.voters());
    }
    // A peer built from the region's roles, as after a restart, has the same members.
    assert!(super::group(&joint).agrees_with(&joint));
    assert_eq!(super::group(&joint).voters(), (vec![1, 3, 4], vec![1, 2]));
}

/// R17, H66: whoever applies its own removal or demotion leads no longer, at once.
#[test]
fn r17_a_leader_that_is_no_voter_any_more_follows_at_once() {
    let mut demoted = lone_leader(&[2]);
    let swap = [change(ChangeKind::AddLearner, 1), change(ChangeKind::AddNode, 2)];
    demoted.apply_conf_change(&swap);
    demoted.follow_unless_voter();
    assert!(demoted.is_leader(), "it votes in the old half, and may lead until the end");
    demoted.apply_conf_change(&[]);

    let mut removed = lone_leader(&[2]);
    removed.apply_conf_change(&[change(ChangeKind::AddNode, 2)]);
    assert!(removed.is_leader());
    removed.apply_conf_change(&[change(ChangeKind::RemoveNode, 1)]);

    for mut group in [demoted, removed] {
        group.follow_unless_voter();
        assert!(!group.is_leader());
        assert_eq!(group.leader(), 0);
        // It neither proposes nor campaigns, and nothing in raft trips over it.
        assert!(group.propose(b"x".to_vec(), EntryFlags::default()).is_err());
        assert!((0..100).all(|_| !group.tick()));
        settle(&mut group, 10);
    }
}

/// R37: alone in both halves it would lead within its own campaign, as without halves.
#[test]
fn r37_the_sole_voter_of_both_halves_does_not_campaign_over_unreported_writes() {
    let mut group = group(&region(&[1], &[]));
    // No region ever comes to this: roles would not show it. Raft allows it all the same.
    group
        .apply_conf_change(&[change(ChangeKind::AddLearner, 2), change(ChangeKind::AddLearner, 3)]);
    assert_eq!(group.voters(), (vec![1], vec![1]));
    assert!(group.is_sole_voter());
    group.campaign();
    let _ = take_round(&mut group, 1);
    group.step_down();
    assert!(!group.may_campaign());

    let mut two = super::group(&region(&[1], &[2]));
    two.apply_conf_change(&[change(ChangeKind::AddNode, 2), change(ChangeKind::AddNode, 3)]);
    assert_eq!(two.voters().1, [1]);
    assert!(!two.is_sole_voter(), "the new half needs others");
}

/// R40: raft is never told to leave by itself; entering and leaving are entries that carry
/// their command, and neither is taken for one that raft refused.
#[test]
fn r40_entering_and_leaving_are_proposals() {
    let mut group = lone_leader(&[2]);
    let region = region(&[1], &[2]);
    let enter = [change(ChangeKind::AddNode, 2), change(ChangeKind::AddLearner, 3)];
    let (index, _) = group.propose_conf_change(&enter, b"enter".to_vec()).unwrap();
    let collected = take_round(&mut group, 20);
    assert!(collected.entries[0].flags().conf_change);
    collected.entries[0].verify(region.id).unwrap();
    let _ = group.on_round_durable(20);
    assert_eq!(group.collect().unwrap().committed.last().map(Entry::index), Some(index));
    group.apply_conf_change(&enter);
    group.advance_apply(index);
    assert_eq!(group.last_index(), index, "raft has left by itself");
    assert!(!group.has_pending_conf());
    let (left_at, _) = group.propose_conf_change(&[], b"leave".to_vec()).unwrap();
    assert_eq!(left_at, index + 1);
    let again = group.propose_conf_change(&[], b"leave".to_vec());
    assert_eq!(again, Err(RegionError::ConfChangePending));
}
