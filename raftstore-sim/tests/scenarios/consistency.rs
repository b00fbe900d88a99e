//! Comparing replicas: RAFT-18, and what becomes of replicas that differ (H75).

use std::time::Duration;

use engine_traits::{Durability, KvEngine, WriteBatch};
use raftstore_core::{
    OnMismatch, PeerPhase, StoreMetrics,
    consistency::{HashedSide, RangeHash, RangeHashError, RangeQuestion, first_difference},
    keys,
};
use raftstore_proto::{Cf, RegionId};
use raftstore_sim::{
    cluster::Cluster,
    plan::{Pace, Plan},
    queue::{MILLI, SECOND},
    world::World,
};

use crate::{for_seeds, plan_with};

/// Replicas are compared once a second. With several lanes it would be each one's turn only
/// every so many seconds.
fn comparing(stores: u64, seed: u64, on_mismatch: OnMismatch) -> Plan {
    let mut plan = plan_with(stores, stores, |config| {
        config.lanes = 1;
        config.consistency_check_interval = Duration::from_secs(1);
        config.consistency_mismatch = on_mismatch;
        config.consistency_slice = 4 << 10;
        config.seed = seed;
    });
    plan.seed = seed;
    plan
}

/// What all lanes of a store have done.
fn done(cluster: &Cluster, store: u64) -> StoreMetrics {
    let mut sum = StoreMetrics::default();
    for lane in cluster.metrics(store) {
        sum.hash_rounds += lane.hash_rounds;
        sum.hashes_computed += lane.hashes_computed;
        sum.hashes_failed += lane.hashes_failed;
        sum.hashes_matched += lane.hashes_matched;
        sum.hashes_missed += lane.hashes_missed;
        sum.hashes_differing += lane.hashes_differing;
    }
    sum
}

#[test]
fn raft_18_replicas_are_compared_while_writes_go_on() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(comparing(2, seed, OnMismatch::Stop));
        cluster.lead(1, 1);
        for number in 0..300 {
            cluster.must_put(&format!("k{:03}", number % 50), &format!("v{number}"));
            cluster.pass(20 * MILLI);
        }
        assert!(done(&cluster, 1).hash_rounds >= 5);
        for store in [1, 2] {
            let done = done(&cluster, store);
            assert!(done.hashes_matched >= 4, "store {store}: {done:?}");
            let bad = (done.hashes_failed, done.hashes_differing, done.hashes_missed);
            assert_eq!(bad, (0, 0, 0), "store {store}");
        }
    });
}

/// The work is cut in slices, between which entries are executed and answered.
#[test]
fn raft_18_hashing_holds_up_no_write() {
    for_seeds(|seed| {
        let mut plan = comparing(3, seed, OnMismatch::Stop);
        plan.pace = Pace { region_work: 20 * MILLI, ..Pace::FAST };
        let mut cluster = Cluster::started(plan);
        cluster.lead(1, 1);
        for number in 0..100 {
            cluster.must_put(&format!("large{number}"), &"v".repeat(4 << 10));
        }
        cluster.wait("a comparison to begin", |world| {
            world.metrics(1).iter().any(|lane| lane.hash_rounds > lane.hashes_computed)
        });
        let before = done(&cluster, 1).hashes_computed;
        for number in 0..20 {
            cluster.must_put("k", &format!("v{number}"));
        }
        assert_eq!(done(&cluster, 1).hashes_computed, before, "all writes came before the hash");
        cluster.wait("the hash", |world| {
            world.metrics(1).iter().any(|lane| lane.hashes_computed > before)
        });
    });
}

/// H77: the round under way counts until its hash is there, however long that takes.
#[test]
fn h77_no_round_begins_while_one_is_under_way() {
    for_seeds(|seed| {
        let mut plan = comparing(1, seed, OnMismatch::Stop);
        plan.pace = Pace { region_work: 200 * MILLI, ..Pace::FAST };
        let mut cluster = Cluster::started(plan);
        for number in 0..40 {
            cluster.must_put(&format!("large{number}"), &"v".repeat(4 << 10));
        }
        let under_way = |world: &World| {
            let lane = &world.metrics(1)[0];
            lane.hash_rounds - lane.hashes_computed
        };
        cluster.wait("a round to begin", |world| under_way(world) > 0);
        let slow = cluster.now;
        while under_way(&cluster) > 0 {
            assert_eq!(under_way(&cluster), 1);
            cluster.pass(100 * MILLI);
        }
        assert!(cluster.now > slow + 2 * SECOND, "too quick to prove anything");
    });
}

