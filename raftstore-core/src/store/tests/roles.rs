//! What becoming, being and no longer being a leader brings.

use std::time::Duration;

use raft::eraftpb::MessageType;
use raftstore_proto::{AdminCommand, Body, PeerChange, RaftMessage, RegionError, RegionPhase};

use super::harness::*;
use crate::{Config, Dropped, Event, PdRequest};

fn three() -> Cluster {
    Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])])
}

fn touches(message: &RaftMessage, store: u64) -> bool {
    let ends = [message.from_peer().unwrap(), message.to_peer().unwrap()];
    ends.iter().any(|peer| peer.store.get() == store)
}

/// H26: what a new leader knows of its members may be old until it has applied an entry of
/// its own term; until then it changes nothing.
#[test]
fn h26_a_new_leader_changes_nothing_before_it_has_applied_its_own_term() {
    let mut cluster = three();
    while !cluster.on(1).status(R1).is_leader {
        cluster.on(1).tick(1);
        loop {
            for store in 1..=3 {
                cluster.on(store).persist();
            }
            if !cluster.deliver_one(everything) {
                break;
            }
        }
    }
    let leader = cluster.on(1);
    let status = leader.status(R1);
    assert!(status.committed > SEEDED, "the first entry of the term is committed");
    assert_eq!(status.applied.applied, SEEDED, "and not applied");
    let early = leader.change(R1, removing(voter(R1, 3)));
    assert_eq!(leader.refusal(early), &RegionError::NotReady);
    cluster.settle();
    let reply = cluster.on(1).change(R1, removing(voter(R1, 3)));
    cluster.settle();
    assert!(cluster.on(1).answer(reply).unwrap().is_ok());
    assert_eq!(cluster.on(1).status(R1).region.peers.len(), 2);
}

/// R18: a vote that a transfer asks for is given although the voters hear from a leader,
/// and is asked for without a pre-vote.
#[test]
fn r18_a_transfer_passes_the_leases_of_voters() {
    let mut cluster = three();
    cluster.elect(1, R1);
    cluster.on(1).tick(2);
    cluster.settle();
    // Without a transfer nobody gets a vote now.
    let whole = cluster.on(1).status(R1).region;
    let term = cluster.on(1).status(R1).term;
    let mut plain =
        message(&whole, (voter(R1, 2), voter(R1, 3)), MessageType::MsgRequestVote, term + 1);
    let last = cluster.on(1).status(R1).last_index;
    (plain.raft_mut().index, plain.raft_mut().log_term) = (last, term);
    cluster.on(3).receive(plain);
    assert_eq!(cluster.on(3).sent(), []);
    assert_eq!(cluster.on(3).status(R1).term, term);

    cluster.on(1).ask(R1, Body::Admin(AdminCommand::TransferLeader(voter(R1, 2))));
    cluster.on(1).settle();
    assert!(cluster.deliver_one(|message| message.raft().msg_type == MessageType::MsgTimeoutNow));
    cluster.on(2).settle();
    let asked = cluster.on(2).out.iter().map(|message| message.raft().msg_type);
    assert_eq!(asked.collect::<Vec<_>>(), [MessageType::MsgRequestVote; 2]);
    assert!(cluster.deliver_one(|message| {
        message.to_peer() == Some(voter(R1, 3))
            && message.raft().msg_type == MessageType::MsgRequestVote
    }));
    cluster.on(3).settle();
    assert_eq!(cluster.on(3).status(R1).vote, voter(R1, 2).id.get());
    cluster.settle();
    assert!(cluster.on(2).status(R1).is_leader);
}

/// H66: a leader that executes its own removal is no leader any more when its members
/// change, says nothing as one, and goes.
#[test]
fn h66_a_leader_that_applies_its_own_removal_steps_down_first() {
    let mut cluster = three();
    cluster.elect(1, R1);
    // The removal of 2 reaches everybody, but no acknowledgement gets back.
    cluster.on(1).change(R1, removing(voter(R1, 2)));
    cluster.on(1).settle();
    let to_others = |message: &RaftMessage| message.from_peer() == Some(voter(R1, 1));
    while cluster.deliver_one(to_others) {
        for store in 2..=3 {
            cluster.on(store).persist();
        }
    }
    cluster.post();
    cluster.wire.clear();
    // Store 2 is elected by store 3, and the removal is committed with its first entry.
    let campaigns_of_3 = |message: &RaftMessage| {
        message.from_peer() == Some(voter(R1, 3))
            && message.raft().msg_type == MessageType::MsgRequestPreVote
    };
    let between = |message: &RaftMessage| !touches(message, 1) && !campaigns_of_3(message);
    for _ in 0..60 {
        if cluster.on(2).status(R1).is_leader {
            break;
        }
        cluster.pass(Duration::from_secs(1));
        cluster.on(3).take(Event::Tick);
        cluster.on(2).take(Event::Tick);
        loop {
            for store in 2..=3 {
                cluster.on(store).persist();
            }
            if !cluster.deliver_one(between) {
                break;
            }
        }
        cluster.wire.clear();
    }
    let leader = cluster.on(2);
    assert!(leader.status(R1).is_leader);
    let has_entries = |task: &crate::apply::ApplyTask| {
        matches!(&task.work, crate::apply::ApplyWork::Entries { entries, .. }
            if entries.iter().any(|entry| entry.flags().conf_change))
    };
    assert!(leader.applies.iter().any(has_entries), "the removal is committed");
    let waits = leader.put(R1, "k", "v");
    leader.persist();
    leader.out.clear();
    let view = leader.views.get(R1).unwrap();
    let events = leader.apply_unheard();
    leader.take(Event::Applied(events));
    assert!(leader.store.inspect_region(R1).is_none());
    assert!(view.state().is_none());
    assert_eq!(leader.refusal(waits), &RegionError::RegionNotFound { region: R1 });
    leader.tick(3);
    leader.settle();
    assert_eq!(leader.sent(), [], "spoke as a leader that is no member");
    assert_eq!(leader.record(R1).unwrap().phase, RegionPhase::Tombstone);
    // The others go on without it, once store 1 has noticed that it leads nobody.
    cluster.on(1).tick(40);
    cluster.on(1).settle();
    cluster.on(1).out.clear();
    cluster.elect(3, R1);
    cluster.on(3).put(R1, "k", "v");
    cluster.settle();
    cluster.on(3).tick(2);
    cluster.settle();
    assert_eq!(cluster.on(1).data("k").as_deref(), Some(&b"v"[..]));
}

