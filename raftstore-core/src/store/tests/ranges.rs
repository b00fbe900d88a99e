//! Whose range is whose while snapshots come in.

use raft::eraftpb::MessageType;
use transport_traits::SnapKey;

use super::harness::*;
use crate::{Dropped, store::PeerPhase};

/// The way from the peer on store 2 to the one on store 1.
fn from_leader(region: &raftstore_proto::Region) -> (raftstore_proto::Peer, raftstore_proto::Peer) {
    (voter(region.id, 2), voter(region.id, 1))
}

/// H17: a snapshot that was admitted holds its range for as many turns as it takes, until
/// the region itself is registered there.
#[test]
fn h17_an_admitted_range_is_held_until_it_is_registered() {
    let mut node = Node::new(1, config(), &[]);
    let (left, right) = (region(R1, "a", "m", &[1, 2]), region(R2, "k", "z", &[1, 2]));
    node.meet(&left, 2);
    node.meet(&right, 2);
    node.receive_snapshot(&left, from_leader(&left), 6, 20, &[("b", "1")]);
    let mut refused = 0;
    let mut right_is_refused = |node: &mut Node| {
        refused += 1;
        let key = node.receive_snapshot(&right, from_leader(&right), 6, 20, &[]);
        assert_eq!(node.dropped(Dropped::RegionOverlap), refused);
        assert!(node.gives_up(key), "the refused bytes stay");
        node.work_on_regions();
    };
    right_is_refused(&mut node);
    for _ in 0..3 {
        node.turn();
        node.tick(1);
        right_is_refused(&mut node);
    }
    node.persist();
    right_is_refused(&mut node);
    node.settle();
    assert_eq!(node.status(R1).phase, PeerPhase::Normal);
    right_is_refused(&mut node);
    assert_eq!(node.status(R2).phase, PeerPhase::Uninitialized);
}

/// H17: raft has no use for a snapshot that is not newer than its log; the range such a
/// one claimed is free again at once.
#[test]
fn h17_a_range_whose_snapshot_raft_refuses_is_free() {
    let small = region(R1, "a", "g", &[1, 2]);
    let mut node = Node::new(1, config(), std::slice::from_ref(&small));
    let grown = region(R1, "a", "m", &[1, 2]);
    let key = node.receive_snapshot(&grown, from_leader(&grown), SEEDED, SEEDED, &[]);
    assert_eq!(node.status(R1).phase, PeerPhase::Normal, "raft took an old snapshot");
    assert!(node.gives_up(key));
    let other = region(R2, "h", "z", &[1, 2]);
    node.meet(&other, 2);
    node.receive_snapshot(&other, from_leader(&other), 6, 20, &[]);
    node.settle();
    assert_eq!(node.status(R2).phase, PeerPhase::Normal);
}

/// H17: a peer that is destroyed while its snapshot waits leaves no range behind.
#[test]
fn h17_a_destroyed_peer_gives_its_admitted_range_back() {
    let mut node = Node::new(1, config(), &[]);
    let left = region(R1, "a", "m", &[1, 2]);
    node.meet(&left, 2);
    let key = node.receive_snapshot(&left, from_leader(&left), 6, 20, &[]);
    let mut newer = message(
        &left,
        (voter(R1, 2), raftstore_proto::Peer::voter(id(191), voter(R1, 1).store)),
        MessageType::MsgHeartbeat,
        6,
    );
    newer.raft_mut().to = 191;
    node.receive(newer);
    assert!(node.gives_up(key));
    node.settle();
    assert!(node.store.inspect_region(R1).is_none());
    let right = region(R2, "k", "z", &[1, 2]);
    node.meet(&right, 2);
    node.receive_snapshot(&right, from_leader(&right), 6, 20, &[]);
    node.settle();
    assert_eq!(node.status(R2).phase, PeerPhase::Normal);
}

fn id(id: u64) -> raftstore_proto::PeerId {
    raftstore_proto::PeerId::must(id)
}

/// H18: a peer that has data is asked too: its new range must not reach into a neighbour's.
/// Its own range is no obstacle.
#[test]
fn h18_a_snapshot_may_not_grow_over_a_neighbour() {
    let (left, right) = (region(R1, "a", "m", &[1, 2]), region(R2, "m", "z", &[1, 2]));
    let mut node = Node::new(1, config(), &[left.clone(), right]);
    let grown = region(R1, "a", "p", &[1, 2]);
    let key = node.receive_snapshot(&grown, from_leader(&grown), 6, 20, &[]);
    assert_eq!(node.dropped(Dropped::RegionOverlap), 1);
    assert!(node.gives_up(key));
    node.settle();
    assert_eq!(node.status(R1).region, left);
    assert_eq!(node.status(R1).applied.applied, SEEDED);
    node.receive_snapshot(&left, from_leader(&left), 6, 20, &[("b", "1")]);
    node.settle();
    assert_eq!(node.status(R1).applied.applied, 20);
    assert_eq!(node.data("b").as_deref(), Some(&b"1"[..]));
}

/// H19: raft is not shown a snapshot whose bytes are not here.
#[test]
fn h19_a_snapshot_without_its_bytes_is_not_stepped() {
    let whole = region(R1, "", "", &[1, 2]);
    let mut node = Node::new(1, config(), std::slice::from_ref(&whole));
    node.receive(snapshot_message(&whole, from_leader(&whole), 6, 20));
    assert_eq!(node.dropped(Dropped::BadSnapshot), 1);
    node.settle();
    assert_eq!(node.status(R1).last_index, SEEDED);
    // Bytes of another moment do not help.
    let key = SnapKey { region: R1, term: 6, index: 19 };
    let size_bytes = node.lay_down(&whole, key, &[]);
    node.take(crate::Event::Message {
        message: Box::new(snapshot_message(&whole, from_leader(&whole), 6, 20)),
        snapshot: Some((key, size_bytes)),
    });
    assert_eq!(node.dropped(Dropped::BadSnapshot), 2);
    node.settle();
    assert_eq!(node.status(R1).last_index, SEEDED);
}
