//! Splits: what a leader may still read, what leaves before what is durable, and what old
//! results are worth.

use bytes::Bytes;
use engine_traits::RaftEngine;
use raft::eraftpb::MessageType;
use raftstore_proto::{
    AdminCommand, Body, Cf, Command, Entry, Header, Operation, PeerId, Region, RegionError,
    RegionId, SplitRequest,
};
use transport_traits::SnapKey;

use super::harness::*;
use crate::{
    CheckGoal, Event, PdAnswer, PdRequest, ReplyId, TaskDone, store::split::FirstMessages,
};

const CHILD: RegionId = RegionId::must(77);

/// A cut of R1 at `m`, which leaves the left part to [`CHILD`].
fn cut(region: &Region) -> Body {
    let ids = (0..region.peers.len() as u64).map(|at| PeerId::must(770 + at));
    let request =
        SplitRequest { key: Bytes::from_static(b"m"), new_region: CHILD, new_peers: ids.collect() };
    Body::Admin(AdminCommand::BatchSplit { requests: vec![request], right_derive: true })
}

/// Three stores whose leader, store 1, has a split committed and not applied. Gives the
/// caller of the split.
fn committed_and_unapplied() -> (Cluster, ReplyId) {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    cluster.on(1).put(R1, "a", "before");
    cluster.settle();
    let leader = cluster.on(1);
    let split = leader.ask(R1, cut(&leader.status(R1).region));
    leader.persist();
    while cluster.deliver_one(everything) {
        for store in 1..=3 {
            cluster.on(store).persist();
        }
    }
    let status = cluster.on(1).status(R1);
    assert!(status.committed > status.applied.applied, "committed and not applied");
    (cluster, split)
}

/// H36, W1: from the moment the commit index passes the split nobody reads by the lease, on
/// the store's thread or beside it, and no quorum is asked; once it is applied, whoever
/// asked under the old epoch is told of the parts.
#[test]
fn h36_no_read_while_a_committed_split_is_unapplied() {
    let (mut cluster, split) = committed_and_unapplied();
    let leader = cluster.on(1);
    assert!(leader.views.get(R1).expect("it has one").state().is_none(), "the view is open");
    let by_lease = leader.ask(R1, get("a"));
    let by_quorum = leader.read_with_quorum(R1, "a");
    leader.turn();
    assert_eq!((leader.answer(by_lease), leader.answer(by_quorum)), (None, None));
    assert!(
        leader.out.iter().all(|message| message.raft().context.is_empty()),
        "a quorum was asked for the old range"
    );
    leader.settle();
    assert!(matches!(leader.answer(split), Some(Ok(_))));
    for reply in [by_lease, by_quorum] {
        let RegionError::EpochNotMatch { current } = leader.refusal(reply) else {
            panic!("{:?}", leader.answer(reply));
        };
        let ids: Vec<RegionId> = current.iter().map(|region| region.id).collect();
        assert_eq!(ids, [R1, CHILD]);
    }
}

/// Writes for the part that keeps its id do not stop for a split: those behind it in the log
/// are proposed under the epoch it leads to. Those for the part cut off, or for both, are
/// refused when they are applied, as ever.
#[test]
fn writes_for_the_part_that_keeps_its_id_go_on_during_a_split() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    let leader = cluster.on(1);
    let before = leader.put(R1, "a", "before");
    let split = leader.ask(R1, cut(&leader.status(R1).region));
    let (stays, goes) = (leader.put(R1, "z", "behind"), leader.put(R1, "a", "behind"));
    let epoch = leader.status(R1).region.epoch;
    let put = |key: &'static str| Operation::Put {
        cf: Cf::Default,
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"both"),
    };
    let both = leader.ask(R1, Body::Operations(vec![put("y"), put("b")]));
    assert_eq!(leader.answer(before), None, "all of them are behind the disk");
    cluster.settle();
    let leader = cluster.on(1);
    for reply in [before, split, stays] {
        assert!(matches!(leader.answer(reply), Some(Ok(_))), "{:?}", leader.answer(reply));
    }
    for reply in [goes, both] {
        let refused = matches!(leader.refusal(reply), RegionError::EpochNotMatch { .. });
        assert!(refused, "{:?}", leader.answer(reply));
    }
    let held = ["a", "b", "y", "z"].map(|key| leader.data(key));
    let value = |value: &'static str| Some(Bytes::from_static(value.as_bytes()));
    assert_eq!(held, [value("before"), None, None, value("behind")]);
    assert_eq!(leader.store.metrics().writes_behind_split, 1);
    assert_eq!(leader.status(R1).region.epoch.version, epoch.version + 1);
    // The split is applied, and an old epoch is old.
    let late = Header { epoch: Some(epoch), ..leader.command(R1, get("z")).header };
    let late = leader.ask_command(Command { header: late, body: Body::Operations(vec![put("z")]) });
    leader.turn();
    assert!(matches!(leader.refusal(late), RegionError::EpochNotMatch { .. }));
    // Followers hear of the commit with the next heartbeat.
    leader.tick(2);
    cluster.settle();
    for store in 2..=3 {
        assert_eq!(cluster.on(store).data("z"), value("behind"), "store {store}");
    }
}

