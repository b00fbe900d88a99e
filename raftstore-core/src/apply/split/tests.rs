//! What a split makes of a region, and which births it decides on.

use bytes::Bytes;
use raftstore_proto::{Epoch, RegionId, StoreId};

use super::*;

const FLAGS: EntryFlags = EntryFlags { split: true, ..EntryFlags::NONE };

fn region(start: &'static str, end: &'static str) -> Region {
    Region {
        id: RegionId::must(1),
        start_key: Bytes::from(start),
        end_key: Bytes::from(end),
        epoch: Epoch { conf_ver: 3, version: 7 },
        peers: vec![
            Peer::voter(PeerId::must(11), StoreId::must(1)),
            Peer::learner(PeerId::must(12), StoreId::must(2)),
        ],
    }
}

fn request(key: &'static str, region: u64) -> SplitRequest {
    SplitRequest {
        key: Bytes::from(key),
        new_region: RegionId::must(region),
        new_peers: vec![PeerId::must(region * 10), PeerId::must(region * 10 + 1)],
    }
}

fn ranges(parts: &Parts) -> Vec<(u64, String, String)> {
    let text = |key: &Bytes| String::from_utf8(key.to_vec()).expect("keys are text");
    parts
        .in_key_order()
        .iter()
        .map(|region| (region.id.get(), text(&region.start_key), text(&region.end_key)))
        .collect()
}

fn expected(parts: &[(u64, &str, &str)]) -> Vec<(u64, String, String)> {
    parts.iter().map(|(id, start, end)| (*id, (*start).into(), (*end).into())).collect()
}

#[test]
fn the_parts_meet_and_the_id_stays_on_the_chosen_side() {
    let requests = [request("f", 2), request("m", 3)];
    let right = cut(&region("b", "x"), FLAGS, &requests, true).expect("valid");
    assert_eq!(ranges(&right), expected(&[(2, "b", "f"), (3, "f", "m"), (1, "m", "x")]));
    let left = cut(&region("b", "x"), FLAGS, &requests, false).expect("valid");
    assert_eq!(ranges(&left), expected(&[(1, "b", "f"), (2, "f", "m"), (3, "m", "x")]));
    let open = cut(&region("", ""), FLAGS, &requests[..1], true).expect("valid");
    assert_eq!(ranges(&open), expected(&[(2, "", "f"), (1, "f", "")]));
}

#[test]
fn every_part_has_the_new_version_and_the_same_replicas_under_new_ids() {
    let requests = [request("f", 2), request("m", 3)];
    let parts = cut(&region("b", "x"), FLAGS, &requests, true).expect("valid");
    for part in parts.in_key_order() {
        assert_eq!(part.epoch, Epoch { conf_ver: 3, version: 9 });
        let places: Vec<_> = part.peers.iter().map(|peer| (peer.store, peer.role)).collect();
        let before: Vec<_> = region("", "").peers.iter().map(|p| (p.store, p.role)).collect();
        assert_eq!(places, before);
    }
    assert_eq!(parts.new[1].peers[0].id, PeerId::must(30));
    assert_eq!(parts.derived.peers, region("", "").peers);
}

/// H62: what a split names is looked at whole; H69: an empty key among it.
#[test]
fn h62_wrong_cuts_are_refused() {
    let whole = region("b", "x");
    let refused = |requests: &[SplitRequest]| cut(&whole, FLAGS, requests, true).is_err();
    assert!(refused(&[]));
    assert!(refused(&[request("", 2)]));
    assert!(refused(&[request("b", 2)]), "the region's start");
    assert!(refused(&[request("x", 2)]), "the region's end");
    assert!(refused(&[request("a", 2)]) && refused(&[request("y", 2)]), "outside");
    assert!(refused(&[request("m", 2), request("f", 3)]), "out of order");
    assert!(refused(&[request("f", 2), request("f", 3)]), "twice the same key");
    assert!(refused(&[request("f", 1)]), "the region's own id");
    assert!(refused(&[request("f", 2), request("m", 2)]), "twice the same region");
    let mut fewer = request("f", 2);
    fewer.new_peers.pop();
    assert!(refused(&[fewer]));
    let mut twice = request("f", 2);
    twice.new_peers[1] = twice.new_peers[0];
    assert!(refused(&[twice]));
    let mut known = request("f", 2);
    known.new_peers[1] = PeerId::must(11);
    assert!(refused(&[known]), "a peer of the region itself");
    assert!(!refused(&[request("f", 2)]));
}

/// W1: leases look for the flag, so a split without it must not happen anywhere.
#[test]
fn w1_a_split_that_does_not_say_so_is_refused() {
    let requests = [request("f", 2)];
    assert!(cut(&region("b", "x"), EntryFlags::default(), &requests, true).is_err());
}

#[test]
fn a_region_in_a_joint_membership_is_not_cut() {
    let mut joint = region("b", "x");
    joint.peers[0].role = raftstore_proto::PeerRole::DemotingVoter;
    assert!(cut(&joint, FLAGS, &[request("f", 2)], true).is_err());
}
