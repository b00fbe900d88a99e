//! Group HB: what stores tell PD.

use std::time::Duration;

use pd_client::{Error, RegionHeartbeat};
use raftstore_proto::{MessageKind, RegionId, StoreId};
use raftstore_sim::{
    cluster::Cluster,
    network::{Action, Match},
    queue::{MILLI, SECOND},
    world::World,
};

use crate::{fair_plan, for_seeds};

/// Stores whose peers are reported as down, with the seconds.
fn down(world: &World) -> Vec<(u64, u64)> {
    let Some(record) = world.pd.core.regions().find(|record| record.region.id.get() == 1) else {
        return Vec::new();
    };
    record.down_peers.iter().map(|down| (down.peer.store.get(), down.down_seconds)).collect()
}

fn down_stores(world: &World) -> Vec<u64> {
    let mut stores: Vec<u64> = down(world).into_iter().map(|(store, _)| store).collect();
    stores.sort_unstable();
    stores
}

#[test]
fn hb_01_down_peers_are_counted_timed_and_reset() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 5, 5, |config| {
            config.max_peer_down_duration = Duration::from_secs(1);
            config.pd_heartbeat_tick_interval = Duration::from_millis(500);
        }));
        cluster.lead(1, 3);
        cluster.kill(1);
        cluster.wait("one down peer", |world| down_stores(world) == [1]);
        cluster.kill(2);
        cluster.wait("two down peers", |world| down_stores(world) == [1, 2]);
        cluster.start(1);
        cluster.start(2);
        cluster.wait("no down peer", |world| down_stores(world).is_empty());
        cluster.kill(1);
        cluster.wait("one down peer for long", |world| {
            down(world).iter().any(|(store, seconds)| *store == 1 && *seconds >= 5)
        });
        cluster.lead(1, 4);
        // The new leader counts from its own beginning.
        cluster.wait("the new leader's report", |world| {
            let record = world.pd.core.regions().next().expect("PD knows the region");
            record.leader.is_some_and(|leader| leader.store.get() == 4)
        });
        assert!(down(&cluster).iter().all(|(_, seconds)| *seconds < 5), "{:?}", down(&cluster));
        cluster.wait("one down peer again", |world| down_stores(world) == [1]);
    });
}

#[test]
fn hb_02_a_pending_peer_is_reported_until_it_has_caught_up() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 3, 1, |_| {}));
        cluster.must_put("k", "v");
        let lost = cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], to: Some(2), ..Match::default() },
            Action::Drop,
        );
        let pending = |world: &World| -> Vec<(u64, u64)> {
            world
                .pd
                .core
                .regions()
                .flat_map(|record| &record.pending_peers)
                .map(|peer| (peer.id.get(), peer.store.get()))
                .collect()
        };
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("the pending peer", |world| pending(world) == [(202, 2)]);
        cluster.pass(5 * SECOND);
        assert_eq!(pending(&cluster), [(202, 2)]);
        cluster.release(lost);
        cluster.must_eq(2, "k", "v");
        cluster.wait("no pending peer", |world| pending(world).is_empty());
    });
}

/// HB-05: it waits until the snapshot is installed, and PD hears at once when it is.
#[test]
fn hb_05_pending_lasts_until_the_snapshot_is_installed() {
    for_seeds(|seed| {
        let mut plan = fair_plan(seed, 3, 1, |config| {
            // The usual report would come too late for this test.
            config.pd_heartbeat_tick_interval = Duration::from_secs(300);
        });
        plan.pace.region_work = SECOND;
        let mut cluster = Cluster::started(plan);
        cluster.must_put("k", "v");
        let pending =
            |world: &World| world.pd.core.regions().any(|record| !record.pending_peers.is_empty());
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("the pending peer", |world| pending(world));
        while cluster.on_disk(2, "k").is_none() {
            assert!(pending(&cluster), "it has nothing yet");
            cluster.pass(10 * MILLI);
        }
        cluster.wait_within(10 * SECOND, "no pending peer", |world| !pending(world));
    });
}

