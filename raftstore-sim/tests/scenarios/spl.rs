//! Splits.

use raftstore_proto::{Body, Command, MessageKind, RegionError, RegionId, StoreId};
use raftstore_sim::{
    cluster::{Cluster, get, header},
    network::{Action, Match},
    plan::Plan,
    queue::{MILLI, SECOND},
    world::Stage,
};

use crate::{for_seeds, scenario_plan};

/// The old id stays on the chosen side, the bounds meet, writes go on in both parts.
#[test]
fn spl_01_split_partitions_the_keys() {
    for_seeds(|_| {
        for right in [true, false] {
            let mut plan = scenario_plan(5, 5);
            let mut config = (*plan.config).clone();
            config.right_derive_when_split = right;
            plan.config = config.into();
            let mut cluster = Cluster::started(plan);
            for key in ["a", "k", "m", "z"] {
                cluster.must_put(key, "1");
            }
            let parts = cluster.must_split(1, &["m"]);
            assert_eq!(parts.len(), 2);
            assert_eq!(parts[0].end_key, parts[1].start_key);
            assert_eq!(parts[usize::from(right)].id, RegionId::must(1));
            for (part, key) in [(0, "k"), (1, "m")] {
                let id = parts[part].id.get();
                cluster.wait_leader(id);
                let read = cluster.put_to(id, key, "2");
                assert!(read.is_ok(), "{key}: {read:?}");
                for store in 1..=5 {
                    cluster.must_eq(store, key, "2");
                }
            }
            let wrong = cluster.put_to(parts[0].id.get(), "z", "3");
            assert!(matches!(wrong, Err(RegionError::KeyNotInRegion { .. })), "{wrong:?}");
        }
    });
}

/// A plan whose regions are cut when they exceed `max` bytes, into parts of `part`.
fn eager(seed: u64, stores: u64, max: u64, part: u64) -> Plan {
    let mut plan = Plan::quiet(seed, stores, stores);
    let mut config = (*plan.config).clone();
    config.split_region_check_tick_interval = std::time::Duration::from_millis(200);
    config.region_max_size = max;
    config.region_split_size = part;
    config.region_split_check_diff = part / 16;
    plan.config = config.into();
    plan
}

fn region_count(cluster: &Cluster) -> usize {
    cluster.world.regions().len()
}

/// Exactly when the limit is passed; the part that is cut off has the split size.
#[test]
fn spl_08_size_driven_split_picks_a_good_point() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(eager(1, 5, 50_000, 30_000));
        let value = "v".repeat(900);
        for row in 0..32 {
            cluster.must_put(&format!("k{row:03}"), &value);
        }
        assert!(cluster.stays(3 * SECOND, |world| world.regions().len() == 1));
        for row in 32..60 {
            cluster.must_put(&format!("k{row:03}"), &value);
        }
        cluster.wait("the split", |world| world.regions().len() == 2);
        let mut regions: Vec<_> = cluster.world.regions().into_values().collect();
        regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        let cut = regions[0].end_key.clone();
        assert_eq!(cut, regions[1].start_key);
        // 905 bytes a row: 33 rows fit in a part.
        assert_eq!(cut.as_ref(), b"k033");
        let right = regions[1].id.get();
        cluster.wait_leader(right);
        assert!(cluster.put_to(right, "zzz", "last").is_ok());
    });
}

/// Both parts are looked at again without further writes.
#[test]
fn spl_24_new_regions_keep_being_checked() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(eager(2, 1, 2_000, 1_000));
        let value = "v".repeat(95);
        for row in 0..200 {
            cluster.must_put(&format!("k{row:03}"), &value);
        }
        cluster.wait("all splits", |world| world.regions().len() >= 10);
        cluster.pass(3 * SECOND);
        let settled = region_count(&cluster);
        assert!(cluster.stays(3 * SECOND, |world| { world.regions().len() == settled }));
    });
}

/// Estimates are unknown after a restart, so smaller limits take effect without a write.
#[test]
fn spl_37_smaller_limits_after_a_restart_take_effect() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(eager(3, 1, 20_000, 15_000));
        for row in 0..10 {
            cluster.must_put(&format!("k{row:03}"), &"v".repeat(95));
        }
        assert!(cluster.stays(2 * SECOND, |world| world.regions().len() == 1));
        cluster.kill(1);
        let mut config = (*cluster.world.plan.config).clone();
        config.region_max_size = 660;
        config.region_split_size = 330;
        cluster.world.plan.config = config.into();
        cluster.start(1);
        cluster.wait("the split", |world| world.regions().len() > 1);
    });
}

