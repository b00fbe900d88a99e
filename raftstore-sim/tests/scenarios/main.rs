//! The scenario catalogue, one test per entry, named by its id. Every wait is bounded in
//! simulated time, and every invariant of the simulator is checked all the while.
#![expect(clippy::panic, reason = "helpers of scenarios fail the test")]

mod aio;
mod boot;
mod cc;
mod consistency;
mod disk;
mod gc;
mod hb;
mod jc;
mod kv;
mod lrn;
mod pd;
mod raft;
mod read;
mod rr;
mod snap;
mod snap_more;
mod spl;
mod spl_races;
mod stale;
mod sys;
mod tl;
mod xt;

use std::sync::Arc;

use raftstore_core::Config;
use raftstore_sim::{
    cluster::{Cluster, scenario_plan, under_seeds},
    network::Weather,
    plan::{Pace, Plan},
};

/// A quiet plan with a changed configuration.
fn plan_with(stores: u64, replicas: u64, change: impl FnOnce(&mut Config)) -> Plan {
    let mut plan = scenario_plan(stores, replicas);
    let mut config = (*plan.config).clone();
    change(&mut config);
    config.validate().expect("a scenario's configuration is valid");
    plan.config = Arc::new(config);
    plan
}

/// A cluster with one region on store 1 alone, its peer having id 101.
fn one_replica(stores: u64) -> Cluster {
    Cluster::started(scenario_plan(stores, 1))
}

/// Log is cut as soon as it can be.
fn eager_gc(config: &mut Config) {
    config.raft_log_gc_threshold = 1;
    config.raft_log_gc_count_limit = 5;
}

/// Runs a scenario under several seeds, which differ in how long everything takes. Says which
/// one it was if one fails.
fn for_seeds(scenario: impl Fn(u64)) {
    under_seeds(20, scenario);
}

/// A quiet plan with a changed configuration, in which nothing goes wrong, but everything
/// takes as long as the seed says.
fn fair_plan(seed: u64, stores: u64, replicas: u64, change: impl FnOnce(&mut Config)) -> Plan {
    let drawn = Plan::draw(seed);
    let mut plan = plan_with(stores, replicas, |config| {
        config.seed = seed;
        config.lanes = drawn.config.lanes;
        config.max_rounds_in_flight = drawn.config.max_rounds_in_flight;
        change(config);
    });
    plan.seed = seed;
    plan.apply_workers = drawn.apply_workers;
    plan.pace = Pace { slow_writes: 0, ..drawn.pace };
    plan.weather = Weather {
        mean_delay: drawn.weather.mean_delay,
        mean_snapshot_delay: drawn.weather.mean_snapshot_delay,
        ..Weather::FAIR
    };
    plan
}
