//! The same closed loop of clients against a cluster of etcd and against one of raftkv, over
//! gRPC: writes and linearizable reads per second, and how long one takes.
//!
//! `benches/compare-etcd` starts both, runs this on each in turn and writes the table.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod etcd;
mod raftkv;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use raftstore_benches::{Numbers, VALUE_BYTES, percentiles::Percentiles};
use transport_traits::BoxError;

/// Loads a cluster over gRPC.
#[derive(Debug, Parser)]
struct Options {
    /// Who is there.
    #[arg(value_enum)]
    target: Target,
    /// What is asked.
    #[arg(value_enum)]
    work: Work,
    /// Addresses, with commas between: of etcd's members, or of PD.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Clients, each with one request under way.
    #[arg(long, default_value_t = 512)]
    clients: u64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Keys.
    #[arg(long, default_value_t = 20_000)]
    keys: u64,
    /// Regions that the keys are cut into before, for raftkv.
    #[arg(long, default_value_t = 16)]
    regions: u64,
    /// Connections to each member or node.
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    Etcd,
    Raftkv,
    /// raftkv, many commands in one message.
    RaftkvBatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Writes all keys once: reads need something to read.
    Fill,
    Put,
    Get,
}

/// One request of one client.
#[derive(Clone, Debug)]
enum Ask {
    Put(Bytes, Bytes),
    Get(Bytes),
}

/// A key as all targets store it.
fn key(number: u64) -> Bytes {
    format!("key-{number:012}").into()
}

/// Who is asked; shared by all clients.
enum Cluster {
    Etcd(etcd::Cluster),
    Raftkv(raftkv::Cluster),
}

impl Cluster {
    /// Carries out one request; `client` chooses the connection.
    async fn ask(&self, client: u64, ask: &Ask) -> Result<(), BoxError> {
        match self {
            Self::Etcd(cluster) => cluster.ask(client, ask).await,
            Self::Raftkv(cluster) => cluster.ask(ask).await,
        }
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> Result<(), BoxError> {
    let cluster = match options.target {
        Target::Etcd => Cluster::Etcd(etcd::Cluster::connect(&options)?),
        Target::Raftkv | Target::RaftkvBatch => {
            Cluster::Raftkv(raftkv::Cluster::connect(&options).await?)
        }
    };
    let cluster = Arc::new(cluster);
    if options.work == Work::Fill {
        return fill(&cluster, &options).await;
    }
    // Connections, routes and caches first.
    load(&cluster, &options, Duration::from_secs(1)).await?;
    let (latency, failed, seconds) =
        load(&cluster, &options, Duration::from_secs(options.seconds)).await?;
    let ms = |percent| latency.at(percent).as_secs_f64() * 1e3;
    println!(
        "{{\"target\": \"{:?}\", \"work\": \"{:?}\", \"clients\": {}, \"per_second\": {:.0}, \"p50_ms\": {:.3}, \
         \"p99_ms\": {:.3}, \"failed\": {failed}}}",
        options.target,
        options.work,
        options.clients,
        latency.count() as f64 / seconds,
        ms(50),
        ms(99),
    );
    Ok(())
}

async fn fill(cluster: &Arc<Cluster>, options: &Options) -> Result<(), BoxError> {
    let next = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..256)
        .map(|client| {
            let (cluster, next, keys) = (Arc::clone(cluster), Arc::clone(&next), options.keys);
            tokio::spawn(async move {
                let mut numbers = Numbers::new(client);
                let until = Instant::now() + Duration::from_secs(120);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= keys {
                        return Ok(());
                    }
                    let ask = Ask::Put(key(number), numbers.bytes(VALUE_BYTES));
                    while let Err(error) = cluster.ask(client, &ask).await {
                        if Instant::now() > until {
                            return Err(error.to_string());
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    Ok(())
}

/// Latencies, requests that failed, and the seconds it took.
async fn load(
    cluster: &Arc<Cluster>,
    options: &Options,
    time: Duration,
) -> Result<(Percentiles, u64, f64), BoxError> {
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let clients: Vec<_> = (0..options.clients)
        .map(|client| {
            let (cluster, is_over) = (Arc::clone(cluster), Arc::clone(&is_over));
            let (keys, work) = (options.keys, options.work);
            tokio::spawn(async move {
                let mut numbers = Numbers::new(client);
                let (mut latency, mut failed) = (Percentiles::default(), 0_u64);
                while !is_over.load(Ordering::Relaxed) {
                    let key = key(numbers.draw() % keys);
                    let ask = match work {
                        Work::Get => Ask::Get(key),
                        Work::Put | Work::Fill => Ask::Put(key, numbers.bytes(VALUE_BYTES)),
                    };
                    let sent = Instant::now();
                    match cluster.ask(client, &ask).await {
                        Ok(()) => latency.add(sent.elapsed()),
                        Err(_) => {
                            failed += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                (latency, failed)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    is_over.store(true, Ordering::Relaxed);
    let (mut latency, mut failed) = (Percentiles::default(), 0);
    for client in clients {
        let (of_client, not_done) = client.await?;
        latency.append(of_client);
        failed += not_done;
    }
    Ok((latency, failed, begun.elapsed().as_secs_f64()))
}
