//! Snapshots on their way in, stage by stage, and on their way out.

use protobuf::Message as _;
use raft::eraftpb::{self, MessageType};
use raftstore_proto::{
    AdminCommand, Body, ChangeKind, Command, Entry, EntryFlags, Epoch, Header, Peer as Replica,
    PeerChange, Region, wire,
};

use super::harness::*;
use crate::{Dropped, Event, Task, TaskDone, store::PeerPhase};

const TERM: u64 = 6;

/// A follower on store 1 of a region of three.
fn follower() -> (Node, Region, (Replica, Replica)) {
    let whole = region(R1, "", "", &[1, 2, 3]);
    let node = Node::new(1, config(), std::slice::from_ref(&whole));
    (node, whole, (voter(R1, 2), voter(R1, 1)))
}

/// H43: the leader hears that a snapshot has arrived when its data is in, not before.
#[test]
fn h43_a_snapshot_is_acknowledged_once_it_is_installed() {
    let (mut node, whole, ends) = follower();
    node.receive_snapshot(&whole, ends, TERM, 20, &[("k", "v")]);
    node.persist();
    node.sync();
    node.persist();
    assert_eq!(node.sent(), [], "acknowledged before the installation began");
    let installs = |task: &Task| matches!(task, Task::Install { .. });
    assert!(node.tasks.iter().any(installs), "{:?}", node.tasks);
    let done = node.work_on_regions();
    node.turn();
    assert_eq!(node.sent(), [], "acknowledged before the store heard of the end");
    assert_eq!(node.data("k").as_deref(), Some(&b"v"[..]));
    for done in done {
        node.take(Event::TaskDone(done));
    }
    let acknowledged = node.out.iter().map(|message| message.raft().index).collect::<Vec<_>>();
    assert_eq!(acknowledged, [20]);
    assert_eq!(node.sent(), [MessageType::MsgAppendResponse]);
}

/// W6: the log part of an accepted snapshot waits in its peer until the KV part is durable.
/// Rounds of other regions pass it by, and their proofs release nothing of it.
#[test]
fn w6_a_parked_write_lets_other_regions_pass() {
    let (left, right) = (region(R1, "a", "m", &[1, 2, 3]), region(R2, "m", "z", &[1, 2, 3]));
    let mut node = Node::new(1, config(), &[left.clone(), right.clone()]);
    node.receive_snapshot(&left, (voter(R1, 2), voter(R1, 1)), TERM, 20, &[]);
    node.persist();
    assert_eq!(node.record(R1).unwrap().phase, raftstore_proto::RegionPhase::Applying);
    let ends = (voter(R2, 2), voter(R2, 1));
    for last in SEEDED + 1..SEEDED + 4 {
        let term = if last == SEEDED + 1 { SEEDED } else { TERM };
        node.receive(append(&right, ends, TERM, (last - 1, term), last, SEEDED));
        node.persist();
        assert_eq!(node.sent(), [MessageType::MsgAppendResponse], "region 2 waits");
        let parked = node.raft_record(R1).unwrap();
        assert_eq!(parked.last_index, SEEDED, "the log was replaced before the KV part is safe");
    }
    node.sync();
    assert_eq!(node.raft_record(R1).unwrap().last_index, SEEDED);
    node.persist();
    assert_eq!(node.raft_record(R1).unwrap().last_index, 20);
    assert_eq!(node.sent(), [], "region 1 is not installed");
}

/// R25: a snapshot is not fetched while earlier writes of its peer are on their way to the
/// disk: accepting it replaces the very log they go to.
#[test]
fn r25_a_snapshot_waits_for_writes_in_flight() {
    let (mut node, whole, ends) = follower();
    node.receive(append(&whole, ends, TERM, (SEEDED, SEEDED), 7, SEEDED));
    node.receive_snapshot(&whole, ends, TERM, 20, &[]);
    assert_eq!(node.writes.len(), 1, "the snapshot was fetched beside a write");
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    node.persist_one();
    assert_eq!(node.sent(), [MessageType::MsgAppendResponse]);
    assert_eq!(node.status(R1).phase, PeerPhase::Applying);
    node.settle();
    assert_eq!(node.status(R1).applied.applied, 20);
}

