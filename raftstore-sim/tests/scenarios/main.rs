//! The scenario catalogue, one test per entry, named by its id. Every wait is bounded in
//! simulated time, and every invariant of the simulator is checked all the while.
#![expect(clippy::panic, reason = "helpers of scenarios fail the test")]

mod boot;
mod cc;
mod gc;
mod hb;
mod kv;
mod raft;
mod read;
mod rr;
mod snap;
mod spl;
mod stale;
mod tl;

use std::sync::Arc;

use raftstore_core::Config;
use raftstore_sim::{cluster::Cluster, plan::Plan};

/// A quiet plan with a changed configuration.
fn plan_with(stores: u64, replicas: u64, change: impl FnOnce(&mut Config)) -> Plan {
    let mut plan = Plan::quiet(1, stores, replicas);
    let mut config = (*plan.config).clone();
    change(&mut config);
    config.validate().expect("a scenario's configuration is valid");
    plan.config = Arc::new(config);
    plan
}

/// A cluster with one region on store 1 alone, its peer having id 101.
fn one_replica(stores: u64) -> Cluster {
    Cluster::started(Plan::quiet(1, stores, 1))
}

/// Log is cut as soon as it can be.
fn eager_gc(config: &mut Config) {
    config.raft_log_gc_threshold = 1;
    config.raft_log_gc_count_limit = 5;
}

/// Runs a scenario under several seeds, which differ in how long everything takes.
fn for_seeds(scenario: impl Fn(u64)) {
    for seed in 1..=20 {
        scenario(seed);
    }
}
