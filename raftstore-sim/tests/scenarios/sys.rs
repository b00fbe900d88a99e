//! Group SYS: limits.

use raftstore_sim::{cluster::Cluster, queue::SECOND};

use crate::{for_seeds, plan_with};

/// SYS-02: every budget is exceeded by a single write, and each write gets through.
#[test]
fn sys_02_high_memory_use_still_makes_progress() {
    for_seeds(|_| {
        let mut plan = plan_with(3, 3, |config| {
            config.raft_entry_max_size = 512 << 10;
            config.apply_backlog_bytes = 512 << 10;
            config.max_in_flight_bytes = 512 << 10;
            config.max_uncommitted_bytes = 512 << 10;
            config.max_committed_size_per_ready = 1;
            config.max_rounds_in_flight = 1;
            config.entry_cache_bytes = 0;
            config.raft_max_size_per_msg = 1;
        });
        plan.pace.apply = raftstore_sim::queue::MILLI * 20;
        let mut cluster = Cluster::started(plan);
        let value = "v".repeat(256 << 10);
        let began = cluster.now;
        for number in 0..30 {
            cluster.must_put(&format!("k{}", number % 5), &format!("{number}{value}"));
        }
        assert!(cluster.now - began < 60 * SECOND, "it hardly moves");
        cluster.must_put("last", "v");
        for store in 1..=3 {
            cluster.must_eq(store, "last", "v");
            cluster.must_eq(store, "k4", &format!("29{value}"));
        }
        // A replica that was away comes back under the same limits.
        cluster.kill(3);
        for number in 0..10 {
            cluster.must_put(&format!("k{}", number % 5), &format!("w{number}{value}"));
        }
        cluster.start(3);
        cluster.must_eq(3, "k4", &format!("w9{value}"));
    });
}
