//! Runs seeds, replays one, and proves that planted bugs are found.

use std::{
    collections::BTreeSet,
    io::Write,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use clap::{Parser, Subcommand};
use raftstore_core::Bug;
use raftstore_sim::{
    counters::{Counters, Sometimes},
    plan::Plan,
    planted::{BUGS, bug_named},
    queue::{MILLI, SECOND},
    run::{Outcome, quiet_panics, run},
    transcript::Transcript,
};

/// The deterministic simulator of raftstore.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run seeds; stop at the first violation.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: u64,
        /// Go on after a violation, and list all at the end.
        #[arg(long)]
        keep_going: bool,
        /// Run every seed twice and compare the transcripts.
        #[arg(long)]
        twice: bool,
        /// Fail if something rare that is counted never happened.
        #[arg(long)]
        require_sometimes: bool,
    },
    /// Run one seed and print its timeline.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// With this bug planted.
        #[arg(long)]
        bug: Option<String>,
        /// Only this many lines at the end.
        #[arg(long)]
        tail: Option<usize>,
    },
    /// Plant bugs in the core and count the seeds until each is found. Fails if one is not.
    Planted {
        /// Only this one.
        #[arg(long)]
        bug: Option<String>,
        /// Most seeds per bug.
        #[arg(long, default_value_t = 5_000)]
        limit: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Threads; each looks for one bug at a time.
        #[arg(long, default_value_t = 2)]
        jobs: u64,
    },
    /// Measure simulated seconds per CPU second: five stores, eight regions, a tick of 100
    /// ms, ten writes per second and region, all checks on.
    Bench {
        /// Runs of a simulated minute.
        #[arg(long, default_value_t = 5)]
        runs: u64,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    quiet_panics();
    let result = match arguments.command {
        Task::Run { seeds, from, jobs, keep_going, twice, require_sometimes } => {
            let how = How { jobs, keep_going, twice, require_sometimes };
            run_seeds(from, seeds, &how)
        }
        Task::Replay { seed, bug, tail } => replay(seed, bug.as_deref(), tail),
        Task::Planted { bug, limit, from, jobs } => planted(bug.as_deref(), from, limit, jobs),
        Task::Bench { runs } => bench(runs),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of our output has gone; nothing is left to say.
        Err(_) => ExitCode::FAILURE,
    }
}

fn out() -> impl Write {
    std::io::stdout().lock()
}

/// Runs seeds on several threads; `look` says of each outcome whether to go on.
fn in_parallel(
    from: u64,
    seeds: u64,
    jobs: u64,
    make: impl Fn(u64) -> Outcome + Sync,
    look: impl Fn(Outcome) -> bool + Sync,
) {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let end = from.saturating_add(seeds);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    if !look(make(seed)) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[derive(Default)]
struct Tally {
    done: u64,
    simulated: u64,
    steps: u64,
    counters: Counters,
    failed: Vec<Outcome>,
}

/// How seeds are run.
struct How {
    jobs: u64,
    keep_going: bool,
    twice: bool,
    require_sometimes: bool,
}

fn run_seeds(from: u64, seeds: u64, how: &How) -> std::io::Result<bool> {
    let How { jobs, keep_going, twice, require_sometimes } = *how;
    let began = Instant::now();
    let tally = Mutex::new(Tally::default());
    let make = |seed| {
        let outcome = run(Plan::draw(seed), Transcript::default());
        if twice && outcome.violation.is_none() {
            let again = run(Plan::draw(seed), Transcript::default());
            if again.hash != outcome.hash {
                let detail = format!("{:016x} and {:016x}", outcome.hash, again.hash);
                return Outcome {
                    violation: Some((
                        0,
                        raftstore_sim::invariants::Violation::new(
                            "one seed, one transcript",
                            detail,
                        ),
                    )),
                    ..outcome
                };
            }
        }
        outcome
    };
    in_parallel(from, seeds, jobs, make, |outcome| {
        let failed = outcome.violation.is_some();
        let Ok(mut tally) = tally.lock() else { return false };
        tally.done += 1;
        tally.simulated += outcome.simulated;
        tally.steps += outcome.steps;
        tally.counters.merge(&outcome.counters);
        if failed {
            let _ = report(&outcome);
            tally.failed.push(outcome);
        }
        if tally.done.is_multiple_of(50) {
            let rate = per_second(tally.simulated, &began, jobs);
            let _ =
                writeln!(out(), "{} of {seeds} seeds, {rate} simulated s per CPU s", tally.done);
        }
        !failed || keep_going
    });
    let tally = tally.into_inner().map_err(|_| std::io::Error::other("a worker panicked"))?;
    let mut out = out();
    writeln!(
        out,
        "{} seeds, {} simulated s, {} steps in {:.1} s: {} simulated s per CPU s",
        tally.done,
        tally.simulated / SECOND,
        tally.steps,
        began.elapsed().as_secs_f64(),
        per_second(tally.simulated, &began, jobs)
    )?;
    for what in Sometimes::ALL {
        writeln!(out, "  {:>10} {}", tally.counters.get(*what), what.text())?;
    }
    let never = tally.counters.never();
    if !never.is_empty() && (require_sometimes || seeds >= 200) {
        let names: Vec<&str> = never.iter().map(|what| what.text()).collect();
        writeln!(out, "never happened: {}", names.join(", "))?;
    }
    if tally.failed.is_empty() {
        writeln!(out, "no violation")?;
        return Ok(never.is_empty() || !require_sometimes);
    }
    summarize(&mut out, &tally.failed)?;
    Ok(false)
}

/// Failing seeds by what they violate.
fn summarize(out: &mut impl Write, failed: &[Outcome]) -> std::io::Result<()> {
    let kinds: BTreeSet<&str> = failed
        .iter()
        .filter_map(|outcome| outcome.violation.as_ref())
        .map(|(_, violation)| violation.invariant)
        .collect();
    for kind in kinds {
        let seeds: Vec<String> = failed
            .iter()
            .filter(|outcome| {
                outcome.violation.as_ref().is_some_and(|(_, violation)| violation.invariant == kind)
            })
            .map(|outcome| outcome.seed.to_string())
            .collect();
        writeln!(out, "{:>5} seeds violate \"{kind}\": {}", seeds.len(), seeds.join(" "))?;
    }
    Ok(())
}

fn report(outcome: &Outcome) -> std::io::Result<()> {
    let Some((at, violation)) = &outcome.violation else { return Ok(()) };
    let mut out = out();
    writeln!(out, "seed {} at {} ms: {violation}", outcome.seed, at / MILLI)?;
    writeln!(out, "  replay: cargo run -p raftstore-sim -- replay --seed {}", outcome.seed)
}

/// Simulated seconds per second of processor time; of wall time where the system does not
/// tell the other.
fn per_second(simulated: u64, began: &Instant, jobs: u64) -> u64 {
    let wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) * jobs;
    let cpu_ms = processor_ms().unwrap_or(wall_ms);
    simulated / MILLI / cpu_ms.max(1)
}

