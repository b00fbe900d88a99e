//! Membership changes as entries.

use super::*;

const LEARNER: Peer = Peer::learner(PeerId::must(13), StoreId::must(3));

fn members(outcome: &ApplyOutcome<MemEngine>) -> &Option<(Vec<PeerChange>, Region)> {
    match applied(outcome).exec.as_slice() {
        [ExecResult::ChangePeer { applied, .. }] => applied,
        other => panic!("not one change: {other:?}"),
    }
}

/// H58: the answer comes with the result, so that the store can act on it first.
#[test]
fn h58_change_is_recorded_and_answered_with_its_result() {
    let mut fixture = Fixture::new();
    let add = change_peer(ChangeKind::AddLearner, LEARNER);
    let outcome = fixture.execute(vec![conf_change(6, &add)]);
    let mut after = region(R1);
    after.peers.push(LEARNER);
    after.epoch.conf_ver += 1;
    let change = PeerChange { kind: ChangeKind::AddLearner, peer: LEARNER };
    assert_eq!(
        applied(&outcome).exec,
        [ExecResult::ChangePeer { index: 6, applied: Some((vec![change], after.clone())) }]
    );
    let state = RegionState { phase: RegionPhase::Normal, region: after.clone() };
    assert_eq!(fixture.stored_region(R1), Some(state));
    assert_eq!(fixture.kv.unsynced_writes(), 1, "with the apply state");
    assert!(outcome.answers.is_empty());
    let expected = Ok(ResponseBody::Admin(AdminResponse::ChangePeer(after)));
    assert_eq!(answer(&applied(&outcome).answers, 6), &expected);
}

#[test]
fn learner_is_promoted() {
    let mut fixture = Fixture::new();
    let add = change_peer(ChangeKind::AddLearner, LEARNER);
    let mut promote = change_peer(ChangeKind::AddNode, Peer::voter(LEARNER.id, LEARNER.store));
    promote.header.epoch = Some(Epoch { conf_ver: EPOCH.conf_ver + 1, ..EPOCH });
    let _ = fixture.execute(vec![conf_change(6, &add)]);
    let outcome = fixture.execute(vec![conf_change(7, &promote)]);
    let (_, region) = members(&outcome).as_ref().expect("promoted");
    assert_eq!(region.peers[2], Peer::voter(LEARNER.id, LEARNER.store));
    assert_eq!(region.epoch.conf_ver, EPOCH.conf_ver + 2);
}

/// Refused changes always give a result, raise nothing and write no record.
#[test]
fn refused_change_leaves_the_region_alone() {
    let other = Peer::voter(PeerId::must(99), OTHER.store);
    let mut missing = change_peer(ChangeKind::AddLearner, LEARNER);
    missing.header.epoch = None;
    let joint = command(Body::Admin(AdminCommand::ChangePeerV2(vec![])));
    for refused in [
        change_peer(ChangeKind::AddNode, other),
        change_peer(ChangeKind::RemoveNode, other),
        change_peer(ChangeKind::RemoveNode, LEARNER),
        missing,
        joint,
        operations(vec![put("b", "1")]),
    ] {
        let mut fixture = Fixture::new();
        let outcome = fixture.execute(vec![conf_change(6, &refused)]);
        assert_eq!(members(&outcome), &None, "{refused:?}");
        assert!(answer(&applied(&outcome).answers, 6).is_err());
        assert_eq!(fixture.stored_region(R1), None);
        assert_eq!(fixture.worker.applier(R1).unwrap().region(), &region(R1));
        assert_eq!(fixture.data("b"), None);
    }
}

#[test]
fn change_without_a_command_is_refused() {
    let mut fixture = Fixture::new();
    let mut leave = raw(6, TERM, Vec::new());
    leave.entry_type = eraftpb::EntryType::EntryConfChangeV2;
    let outcome = fixture.execute(vec![seal(R1, leave)]);
    assert_eq!(members(&outcome), &None);
}

