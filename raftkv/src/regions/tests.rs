//! Maps put together from what stores say.

use raftstore_core::PeerPhase;
use raftstore_proto::{ApplyState, Peer, PeerId};

use super::*;

fn store(number: u64) -> StoreId {
    StoreId::must(100 + number)
}

fn numbers() -> BTreeMap<StoreId, u64> {
    (1..=5).map(|number| (store(number), number)).collect()
}

fn region(id: u64, range: (&'static str, &'static str), version: u64, on: &[u64]) -> Region {
    let peer = |number: &u64| Peer::voter(PeerId::must(id * 10 + number), store(*number));
    Region {
        id: RegionId::must(id),
        start_key: Bytes::from_static(range.0.as_bytes()),
        end_key: Bytes::from_static(range.1.as_bytes()),
        epoch: Epoch { conf_ver: 1, version },
        peers: on.iter().map(peer).collect(),
    }
}

/// What the replica on a store says, which leads in a term or does not.
fn says(region: &Region, on: u64, leads: Option<u64>) -> PeerStatus {
    PeerStatus {
        region: region.clone(),
        peer: *region.peer_on(store(on)).expect("a member"),
        incarnation: 1,
        phase: PeerPhase::Normal,
        is_leader: leads.is_some(),
        is_candidate: false,
        leader: 0,
        term: leads.unwrap_or(9),
        vote: 0,
        committed: 7,
        applied: ApplyState::default(),
        last_index: 7,
        persisted_index: 7,
        hash_index: 0,
    }
}

fn map(peers: impl IntoIterator<Item = PeerStatus>) -> RegionMap {
    RegionMap::new(peers, &numbers(), &BTreeMap::new())
}

/// A map of whole regions, each on three stores and led by the first of them.
fn spread(on: &[[u64; 3]]) -> RegionMap {
    const EDGES: [&str; 6] = ["", "b", "c", "d", "e", "f"];
    let edges = EDGES.iter().zip(&EDGES[1..]);
    map((1..)
        .zip(on)
        .zip(edges)
        .map(|((id, on), (start, end))| says(&region(id, (start, end), 1, on), on[0], Some(5))))
}

#[test]
fn the_leader_of_the_later_term_is_believed() {
    let old = region(1, ("", ""), 1, &[1, 2, 3]);
    let new = region(1, ("", "m"), 2, &[1, 2, 3]);
    let peers = [says(&old, 1, Some(5)), says(&new, 2, Some(6)), says(&old, 3, None)];
    for turn in 0..3 {
        let mut peers = peers.clone();
        peers.rotate_left(turn);
        let map = map(peers);
        assert_eq!(map.regions().len(), 1);
        let view = &map.regions()[0];
        assert_eq!((view.leader, &view.region), (Some(2), &new));
        assert_eq!(view.stores, [1, 2, 3]);
        assert!(!map.is_whole(), "nobody holds the keys from m on");
    }
}

#[test]
fn without_a_leader_the_newest_epoch_is_shown() {
    let old = region(1, ("", ""), 1, &[1, 2, 3]);
    let new = region(1, ("", "m"), 2, &[1, 2, 3]);
    let map = map([says(&new, 1, None), says(&old, 2, None)]);
    assert_eq!((map.regions()[0].leader, &map.regions()[0].region), (None, &new));
}

#[test]
fn peers_without_data_or_on_their_way_out_tell_nothing() {
    let region = region(1, ("", ""), 1, &[1, 2, 3]);
    let mut waits = says(&region, 2, None);
    waits.phase = PeerPhase::Uninitialized;
    let mut goes = says(&region, 3, None);
    goes.phase = PeerPhase::GoingAway;
    assert!(map([waits, goes]).regions().is_empty());
}

