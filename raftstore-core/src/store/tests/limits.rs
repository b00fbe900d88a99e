//! What is refused while the disk or apply is behind, and right after a start.

use raft::eraftpb::MessageType;
use raftstore_proto::{BusyReason, RaftMessage, Region, RegionError};

use super::harness::*;
use crate::{Config, Dropped};

const TERM: u64 = 6;

fn tight() -> Config {
    Config { max_rounds_in_flight: 1, ..config() }
}

/// R30: a leader whose rounds wait for the disk takes no more proposals, but goes on
/// speaking: its heartbeats leave.
#[test]
fn r30_a_leader_over_its_budget_refuses_proposals_and_goes_on_speaking() {
    let mut cluster = Cluster::with(tight(), 3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    let leader = cluster.on(1);
    let at_the_limit = [leader.put(R1, "a", "1"), leader.put(R1, "b", "1")];
    assert_eq!(leader.writes.len(), 2);
    let over = leader.put(R1, "c", "1");
    let busy = RegionError::ServerIsBusy { reason: BusyReason::Writes, backoff_ms: 50 };
    assert_eq!(leader.refusal(over), &busy);
    leader.tick(2);
    let beats = |message: &RaftMessage| message.raft().msg_type == MessageType::MsgHeartbeat;
    assert!(leader.out.iter().any(beats), "a slow disk looks like death");
    cluster.settle();
    let leader = cluster.on(1);
    for reply in at_the_limit {
        assert!(leader.answer(reply).unwrap().is_ok());
    }
    let again = leader.put(R1, "c", "1");
    cluster.settle();
    assert!(cluster.on(1).answer(again).unwrap().is_ok());
}

/// R30: a follower whose rounds wait for the disk drops entries before raft sees them, and
/// follows its leader all the same.
#[test]
fn r30_a_follower_over_its_budget_drops_entries_only() {
    let whole = region(R1, "", "", &[1, 2, 3]);
    let mut node = Node::new(1, tight(), std::slice::from_ref(&whole));
    let ends = (voter(R1, 2), voter(R1, 1));
    node.receive(append(&whole, ends, TERM, (SEEDED, SEEDED), 6, SEEDED));
    node.receive(append(&whole, ends, TERM, (6, TERM), 7, SEEDED));
    assert_eq!((node.writes.len(), node.status(R1).last_index), (2, 7));
    node.receive(append(&whole, ends, TERM, (7, TERM), 8, SEEDED));
    assert_eq!(node.dropped(Dropped::Backpressure), 1);
    assert_eq!(node.status(R1).last_index, 7);
    // A newer leader is heard, and its empty append moves the commit index.
    let mut heartbeat = message(&whole, ends, MessageType::MsgHeartbeat, TERM + 1);
    heartbeat.raft_mut().commit = SEEDED;
    node.receive(heartbeat);
    assert_eq!(node.status(R1).term, TERM + 1);
    assert_eq!(node.writes.len(), 3, "the new term has to be written");
    node.persist();
    node.receive(append(&whole, ends, TERM + 1, (7, TERM), 8, 8));
    assert_eq!(node.status(R1).last_index, 8);
}

/// R30: what waits to be executed counts too, for leaders and followers, and counts no
/// more once it is done.
#[test]
fn r30_a_backlog_of_apply_is_bounded() {
    let config = Config { raft_entry_max_size: 1_000, apply_backlog_bytes: 1_000, ..config() };
    let value = "v".repeat(600);
    let whole = region(R1, "", "", &[1]);
    let mut lone = Node::new(1, config.clone(), std::slice::from_ref(&whole));
    lone.settle();
    for _ in 0..2 {
        let below = lone.put(R1, "a", &value);
        assert_eq!(lone.answer(below), None);
        lone.persist();
    }
    let over = lone.put(R1, "a", &value);
    let busy = RegionError::ServerIsBusy { reason: BusyReason::Apply, backoff_ms: 50 };
    assert_eq!(lone.refusal(over), &busy);
    lone.apply();
    let again = lone.put(R1, "a", &value);
    lone.settle();
    assert!(lone.answer(again).unwrap().is_ok());

    let whole = region(R1, "", "", &[1, 2, 3]);
    let mut node = Node::new(1, config, std::slice::from_ref(&whole));
    let ends = (voter(R1, 2), voter(R1, 1));
    let next = |last: u64| {
        let behind = (last - 1, if last == SEEDED + 1 { SEEDED } else { TERM });
        let mut message = append(&whole, ends, TERM, behind, last - 1, last);
        message.raft_mut().entries.push(entry(R1, last, TERM, vec![0; 600]));
        message
    };
    for last in [6, 7] {
        node.receive(next(last));
        node.persist();
        assert_eq!(node.status(R1).last_index, last);
    }
    node.receive(next(8));
    assert_eq!((node.dropped(Dropped::Backpressure), node.status(R1).last_index), (1, 7));
}

fn asks_for_a_vote(whole: &Region, kind: MessageType) -> RaftMessage {
    let mut asks = message(whole, (voter(R1, 2), voter(R1, 1)), kind, TERM);
    (asks.raft_mut().index, asks.raft_mut().log_term) = (SEEDED, SEEDED);
    asks
}

/// H35: whoever this store followed before it stopped may hold a lease still: for one
/// election timeout after its start it gives no vote, of either kind.
#[test]
fn h35_no_vote_before_an_old_lease_has_run_out() {
    let whole = region(R1, "", "", &[1, 2, 3]);
    let timeout = config().election_timeout();
    for kind in [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote] {
        let mut node = Node::new(1, config(), std::slice::from_ref(&whole));
        node.now = crate::MonoTime::ZERO + (timeout - std::time::Duration::from_nanos(1));
        node.receive(asks_for_a_vote(&whole, kind));
        node.settle();
        assert_eq!(node.dropped(Dropped::UnsafeVote), 1);
        assert_eq!(node.sent(), []);
        assert_eq!(node.status(R1).vote, 0);
        node.now = crate::MonoTime::ZERO + timeout;
        node.receive(asks_for_a_vote(&whole, kind));
        node.settle();
        assert_eq!(node.dropped(Dropped::UnsafeVote), 1);
        assert_eq!(node.out.len(), 1);
        assert!(!node.out[0].raft().reject);
    }
}

/// A merge is refused by name, and nothing of it gets into the log.
#[test]
fn a_merge_is_not_proposed() {
    let mut node = Node::new(1, config(), &[region(R1, "", "", &[1])]);
    node.settle();
    let before = node.status(R1).last_index;
    for cmd_type in 7..=9 {
        let merge = raftstore_proto::AdminCommand::Invalid { cmd_type };
        let reply = node.ask(R1, raftstore_proto::Body::Admin(merge));
        let expected = RegionError::Unsupported { what: "region merge" };
        assert_eq!(node.refusal(reply), &expected);
        assert_eq!(expected.to_string(), "region merge is not supported");
    }
    assert_eq!(node.status(R1).last_index, before);
}
