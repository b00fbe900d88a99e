//! A region under load is cut again and again, on three stores of one process with files of
//! redb: for how long the writes of the part that keeps its id stop, and how soon the new part
//! serves.
//!
//! A write of the part that keeps its id is one that was under way at some moment from the wish
//! for a split until both parts serve. The longest of these tells for how long writes stopped; it
//! is compared with the longest in a time as long before, when nothing was cut: the three
//! stores share one disk, and stop now and then for each other's syncs.
//!
//! Clients are paced: at the machine's limit a write waits for those before it, and what is
//! seen is the queue.
//!
//! `cargo bench -p raftstore-benches --bench split -- --splits 100 --clients 64`
//!
//! Set TMPDIR to choose the disk. Figures are multiples of the disk's sync latency too: the
//! p50 of 4 KiB appended and made durable by one writer, measured before and after.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use engine_raftlog::{RaftLog, RaftLogOptions};
use engine_redb::{RedbEngine, RedbOptions};
use engine_traits::{Cf, Durability, KvEngine, RaftEngine, RaftLogBatch, WriteBatch};
use raftstore_benches::{
    Numbers,
    cluster::{Cluster, row_of_regions},
    entry,
    load::{Acknowledged, Load},
    percentiles::Percentiles,
    sync::sync_latency,
};
use raftstore_core::Config;
use raftstore_proto::RegionId;
use tempfile::TempDir;
use transport_traits::BoxError;

/// Splits of a region under load.
#[derive(Parser)]
struct Options {
    /// Splits to be measured.
    #[arg(long, default_value_t = 100)]
    splits: u64,
    /// Clients, half of them on either side of the next cut.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Writes per second, of all clients together; 0 for as many as are acknowledged.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Print the figures of each split too.
    #[arg(long)]
    each: bool,
    /// Few splits.
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

/// Time with load before each split, in which the longest gap is looked for too.
const BEFORE: Duration = Duration::from_millis(300);

/// Time with load after the new part has begun to serve.
const AFTER: Duration = Duration::from_millis(100);

/// Longest time until a part serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers of keys between two cuts.
const STEP: u64 = 1 << 20;

fn key(number: u64) -> Bytes {
    format!("{number:020}").into()
}

fn main() -> Result<(), BoxError> {
    let mut options = Options::parse();
    if options.filter.as_ref().is_some_and(|part| !"split".contains(part.as_str())) {
        return Ok(());
    }
    if options.quick {
        options.splits = 10;
    }
    let folder = tempfile::tempdir()?;
    let mut sync = sync_latency(folder.path(), 300)?;
    let parts = Parts::measure(&folder)?;
    let config = Config {
        raft_base_tick_interval: Duration::from_millis(100),
        raft_store_max_leader_lease: Duration::from_millis(900),
        ..Config::default()
    };
    let regions = row_of_regions(1, STORES, key);
    let engines = (1..=STORES).map(|store| engines(&folder, store)).collect::<Result<_, _>>()?;
    let cluster = Cluster::start(&config, engines, &regions)?;
    let keys = (0..options.clients).map(|client| key_of(client, 0)).collect();
    let value = Numbers::new(1).bytes(options.value_bytes);
    let mut load = Load::new(cluster.handles.clone(), &regions, keys, value);
    if options.rate > 0 {
        let clients = u32::try_from(options.clients)?;
        load.pace = Duration::from_secs(1) * clients / options.rate;
    }
    let mut measured = Measured { each: options.each, ..Measured::default() };
    load.run(Instant::now() + PATIENCE, |_| true);
    load.run(Instant::now() + Duration::from_secs(1), |_| false);
    for split in 0..options.splits {
        measured.split(&mut load, split)?;
    }
    cluster.stop();
    let after = sync_latency(folder.path(), 300)?;
    sync.append(after);
    parts.print(&sync);
    measured.print(sync.at(50));
    Ok(())
}

fn engines(folder: &TempDir, store: u64) -> Result<(RedbEngine, RaftLog), BoxError> {
    let folder = folder.path().join(format!("store-{store}"));
    std::fs::create_dir(&folder)?;
    let data = RedbEngine::open(folder.join("data"), &RedbOptions::default())?;
    Ok((data, RaftLog::open(folder.join("log"), &RaftLogOptions::default())?))
}

/// The key that a client writes while cut number `split` is prepared: those of even number lie
/// left of it.
fn key_of(client: usize, split: u64) -> Bytes {
    let client = client as u64;
    key((split + client % 2) * STEP + client)
}

/// What one store takes for the steps a split consists of, alone on the disk.
struct Parts {
    kv_sync: Percentiles,
    log_sync: Percentiles,
}

impl Parts {
    fn measure(folder: &TempDir) -> Result<Self, BoxError> {
        let (kv, log) = engines(folder, 0)?;
        let (mut kv_sync, mut log_sync) = (Percentiles::default(), Percentiles::default());
        let mut numbers = Numbers::new(2);
        let region = RegionId::must(1);
        for index in 1..=100 {
            let mut batch = kv.write_batch();
            batch.put(Cf::Default, &key(index), &numbers.bytes(256));
            kv.write(batch, Durability::Buffered)?;
            let begun = Instant::now();
            kv.sync()?;
            kv_sync.add(begun.elapsed());
            let mut batch = log.log_batch();
            batch.append(region, &[entry(region, index, numbers.bytes(256))]);
            let begun = Instant::now();
            log.write(batch, Durability::Synced)?;
            log_sync.add(begun.elapsed());
        }
        Ok(Self { kv_sync, log_sync })
    }