/// H76: a member that a new leader never hears from is down after the full time, counted
/// from the election, and not a moment earlier.
#[test]
fn h76_silence_counts_from_the_election() {
    let limit = Duration::from_secs(30);
    let every_tick = Duration::from_secs(1);
    let config = Config {
        max_peer_down_duration: limit,
        pd_heartbeat_tick_interval: every_tick,
        ..config()
    };
    let mut cluster = Cluster::with(config, 3, &[region(R1, "", "", &[1, 2, 3])]);
    let without_3 = |message: &RaftMessage| !touches(message, 3);
    while !cluster.on(1).status(R1).is_leader {
        cluster.on(1).tick(1);
        cluster.settle_but(without_3);
    }
    let elected = cluster.on(1).now;
    let down = |cluster: &mut Cluster| {
        let report = cluster.on(1).pd.iter().rev().find_map(|request| match request {
            PdRequest::RegionHeartbeat(report) => Some(report.down_peers.clone()),
            _ => None,
        });
        report.unwrap()
    };
    while cluster.on(1).now.since(elected) < limit - every_tick {
        cluster.on(1).tick(1);
        cluster.settle_but(without_3);
        assert!(down(&mut cluster).is_empty());
    }
    cluster.on(1).tick(1);
    cluster.settle_but(without_3);
    let reported = down(&mut cluster);
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(reported[0].peer, voter(R1, 3));
    assert_eq!(reported[0].down_seconds, limit.as_secs());
    assert!(cluster.on(1).status(R1).is_leader);
}

/// CC-17: a leader that is asked to remove itself, or to become a learner, says no, and
/// nothing of it is in the log. Others can be removed still.
#[test]
fn cc_17_the_leader_cannot_remove_itself() {
    let mut cluster = three();
    cluster.elect(1, R1);
    let before = cluster.on(1).status(R1);
    let demotion = PeerChange { kind: raftstore_proto::ChangeKind::AddLearner, peer: voter(R1, 1) };
    for change in [removing(voter(R1, 1)), demotion] {
        let refused = cluster.on(1).change(R1, change);
        let refusal = cluster.on(1).refusal(refused);
        assert!(matches!(refusal, RegionError::ConfChangeRejected { .. }), "{refusal:?}");
        cluster.settle();
        assert_eq!(cluster.on(1).status(R1), before, "the refusal left a trace");
    }
    let others = cluster.on(1).change(R1, removing(voter(R1, 3)));
    cluster.settle();
    assert!(cluster.on(1).answer(others).unwrap().is_ok());
    let after = cluster.on(1).status(R1);
    assert!(after.is_leader);
    assert_eq!(after.region.peers, [voter(R1, 1), voter(R1, 2)]);
}

/// H32: a peer that is told to campaign does so while it is a little behind in applying, and
/// not while it is far behind.
#[test]
fn h32_a_peer_far_behind_in_applying_is_not_told_to_campaign() {
    let told = |lag: u64| {
        let whole = region(R1, "", "", &[1, 2, 3]);
        let mut node = Node::new(1, config(), std::slice::from_ref(&whole));
        node.pass_start();
        let ends = (voter(R1, 2), voter(R1, 1));
        let last = SEEDED + lag;
        node.receive(append(&whole, ends, 6, (SEEDED, SEEDED), last, last));
        node.persist();
        let status = node.status(R1);
        assert_eq!((status.committed, status.applied.applied), (last, SEEDED));
        node.out.clear();
        node.receive(message(&whole, ends, MessageType::MsgTimeoutNow, 6));
        node.persist();
        (node.sent(), node.dropped(Dropped::Backpressure))
    };
    assert_eq!(told(256), (vec![MessageType::MsgRequestVote; 2], 0));
    assert_eq!(told(257), (Vec::new(), 1));
}
