//! The rules of pipelined persistence, each provoked directly.

use bytes::Bytes;
use engine_traits::mem::MemRaftLog;
use raft::eraftpb::{Entry as RaftEntry, EntryType};
use raftstore_proto::{
    ChangeKind, Epoch, LocalState, Peer as Replica, PeerChange, Region, StoreId,
};

use super::*;

mod guards;
mod joint;

fn region(voters: &[u64], learners: &[u64]) -> Region {
    let voter = |id: &u64| Replica::voter(PeerId::must(*id), StoreId::must(*id));
    let learner = |id: &u64| Replica::learner(PeerId::must(*id), StoreId::must(*id));
    Region {
        id: RegionId::must(1),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: voters.iter().map(voter).chain(learners.iter().map(learner)).collect(),
    }
}

/// Peer 1 of a region right after bootstrap: the log starts behind index 5, term 5.
fn group(region: &Region) -> RaftGroup<MemRaftLog> {
    let local = LocalState {
        peer: PeerId::must(1),
        hard_state: HardState { term: 5, vote: 0, commit: 5 },
        last_index: 5,
    };
    let at = Truncated { index: 5, term: 5 };
    let storage = PeerStorage::new(MemRaftLog::default(), region, &local, at, 5);
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RaftGroup::new(&Config::default(), storage, region.id, PeerId::must(1), 5, &logger).unwrap()
}

fn entry(index: u64, term: u64) -> RaftEntry {
    let mut entry = RaftEntry::default();
    entry.set_entry_type(EntryType::EntryNormal);
    entry.index = index;
    entry.term = term;
    entry.data = vec![u8::try_from(term).unwrap(); 8].into();
    entry
}

fn append(from: u64, term: u64, prev: (u64, u64), entries: Vec<RaftEntry>, commit: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgAppend);
    message.from = from;
    message.to = 1;
    message.term = term;
    message.index = prev.0;
    message.log_term = prev.1;
    message.commit = commit;
    message.entries = entries.into();
    message
}

fn take_round(group: &mut RaftGroup<MemRaftLog>, round: u64) -> Collected {
    let mut collected = group.collect().expect("raft has something to do");
    group.launch(&mut collected, Some(round));
    collected
}

fn kinds(messages: &[Message]) -> Vec<MessageType> {
    messages.iter().map(Message::get_msg_type).collect()
}

/// R22, R33: a follower acknowledges only what is durable, and after raft was told so.
#[test]
fn r22_acknowledgements_wait_for_the_proof() {
    let mut group = group(&region(&[1, 2, 3], &[]));
    group.step(append(2, 6, (5, 5), vec![entry(6, 6)], 5)).unwrap();
    let collected = take_round(&mut group, 1);
    assert!(collected.early.is_empty() && collected.must_write);
    assert_eq!(group.storage().persisted_index, 5);
    let late = group.on_round_durable(1);
    assert_eq!(kinds(&late), [MessageType::MsgAppendResponse]);
    assert_eq!(group.storage().persisted_index, 6);
}

/// R22: a ready with nothing to write waits behind an earlier one that is in flight.
#[test]
fn r22_a_ready_without_a_write_does_not_overtake() {
    let mut group = group(&region(&[1, 2, 3], &[]));
    group.step(append(2, 6, (5, 5), vec![entry(6, 6)], 5)).unwrap();
    let _ = take_round(&mut group, 1);
    group.step(append(2, 6, (6, 6), vec![], 5)).unwrap();
    let mut second = group.collect().unwrap();
    assert!(!second.must_write && second.early.is_empty());
    group.launch(&mut second, None);
    assert_eq!(group.on_round_durable(1).len(), 2);
}

