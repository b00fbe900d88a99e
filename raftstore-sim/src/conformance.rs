//! The last group of the conformance suite of engines: whole clusters on them.
//!
//! An engine that passes all cases about itself may still not carry a store: here stores run on it
//! under the faults of drawn seeds, and every invariant is checked. The fixtures are those of
//! `engine_traits::conformance`; they have to cut the power.
//!
//! ```
//! use engine_traits::conformance::{MemFixture, MemLogFixture};
//!
//! # mod tests {
//! // One `#[test]`: eight seeds, each with stores on fresh engines.
//! raftstore_sim::cluster_conformance!(MemFixture::new(), MemLogFixture::new(), 0..8);
//! # }
//! raftstore_sim::conformance::run(MemFixture::new, MemLogFixture::new, 100..101).unwrap();
//! ```

use std::ops::Range;

use engine_traits::conformance::{KvFixture, RaftLogFixture};

use crate::{
    counters::Counters,
    disk::Disk,
    engine::{SimKv, SimLog},
    plan::Plan,
    queue::MILLI,
    run::run_on,
    transcript::Transcript,
};

/// A test that runs [`run`]: the expressions make fixtures over empty
/// stores.
#[macro_export]
macro_rules! cluster_conformance {
    ($make_kv:expr, $make_log:expr, $seeds:expr) => {
        #[test]
        fn whole_clusters_keep_their_promises() {
            if let Err(broken) = $crate::conformance::run(|| $make_kv, || $make_log, $seeds) {
                std::panic::resume_unwind(Box::new(broken));
            }
        }
    };
}

/// Runs the worlds of `seeds`, with a third of their usual length and faults, on engines of the
/// fixtures, and gives how often rare things happened.
///
/// # Errors
/// The first seed in which something was violated, when, and what.
pub fn run<K, L>(
    make_kv: impl Fn() -> K,
    make_log: impl Fn() -> L,
    seeds: Range<u64>,
) -> Result<Counters, String>
where
    K: KvFixture + Send + 'static,
    L: RaftLogFixture + Send + 'static,
{
    run_mixed(|_, _| Ok((SimKv::of(make_kv())?, SimLog::of(make_log())?)), seeds)
}

/// As [`run`], on engines that differ from store to store: `make` is given seed and store.
///
/// # Errors
/// As [`run`].
pub fn run_mixed(
    make: impl Fn(u64, u64) -> engine_traits::Result<(SimKv, SimLog)>,
    seeds: Range<u64>,
) -> Result<Counters, String> {
    let mut counters = Counters::default();
    for seed in seeds {
        let mut plan = Plan::draw(seed);
        plan.safety /= 3;
        let mut refused = None;
        let outcome = run_on(plan, Transcript::default(), |store| match make(seed, store) {
            Ok((kv, log)) => Disk { kv, log, ..Disk::default() },
            Err(error) => {
                refused = Some(format!("seed {seed}: store {store}: {error}"));
                Disk::default()
            }
        });
        if let Some(refused) = refused {
            return Err(refused);
        }
        if let Some((at, violation)) = outcome.violation {
            return Err(format!("seed {seed} at {} ms: {violation}", at / MILLI));
        }
        counters.merge(&outcome.counters);
    }
    Ok(counters)
}