/// The region whose last comparison is oldest comes first, so none is left out.
#[test]
fn raft_18_every_region_has_its_turn() {
    for_seeds(|seed| {
        let mut plan = comparing(3, seed, OnMismatch::Stop);
        plan.regions = 4;
        let mut cluster = Cluster::started(plan);
        for region in 1..=4 {
            cluster.lead(region, 2);
        }
        let rounds = done(&cluster, 2).hash_rounds;
        cluster.wait("as many rounds as there are regions, twice", |world| {
            world.metrics(2).iter().any(|lane| lane.hash_rounds >= rounds + 8)
        });
        let compared =
            (1..=4).map(|region| cluster.peer_status(3, region).expect("a replica").hash_index);
        assert!(compared.clone().all(|index| index > 0), "{:?}", compared.collect::<Vec<_>>());
    });
}

/// A replica that was away computes late and is compared with what the log holds by then.
#[test]
fn raft_18_a_replica_that_was_away_is_compared_when_it_is_back() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(comparing(3, seed, OnMismatch::Stop));
        cluster.lead(1, 1);
        cluster.isolate(3);
        cluster.pass(4 * SECOND);
        cluster.mend();
        let matched = done(&cluster, 3).hashes_matched;
        cluster.wait("a comparison on store 3", |world| {
            world.metrics(3).iter().any(|lane| lane.hashes_matched > matched)
        });
    });
}

/// A row of one replica is changed past raft, as a bad device would.
fn damage(cluster: &mut Cluster, store: u64, key: &str) {
    let kv = cluster.nodes[&store].disk.kv.clone();
    let mut batch = kv.write_batch();
    batch.put(Cf::Default, &keys::data_key(key.as_bytes()), b"damaged");
    kv.write(batch, Durability::Buffered).expect("the engine works");
}

fn filled(seed: u64, on_mismatch: OnMismatch) -> Cluster {
    let mut cluster = Cluster::started(comparing(3, seed, on_mismatch));
    cluster.lead(1, 1);
    for number in 0..200 {
        cluster.must_put(&format!("k{number:03}"), &format!("v{number}"));
    }
    for store in 1..=3 {
        cluster.must_eq(store, "k199", "v199");
    }
    cluster
}

/// One of two stores, asked for hashes.
struct Side<'a>(&'a std::cell::RefCell<Cluster>, u64, u64);

impl HashedSide for Side<'_> {
    type Error = RangeHashError;

    fn range_hash(&mut self, cf: Cf, start: &[u8], end: &[u8]) -> Result<RangeHash, Self::Error> {
        let (region, start, end) = (RegionId::must(1), start.to_vec(), end.to_vec());
        let question = RangeQuestion { ticket: 1, region, index: self.2, cf, start, end };
        self.0.borrow_mut().range_hash(self.1, question)
    }
}

#[test]
fn h75_replicas_that_differ_are_reported_and_the_difference_is_found() {
    for_seeds(|seed| {
        let mut cluster = filled(seed, OnMismatch::Report);
        let key = format!("k{:03}", seed * 7);
        damage(&mut cluster, 3, &key);
        cluster.wait("the difference to be noticed", |world| {
            world.metrics(3).iter().any(|lane| lane.hashes_differing > 0)
        });
        assert_eq!(done(&cluster, 2).hashes_differing, 0, "store 2 is healthy");
        // Everybody goes on; the one told looks for the place on both stores.
        cluster.must_put("k", "v");
        let index = cluster.peer_status(3, 1).expect("a replica").hash_index;
        let region = cluster.region(1);
        let cluster = std::cell::RefCell::new(cluster);
        let (mut one, mut other) = (Side(&cluster, 1, index), Side(&cluster, 3, index));
        let found = first_difference(&mut one, &mut other, &region);
        let found = found.expect("both keep it").expect("they differ");
        assert_eq!((found.cf, found.rows), (Cf::Default, (1, 1)));
        assert_eq!(found.start, key);
        let mut healthy = Side(&cluster, 2, index);
        assert_eq!(first_difference(&mut one, &mut healthy, &region).expect("both keep it"), None);
    });
}

#[test]
fn h75_a_replica_that_differs_can_be_taken_out_of_service() {
    for_seeds(|seed| {
        let mut cluster = filled(seed, OnMismatch::Quarantine);
        damage(&mut cluster, 2, "k100");
        cluster.wait("the replica to be quarantined", |world| {
            world.peer_status(2, 1).is_some_and(|it| it.phase == PeerPhase::Quarantined)
        });
        cluster.must_put("k100", "new");
        assert_eq!(cluster.get("k100").as_deref(), Some("new"));
        assert_eq!(cluster.peer_status(3, 1).expect("a replica").phase, PeerPhase::Normal);
    });
}

#[test]
fn h75_a_store_whose_replica_differs_stops_unless_told_otherwise() {
    assert_eq!(raftstore_core::Config::default().consistency_mismatch, OnMismatch::Stop);
    for_seeds(|seed| {
        let mut cluster = filled(seed, OnMismatch::Stop);
        damage(&mut cluster, 3, "k007");
        let until = cluster.now + 10 * SECOND;
        cluster.run_until(until);
        let (_, violation) = cluster.violation().expect("store 3 has to stop");
        let said = violation.to_string();
        assert!(said.contains("store 3") && said.contains("replicas differ"), "{said}");
    });
}
