//! Scenarios under many seeds: the same steps in other orders of events.

use std::cell::Cell;

use crate::plan::Plan;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Runs a scenario under `seeds` seeds. [`scenario_plan`] and what builds on it follow
/// them; a failure says which seed it was.
pub fn under_seeds(seeds: u64, scenario: impl Fn(u64)) {
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            SEED.with(|seed| seed.set(0));
            if std::thread::panicking() {
                tracing_seed(self.0);
            }
        }
    }
    for number in 1..=seeds {
        SEED.with(|seed| seed.set(number));
        let told = Told(number);
        scenario(number);
        drop(told);
    }
}

#[expect(clippy::print_stderr, reason = "a failing test tells its seed")]
fn tracing_seed(seed: u64) {
    eprintln!("the scenario failed under seed {seed}");
}

/// A quiet plan; under a seed, one of the orders of events that it stands for.
#[must_use]
pub fn scenario_plan(stores: u64, replicas: u64) -> Plan {
    match SEED.with(Cell::get) {
        0 => Plan::quiet(1, stores, replicas),
        seed => Plan::fair(seed, stores, replicas),
    }
}
