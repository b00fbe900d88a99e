//! Reads: which question answers them, and in which order with what was applied.

use raft::eraftpb::MessageType;
use raftstore_proto::{AdminCommand, Body, RaftMessage, RegionError};

use super::harness::*;
use crate::{
    Event,
    apply::{ApplyEvent, ExecResult},
    observe::Cause,
};

/// The question a heartbeat or its response belongs to; 0 for none.
fn question(message: &RaftMessage) -> u64 {
    let name = &message.raft().context[..];
    name.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// H37: a read joins a question only before that is asked. One that comes later might be
/// answered by a quorum that was loyal before it came.
#[test]
fn h37_a_read_is_never_answered_by_an_earlier_question() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    cluster.on(1).put(R1, "k", "v");
    cluster.settle();
    let leader = cluster.on(1);
    let together = [leader.read_with_quorum(R1, "k"), leader.read_with_quorum(R1, "k")];
    leader.turn();
    let first = leader.out.iter().map(question).max().unwrap();
    let later = leader.read_with_quorum(R1, "k");
    leader.turn();
    let second = leader.out.iter().map(question).max().unwrap();
    assert!(0 < first && first < second, "{first}, {second}");
    cluster.settle_but(|message| question(message) < second);
    let leader = cluster.on(1);
    for reply in together {
        assert_eq!(leader.value(reply).as_deref(), Some(&b"v"[..]));
    }
    assert_eq!(leader.answer(later), None, "answered by a question from before it came");
    cluster.settle();
    assert_eq!(cluster.on(1).value(later).as_deref(), Some(&b"v"[..]));
}

/// H37: a question dies with its term; whoever waits for it is told to ask again.
#[test]
fn h37_a_question_of_an_earlier_term_answers_nobody() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    let leader = cluster.on(1);
    let asked = leader.read_with_quorum(R1, "k");
    leader.turn();
    leader.out.clear();
    leader.ask(R1, Body::Admin(AdminCommand::TransferLeader(voter(R1, 2))));
    cluster.settle();
    assert!(cluster.on(2).status(R1).is_leader);
    assert_eq!(cluster.on(1).refusal(asked), &RegionError::StaleCommand);
}

/// H39: what an applied entry did to the region is taken in before reads are released by
/// the progress it made: here the entry removes the very peer that would serve them.
#[test]
fn h39_reads_see_the_effects_of_what_releases_them() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    cluster.on(1).put(R1, "k", "v");
    cluster.settle();
    cluster.on(1).put(R1, "k", "w");
    // Committed, and not yet applied on the leader.
    let leader = cluster.on(1);
    leader.persist();
    while cluster.deliver_one(everything) {
        for store in 1..=3 {
            cluster.on(store).persist();
        }
    }
    let leader = cluster.on(1);
    let read = leader.read_with_quorum(R1, "k");
    leader.persist();
    while cluster.deliver_one(everything) {
        for store in 1..=3 {
            cluster.on(store).persist();
        }
    }
    let leader = cluster.on(1);
    assert_eq!(leader.answer(read), None, "read index is not applied");
    let mut events = leader.apply_unheard();
    let status = leader.status(R1);
    let [ApplyEvent::Applied(result)] = events.as_mut_slice() else { panic!("{events:?}") };
    let change = removing(status.peer);
    let mut after = status.region;
    after.epoch.conf_ver += 1;
    after.peers.retain(|peer| peer.id != status.peer.id);
    let index = result.state.applied;
    result.exec.push(ExecResult::ChangePeer { index, applied: Some((vec![change], after)) });
    leader.take(Event::Applied(events));
    assert_eq!(leader.refusal(read), &RegionError::StaleCommand);
}

/// H41: what readers on other threads rely on is withdrawn before it stops being true.
#[test]
fn h41_the_view_goes_before_what_it_says() {
    let led = || {
        let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
        cluster.elect(1, R1);
        let view = cluster.on(1).views.get(R1).unwrap();
        assert!(view.state().is_some(), "a settled leader is read from");
        (cluster, view)
    };
    // A change of members, before anything of it can be seen elsewhere.
    let (mut cluster, view) = led();
    let before = view.state().unwrap().generation;
    cluster.on(1).change(R1, removing(voter(R1, 3)));
    cluster.settle();
    let after = view.state().unwrap();
    assert!(after.generation > before);
    assert_eq!(after.region.peers.len(), 2);
    // The end of leadership, as the message is taken in.
    let (mut cluster, view) = led();
    let whole = cluster.on(1).status(R1).region;
    let term = cluster.on(1).status(R1).term + 1;
    let ends = (voter(R1, 2), voter(R1, 1));
    let heartbeat = message(&whole, ends, MessageType::MsgHeartbeat, term);
    let event = Event::Message { message: Box::new(heartbeat), snapshot: None };
    cluster.on(1).handle(event);
    assert!(view.state().is_none(), "read from a follower");
    // A transfer, with the message that may make another the leader.
    let (mut cluster, view) = led();
    cluster.on(1).ask(R1, Body::Admin(AdminCommand::TransferLeader(voter(R1, 2))));
    assert!(cluster.on(1).sent().contains(&MessageType::MsgTimeoutNow));
    assert!(view.state().is_none(), "read while another may be elected");
    // The end of the peer, and of the store.
    let (mut cluster, view) = led();
    cluster.on(1).handle(Event::Stop);
    assert!(view.state().is_none(), "read from a store that stops");
    let (mut cluster, view) = led();
    cluster.on(1).store.start_destroy(R1, Cause::NotListed);
    assert!(view.state().is_none(), "read from a peer that goes");
    cluster.on(1).settle();
    assert!(cluster.on(1).views.get(R1).is_none());
    let (mut cluster, view) = led();
    cluster.on(1).store.quarantine(R1, "a test says so");
    assert!(view.state().is_none(), "read from a damaged peer");
}
