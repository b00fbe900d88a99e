//! Peers on their way out, and what does not send them there.

use pd_client::{Order, OrderAction};
use raft::eraftpb::MessageType;
use raftstore_proto::{Epoch, Peer as Replica, RaftMessage, Region, RegionError, RegionPhase};
use transport_traits::{SnapKey, SnapshotStatus};

use super::harness::*;
use crate::{
    BuiltSnapshot, Dropped, Event, InstallOutcome, PdAnswer, Task, TaskDone, apply::ApplyEvent,
    store::PeerPhase,
};

const TERM: u64 = 6;

/// What the peer on store 2 says to the one on store 1 after it was removed.
fn told_to_go(region: &Region) -> RaftMessage {
    let newer = Epoch { conf_ver: region.epoch.conf_ver + 1, ..region.epoch };
    RaftMessage::tombstone(region.id, voter(region.id, 2), voter(region.id, 1), newer)
}

fn follower() -> (Node, Region, (Replica, Replica)) {
    let whole = region(R1, "", "", &[1, 2, 3]);
    let node = Node::new(1, config(), std::slice::from_ref(&whole));
    (node, whole, (voter(R1, 2), voter(R1, 1)))
}

/// H16: the region worker owns the range of a snapshot it installs. A peer that has to go
/// meanwhile goes when the worker has let go of it.
fn goes_while_installing(work_first: bool) {
    let (mut node, whole, ends) = follower();
    let key = node.receive_snapshot(&whole, ends, TERM, 20, &[("k", "v")]);
    for _ in 0..2 {
        node.persist();
        node.sync();
    }
    node.persist();
    let incarnation = node.status(R1).incarnation;
    let early = if work_first { node.work_on_regions() } else { Vec::new() };
    node.receive(told_to_go(&whole));
    assert_eq!(node.status(R1).phase, PeerPhase::GoingAway);
    node.persist();
    assert_eq!(node.applies.len(), 1, "only the registration at the start");
    assert_ne!(node.record(R1).unwrap().phase, RegionPhase::Tombstone);
    let cancels = |task: &Task| matches!(task, Task::CancelInstall { region: R1, incarnation: its } if *its == incarnation);
    assert!(node.tasks.iter().any(cancels), "{:?}", node.tasks);
    assert!(!node.gives_up(key), "the bytes went while they were being read");
    let late = node.work_on_regions();
    let done: Vec<TaskDone> = early.into_iter().chain(late).collect();
    let [TaskDone::Installed { outcome, .. }] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!(matches!(outcome, InstallOutcome::Done { .. }), work_first);
    for done in done {
        node.take(Event::TaskDone(done));
    }
    assert!(node.gives_up(key));
    node.settle();
    assert!(node.store.inspect_region(R1).is_none());
    assert_eq!(node.record(R1).unwrap().phase, RegionPhase::Tombstone);
    assert_eq!(node.raft_record(R1), None);
    assert_eq!(node.data("k"), None);
    assert_eq!(node.sent(), [], "it spoke after it was told to go");
}

#[test]
fn h16_an_installation_is_cancelled_before_its_peer_goes() {
    goes_while_installing(false);
}

#[test]
fn h16_an_installation_too_far_gone_is_waited_for() {
    goes_while_installing(true);
}

/// H23: a peer on its way out is deaf and dumb, whatever comes in for it.
#[test]
fn h23_nothing_reaches_a_peer_on_its_way_out() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    let node = cluster.on(1);
    let whole = node.status(R1).region;
    let (term, incarnation) = (node.status(R1).term, node.status(R1).incarnation);
    node.pd.clear();
    node.receive(told_to_go(&whole));
    assert_eq!(node.status(R1).phase, PeerPhase::GoingAway);
    assert_eq!(node.applies.len(), 1, "the end of its Applier");
    let (ends, command) = ((voter(R1, 2), voter(R1, 1)), node.command(R1, get("k")));
    // Nothing below may so much as have the peer looked at.
    node.handle(Event::Message {
        message: Box::new(message(&whole, ends, MessageType::MsgHeartbeat, term + 1)),
        snapshot: None,
    });
    assert_eq!(node.dropped(Dropped::GoingAway), 1);
    node.handle(Event::Message { message: Box::new(told_to_go(&whole)), snapshot: None });
    assert_eq!(node.dropped(Dropped::GoingAway), 2);
    let to = voter(R1, 3).id;
    node.handle(Event::Unreachable { region: R1, to });
    node.handle(Event::SnapshotStatus { region: R1, to, status: SnapshotStatus::Failed });
    let reply = node.ask_command(command);
    let action = OrderAction::TransferLeader(voter(R1, 2));
    let order = Order { region: R1, epoch: whole.epoch, target: voter(R1, 1), action };
    node.handle(Event::Pd(PdAnswer::Order(order)));
    node.handle(Event::TaskDone(TaskDone::Built { region: R1, incarnation, built: None }));
    for _ in 0..3 {
        node.now = node.now + std::time::Duration::from_secs(3_600);
        node.handle(Event::Tick);
    }
    assert!(node.store.ctx.dirty.is_empty(), "the peer was touched");
    node.persist();
    assert_eq!(node.refusal(reply), &RegionError::RegionNotFound { region: R1 });
    assert_eq!(node.status(R1).term, term);
    assert_eq!(node.sent(), []);
    assert!(node.pd.is_empty(), "{:?}", node.pd);
    assert_eq!(node.applies.len(), 1);
    node.settle();
    assert!(node.store.inspect_region(R1).is_none());
}