/// While PD gives no ids nothing is cut; afterwards it is, without a write.
#[test]
fn spl_30_a_failed_split_is_retried_by_the_next_check() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(eager(4, 1, 2_000, 1_000));
        cluster.world.pd.absent_until = cluster.world.now + 5 * SECOND;
        for row in 0..21 {
            cluster.must_put(&format!("k{row:03}"), &"v".repeat(95));
        }
        assert!(cluster.stays(2 * SECOND, |world| world.regions().len() == 1));
        cluster.wait("the split", |world| world.regions().len() > 1);
    });
}

/// SPL-34: a read that waits for its quorum does not cross the split.
#[test]
fn spl_34_split_during_a_pending_read_index() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(3, 3));
        cluster.lead(1, 1);
        cluster.must_put("a", "old");
        let mut silenced = Vec::new();
        for kind in [MessageKind::Heartbeat, MessageKind::HeartbeatResponse] {
            let takes = Match { kinds: vec![kind], ..Match::default() };
            silenced.push(cluster.filter(
                takes,
                Action::Mutate(Box::new(|message| {
                    message.raft_mut().context = bytes::Bytes::new();
                })),
            ));
        }
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let body = Body::Operations(vec![get("a")]);
        let mut command = Command { header: header(&region, leader), body };
        command.header.read_quorum = true;
        let read = cluster.ask(1, command).expect("it runs");
        cluster.pass(SECOND / 10);
        assert!(cluster.answer_to(read).is_none(), "nobody can have confirmed it");
        let parts = cluster.must_split(1, &["m"]);
        // The left part is the new one.
        assert!(cluster.put_to(parts[0].id.get(), "a", "new").is_ok());
        for filter in silenced {
            cluster.release(filter);
        }
        cluster.wait("an answer to the read", |world| world.answer_to(read).is_some());
        match &cluster.answer_to(read).expect("just seen").body {
            Err(RegionError::EpochNotMatch { .. } | RegionError::KeyNotInRegion { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

/// SPL-35: a region is not cut while a snapshot of it is made, but not put off for ever.
#[test]
fn spl_35_splits_yield_to_snapshots_but_not_for_ever() {
    for_seeds(|_| {
        let mut plan = eager(5, 2, 50_000, 30_000);
        plan.replicas = 1;
        let mut cluster = Cluster::started(plan);
        cluster.must_put("k", "v");
        cluster.pass(SECOND);
        cluster.stand_still(1, Stage::Build);
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("a snapshot to be made", |world| world.waits_at(1, Stage::Build));
        for row in 0..60 {
            cluster.must_put(&format!("k{row:03}"), &"v".repeat(900));
        }
        assert!(cluster.stays(SECOND / 2, |world| world.regions().len() == 1), "at once");
        cluster.wait("the split", |world| world.regions().len() > 1);
        assert!(cluster.waits_at(1, Stage::Build));
        cluster.go_on(1, Stage::Build);
        cluster.must_eq(2, "k059", &"v".repeat(900));
        cluster.must_eq(2, "k000", &"v".repeat(900));
    });
}

/// SPL-39: the store stops at any moment of the split, on the leader or on a follower.
#[test]
fn spl_39_split_racing_with_shutdown() {
    for_seeds(|seed| {
        for (round, store) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
            let mut cluster = Cluster::started(scenario_plan(3, 3));
            cluster.lead(1, 1);
            cluster.must_put("a", "v");
            cluster.must_put("z", "v");
            let region = cluster.region(1);
            cluster.ask_split(1, region.id, region.epoch, vec!["m".into()]);
            let delay = (seed * 7 + round * 3) % 23;
            cluster.pass(delay * MILLI / 2);
            cluster.stop_store(store);
            cluster.start(store);
            cluster.pass(3 * SECOND);
            // It may have been lost with the leader.
            if cluster.regions().len() == 1 {
                cluster.must_split(1, &["m"]);
            }
            cluster.wait("both parts on all stores", |world| {
                (1..=3).all(|store| world.registered(store).len() == 2)
            });
            for key in ["a", "z"] {
                cluster.must_put(key, "w");
                for store in 1..=3 {
                    cluster.must_eq(store, key, "w");
                }
            }
        }
    });
}