#[test]
fn a_map_is_whole_if_every_key_is_in_one_led_region() {
    let left = region(1, ("", "m"), 2, &[1, 2, 3]);
    let right = region(2, ("m", ""), 2, &[1, 2, 3]);
    let later = region(2, ("n", ""), 2, &[1, 2, 3]);
    let all = region(3, ("", ""), 1, &[1, 2, 3]);
    let led = |region: &Region| says(region, 1, Some(5));
    assert!(map([led(&right), led(&left)]).is_whole());
    assert!(map([led(&all)]).is_whole());
    assert!(!map([]).is_whole());
    assert!(!map([led(&right)]).is_whole(), "the first keys are missing");
    assert!(!map([led(&left)]).is_whole(), "the last keys are missing");
    assert!(!map([led(&left), led(&later)]).is_whole(), "there is a gap");
    assert!(!map([led(&all), led(&right)]).is_whole(), "there is an overlap");
    assert!(!map([led(&left), says(&right, 1, None)]).is_whole(), "nobody leads the right one");
}

#[test]
fn learners_are_not_voters_and_members_are_counted() {
    let mut region = region(1, ("", ""), 1, &[1, 2, 3]);
    assert!(map([says(&region, 1, Some(5))]).has_voters(3));
    assert!(!map([says(&region, 1, Some(5))]).has_voters(2));
    region.peers[2].role = PeerRole::Learner;
    assert!(!map([says(&region, 1, Some(5))]).has_voters(3));
}

#[test]
fn leaders_are_spread_as_far_as_members_allow() {
    let three = [1, 2, 3];
    assert!(spread(&[[1, 2, 3]]).is_balanced(&three));
    assert!(!spread(&[[1, 2, 3], [1, 2, 3]]).is_balanced(&three));
    assert!(spread(&[[1, 2, 3], [2, 1, 3]]).is_balanced(&three));
    assert!(spread(&[[1, 2, 3], [2, 1, 3], [3, 1, 2], [1, 2, 3]]).is_balanced(&three));
    assert!(!spread(&[[1, 2, 3], [1, 2, 3], [1, 2, 3], [2, 1, 3]]).is_balanced(&three));
    let busy = spread(&[[2, 1, 3], [2, 1, 3], [1, 2, 3]]);
    assert_eq!((busy.busiest(), busy.led_by(2), busy.led_by(3)), (Some(2), 2, 0));
}

#[test]
fn replicas_are_spread_over_all_stores() {
    let all = [1, 2, 3, 4, 5];
    let two = spread(&[[1, 2, 3], [2, 3, 4]]);
    assert!(two.is_balanced(&all), "a difference of two may stay");
    let three = spread(&[[1, 2, 3], [2, 3, 4], [4, 1, 2]]);
    assert!(three.is_balanced(&[1, 2, 3, 4]));
    assert!(!three.is_balanced(&all), "store 5 holds nothing, store 2 three");
}

#[test]
fn tables_and_json_show_keys_that_are_no_text() {
    let key: &'static str = "a\"b\\c\u{1}";
    let left = region(1, ("", key), 2, &[2, 1, 3]);
    let right = region(2, (key, ""), 2, &[1, 2, 3]);
    let sizes = BTreeMap::from([(left.id, 2048)]);
    let map = RegionMap::new([says(&left, 2, Some(5)), says(&right, 1, None)], &numbers(), &sizes);
    let table = map.table();
    assert_eq!(table.lines().count(), 3);
    for part in ["the first key", r#"a\"b\\c\x01"#, "1/2", "1 2 3", "2.0 KiB", "unknown", "none"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let json = map.json();
    assert_eq!(json.lines().count(), 1);
    let expected = concat!(
        r#"{"region": 1, "start": "", "end": "a\\\"b\\\\c\\x01", "conf_ver": 1, "version": 2, "#,
        r#""leader": 2, "stores": [1, 2, 3], "bytes": 2048}"#
    );
    assert!(json.contains(expected), "{json}");
}

#[test]
fn long_keys_are_shortened() {
    assert_eq!(shown(&[b'k'; SHOWN_BYTES_MAX], ""), "k".repeat(SHOWN_BYTES_MAX));
    assert_eq!(shown(&[b'k'; 1000], ""), format!("{}...", "k".repeat(SHOWN_BYTES_MAX)));
}
