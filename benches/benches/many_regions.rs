//! Many regions on three stores of one process, engines in memory: how long it takes until all
//! are led and PD has heard of each, and what they cost when nobody uses them.
//!
//! `cargo bench -p raftstore-benches --bench many_regions -- --regions 10000`
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use engine_traits::mem::{MemEngine, MemRaftLog};
use raftstore_benches::{
    cluster::{Cluster, row_of_regions},
    process::{cpu_time, memory_kib},
};
use raftstore_core::Config;
use transport_traits::BoxError;

/// Cost of many regions.
#[derive(Parser)]
struct Options {
    /// Regions, each with a replica on every store.
    #[arg(long, default_value_t = 10_000)]
    regions: u64,
    /// Stores.
    #[arg(long, default_value_t = 3)]
    stores: u64,
    /// Lanes of each store.
    #[arg(long, default_value_t = 1)]
    lanes: u16,
    /// Seconds without any request that are measured.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Seconds of rest before that.
    #[arg(long, default_value_t = 25)]
    rest: u64,
    /// Few regions and a short look.
    #[arg(long)]
    quick: bool,
    /// Only if this is a part of the benchmark's name.
    #[arg(hide = true)]
    filter: Option<String>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Longest time until every region is led and known to PD.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<(), BoxError> {
    let mut options = Options::parse();
    if options.filter.as_ref().is_some_and(|part| !"many_regions".contains(part.as_str())) {
        return Ok(());
    }
    if options.quick {
        (options.regions, options.rest, options.idle) = (1_000, 5, 5);
    }
    let border = |number: u64| Bytes::from(format!("k{number:09}"));
    let regions = row_of_regions(options.regions, options.stores, border);
    let replicas = options.regions * options.stores;
    let empty_kib = memory_kib()?;
    let begun = Instant::now();
    let engines = (0..options.stores).map(|_| (MemEngine::new(), MemRaftLog::new())).collect();
    let config = Config { lanes: options.lanes, ..Config::default() };
    let cluster = Cluster::start(&config, engines, &regions)?;
    println!("{} regions on {} stores", options.regions, options.stores);
    println!("started after          {:>8.1} s", begun.elapsed().as_secs_f64());
    wait(begun, || cluster.metrics().elections_won >= options.regions)?;
    wait(begun, || cluster.led() == options.regions)?;
    println!("all led after          {:>8.1} s", begun.elapsed().as_secs_f64());
    wait(begun, || cluster.led_at_pd() == options.regions)?;
    println!("all known to PD after  {:>8.1} s", begun.elapsed().as_secs_f64());
    let memory = |when: &str| -> Result<(), BoxError> {
        let each = (memory_kib()? - empty_kib) as f64 / replicas as f64;
        println!("memory {when:<15} {each:>8.2} KiB per replica");
        Ok(())
    };
    memory("when all led")?;
    // New leaders have their logs, sizes and commit indexes looked at once.
    thread::sleep(Duration::from_secs(options.rest));
    let (before, cpu, at) = (cluster.metrics(), cpu_time()?, Instant::now());
    thread::sleep(Duration::from_secs(options.idle));
    let seconds = at.elapsed().as_secs_f64();
    let busy = (cpu_time()? - cpu).as_secs_f64() / seconds;
    let after = cluster.metrics();
    memory("when idle")?;
    println!("CPU when idle          {busy:>8.3} cores");
    let rate = |what: &str, count: u64| {
        println!("{what:<22} {:>8.1} per second", count as f64 / seconds);
    };
    rate("messages", after.sent_messages - before.sent_messages);
    rate("ticked peers", after.ticked_peers - before.ticked_peers);
    rate("visits by duties", after.duty_visits - before.duty_visits);
    rate("reports to PD", after.region_reports - before.region_reports);
    println!("elections meanwhile    {:>8}", after.elections_won - before.elections_won);
    cluster.stop();
    Ok(())
}

fn wait(begun: Instant, mut is_done: impl FnMut() -> bool) -> Result<(), BoxError> {
    while !is_done() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not done after {} s", PATIENCE.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