/// R25: nor while apply holds entries: what they leave would land on the new state.
#[test]
fn r25_a_snapshot_waits_for_apply() {
    let (mut node, whole, ends) = follower();
    node.receive(append(&whole, ends, TERM, (SEEDED, SEEDED), 7, 7));
    node.persist();
    assert_eq!(node.applies.len(), 2, "registration and entries");
    node.receive_snapshot(&whole, ends, TERM, 20, &[]);
    node.persist();
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    let applied = node.apply_unheard();
    node.persist();
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    node.take(Event::Applied(applied));
    assert_eq!(node.status(R1).phase, PeerPhase::Applying);
    node.settle();
    assert_eq!(node.status(R1).applied.applied, 20);
}

/// An entry that adds `peer` to `region`.
fn adding_entry(region: &Region, index: u64, peer: Replica) -> eraftpb::Entry {
    let header = Header {
        region: region.id,
        peer: region.peers[1],
        epoch: Some(region.epoch),
        term: 0,
        read_quorum: false,
        replica_read: false,
    };
    let change = PeerChange { kind: ChangeKind::AddNode, peer };
    let command = Command { header, body: Body::Admin(AdminCommand::ChangePeer(change)) };
    let conf_change = eraftpb::ConfChange {
        node_id: peer.id.get(),
        context: wire::encode_command(&command).into(),
        ..eraftpb::ConfChange::default()
    };
    let data = conf_change.write_to_bytes().unwrap();
    let flags = EntryFlags { conf_change: true, ..EntryFlags::NONE };
    eraftpb::Entry {
        entry_type: eraftpb::EntryType::EntryConfChange,
        index,
        term: TERM,
        context: Entry::context_for(region.id, index, TERM, flags, &data).into(),
        data: data.into(),
        ..eraftpb::Entry::default()
    }
}

/// H51, R36: a snapshot switches raft's members as it is stepped. The result of a change
/// from before it, which apply reports only then, must not be told to raft once more.
#[test]
fn h51_a_change_older_than_the_stepped_snapshot_is_not_told_to_raft() {
    let (mut node, whole, ends) = follower();
    let mut adds = append(&whole, ends, TERM, (SEEDED, SEEDED), SEEDED, 6);
    adds.raft_mut().entries.push(adding_entry(&whole, 6, voter(R1, 4)));
    node.receive(adds);
    node.persist();
    let applied = node.apply_unheard();
    // By the time of the snapshot the new member has gone again.
    let epoch = Epoch { conf_ver: whole.epoch.conf_ver + 2, ..whole.epoch };
    let later = Region { epoch, ..whole };
    node.receive_snapshot(&later, ends, TERM, 20, &[]);
    node.take(Event::Applied(applied));
    let peer = &node.store.peers[&R1];
    assert!(peer.group.agrees_with(&later), "raft has other members");
    node.settle();
    assert_eq!(node.status(R1).region, later);
    assert!(node.store.peers[&R1].group.agrees_with(&later));
}

/// H32, R9: while it takes a snapshot in a peer neither campaigns nor lets itself be told
/// to, and it takes no entries (W7).
#[test]
fn r9_a_peer_that_takes_a_snapshot_in_is_left_alone() {
    let (mut node, whole, ends) = follower();
    node.pass_start();
    node.receive_snapshot(&whole, ends, TERM, 20, &[]);
    let stages: [fn(&mut Node); 4] = [
        |_| {},
        Node::persist,
        Node::sync,
        |node| {
            node.persist();
            node.hand_to_region_worker()
        },
    ];
    for stage in stages {
        stage(&mut node);
        node.tick(50);
        node.receive(message(&whole, ends, MessageType::MsgTimeoutNow, TERM));
        node.receive(append(&whole, ends, TERM, (20, TERM), 21, 20));
        assert_eq!(node.sent(), []);
        assert_eq!(node.status(R1).phase, PeerPhase::Applying);
        assert_eq!((node.status(R1).term, node.status(R1).last_index), (TERM, 20));
    }
    assert_eq!(node.dropped(Dropped::Backpressure), 8);
    node.settle();
    assert_eq!(node.sent(), [MessageType::MsgAppendResponse]);
    node.receive(message(&whole, ends, MessageType::MsgTimeoutNow, TERM));
    node.settle();
    assert_eq!(node.sent(), [MessageType::MsgRequestVote; 2]);
}