    fn print(&self, sync: &Percentiles) {
        let unit = sync.at(50);
        println!("disk: append 4 KiB, sync       {}", sync.line(unit));
        println!("engine alone: KV sync          {}", self.kv_sync.line(unit));
        println!("engine alone: log append, sync {}", self.log_sync.line(unit));
    }
}

/// What splits have done to writes.
#[derive(Default)]
struct Measured {
    /// The longest write of the part that keeps its id, without a split and around one.
    longest_before: Percentiles,
    longest_around: Percentiles,
    /// By how much the second exceeds the first.
    more: Percentiles,
    /// Latency of writes of that part before a split, and of those under way while one is
    /// asked for, executed and followed.
    write: Percentiles,
    write_around: Percentiles,
    /// From the wish for a split until it was answered, which is when it was applied.
    applied: Percentiles,
    /// From then until the new part has acknowledged a write.
    served: Percentiles,
    writes: u64,
    seconds: f64,
    each: bool,
}

impl Measured {
    fn split<K: KvEngine>(&mut self, load: &mut Load<K>, split: u64) -> Result<(), BoxError> {
        let clients = load.clients();
        (0..clients).for_each(|client| load.set_key(client, key_of(client, split)));
        let cut = key((split + 1) * STEP);
        let stays = |ack: &Acknowledged| ack.client % 2 == 1;
        // Clients move over to the region first.
        load.run(Instant::now() + AFTER, |_| false);
        let begun = Instant::now();
        let mut stayed = Vec::new();
        let mut writes = 0;
        load.run(begun + BEFORE, |ack| {
            writes += 1;
            stayed.extend(stays(&ack).then_some(ack));
            false
        });
        self.writes += writes;
        self.seconds += begun.elapsed().as_secs_f64();
        stayed.iter().for_each(|ack| self.write.add(ack.at - ack.sent));
        let (region, leader) = load.route(&cut);
        let handle = load.handle(leader.store).clone();
        let asked = Instant::now();
        let reply = handle.split_region(region.id, region.epoch, vec![cut]);
        let applied = thread::spawn(move || (reply.wait(), Instant::now()));
        let mut first = None;
        load.run(asked + PATIENCE, |ack| {
            stayed.extend(stays(&ack).then_some(ack));
            if ack.region != region.id {
                first = Some(ack.at);
            }
            first.is_some()
        });
        load.run(Instant::now() + AFTER, |ack| {
            stayed.extend(stays(&ack).then_some(ack));
            false
        });
        let (answer, at) = applied.join().map_err(|_| "the split's waiter has panicked")?;
        answer.body.map_err(|error| format!("the split was refused: {error}"))?;
        let first = first.ok_or("the new part never served")?;
        let lasted = first.saturating_duration_since(asked).min(BEFORE / 2);
        let earlier = asked.checked_sub(BEFORE / 2).ok_or("the clock has just begun")?;
        let before = longest(&stayed, earlier, earlier + lasted);
        let around = longest(&stayed, asked, first);
        self.longest_before.add(before);
        self.longest_around.add(around);
        self.more.add(around.saturating_sub(before));
        let within = stayed.iter().filter(|ack| ack.at > asked && ack.sent <= first);
        within.for_each(|ack| self.write_around.add(ack.at - ack.sent));
        self.applied.add(at - asked);
        self.served.add(first.saturating_duration_since(at));
        if self.each {
            let (applied, served) = (at - asked, first.saturating_duration_since(at));
            println!("{split}: {before:?}, {around:?}, applied {applied:?}, served {served:?}");
        }
        Ok(())
    }

    fn print(&self, unit: Duration) {
        let count = self.longest_around.count();
        println!("splits {count}, writes {:.0} per second", self.writes as f64 / self.seconds);
        println!("a write, nothing is cut        {}", self.write.line(unit));
        println!("a write of the part that stays {}", self.write_around.line(unit));
        println!("longest without a split        {}", self.longest_before.line(unit));
        println!("longest around a split         {}", self.longest_around.line(unit));
        println!("  more than without            {}", self.more.line(unit));
        println!("split asked until applied      {}", self.applied.line(unit));
        println!("applied until new part served  {}", self.served.line(unit));
    }
}

/// The longest of the writes that were under way at some moment between `from` and `to`.
fn longest(acks: &[Acknowledged], from: Instant, to: Instant) -> Duration {
    let within = acks.iter().filter(|ack| ack.at > from && ack.sent <= to);
    within.map(|ack| ack.at - ack.sent).max().unwrap_or_default()
}
