//! Ranges, creations and births that lanes agree on.

use raftstore_proto::{Epoch, Peer, StoreId};

use super::*;

const fn id(region: u64) -> RegionId {
    RegionId::must(region)
}

fn region(region: u64, start: &'static str, end: &'static str) -> Region {
    Region {
        id: id(region),
        start_key: Bytes::from(start),
        end_key: Bytes::from(end),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(region * 10), StoreId::must(1))],
    }
}

/// R20: a restarted store gives its peers numbers that none of an earlier life had, so that
/// a late answer to a question of that life answers nobody.
#[test]
fn r20_incarnations_differ_from_life_to_life() {
    let numbers = |life| {
        let meta = StoreMeta::of_life(life);
        [meta.next_incarnation(), meta.next_incarnation()]
    };
    let (first, second) = (numbers(1), numbers(2));
    assert!(first.iter().all(|number| !second.contains(number)), "{first:?} {second:?}");
}

/// H12: who may be born by a split.
#[test]
fn h12_a_birth_gives_way_to_whatever_is_newer() {
    let meta = StoreMeta::default();
    let peer = PeerId::must(20);
    meta.register(&region(1, "", ""));
    assert!(!meta.claim_split(id(1), PeerId::must(10)), "it has data here");
    assert!(meta.claim_split(id(2), peer));
    assert!(!meta.claim_split(id(2), peer), "claimed already");
    meta.release_split(id(2));

    meta.claim_creation(id(2), PeerId::must(21), None).expect("free");
    assert!(!meta.claim_split(id(2), peer), "another incarnation waits");
    meta.forget(id(2));
    meta.claim_creation(id(2), peer, None).expect("free");
    assert!(meta.claim_split(id(2), peer), "the very peer waits, and is replaced");
    assert!(!meta.begin_end(id(2)), "it is replaced, not removed");
    meta.release_split(id(2));
    assert!(meta.begin_end(id(2)));
    assert!(!meta.claim_split(id(2), peer), "its end has begun");
    meta.forget(id(2));

    meta.remember_vote(id(2), PeerId::must(21));
    assert!(!meta.claim_split(id(2), peer), "a later incarnation has voted");
    assert!(meta.claim_split(id(2), PeerId::must(21)));
}

/// W9: nobody sees a gap, or two owners of a key.
#[test]
fn w9_a_split_enters_all_parts_at_once() {
    let meta = StoreMeta::default();
    meta.register(&region(1, "", ""));
    assert!(meta.claim_split(id(2), PeerId::must(20)));
    meta.split(&region(1, "m", ""), &[region(2, "f", "m")], &[region(3, "", "f")]);
    assert_eq!(meta.regions(), [region(2, "f", "m"), region(1, "m", "")]);
    assert_eq!(meta.region_of(b"g"), Some(region(2, "f", "m")));
    assert_eq!(meta.region_of(b"a"), None, "nobody's here");

    // The range of the skipped part stays closed until its data is gone.
    let newer = Region { peers: Vec::new(), ..region(3, "", "f") };
    assert!(meta.admit_snapshot(&newer).is_err());
    meta.leftover_removed(id(3));
    assert!(meta.admit_snapshot(&newer).is_ok());

    // A snapshot for a peer that the split has put on disk would be overwritten.
    assert!(meta.admit_snapshot(&region(2, "f", "m")).is_err());
    meta.split_built(id(2));
    assert!(meta.admit_snapshot(&region(2, "f", "m")).is_ok());
}

#[test]
fn neighbours_end_at_a_gap() {
    let meta = StoreMeta::default();
    for known in [region(1, "b", "d"), region(2, "d", "f"), region(3, "f", "h"), region(4, "i", "")]
    {
        meta.register(&known);
    }
    let ids = |found: Vec<Region>| found.iter().map(|r| r.id.get()).collect::<Vec<_>>();
    assert_eq!(ids(meta.neighbours(&region(3, "f", "h"), 9, true)), [2, 1]);
    assert_eq!(ids(meta.neighbours(&region(3, "f", "h"), 1, true)), [2]);
    assert_eq!(ids(meta.neighbours(&region(1, "b", "d"), 9, false)), [2, 3]);
    assert_eq!(ids(meta.neighbours(&region(4, "i", ""), 9, false)), Vec::<u64>::new());
}
