//! Comparing stores that hold what the tests put there.

use engine_traits::{Durability, KvEngine, WriteBatch, mem::MemEngine};
use raftstore_proto::{ApplyState, Epoch, Peer, PeerId, RegionState, Truncated};

use super::*;

fn region(id: u64, range: (&'static str, &'static str), on: &[u64]) -> Region {
    let peer =
        |number: &u64| Peer::voter(PeerId::must(id * 10 + number), StoreId::must(100 + number));
    Region {
        id: RegionId::must(id),
        start_key: range.0.into(),
        end_key: range.1.into(),
        epoch: Epoch { conf_ver: 1, version: 2 },
        peers: on.iter().map(peer).collect(),
    }
}

/// The regions `[, m)` and `[m, )`, the second not on store 3.
fn both() -> [Region; 2] {
    [region(1, ("", "m"), &[1, 2, 3]), region(2, ("m", ""), &[1, 2])]
}

/// What stores hold.
struct Stores(Vec<MemEngine>);

impl Stores {
    /// Three stores with both regions, and a row in each.
    fn new() -> Self {
        let this = Self((0..3).map(|_| MemEngine::new()).collect());
        for number in 1..=3 {
            for region in both() {
                if region.peer_on(StoreId::must(100 + number)).is_some() {
                    this.head(number, &region, RegionPhase::Normal, 9);
                    let key = if region.start_key.is_empty() { "a" } else { "x" };
                    this.row(number, key, "value");
                }
            }
        }
        this
    }

    fn write(&self, number: u64, cf: Cf, key: &[u8], value: &[u8]) {
        let kv = &self.0[usize::try_from(number).unwrap() - 1];
        let mut batch = kv.write_batch();
        batch.put(cf, key, value);
        kv.write(batch, Durability::Buffered).unwrap();
    }

    fn row(&self, number: u64, key: &str, value: &str) {
        self.write(number, Cf::Default, &keys::data_key(key.as_bytes()), value.as_bytes());
    }

    fn head(&self, number: u64, region: &Region, phase: RegionPhase, applied: u64) {
        let state = RegionState { phase, region: region.clone() };
        let state = record::encode_region_state(region.id, &state);
        self.write(number, Cf::Raft, &keys::region_state_key(region.id), &state);
        let truncated = Truncated { index: 5, term: 5 };
        let apply_state = ApplyState { applied, applied_term: 6, truncated };
        let apply_state = record::encode_apply_state(region.id, &apply_state);
        self.write(number, Cf::Raft, &keys::apply_state_key(region.id), &apply_state);
    }

    fn compare(&self) -> Verdict {
        let stores: Vec<_> = (1..)
            .zip(&self.0)
            .map(|(number, kv)| {
                let snapshot = kv.snapshot().unwrap();
                let heads = heads(&snapshot).unwrap();
                Store { number, snapshot, heads }
            })
            .collect();
        let numbers = (1..=3).map(|number| (StoreId::must(100 + number), number)).collect();
        compare(&stores, &numbers).unwrap()
    }
}

fn assert_not_yet(stores: &Stores, part: &str) {
    match stores.compare() {
        Verdict::NotYet(why) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn equal_replicas_are_equal() {
    assert_eq!(Stores::new().compare(), Verdict::Equal);
}

#[test]
fn a_row_that_differs_is_found_at_once() {
    for (number, key, value) in [(2, "x", "another"), (3, "a", ""), (1, "b", "one more")] {
        let stores = Stores::new();
        stores.row(number, key, value);
        match stores.compare() {
            Verdict::Different(why) => {
                assert!(why.contains(&format!("store {number}")) || number == 1, "{why}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn replicas_at_different_entries_are_not_compared() {
    let stores = Stores::new();
    stores.head(2, &both()[0], RegionPhase::Normal, 8);
    stores.row(2, "a", "older");
    assert_not_yet(&stores, "region 1: store 2 is at entry 8 of 9");
}

#[test]
fn replicas_that_are_being_installed_or_moved_are_waited_for() {
    let stores = Stores::new();
    for number in 1..=3 {
        stores.head(number, &both()[0], RegionPhase::Applying, 9);
    }
    assert_not_yet(&stores, "Applying");

    let stores = Stores::new();
    stores.head(3, &both()[1], RegionPhase::Normal, 9);
    assert_not_yet(&stores, "region 2 is on stores [1, 2, 3], its members are on [1, 2]");

    let stores = Stores::new();
    stores.head(3, &both()[0], RegionPhase::Tombstone, 9);
    assert_not_yet(&stores, "region 1 is on stores [1, 2], its members are on [1, 2, 3]");
}

#[test]
fn members_that_do_not_agree_on_the_region_are_waited_for() {
    let stores = Stores::new();
    let mut newer = both()[1].clone();
    newer.epoch.version += 1;
    stores.head(1, &newer, RegionPhase::Normal, 9);
    assert_not_yet(&stores, "region 2");
}

#[test]
fn rows_outside_a_store_s_regions_are_waited_for() {
    let stores = Stores::new();
    stores.row(3, "x", "value");
    assert_not_yet(&stores, "store 3 holds 2 rows, of them 1 in its regions");
}

#[test]
fn keys_that_no_region_holds_are_noticed() {
    let stores = Stores::new();
    for number in 1..=2 {
        stores.head(number, &region(2, ("n", ""), &[1, 2]), RegionPhase::Normal, 9);
    }
    assert_not_yet(&stores, "regions 1 and 2 do not meet");
    for number in 1..=2 {
        stores.head(number, &both()[1], RegionPhase::Tombstone, 9);
    }
    assert_not_yet(&stores, "the last");
}
