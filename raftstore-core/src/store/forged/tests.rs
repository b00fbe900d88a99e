//! What is refused, and that its true neighbours are not.

use raft::eraftpb::{Entry, Message};
use raftstore_proto::{Epoch, Peer, PeerId, RegionId, StoreId};

use super::*;

const FROM: Peer = Peer::voter(PeerId::must(102), StoreId::must(2));
const TO: Peer = Peer::voter(PeerId::must(101), StoreId::must(1));
const R1: RegionId = RegionId::must(1);

/// Entries up to 20 are there, up to 15 they are committed, the last of these in term 6.
const RECEIVER: Receiver =
    Receiver { term: 7, leads: true, last_index: 20, committed: 15, committed_term: Some(6) };

fn of(kind: MessageType, term: u64) -> Message {
    let mut raft = Message::default();
    raft.set_msg_type(kind);
    (raft.from, raft.to, raft.term) = (FROM.id.get(), TO.id.get(), term);
    raft
}

fn forged(raft: Message) -> bool {
    is_forged(&RaftMessage::new(R1, FROM, TO, Epoch::default(), raft), &RECEIVER)
}

#[test]
fn only_questions_have_no_term() {
    for kind in [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgTimeoutNow,
    ] {
        assert!(forged(of(kind, 0)), "{kind:?}");
        assert!(!forged(of(kind, 7)), "{kind:?}");
    }
    let mut question = of(MessageType::MsgReadIndex, 0);
    assert!(forged(question.clone()), "a question without what is asked");
    question.entries.push(Entry::default());
    assert!(!forged(question.clone()));
    // Passed on by who leads no more, perhaps back to the asker.
    assert!(!forged(Message { from: TO.id.get(), ..question.clone() }));
    let own = RaftMessage::new(R1, TO, TO, Epoch::default(), {
        question.from = TO.id.get();
        question
    });
    assert!(is_forged(&own, &RECEIVER));
    let mut answer = of(MessageType::MsgReadIndexResp, 7);
    assert!(forged(answer.clone()));
    answer.entries.push(Entry::default());
    assert!(!forged(answer));
}

#[test]
fn what_only_a_peer_itself_asks_comes_from_nobody() {
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgPropose,
        MessageType::MsgTransferLeader,
    ] {
        assert!(forged(of(kind, 7)), "{kind:?}");
    }
}

#[test]
fn envelope_and_content_name_the_same_peers() {
    for change in [|raft: &mut Message| raft.from = 103, |raft: &mut Message| raft.to = 103] {
        let mut raft = of(MessageType::MsgHeartbeat, 7);
        change(&mut raft);
        assert!(forged(raft));
    }
    assert!(is_forged(&RaftMessage::default(), &RECEIVER));
}

#[test]
fn a_heartbeat_commits_no_more_than_was_acknowledged() {
    for (commit, expected) in [(0, false), (20, false), (21, true), (u64::MAX, true)] {
        let mut raft = of(MessageType::MsgHeartbeat, 7);
        raft.commit = commit;
        assert_eq!(forged(raft.clone()), expected, "{commit}");
        raft.term = 6;
        assert!(!forged(raft), "old, and of no consequence");
    }
}

fn append(place: (u64, u64), entries: &[(u64, u64)]) -> Message {
    let mut raft = of(MessageType::MsgAppend, 7);
    (raft.index, raft.log_term) = place;
    for (index, term) in entries {
        raft.entries.push(Entry { index: *index, term: *term, ..Entry::default() });
    }
    raft
}

#[test]
fn entries_follow_their_place_and_each_other() {
    for true_one in [
        append((20, 7), &[]),
        append((20, 7), &[(21, 7), (22, 7)]),
        append((17, 6), &[(18, 6), (19, 7)]),
        // Late, or probing far ahead.
        append((3, 2), &[(4, 2), (5, 3)]),
        append((15, 6), &[(16, 6)]),
        append((500, 7), &[(501, 7)]),
        // Of a leader that has been voted out since: what it had was never committed.
        Message { term: 6, ..append((20, 5), &[(21, 6)]) },
    ] {
        assert!(!forged(true_one.clone()), "{true_one:?}");
    }
    for false_one in [
        append((20, 7), &[(22, 7)]),
        append((20, 7), &[(21, 7), (23, 7)]),
        append((20, 7), &[(21, 7), (21, 7)]),
        append((20, 7), &[(20, 7)]),
        append((20, 7), &[(21, 8)]),
        append((20, 7), &[(21, 7), (22, 6)]),
        append((20, 7), &[(21, 0)]),
        append((u64::MAX, 7), &[(0, 7)]),
        // A leader without what is committed.
        append((15, 5), &[]),
        append((20, 5), &[(21, 7)]),
    ] {
        assert!(forged(false_one.clone()), "{false_one:?}");
    }
}

#[test]
fn nobody_has_more_of_a_log_than_its_leader() {
    let answer = |term: u64, index: u64, refusal: Option<u64>| {
        let mut raft = of(MessageType::MsgAppendResponse, term);
        raft.index = index;
        raft.reject = refusal.is_some();
        raft.reject_hint = refusal.unwrap_or(0);
        raft
    };
    for true_one in [answer(7, 20, None), answer(7, 0, None), answer(7, 20, Some(20))] {
        assert!(!forged(true_one.clone()), "{true_one:?}");
    }
    // Of a term that is over, or not yet here, raft makes nothing of the index.
    assert!(!forged(answer(6, 99, None)) && !forged(answer(8, 99, None)));
    for false_one in [answer(7, 21, None), answer(7, u64::MAX, None), answer(7, 19, Some(20))] {
        assert!(forged(false_one.clone()), "{false_one:?}");
    }
    let mut wish = answer(7, 15, Some(15));
    wish.request_snapshot = 15;
    assert!(forged(wish), "nobody asks for a snapshot");
}

#[test]
fn the_members_of_a_snapshot_are_those_of_its_region() {
    let region = Region { peers: vec![TO, FROM], ..Region::uninitialized(R1) };
    let expected = ConfState { voters: vec![101, 102], ..ConfState::default() };
    let has = |members: &ConfState| has_members_of(members, &region, &expected);
    assert!(has(&expected));
    assert!(has(&ConfState { voters: vec![102, 101], ..ConfState::default() }));
    for wrong in [
        ConfState::default(),
        ConfState { voters: vec![101], ..ConfState::default() },
        ConfState { voters: vec![101, 102, 103], ..ConfState::default() },
        ConfState { voters: vec![101, 101], ..ConfState::default() },
        ConfState { learners: vec![103], ..expected.clone() },
        ConfState { voters_outgoing: vec![101], ..expected.clone() },
        ConfState { voters: vec![101], learners: vec![102], ..ConfState::default() },
    ] {
        assert!(!has(&wrong), "{wrong:?}");
    }
    let twice = Region { peers: vec![TO, TO], ..Region::uninitialized(R1) };
    let members = ConfState { voters: vec![101, 101], ..ConfState::default() };
    assert!(!has_members_of(&members, &twice, &members));
    assert!(!has_members_of(&ConfState::default(), &region, &ConfState::default()));
}