/// Processor time of this process so far, as Linux tells it: ticks of 10 ms.
fn processor_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some((ticks(11)? + ticks(12)?) * 10)
}

fn replay(seed: u64, bug: Option<&str>, tail: Option<usize>) -> std::io::Result<bool> {
    let plan = match bug {
        None => Plan::draw(seed),
        Some(name) => match bug_named(name) {
            Some(bug) => Plan::for_bug(seed, bug),
            None => return unknown_bug(name),
        },
    };
    let mut out = out();
    writeln!(out, "{plan:#?}")?;
    let outcome = run(plan, Transcript::readable());
    let skip = tail.map_or(0, |tail| outcome.timeline.len().saturating_sub(tail));
    for line in &outcome.timeline[skip..] {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{} events, hash {:016x}", outcome.lines, outcome.hash)?;
    match &outcome.violation {
        None => writeln!(out, "no violation")?,
        Some((at, violation)) => writeln!(out, "at {} ms: {violation}", at / MILLI)?,
    }
    Ok(outcome.violation.is_none())
}

fn unknown_bug(name: &str) -> std::io::Result<bool> {
    let names: Vec<&str> = BUGS.iter().map(|(_, name)| *name).collect();
    writeln!(out(), "no bug is called {name}; there are {}", names.join(", "))?;
    Ok(false)
}

fn planted(only: Option<&str>, from: u64, limit: u64, jobs: u64) -> std::io::Result<bool> {
    if let Some(name) = only
        && bug_named(name).is_none()
    {
        return unknown_bug(name);
    }
    let bugs: Vec<(Bug, &str)> =
        BUGS.iter().copied().filter(|(_, name)| only.is_none_or(|only| only == *name)).collect();
    writeln!(out(), "{:<28} {:>6}  found by", "bug", "seeds")?;
    let (next, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((bug, name)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = first_failure(*bug, from, limit);
                    missed.fetch_add(usize::from(found.is_none()), Ordering::Relaxed);
                    // The verdict is in the exit code even if nobody reads the table.
                    let _ = tell(name, found.as_ref(), from, limit);
                }
            });
        }
    });
    let missed = missed.into_inner();
    writeln!(out(), "{} of {} bugs found", bugs.len() - missed, bugs.len())?;
    Ok(missed == 0)
}

fn tell(name: &str, found: Option<&Outcome>, from: u64, limit: u64) -> std::io::Result<()> {
    let mut out = out();
    let Some(outcome) = found else {
        return writeln!(out, "{name:<28} {:>6}  NOT FOUND in {limit} seeds", "-");
    };
    let what = outcome.violation.as_ref().map_or("", |(_, violation)| violation.invariant);
    let needed = outcome.seed - from + 1;
    writeln!(out, "{name:<28} {needed:>6}  {what} (seed {})", outcome.seed)
}

/// The run of the first seed that finds the bug.
fn first_failure(bug: Bug, from: u64, limit: u64) -> Option<Outcome> {
    (from..from + limit)
        .map(|seed| run(Plan::for_bug(seed, bug), Transcript::default()))
        .find(|outcome| outcome.violation.is_some())
}

fn bench(runs: u64) -> std::io::Result<bool> {
    let began = Instant::now();
    let mut simulated = 0;
    let mut steps = 0;
    for seed in 0..runs {
        let outcome = run(Plan::bench(seed), Transcript::default());
        report(&outcome)?;
        simulated += outcome.simulated;
        steps += outcome.steps;
    }
    let rate = per_second(simulated, &began, 1);
    writeln!(
        out(),
        "{} simulated s, {steps} steps in {:.2} s: {rate} simulated s per CPU s",
        simulated / SECOND,
        began.elapsed().as_secs_f64()
    )?;
    Ok(rate >= 100)
}