/// A split behind a change of members is refused when it is applied: writes behind both are
/// not proposed for what it would have led to.
#[test]
fn a_split_behind_a_change_of_members_carries_no_writes() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    let leader = cluster.on(1);
    let change = leader.change(R1, removing(voter(R1, 3)));
    let split = leader.ask(R1, cut(&leader.status(R1).region));
    let write = leader.put(R1, "z", "behind");
    cluster.settle();
    let leader = cluster.on(1);
    assert!(matches!(leader.answer(change), Some(Ok(_))));
    assert!(matches!(leader.refusal(split), RegionError::EpochNotMatch { .. }));
    assert!(matches!(leader.answer(write), Some(Ok(_))), "{:?}", leader.answer(write));
}

/// D4, R26: a split-born peer writes nothing to its log, and votes for nobody, before the
/// records of its region are durable.
#[test]
fn r26_a_split_born_peer_waits_for_its_regions_records() {
    let (mut cluster, _) = committed_and_unapplied();
    let leader = cluster.on(1);
    leader.apply();
    leader.persist();
    assert_eq!(leader.status(CHILD).term, 6, "it campaigns at once (W15)");
    assert_eq!(leader.raft_record(CHILD), None, "written before its records were durable");
    let votes = |node: &Node| {
        let of_child = node.out.iter().filter(|message| message.region() == Some(CHILD));
        of_child
            .filter(|message| message.raft().get_msg_type() == MessageType::MsgRequestVote)
            .count()
    };
    assert_eq!(votes(leader), 0, "a vote was asked before its term was durable");
    leader.sync();
    leader.turn();
    assert_eq!(votes(leader), 0);
    leader.persist();
    let record = leader.raft_record(CHILD).expect("written with its first round");
    assert_eq!((record.hard_state.term, record.last_index), (6, 5));
    assert_eq!(votes(leader), 2, "one for each other member, without asking first");
}

/// H29: who cannot split names the leader it knows, and never itself.
#[test]
fn h29_a_follower_names_the_leader() {
    let mut cluster = Cluster::new(3, &[region(R1, "", "", &[1, 2, 3])]);
    cluster.elect(1, R1);
    let follower = cluster.on(2);
    let epoch = follower.status(R1).region.epoch;
    let reply = ReplyId(9);
    let keys = vec![Bytes::from_static(b"m")];
    follower.take(Event::SplitRegion { reply: Some(reply), region: R1, epoch, keys });
    let expected = RegionError::NotLeader { region: R1, leader: Some(voter(R1, 1)) };
    assert_eq!(follower.refusal(reply), &expected);
}

/// H28: whoever wanted a split is answered when PD gives no ids.
#[test]
fn h28_a_split_without_ids_is_refused() {
    let mut node = Node::new(1, config(), &[region(R1, "", "", &[1])]);
    node.settle();
    let epoch = node.status(R1).region.epoch;
    let reply = ReplyId(9);
    let keys = vec![Bytes::from_static(b"m")];
    node.take(Event::SplitRegion { reply: Some(reply), region: R1, epoch, keys });
    let ask = node
        .pd
        .iter()
        .find_map(|request| match request {
            PdRequest::AskSplit { ask, count: 1, .. } => Some(*ask),
            _ => None,
        })
        .expect("PD is asked");
    assert_eq!(node.answer(reply), None);
    node.take(Event::Pd(PdAnswer::SplitIds { region: R1, ask, ids: None }));
    assert_eq!(node.refusal(reply), &RegionError::PlacementUnavailable);
}

/// H70: what a look has found is void once the region was cut.
#[test]
fn h70_an_old_look_cuts_nothing() {
    let mut node = Node::new(1, config(), &[region(R1, "", "", &[1])]);
    node.settle();
    let status = node.status(R1);
    let looked = |version| {
        Event::TaskDone(TaskDone::SplitChecked {
            region: R1,
            incarnation: status.incarnation,
            version,
            goal: CheckGoal::Auto,
            size_bytes: 10,
            keys: vec![Bytes::from_static(b"m")],
        })
    };
    let asks = |node: &Node| {
        node.pd.iter().filter(|request| matches!(request, PdRequest::AskSplit { .. })).count()
    };
    node.take(looked(status.region.epoch.version - 1));
    assert_eq!(asks(&node), 0);
    node.take(looked(status.region.epoch.version));
    assert_eq!(asks(&node), 1);
}