/// R35: the same index is on its way twice. The proof of the first write must not make
/// raft believe that the second has landed.
#[test]
fn r35_proofs_wait_while_an_index_is_in_flight_twice() {
    let mut group = group(&region(&[1, 2, 3], &[]));
    group.step(append(2, 6, (5, 5), vec![entry(6, 6)], 5)).unwrap();
    let _ = take_round(&mut group, 1);
    group.step(append(3, 7, (5, 5), vec![entry(6, 7)], 5)).unwrap();
    let _ = take_round(&mut group, 2);
    group.step(append(2, 8, (5, 5), vec![entry(6, 6), entry(7, 8)], 7)).unwrap();
    let _ = take_round(&mut group, 3);
    for round in [1, 2] {
        assert!(group.on_round_durable(round).is_empty(), "round {round} released messages");
        assert_eq!(group.storage().persisted_index, 5);
        assert!(!group.has_ready(), "round {round} made entries look durable");
    }
    assert_eq!(group.on_round_durable(3).len(), 3);
    assert_eq!(group.storage().persisted_index, 7);
    let committed = group.collect().unwrap().committed;
    assert_eq!(committed.iter().map(Entry::term).collect::<Vec<_>>(), [6, 8]);
}

/// R34: a sole voter becomes leader inside its own campaign; what it says as a leader waits
/// until its term is durable.
#[test]
fn r34_a_leader_is_silent_until_its_term_is_durable() {
    let mut group = group(&region(&[1], &[2]));
    group.campaign();
    assert!(group.is_leader());
    let first = take_round(&mut group, 1);
    assert!(first.early.is_empty(), "appends left before the term was durable");
    assert!(first.committed.is_empty(), "committed before it was durable (R10)");
    let late = group.on_round_durable(1);
    assert!(kinds(&late).contains(&MessageType::MsgAppend));
    // R21: the own proof commits; the entries come with the next ready.
    let committed = group.collect().unwrap().committed;
    assert_eq!(committed.len(), 1);
    let (index, term) = group.propose(b"x".to_vec(), EntryFlags::default()).unwrap();
    assert_eq!((index, term), (7, 6));
    let mut second = group.collect().unwrap();
    group.launch(&mut second, Some(2));
    assert!(!group.on_round_durable(2).iter().any(|m| m.entries.len() > 1));
}

/// R37: a sole voter does not campaign while its writes are unreported.
#[test]
fn r37_a_sole_voter_does_not_campaign_over_unreported_writes() {
    let mut group = group(&region(&[1], &[2]));
    group.campaign();
    let _ = take_round(&mut group, 1);
    group.step_down();
    assert!(!group.may_campaign());
    for _ in 0..100 {
        assert!(!group.tick());
    }
    let _ = group.on_round_durable(1);
    assert!(group.may_campaign());
}

/// W14: the checksum made at proposal fits the place the entry was given.
#[test]
fn w14_proposed_entries_verify() {
    let region = region(&[1], &[]);
    let mut group = group(&region);
    group.campaign();
    let _ = take_round(&mut group, 1);
    let _ = group.on_round_durable(1);
    group.propose(b"payload".to_vec(), EntryFlags::default()).unwrap();
    let change = PeerChange {
        kind: ChangeKind::AddLearner,
        peer: Replica::learner(PeerId::must(4), StoreId::must(4)),
    };
    let collected = take_round(&mut group, 2);
    for entry in &collected.entries {
        entry.verify(region.id).unwrap();
    }
    let _ = group.on_round_durable(2);
    while let Some(mut more) = group.collect() {
        let last = more.committed.last().map_or(0, Entry::index);
        group.launch(&mut more, None);
        group.advance_apply(last);
    }
    group.propose_conf_change(&[change], b"command".to_vec()).unwrap();
    let collected = take_round(&mut group, 3);
    assert!(collected.entries[0].flags().conf_change);
    collected.entries[0].verify(region.id).unwrap();
    // H31: a second change while one is pending is refused, not turned into an empty entry
    // that nobody answers.
    let again = group.propose_conf_change(&[change], Vec::new());
    assert_eq!(again, Err(RegionError::ConfChangePending));
}

/// R41: election timeouts follow from the seed.
#[test]
fn r41_election_timeouts_are_drawn_from_the_seed() {
    let ticks_to_campaign = || {
        let mut group = group(&region(&[1, 2, 3], &[]));
        (0..).find(|_| group.tick()).unwrap()
    };
    let first = ticks_to_campaign();
    let election = Config::default().raft_election_timeout_ticks;
    assert!((election - 1..2 * election).contains(&first), "campaigned after {first} ticks");
    assert_eq!(first, ticks_to_campaign());
}