/// H10, H11: the tombstone names the removed peer, so that it cannot come back.
#[test]
fn h10_own_removal_leaves_a_tombstone_that_knows_us() {
    let mut fixture = Fixture::new();
    let remove = change_peer(ChangeKind::RemoveNode, OWN);
    let entries = vec![
        entry(6, &operations(vec![put("b", "1")])),
        conf_change(7, &remove),
        entry(8, &operations(vec![put("c", "1")])),
    ];
    let outcome = fixture.execute(entries);
    let mut after = region(R1);
    after.peers = vec![OTHER];
    after.epoch.conf_ver += 1;
    assert_eq!(members(&outcome).as_ref().map(|(_, region)| region), Some(&after));
    after.peers.push(OWN);
    let tombstone = RegionState { phase: RegionPhase::Tombstone, region: after };
    assert_eq!(fixture.stored_region(R1), Some(tombstone));
    assert_eq!(fixture.stored_state(R1), None, "a tombstone has no apply state");
    assert_eq!(applied(&outcome).state.applied, 7);
    // What was ordered behind the removal is not executed here, and said to be elsewhere.
    assert_eq!(fixture.data("c"), None);
    let gone = RegionError::RegionNotFound { region: R1 };
    assert_eq!(outcome.answers[1], (reply(8), Response::error(TERM, gone.clone())));
    let outcome = fixture.execute(vec![entry(9, &operations(vec![put("d", "1")]))]);
    assert_eq!(answer(&outcome.answers, 9), &Err(gone));
    assert!(outcome.events.is_empty());
    let snapshot = fixture.run(vec![task(R1, snapshot_at(5))]);
    assert!(snapshot.builds.is_empty());
    let destroyed = fixture.run(vec![task(R1, ApplyWork::Destroy)]);
    assert!(matches!(destroyed.events.as_slice(), [ApplyEvent::Destroyed { region: R1, .. }]));
}

#[test]
fn removal_of_another_peer_goes_on() {
    let mut fixture = Fixture::new();
    let remove = change_peer(ChangeKind::RemoveNode, OTHER);
    let outcome =
        fixture.execute(vec![conf_change(6, &remove), entry(7, &operations(vec![put("b", "1")]))]);
    assert_eq!(members(&outcome).as_ref().unwrap().1.peers, [OWN]);
    assert_eq!(fixture.stored_region(R1).unwrap().phase, RegionPhase::Normal);
    assert!(fixture.data("b").is_some());
}

/// JC-01: the marks of a joint step are stored and told, and so is their end.
#[test]
fn several_changes_are_entered_and_left() {
    let mut fixture = Fixture::new();
    let third = Peer::voter(PeerId::must(14), StoreId::must(4));
    let changes = vec![
        PeerChange { kind: ChangeKind::AddLearner, peer: OTHER },
        PeerChange { kind: ChangeKind::AddNode, peer: third },
    ];
    let enter = command(Body::Admin(AdminCommand::ChangePeerV2(changes.clone())));
    let mut leave = command(Body::Admin(AdminCommand::ChangePeerV2(Vec::new())));
    leave.header.epoch = Some(Epoch { conf_ver: EPOCH.conf_ver + 2, ..EPOCH });

    let outcome = fixture.execute(vec![conf_change_v2(6, &enter)]);
    let (told, joint) = members(&outcome).clone().expect("entered");
    assert_eq!(told, changes);
    assert_eq!(joint.epoch.conf_ver, EPOCH.conf_ver + 2);
    let roles: Vec<PeerRole> = joint.peers.iter().map(|peer| peer.role).collect();
    assert_eq!(roles, [PeerRole::Voter, PeerRole::DemotingVoter, PeerRole::IncomingVoter]);
    let state = RegionState { phase: RegionPhase::Normal, region: joint.clone() };
    assert_eq!(fixture.stored_region(R1), Some(state));
    let expected = Ok(ResponseBody::Admin(AdminResponse::ChangePeer(joint)));
    assert_eq!(answer(&applied(&outcome).answers, 6), &expected);

    // A second one that was ordered before the first was known is fenced by the epoch.
    let outcome = fixture.execute(vec![conf_change_v2(7, &enter)]);
    assert_eq!(members(&outcome), &None);
    let outcome = fixture.execute(vec![conf_change_v2(8, &leave)]);
    let (told, left) = members(&outcome).clone().expect("left");
    assert_eq!(told, []);
    assert_eq!(left.epoch.conf_ver, EPOCH.conf_ver + 4);
    let roles: Vec<PeerRole> = left.peers.iter().map(|peer| peer.role).collect();
    assert_eq!(roles, [PeerRole::Voter, PeerRole::Learner, PeerRole::Voter]);
    assert_eq!(fixture.stored_region(R1).map(|state| state.region), Some(left));
}

/// Either form of one change is one change.
#[test]
fn one_change_in_the_form_of_several_is_not_joint() {
    let mut fixture = Fixture::new();
    let change = PeerChange { kind: ChangeKind::AddLearner, peer: OTHER };
    let demote = command(Body::Admin(AdminCommand::ChangePeerV2(vec![change])));
    let outcome = fixture.execute(vec![conf_change(6, &demote)]);
    let (_, region) = members(&outcome).as_ref().expect("demoted");
    assert_eq!(region.peers[1].role, PeerRole::Learner);
    assert_eq!(region.epoch.conf_ver, EPOCH.conf_ver + 1);
}