#[test]
fn hb_06_the_data_path_does_not_depend_on_pd() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 3, 3, |_| {}));
        cluster.pd.absent_until = u64::MAX;
        for number in 0..20 {
            cluster.must_put(&format!("k{number}"), "v");
            cluster.pass(SECOND);
        }
        cluster.kill(1);
        cluster.must_put("k", "v");
        cluster.start(1);
        cluster.must_eq(1, "k", "v");
        cluster.pd.absent_until = 0;
        let leader = cluster.wait_leader(1);
        cluster.wait("PD to hear of the leader", |world| {
            let known =
                world.pd.core.region_by_id(RegionId::must(1)).and_then(|route| route.leader);
            known.is_some_and(|peer| peer.store == StoreId::must(leader))
        });
    });
}

#[test]
fn hb_08_store_statistics_count_replicas() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 3, 3, |_| {}));
        let says = |world: &World, store, regions, written| {
            let record = world.pd.core.store(StoreId::must(store)).ok();
            record.and_then(|record| record.stats.as_ref()).is_some_and(|stats| {
                stats.region_count == regions && stats.written_bytes >= written
            })
        };
        cluster.wait("the reports of all stores", |world| (1..=3).all(|id| says(world, id, 1, 0)));
        cluster.must_split(1, &["m"]);
        cluster.wait("the new regions", |world| (1..=3).all(|id| says(world, id, 2, 0)));
        // What is written between two reports is in the second, once.
        let mut told = [false; 3];
        cluster.must_put("a", &"v".repeat(1000));
        cluster.wait("the writes", |world| {
            for (at, told) in told.iter_mut().enumerate() {
                *told |= says(world, at as u64 + 1, 2, 1000);
            }
            told == [true; 3]
        });
        cluster.wait("no writes", |world| {
            (1..=3).all(|id| {
                let record = world.pd.core.store(StoreId::must(id)).expect("it has reported");
                record.stats.as_ref().is_some_and(|stats| stats.written_bytes == 0)
            })
        });
    });
}

/// An old leader's word never changes what PD knows, and time goes forward.
#[test]
fn hb_09_terms_and_times_move_forward() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 3, 3, |config| {
            config.pd_heartbeat_tick_interval = Duration::from_millis(500);
        }));
        let known = |world: &World| {
            let mut records = world.pd.core.regions();
            let record = records.next().expect("PD knows the region");
            (record.term, record.heard_ms, record.leader.map(|leader| leader.store.get()))
        };
        cluster.lead(1, 3);
        cluster.wait("the first report", |world| known(world).2 == Some(3));
        for leader in [1, 2, 1, 3] {
            let before = known(&cluster);
            let old = old_word(&cluster);
            cluster.lead(1, leader);
            cluster.wait("the new leader's report", |world| known(world).2 == Some(leader));
            let after = known(&cluster);
            assert!(after.0 > before.0 && after.1 > before.1, "{after:?} after {before:?}");
            // The old leader's last word comes late.
            let now = cluster.now / 1_000_000;
            let refused = cluster.pd.core.region_heartbeat(now, old);
            assert!(matches!(refused, Err(Error::Stale)), "{refused:?}");
            assert_eq!(known(&cluster), after);
            cluster.wait("another report", |world| known(world).1 > after.1);
        }
    });
}

/// What the leader could report now.
fn old_word(world: &World) -> RegionHeartbeat {
    let store = world.leader_store(1).expect("somebody leads");
    let leader = world.peer_status(store, 1).expect("the leader is there");
    RegionHeartbeat {
        region: leader.region.clone(),
        leader: leader.peer,
        term: leader.term,
        down_peers: Vec::new(),
        pending_peers: Vec::new(),
        written_bytes: 0,
        written_keys: 0,
        approximate_size: 0,
    }
}
