//! Group GC: cutting the raft log.

use engine_traits::RaftEngine;
use raftstore_proto::RegionId;
use raftstore_sim::{cluster::Cluster, queue::SECOND};

use crate::{for_seeds, plan_with};

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