/// H71: PD may not know a region yet that was split off a moment ago. That it knows none is
/// no reason to remove a peer; that it knows one without this peer is.
#[test]
fn h71_no_such_region_proves_nothing() {
    let (mut node, whole, _) = follower();
    node.settle();
    let asked = voter(R1, 1).id;
    let validated = |route| Event::Pd(PdAnswer::Validated { region: R1, peer: asked, route });
    node.take(validated(None));
    node.settle();
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    let route =
        |region: &Region| Some(pd_client::RegionRoute { region: region.clone(), leader: None });
    node.take(validated(route(&whole)));
    node.settle();
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    let mut without = whole;
    without.epoch.conf_ver += 1;
    without.peers.remove(0);
    node.take(validated(route(&without)));
    node.settle();
    assert!(node.store.inspect_region(R1).is_none());
}

/// R20: what was said of another incarnation is not said of this one.
#[test]
fn r20_results_of_another_incarnation_are_dropped() {
    let (mut node, whole, ends) = follower();
    node.receive(append(&whole, ends, TERM, (SEEDED, SEEDED), 7, 7));
    let other = node.status(R1).incarnation + 1;
    // A proof of the round, as if another incarnation had waited for it.
    for (_, incarnation) in &mut node.store.rounds[0].members {
        *incarnation = other;
    }
    node.persist();
    assert_eq!(node.status(R1).persisted_index, SEEDED);
    assert_eq!(node.sent(), []);
    // A later round is this one's own, and covers the earlier.
    node.receive(append(&whole, ends, TERM, (7, TERM), 8, 8));
    node.persist();
    assert_eq!(node.status(R1).persisted_index, 8);
    node.apply();
    let before = node.status(R1);
    assert_eq!(before.applied.applied, 8);
    node.receive(append(&whole, ends, TERM, (8, TERM), 9, 9));
    node.persist();
    node.out.clear();
    let mut results = node.apply_unheard();
    let [ApplyEvent::Applied(result)] = results.as_mut_slice() else { panic!("{results:?}") };
    result.incarnation = other;
    node.take(Event::Applied(results));
    node.take(Event::Applied(vec![
        ApplyEvent::Damaged { region: R1, incarnation: other, index: 9 },
        ApplyEvent::Destroyed { region: R1, incarnation: other },
    ]));
    assert_eq!(node.status(R1).applied, before.applied);
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    // Bytes that were built for it are nobody's.
    let key = SnapKey { region: R1, term: TERM, index: 9 };
    let built = Some(BuiltSnapshot { key, region: whole, size_bytes: 1 });
    node.take(Event::TaskDone(TaskDone::Built { region: R1, incarnation: other, built }));
    assert!(node.gives_up_generated(key), "{:?}", node.tasks);
}

/// R20: the end of an installation counts for the incarnation that began it.
#[test]
fn r20_installations_of_another_incarnation_are_dropped() {
    let (mut node, whole, ends) = follower();
    node.receive_snapshot(&whole, ends, TERM, 20, &[]);
    node.persist();
    node.sync();
    node.persist();
    let other = node.status(R1).incarnation + 1;
    let outcomes = [InstallOutcome::Done { kv_number: 1 }, InstallOutcome::BadContent];
    for outcome in outcomes {
        let done = TaskDone::Installed { region: R1, incarnation: other, outcome };
        node.take(Event::TaskDone(done));
        assert_eq!(node.status(R1).phase, PeerPhase::Applying);
    }
    node.settle();
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
}
