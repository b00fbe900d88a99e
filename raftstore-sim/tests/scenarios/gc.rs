//! Group GC: cutting the raft log.

use engine_traits::RaftEngine;
use raftstore_proto::{Body, Command, MessageKind, RegionId, StoreId};
use raftstore_sim::{
    cluster::{Cluster, header, put},
    network::{Action, Match},
    queue::SECOND,
    world::{Stage, World},
};

use crate::{eager_gc, for_seeds, plan_with, scenario_plan};

fn truncated(cluster: &Cluster, store: u64) -> u64 {
    cluster.peer_status(store, 1).map_or(0, |peer| peer.applied.truncated.index)
}

#[test]
fn gc_01_log_is_cut_as_writes_flow() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        for number in 0..300 {
            cluster.must_put(&format!("k{}", number % 20), "v");
            if number % 50 == 0 {
                cluster.pass(SECOND);
            }
        }
        cluster.wait("the log to be cut everywhere", |world| {
            (1..=5).all(|store| {
                world.peer_status(store, 1).is_some_and(|peer| peer.applied.truncated.index > 100)
            })
        });
        cluster.wait("the entries to be gone", |world| {
            (1..=5).all(|store| {
                let log = &world.nodes[&store].disk.log;
                let gone = |index| log.entry(RegionId::must(1), index).expect("readable").is_none();
                gone(50) && gone(100)
            })
        });
    });
}

#[test]
fn gc_02_size_limit_overrides_a_dead_follower() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(5, 5, |config| {
            config.raft_log_gc_count_limit = 1_000_000;
            config.raft_log_gc_size_limit = 200 << 10;
        }));
        cluster.lead(1, 2);
        cluster.must_put("k0", "v");
        cluster.must_eq(1, "k0", "v");
        cluster.pass(3 * SECOND);
        cluster.kill(1);
        let before = cluster.wait_leader(1);
        let start = truncated(&cluster, before);
        for number in 0..100 {
            cluster.must_put(&format!("k{}", number % 10), "v");
        }
        cluster.pass(5 * SECOND);
        let leader = cluster.wait_leader(1);
        assert!(truncated(&cluster, leader) <= start + 60, "cut although store 1 needs it");
        for number in 0..40 {
            cluster.must_put(&format!("k{}", number % 10), &"v".repeat(16 << 10));
        }
        cluster.wait("the log to be cut", |world| {
            world
                .leader_store(1)
                .and_then(|store| world.peer_status(store, 1))
                .is_some_and(|peer| peer.applied.truncated.index > start + 100)
        });
        cluster.start(1);
        cluster.must_eq(1, "k9", &"v".repeat(16 << 10));
    });
}

#[test]
fn gc_03_count_limit_is_respected_on_both_sides() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(5, 5, |config| {
            config.raft_log_gc_count_limit = 100;
            config.raft_log_gc_threshold = 500;
        }));
        for number in 0..60 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        cluster.pass(5 * SECOND);
        assert!((1..=5).all(|store| truncated(&cluster, store) == 5));
        for number in 60..200 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        cluster.wait("the log to be cut", |world| {
            (1..=5).all(|store| {
                world.peer_status(store, 1).is_some_and(|peer| peer.applied.truncated.index > 50)
            })
        });
    });
}

/// How the log of a peer came to be what it is.
#[derive(Clone, Copy, Debug)]
enum Grown {
    ByLog,
    BySnapshot,
    Cut,
    /// Cut, but the process ended before what was cut off was removed.
    RemovalLost,
}

/// Entries of region 1 in a store's log, and whether there is a state.
fn log_of(world: &World, store: u64) -> (usize, bool) {
    let log = &world.nodes[&store].disk.log;
    let region = RegionId::must(1);
    let there = |index: &u64| log.entry(region, *index).expect("readable").is_some();
    let state = log.raft_state(region).expect("readable").is_some();
    ((1..=500).filter(there).count(), state)
}

fn put_until(cluster: &mut Cluster, mut done: impl FnMut(&Cluster) -> bool) {
    for round in 0..200 {
        if done(cluster) {
            return;
        }
        cluster.must_put("k", &format!("v{round}"));
        cluster.pass(SECOND / 5);
    }
    panic!("it was never so");
}