/// Store 1 leads three; store 3 was cut off, and what it misses is out of the log.
fn with_a_lagging_member() -> Cluster {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    for value in 0..5 {
        cluster.on(1).put(R1, "k", &format!("v{value}"));
        cluster.settle_but(not_at_3);
        cluster.wire.clear();
    }
    let status = cluster.on(1).status(R1);
    let (index, term) = (status.applied.applied - 1, status.term);
    cluster.on(1).ask(R1, Body::Admin(AdminCommand::CompactLog { index, term }));
    cluster.settle_but(not_at_3);
    cluster.wire.clear();
    assert_eq!(cluster.on(1).status(R1).applied.truncated.index, index);
    cluster
}

fn not_at_3(message: &raftstore_proto::RaftMessage) -> bool {
    !ends_at(message, 3)
}

fn ends_at(message: &raftstore_proto::RaftMessage, store: u64) -> bool {
    let ends = [message.from_peer().unwrap(), message.to_peer().unwrap()];
    ends.iter().any(|peer| peer.store.get() == store)
}

/// Lets store 1 find out what store 3 misses; the snapshot is asked for and not yet built.
fn ask_for_a_snapshot(cluster: &mut Cluster) {
    for _ in 0..10 {
        cluster.on(1).tick(2);
        while cluster.deliver_one(everything) {
            for store in 1..=3 {
                cluster.on(store).persist();
            }
        }
        let leader = cluster.on(1);
        if !leader.applies.is_empty() {
            let events = leader.apply_unheard();
            assert!(events.is_empty(), "{events:?}");
            return;
        }
    }
    panic!("no snapshot was asked for");
}

/// H49: however often the making of a snapshot fails, raft is only told to ask later.
#[test]
fn h49_failed_builds_are_asked_for_again() {
    let mut cluster = with_a_lagging_member();
    let before = cluster.on(1).store.metrics().snapshots_asked;
    for failures in 1..=12 {
        ask_for_a_snapshot(&mut cluster);
        let leader = cluster.on(1);
        assert_eq!(leader.store.metrics().snapshots_asked, before + failures);
        let job = leader.builds.pop_front().unwrap();
        let failed = TaskDone::Built { region: R1, incarnation: job.incarnation, built: None };
        leader.take(Event::TaskDone(failed));
    }
    ask_for_a_snapshot(&mut cluster);
    cluster.settle();
    assert_eq!(cluster.on(3).data("k").as_deref(), Some(&b"v4"[..]));
}

/// H53: what was built for a leader that leads no more is dropped, bytes and all.
#[test]
fn h53_a_snapshot_that_comes_too_late_is_dropped() {
    let mut cluster = with_a_lagging_member();
    ask_for_a_snapshot(&mut cluster);
    let leader = cluster.on(1);
    let late = leader.build_unheard();
    let TaskDone::Built { built: Some(built), .. } = &late else { panic!("{late:?}") };
    let key = built.key;
    let whole = region(R1, "", "", &[1, 2, 3]);
    let term = leader.status(R1).term + 1;
    let ends = (voter(R1, 2), voter(R1, 1));
    leader.receive(message(&whole, ends, MessageType::MsgHeartbeat, term));
    assert!(!leader.status(R1).is_leader);
    leader.take(Event::TaskDone(late));
    assert!(leader.gives_up_generated(key), "{:?}", leader.tasks);
    assert!(!leader.out.iter().any(|message| message.snapshot().is_some()));
}

/// R20: bytes that another incarnation had asked for are not sent in this one's name; what it
/// asked for itself still is.
#[test]
fn r20_a_snapshot_built_for_another_incarnation_is_not_sent() {
    let mut cluster = with_a_lagging_member();
    ask_for_a_snapshot(&mut cluster);
    let leader = cluster.on(1);
    let own = leader.build_unheard();
    let TaskDone::Built { region, incarnation, built: Some(built) } = own else {
        panic!("{own:?}")
    };
    let other = incarnation + 1;
    let built_for_other =
        TaskDone::Built { region, incarnation: other, built: Some(built.clone()) };
    leader.take(Event::TaskDone(built_for_other));
    assert!(leader.gives_up_generated(built.key), "{:?}", leader.tasks);
    assert!(!leader.out.iter().any(|message| message.snapshot().is_some()));
    leader.tasks.clear();
    leader.take(Event::TaskDone(TaskDone::Built { region, incarnation, built: Some(built) }));
    assert!(leader.out.iter().any(|message| message.snapshot().is_some()));
    cluster.settle();
    assert_eq!(cluster.on(3).data("k").as_deref(), Some(&b"v4"[..]));
}
