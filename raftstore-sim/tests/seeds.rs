//! Seeds in the ordinary test run: nothing is violated, and a seed is one run.
#![expect(clippy::panic, reason = "a seed that fails says how to replay it")]

use raftstore_sim::{
    counters::Counters, plan::Plan, queue::MILLI, run::run, transcript::Transcript,
};

/// Seeds of one test, short enough for every test run. The long ones are for the program.
fn run_range(seeds: std::ops::Range<u64>) -> Counters {
    let mut counters = Counters::default();
    for seed in seeds {
        let outcome = run(short(seed), Transcript::default());
        if let Some((at, violation)) = outcome.violation {
            panic!("seed {seed} at {} ms: {violation}", at / MILLI);
        }
        counters.merge(&outcome.counters);
    }
    counters
}

/// The run of a seed with a shorter first phase.
fn short(seed: u64) -> Plan {
    let mut plan = Plan::draw(seed);
    plan.safety /= 3;
    plan
}

#[test]
fn one_seed_is_one_transcript() {
    for seed in 1_000..1_020 {
        let first = run(short(seed), Transcript::default());
        let second = run(short(seed), Transcript::default());
        assert_eq!(
            (first.hash, first.lines, first.steps),
            (second.hash, second.lines, second.steps),
            "seed {seed}"
        );
        // Keeping the timeline changes nothing but memory.
        if seed == 1_000 {
            let kept = run(short(seed), Transcript::readable());
            assert_eq!(kept.hash, first.hash);
            assert_eq!(kept.timeline.len() as u64, kept.lines);
        }
    }
}

#[test]
fn seeds_0_to_60() {
    run_range(0..60);
}

#[test]
fn seeds_60_to_120() {
    run_range(60..120);
}