/// H67: a region that a split has made reports its own flow alone, and the parent's goes on
/// from where it was.
#[test]
fn h67_a_split_makes_no_flow() {
    let mut node = Node::new(1, config(), &[region(R1, "", "", &[1])]);
    node.settle();
    node.put(R1, "a", "some value");
    node.put(R1, "z", "some value");
    node.settle();
    node.pd.clear();
    let body = cut(&node.status(R1).region);
    node.ask(R1, body);
    node.settle();
    let mut written = std::collections::BTreeMap::<RegionId, u64>::new();
    for request in &node.pd {
        if let PdRequest::RegionHeartbeat(heartbeat) = request {
            *written.entry(heartbeat.region.id).or_default() += heartbeat.written_keys;
        }
    }
    assert_eq!(written.get(&R1), Some(&2), "the parent's two keys, once");
    assert_eq!(written.get(&CHILD), Some(&0));
}

/// H22: the first vote for a region that is not here yet is looked at again when it is.
#[test]
fn h22_a_first_vote_is_kept_for_a_region_that_is_not_here_yet() {
    let (mut cluster, _) = committed_and_unapplied();
    cluster.on(1).settle();
    // Store 2 has not applied the split: the child's vote meets the parent's range.
    cluster.post();
    while cluster.deliver_one(|message| message.region() == Some(CHILD)) {}
    let follower = cluster.on(2);
    assert!(follower.store.inspect_region(CHILD).is_none());
    assert!(follower.store.metrics().first_messages_kept > 0);
    cluster.settle();
    let follower = cluster.on(2);
    assert!(follower.store.metrics().first_messages_replayed > 0);
    assert_eq!(follower.status(CHILD).term, 6);
    assert!(cluster.on(1).status(CHILD).is_leader);
}

/// W11: a peer that a split has made begins its log by clearing what a waiting peer may have
/// left. If the first that it hears is a snapshot, that has cleared the log, and what came
/// with it stays.
#[test]
fn w11_a_snapshot_before_the_first_write_of_a_split_born_peer_is_kept() {
    let (mut cluster, _) = committed_and_unapplied();
    let child = {
        let leader = cluster.on(1);
        leader.settle();
        leader.status(CHILD).region
    };
    let follower = cluster.on(2);
    follower.apply();
    assert_eq!(follower.raft_record(CHILD), None, "its log is written already");
    let ends = (child.peers[0], child.peers[1]);
    // All of it is heard in one round: the snapshot behind 20, and the entry after that.
    let key = SnapKey { region: CHILD, term: 6, index: 20 };
    let size_bytes = follower.lay_down(&child, key, &[]);
    let snapshot = Box::new(snapshot_message(&child, ends, 6, 20));
    follower.handle(Event::Message { message: snapshot, snapshot: Some((key, size_bytes)) });
    let behind = Box::new(append(&child, ends, 6, (20, 6), 21, 20));
    follower.handle(Event::Message { message: behind, snapshot: None });
    follower.settle();
    follower.receive(append(&child, ends, 6, (20, 6), 22, 20));
    follower.settle();
    assert_eq!(follower.status(CHILD).last_index, 22);
    let mut stored = Vec::new();
    follower.raft.entries(CHILD, 21, 23, u64::MAX, &mut stored).unwrap();
    assert_eq!(stored.iter().map(Entry::index).collect::<Vec<_>>(), [21, 22]);
}

/// H22: only what begins a region's life is kept for it: votes of its first term, and its
/// first entry.
#[test]
fn h22_nothing_but_first_messages_is_kept() {
    let whole = region(R2, "", "", &[1, 2, 3]);
    let ends = (voter(R2, 1), voter(R2, 2));
    let mut first = FirstMessages::default();
    let mut keeps = |message| first.keep(R2, &message);
    let of = |kind, term| message(&whole, ends, kind, term);
    for kind in [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote] {
        assert!(!keeps(of(kind, 5)), "{kind:?}");
        assert!(!keeps(of(kind, 7)), "{kind:?}");
        assert!(keeps(of(kind, 6)), "{kind:?}");
    }
    assert!(!keeps(of(MessageType::MsgHeartbeat, 6)));
    assert!(!keeps(append(&whole, ends, 6, (6, 6), 7, 6)), "not its first entry");
}
