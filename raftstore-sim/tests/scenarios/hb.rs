//! Group HB: what stores tell PD.

use std::time::Duration;

use raftstore_proto::{MessageKind, RegionId, StoreId};
use raftstore_sim::{
    cluster::Cluster,
    network::{Action, Match},
    plan::Plan,
    queue::SECOND,
    world::World,
};

use crate::plan_with;

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
    let mut cluster = Cluster::started(plan_with(5, 5, |config| {
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
}

#[test]
fn hb_02_a_pending_peer_is_reported_until_it_has_caught_up() {
    let mut cluster = Cluster::started(Plan::quiet(1, 3, 1));
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
}

#[test]
fn hb_06_the_data_path_does_not_depend_on_pd() {
    let mut cluster = Cluster::three();
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
        let known = world.pd.core.region_by_id(RegionId::must(1)).and_then(|route| route.leader);
        known.is_some_and(|peer| peer.store == StoreId::must(leader))
    });
}

#[test]
fn hb_08_store_statistics_count_replicas() {
    let mut plan = Plan::quiet(1, 3, 3);
    plan.regions = 2;
    let mut cluster = Cluster::started(plan);
    cluster.must_put("a", &"v".repeat(1000));
    cluster.wait("the reports of all stores", |world| {
        (1..=3).all(|store| {
            let stats =
                world.pd.core.store(StoreId::must(store)).ok().and_then(|it| it.stats.as_ref());
            stats.is_some_and(|stats| stats.region_count == 2 && stats.used_bytes > 0)
        })
    });
}
