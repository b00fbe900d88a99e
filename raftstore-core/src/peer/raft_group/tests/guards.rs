//! What raft must not be asked, and what it gets wrong, kept from it or mended.

use super::*;

/// A snapshot of the region of peers 1 to 3, from peer 2.
fn snapshot(index: u64, term: u64) -> Message {
    let mut message = append(2, term, (0, 0), Vec::new(), 0);
    message.set_msg_type(MessageType::MsgSnapshot);
    let meta = message.mut_snapshot().mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.mut_conf_state().voters = vec![1, 2, 3];
    message
}

fn response(from: u64, kind: MessageType, term: u64) -> Message {
    let mut message = append(from, term, (0, 0), Vec::new(), 0);
    message.set_msg_type(kind);
    message
}

/// Makes peer 1 of a group of three the leader of term 6, its writes durable up to `round`.
/// Its first entry, at index 6, is not committed.
fn elected(group: &mut RaftGroup<MemRaftLog>) -> u64 {
    let mut round = 0;
    let mut persist = |group: &mut RaftGroup<MemRaftLog>| {
        while group.has_ready() {
            round += 1;
            let _ = take_round(group, round);
            let _ = group.on_round_durable(round);
        }
        round
    };
    group.campaign();
    persist(group);
    group.step(response(2, MessageType::MsgRequestPreVoteResponse, 6)).unwrap();
    persist(group);
    group.step(response(2, MessageType::MsgRequestVoteResponse, 6)).unwrap();
    assert!(group.is_leader() && group.term() == 6);
    persist(group)
}

/// R9: from the stepping of a snapshot until it is installed raft neither ticks nor
/// campaigns: it would look for entries that are no longer, or not yet, there.
#[test]
fn r9_raft_is_still_until_its_snapshot_is_in() {
    fn still(group: &mut RaftGroup<MemRaftLog>) {
        for _ in 0..100 {
            assert!(!group.tick());
        }
        group.campaign();
        assert!(!group.may_campaign() && !group.is_candidate());
        assert_eq!(group.term(), 6);
    }
    let mut group = group(&region(&[1, 2, 3], &[]));
    group.step(snapshot(20, 6)).unwrap();
    assert_eq!(group.pending_snapshot(), Some((20, 6)));
    still(&mut group);
    let mut collected = group.collect().unwrap();
    assert!(collected.snapshot.is_some());
    group.launch(&mut collected, None);
    still(&mut group);
    // raft has an answer to give, which has to wait too (W7).
    group.step(response(2, MessageType::MsgHeartbeat, 6)).unwrap();
    assert!(!group.has_ready(), "a ready was offered while the snapshot is taken in");
    group.unpark(1);
    let late = group.on_round_durable(1);
    assert_eq!(kinds(&late), [MessageType::MsgAppendResponse]);
    group.snapshot_persisted();
    still(&mut group);
    assert!(!group.has_ready());
    group.snapshot_installed();
    assert!((0..100).any(|_| group.tick()));
    assert!(group.is_candidate());
}

/// R11: a follower that knows its leader would forward what it is asked, and the leader
/// would execute what the caller was told is refused.
#[test]
fn r11_a_follower_forwards_nothing() {
    let mut group = group(&region(&[1, 2, 3], &[]));
    group.step(append(2, 6, (5, 5), vec![], 5)).unwrap();
    let _ = take_round(&mut group, 1);
    let _ = group.on_round_durable(1);
    assert_eq!(group.leader(), 2);
    let refused = Err(RegionError::NotLeader { region: RegionId::must(1), leader: None });
    assert_eq!(group.propose(b"x".to_vec(), EntryFlags::default()), refused);
    let peer = Replica::learner(PeerId::must(4), StoreId::must(4));
    let change = PeerChange { kind: ChangeKind::AddLearner, peer };
    assert_eq!(group.propose_conf_change(&[change], Vec::new()), refused);
    group.transfer_leader(PeerId::must(3));
    assert!(group.collect().is_none(), "something was forwarded");
    assert_eq!(group.last_index(), 5);
}

