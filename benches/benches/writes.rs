//! Many clients write to many regions on three stores of one process, engines in memory: what
//! the path of a write costs without a disk.
//!
//! `cargo bench -p raftstore-benches --bench writes -- --regions 100 --clients 512`
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use engine_traits::mem::{MemEngine, MemRaftLog};
use raftstore_benches::{
    Numbers,
    cluster::{Cluster, row_of_regions},
    load::Load,
    percentiles::Percentiles,
    process::cpu_time,
};
use raftstore_core::Config;
use transport_traits::BoxError;

/// Writes without a disk.
#[derive(Parser)]
struct Options {
    /// Regions, each with a replica on every store.
    #[arg(long, default_value_t = 100)]
    regions: u64,
    /// Clients, each with one write under way.
    #[arg(long, default_value_t = 512)]
    clients: usize,
    /// Lanes of each store.
    #[arg(long, default_value_t = 1)]
    lanes: u16,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// A short look.
    #[arg(long)]
    quick: bool,
    /// Only if this is a part of the benchmark's name.
    #[arg(hide = true)]
    filter: Option<String>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const STORES: u64 = 3;

fn key(number: u64) -> Bytes {
    format!("{number:020}").into()
}

fn main() -> Result<(), BoxError> {
    let mut options = Options::parse();
    if options.filter.as_ref().is_some_and(|part| !"writes".contains(part.as_str())) {
        return Ok(());
    }
    if options.quick {
        options.seconds = 2;
    }
    let config = Config {
        lanes: options.lanes,
        raft_base_tick_interval: Duration::from_millis(100),
        raft_store_max_leader_lease: Duration::from_millis(900),
        ..Config::default()
    };
    let step = 1 << 32;
    let regions = row_of_regions(options.regions, STORES, |number| key(number * step));
    let engines = (0..STORES).map(|_| (MemEngine::new(), MemRaftLog::new())).collect();
    let cluster = Cluster::start(&config, engines, &regions)?;
    let keys = (0..options.clients as u64)
        .map(|client| key(client % options.regions * step + 1 + client / options.regions))
        .collect();
    let value = Numbers::new(1).bytes(options.value_bytes);
    let mut load = Load::new(cluster.handles.clone(), &regions, keys, value);
    load.run(Instant::now() + Duration::from_secs(4), |_| false);
    let (before, cpu, begun) = (cluster.metrics(), cpu_time()?, Instant::now());
    let mut latency = Percentiles::default();
    load.run(begun + Duration::from_secs(options.seconds), |ack| {
        latency.add(ack.at - ack.sent);
        false
    });
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_time()? - cpu);
    let after = cluster.metrics();
    let writes = latency.count() as f64;
    println!("{} clients, {} regions", options.clients, options.regions);
    println!("writes       {:>10.0} per second", writes / seconds);
    println!("CPU          {:>10.2} us per write", cpu.as_secs_f64() * 1e6 / writes);
    println!(
        "messages     {:>10.2} per write",
        (after.sent_messages - before.sent_messages) as f64 / writes
    );
    println!("rounds       {:>10.3} per write", (after.rounds - before.rounds) as f64 / writes);
    let ms = |percent| latency.at(percent).as_secs_f64() * 1e3;
    println!("latency      {:>10.3} ms p50, {:.3} ms p99", ms(50), ms(99));
    cluster.stop();
    Ok(())
}