#[test]
fn gc_06_destroying_a_peer_empties_its_log_in_all_orders() {
    for_seeds(|_| {
        for grown in [Grown::ByLog, Grown::BySnapshot, Grown::Cut, Grown::RemovalLost] {
            let plan = match grown {
                Grown::ByLog => scenario_plan(3, 3),
                _ => plan_with(3, 3, eager_gc),
            };
            let mut cluster = Cluster::started(plan);
            cluster.lead(1, 1);
            cluster.must_put("k", "v");
            cluster.must_eq(3, "k", "v");
            match grown {
                Grown::ByLog => {}
                Grown::BySnapshot => {
                    let last = cluster.peer_status(3, 1).expect("running").last_index;
                    cluster.isolate(3);
                    put_until(&mut cluster, |cluster| truncated(cluster, 1) > last);
                    cluster.mend();
                    put_until(&mut cluster, |cluster| truncated(cluster, 3) > last);
                }
                Grown::Cut => put_until(&mut cluster, |cluster| truncated(cluster, 3) > 10),
                Grown::RemovalLost => {
                    cluster.stand_still(3, Stage::KvSync);
                    put_until(&mut cluster, |cluster| truncated(cluster, 3) > 10);
                    cluster.kill(3);
                    cluster.start(3);
                }
            }
            cluster.must_put("k", "last");
            cluster.must_eq(3, "k", "last");
            assert!(log_of(&cluster, 3).0 > 0, "{grown:?}: there is nothing to remove");
            cluster.must_remove(1, 3);
            cluster.wait_gone(1, 3);
            cluster.wait("an empty log", |world| log_of(world, 3) == (0, false));
            cluster.power_loss(3);
            cluster.start(3);
            cluster.pass(SECOND);
            assert_eq!(log_of(&cluster, 3), (0, false), "{grown:?}");
        }
    });
}

/// The engine in memory has no files, so that only their content can be looked at.
#[test]
fn gc_10_stale_ranges_on_disk_go_at_start() {
    for_seeds(|_| {
        let mut plan = scenario_plan(3, 3);
        plan.regions = 6;
        let mut cluster = Cluster::started(plan);
        let keys = ["a1", "b1", "c1", "d1", "e1", "f1"];
        for key in keys {
            cluster.must_put(key, "v");
            cluster.must_eq(3, key, "v");
        }
        for region in 1..=6 {
            cluster.lead(region, 1);
        }
        // Peers go, their data stays: the process ends before anybody gets round to it.
        cluster.stand_still(3, Stage::RegionWork);
        for region in [2, 4, 6] {
            cluster.must_remove(region, 3);
            cluster.wait_gone(region, 3);
        }
        let deaf = cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], to: Some(3), ..Match::default() },
            Action::Drop,
        );
        cluster.wait("a durable record of that", |world| {
            [2, 4, 6].iter().all(|region| {
                let log = &world.nodes[&3].disk.log;
                log.raft_state(RegionId::must(*region)).expect("readable").is_none()
            })
        });
        cluster.stop_store(3);
        for key in keys {
            assert_eq!(cluster.on_disk(3, key).as_deref(), Some("v"), "{key} is there still");
        }
        cluster.start(3);
        cluster.release(deaf);
        cluster.pass(SECOND);
        for (number, key) in keys.into_iter().enumerate() {
            let expected = (number % 2 == 0).then_some("v");
            assert_eq!(cluster.on_disk(3, key).as_deref(), expected, "{key}");
        }
    });
}

/// GC-07: what is cut off is durable on the leader too, though the others commit without it.
#[test]
fn gc_07_no_compaction_past_what_is_durably_in_the_log() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k", "v");
        cluster.stand_still(1, Stage::Write);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        for number in 0..60 {
            let body = Body::Operations(vec![put("k", &format!("v{number}"))]);
            cluster.ask(1, Command { header: header(&region, leader), body }).expect("it runs");
            cluster.pass(SECOND / 10);
        }
        cluster.must_eq(2, "k", "v59");
        let status = cluster.peer_status(1, 1).expect("it runs");
        assert!(status.committed > status.persisted_index + 50, "{status:?}");
        for store in 1..=3 {
            assert!(truncated(&cluster, store) <= status.persisted_index, "store {store}");
        }
        let durable = status.persisted_index;
        cluster.go_on(1, Stage::Write);
        cluster.must_eq(1, "k", "v59");
        put_until(&mut cluster, |cluster| {
            (1..=3).all(|store| truncated(cluster, store) > durable + 10)
        });
    });
}