/// R16: raft drops a read without a word while its leader has committed nothing in its
/// term. Whether it took the read up shows in what is pending.
#[test]
fn r16_a_read_that_raft_drops_is_noticed() {
    let mut group = group(&region(&[1, 2, 3], &[]));
    let round = elected(&mut group) + 1;
    assert!(!group.read_index(&[1; 24]), "nobody will ever answer it");
    let mut acknowledged = response(2, MessageType::MsgAppendResponse, 6);
    acknowledged.index = 6;
    group.step(acknowledged).unwrap();
    let _ = take_round(&mut group, round);
    let _ = group.on_round_durable(round);
    assert!(group.read_index(&[2; 24]));
    let mut heard = response(2, MessageType::MsgHeartbeatResponse, 6);
    heard.context = vec![2; 24].into();
    group.step(heard).unwrap();
    let confirmed = group.collect().unwrap().read_states;
    assert_eq!(confirmed.len(), 1);
    assert_eq!((confirmed[0].index, &confirmed[0].request_ctx[..]), (6, &[2; 24][..]));
}

/// R16: a lone voter confirms itself: the read is ready at once, and that counts as taken.
#[test]
fn r16_a_read_that_is_ready_at_once_is_noticed() {
    let mut group = group(&region(&[1], &[]));
    group.campaign();
    let _ = take_round(&mut group, 1);
    let _ = group.on_round_durable(1);
    let _ = take_round(&mut group, 2);
    assert!(group.read_index(&[7; 24]));
}

/// R17, H66: a leader that is removed, or made a learner, leads no more the moment its
/// members change, and everything that comes after finds a follower.
#[test]
fn r17_a_leader_that_is_no_voter_is_a_follower_at_once() {
    let own = Replica::voter(PeerId::must(1), StoreId::must(1));
    for kind in [ChangeKind::RemoveNode, ChangeKind::AddLearner] {
        let mut group = group(&region(&[1, 2, 3], &[]));
        let _ = elected(&mut group);
        group.apply_conf_change(&[PeerChange { kind, peer: own }]);
        group.follow_unless_voter();
        assert!(!group.is_leader(), "{kind:?}");
        assert_eq!(group.leader(), 0);
        let mut acknowledged = response(2, MessageType::MsgAppendResponse, 6);
        acknowledged.index = 6;
        group.step(acknowledged).unwrap();
        for _ in 0..100 {
            group.tick();
        }
        group.campaign();
        assert!(!group.is_leader() && !group.is_candidate(), "{kind:?}");
        assert_eq!(group.committed(), 5, "{kind:?}: committed for a group it is not of");
    }
}

/// R32: a probe that was refused late makes raft 0.7 go back behind what the member has
/// acknowledged. It goes on from there, or it would send what may be cut off by then.
#[test]
fn r32_next_stays_above_what_a_member_has_acknowledged() {
    let mut group = group(&region(&[1, 2, 3], &[]));
    let _ = elected(&mut group);
    let mut acknowledged = response(2, MessageType::MsgAppendResponse, 6);
    acknowledged.index = 6;
    group.step(acknowledged).unwrap();
    group.report_unreachable(PeerId::must(2));
    let next = |group: &RaftGroup<MemRaftLog>| {
        let progress = group.raw.raft.prs().get(2).unwrap();
        (progress.matched, progress.next_idx)
    };
    assert_eq!(next(&group), (6, 7));
    let mut refused = response(2, MessageType::MsgAppendResponse, 6);
    refused.reject = true;
    (refused.index, refused.reject_hint, refused.log_term) = (6, 4, 5);
    group.step(refused).unwrap();
    let (matched, next) = next(&group);
    assert!(next > matched, "next {next}, though {matched} is acknowledged");
}
