//! Measures engines and stores, beside the machine's own limits, and writes what came of it:
//! `RESULTS.md` and charts.
//!
//! `cargo run --release -p raftstore-benches --features rocksdb,openraft -- --out benches/RESULTS.md`
#![expect(clippy::print_stderr, reason = "progress of a long run")]

use std::{path::PathBuf, time::Duration, time::Instant};

use clap::Parser;
use raftstore_benches::{
    KvFactory, LogFactory, Memory, RaftLogFiles, Redb, VALUE_BYTES,
    figures::{
        Care, StoreFigures, StoreWork, adapter, engines, lease_reads, recoveries, restart,
        snapshot, store,
    },
    machine::Machine,
    paper::{Chart, Paper, short},
    work::{Case, kv_cases, log_cases, raw_log_cases, raw_redb_cases},
};
use transport_traits::BoxError;

/// Measures engines and stores, and writes a report.
#[derive(Parser)]
struct Options {
    /// Where the report goes; charts go into `results` beside it.
    #[arg(long, default_value = "RESULTS.md")]
    out: PathBuf,
    /// Only groups whose name has this in it: engines, logs, adapters, stores, reads,
    /// snapshots, restarts, peers.
    #[arg(long, default_value = "")]
    only: String,
    /// A short look at everything: its figures mean little.
    #[arg(long)]
    quick: bool,
}

struct Report {
    options: Options,
    paper: Paper,
    care: Care,
    begun: Instant,
    /// Groups that ended early.
    failed: Vec<String>,
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let care = match options.quick {
        true => Care { slice: Duration::from_millis(60), rounds: 1 },
        false => Care { slice: Duration::from_millis(300), rounds: 5 },
    };
    let mut report = Report {
        options,
        paper: Paper::default(),
        care,
        begun: Instant::now(),
        failed: Vec::new(),
    };
    report.head();
    report.group("engines", "Data engines", data_engines)?;
    report.group("logs", "Raft logs", raft_logs)?;
    report.group("adapters", "Our layer against the crate below it", adapters)?;
    report.group("reads", "Reads under the lease", reads)?;
    report.group("stores", "Three stores in one process", stores)?;
    report.group("peers", "openraft beside us", peers)?;
    report.group("snapshots", "Region snapshots", snapshots)?;
    report.group("restarts", "Restart", restarts)?;
    report.paper.write(&report.options.out)?;
    eprintln!("{}: written after {:.0} s", report.options.out.display(), report.seconds());
    match report.failed.is_empty() {
        true => Ok(()),
        false => Err(format!("ended early: {}", report.failed.join("; ")).into()),
    }
}

impl Report {
    fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn head(&mut self) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        self.paper.say("# Results");
        self.paper.say(format!(
            "Written by `cargo run --release -p raftstore-benches --features rocksdb,openraft -- --out \
             benches/RESULTS.md`; change the program, not this page. {cores} cores, values of {VALUE_BYTES} \
             random bytes. Figures of one group were taken in turns in one run: compare them with each other and \
             with the machine's own limits beside them, not with those of another machine.",
        ));
    }

    /// One section, with the machine's limits before and after it.
    fn group(
        &mut self,
        name: &str,
        title: &str,
        fill: impl FnOnce(&mut Self) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        if !name.contains(&self.options.only) {
            return Ok(());
        }
        eprintln!("{title}, after {:.0} s", self.seconds());
        let folder = tempfile::tempdir()?;
        self.paper.section(title);
        let before = Machine::measure(folder.path())?;
        self.paper.say(format!("Machine before: {}.", before.line()));
        // What the others found is worth having all the same.
        if let Err(error) = fill(self) {
            eprintln!("{title}: {error}");
            self.paper.say(format!("Ended early: {error}."));
            self.failed.push(title.to_owned());
        }
        let after = Machine::measure(folder.path())?;
        self.paper.say(format!("Machine after: {}.", after.line()));
        Ok(())
    }

    fn work(&self, clients: usize, regions: u64) -> StoreWork {
        StoreWork { clients, regions, seconds: if self.options.quick { 1 } else { 5 } }
    }
}

fn data_engines(report: &mut Report) -> Result<(), BoxError> {
    let all: Vec<(&str, Vec<Case>)> = vec![
        (<Memory as KvFactory>::NAME, kv_cases::<Memory>()),
        (<Redb as KvFactory>::NAME, kv_cases::<Redb>()),
        #[cfg(feature = "rocksdb")]
        (<raftstore_benches::Rocks as KvFactory>::NAME, kv_cases::<raftstore_benches::Rocks>()),
    ];
    let chart = ("data_engines", "Data engines: rows put per second, durable");
    engines(&mut report.paper, chart, &all, report.care)
}

fn raft_logs(report: &mut Report) -> Result<(), BoxError> {
    let all: Vec<(&str, Vec<Case>)> = vec![
        (<Memory as LogFactory>::NAME, log_cases::<Memory>()),
        (<Redb as LogFactory>::NAME, log_cases::<Redb>()),
        (<RaftLogFiles as LogFactory>::NAME, log_cases::<RaftLogFiles>()),
        #[cfg(feature = "rocksdb")]
        (<raftstore_benches::Rocks as LogFactory>::NAME, log_cases::<raftstore_benches::Rocks>()),
    ];
    let chart = ("raft_logs", "Raft logs: entries appended per second, durable");
    engines(&mut report.paper, chart, &all, report.care)?;
    let mut rows = Vec::new();
    if !report.options.quick {
        recoveries::<Redb>(&mut rows)?;
        recoveries::<RaftLogFiles>(&mut rows)?;
        #[cfg(feature = "rocksdb")]
        recoveries::<raftstore_benches::Rocks>(&mut rows)?;
        report.paper.say("Opening a log that was closed in good order:");
        report.paper.table(&["log", "regions", "entries of each", "ms"], &rows);
    }
    Ok(())
}

fn adapters(report: &mut Report) -> Result<(), BoxError> {
    let (paper, care) = (&mut report.paper, report.care);
    adapter(paper, "redb", kv_cases::<Redb>(), raw_redb_cases(), care)?;
    #[cfg(feature = "rocksdb")]
    {
        use raftstore_benches::work::raw_rocks_cases;
        let ours = kv_cases::<raftstore_benches::Rocks>();
        adapter(paper, "rocksdb", ours, raw_rocks_cases(), care)?;
    }
    adapter(paper, "raft-engine", log_cases::<RaftLogFiles>(), raw_log_cases(), care)
}

fn reads(report: &mut Report) -> Result<(), BoxError> {
    let (slice, rounds) = (report.care.slice, report.care.rounds);
    let mut rows = Vec::new();
    let mut row = |name: &str, (lease, raw): (f64, f64)| {
        rows.push(vec![name.to_owned(), short(raw), short(lease), format!("{:.2}", lease / raw)]);
    };
    row("memory", lease_reads::<Memory, Memory>(2, slice, rounds)?);
    row("redb", lease_reads::<Redb, RaftLogFiles>(2, slice, rounds)?);
    #[cfg(feature = "rocksdb")]
    row("rocksdb", lease_reads::<raftstore_benches::Rocks, RaftLogFiles>(2, slice, rounds)?);
    let head = ["two threads", "engine gets per second", "lease reads per second", "ratio"];
    report.paper.table(&head, &rows);
    Ok(())
}

type StoreRun = fn(StoreWork) -> Result<StoreFigures, BoxError>;

fn pairs() -> Vec<(&'static str, StoreRun)> {
    vec![
        ("memory + memory", store::<Memory, Memory>),
        ("redb + raft-engine", store::<Redb, RaftLogFiles>),
        ("redb + redb", store::<Redb, Redb>),
        #[cfg(feature = "rocksdb")]
        ("rocksdb + raft-engine", store::<raftstore_benches::Rocks, RaftLogFiles>),
        #[cfg(feature = "rocksdb")]
        ("rocksdb, log off + raft-engine", store::<raftstore_benches::RocksNoLog, RaftLogFiles>),
        #[cfg(feature = "rocksdb")]
        ("rocksdb + rocksdb", store::<raftstore_benches::Rocks, raftstore_benches::Rocks>),
    ]
}

const STORE_HEAD: [&str; 9] = [
    "data + log",
    "clients",
    "regions",
    "writes/s",
    "p50 ms",
    "p99 ms",
    "log syncs per write",
    "data syncs per 1,000 writes",
    "bytes written per byte and replica",
];

fn store_row(name: &str, work: StoreWork, figures: &StoreFigures) -> Vec<String> {
    let ms = |percent| short(figures.latency.at(percent).as_secs_f64() * 1e3);
    vec![
        name.to_owned(),
        work.clients.to_string(),
        short(work.regions as f64),
        short(figures.writes),
        ms(50),
        ms(99),
        format!("{:.3}", figures.log_syncs),
        format!("{:.2}", figures.kv_syncs * 1e3),
        format!("{:.2}", figures.amplification),
    ]
}

fn stores(report: &mut Report) -> Result<(), BoxError> {
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for (name, run) in pairs() {
        for regions in [1, 100, 1_000] {
            for clients in [1, 64, 512] {
                let work = report.work(clients, regions);
                let figures = run(work).map_err(|error| format!("{name}: {error}"))?;
                rows.push(store_row(name, work, &figures));
                if clients == 512 {
                    let group = format!("512 clients, {regions} regions");
                    bars.push((group, name.to_owned(), figures.writes));
                }
            }
        }
    }
    bars.sort_by_key(|(group, ..)| group.len());
    report.paper.table(&STORE_HEAD, &rows);
    let title = "Three stores in one process: writes acknowledged per second".to_owned();
    report.paper.chart(Chart { name: "stores".to_owned(), title, bars });
    Ok(())
}

#[cfg(not(feature = "openraft"))]
fn peers(report: &mut Report) -> Result<(), BoxError> {
    report.paper.say("Not measured: built without the feature `openraft`.");
    Ok(())
}

#[cfg(feature = "openraft")]
fn peers(report: &mut Report) -> Result<(), BoxError> {
    use raftstore_benches::figures::{openraft_memory, openraft_rocks};
    let mut rows = Vec::new();
    for clients in [1, 64, 512] {
        let work = report.work(clients, 1);
        rows.push(store_row("openraft, memory", work, &openraft_memory(work)?));
        rows.push(store_row("openraft, RocksDB log", work, &openraft_rocks(work)?));
        for (name, run) in pairs() {
            if name.contains("memory") || name.starts_with("rocksdb +") {
                rows.push(store_row(name, work, &run(work)?));
                let many = report.work(clients, 100);
                rows.push(store_row(name, many, &run(many)?));
            }
        }
    }
    report.paper.say(
        "openraft keeps its state machine in memory, has one group, and its nodes call each other \
         without a codec: the easier job.",
    );
    report.paper.table(&STORE_HEAD, &rows);
    Ok(())
}

fn snapshots(report: &mut Report) -> Result<(), BoxError> {
    let bytes: u64 = if report.options.quick { 16 << 20 } else { 1 << 30 };
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    let mut row = |name: &str, rate: f64| -> Result<(), BoxError> {
        let disk = Machine::measure(folder.path())?.sequential;
        let mib = |rate: f64| short(rate / f64::from(1 << 20));
        rows.push(vec![name.to_owned(), mib(rate), mib(disk), format!("{:.2}", rate / disk)]);
        Ok(())
    };
    row("redb", snapshot::<Redb, RaftLogFiles>(bytes)?)?;
    #[cfg(feature = "rocksdb")]
    {
        use raftstore_benches::{Rocks, RocksNoLog};
        row("rocksdb", snapshot::<Rocks, RaftLogFiles>(bytes)?)?;
        row("rocksdb, log off", snapshot::<RocksNoLog, RaftLogFiles>(bytes)?)?;
    }
    report.paper.say(format!(
        "{} MiB in rows of 4 KiB go to a new replica, pieces in files on the way.",
        bytes >> 20
    ));
    let head = ["data", "MiB/s", "disk, sequential, MiB/s", "of the disk"];
    report.paper.table(&head, &rows);
    Ok(())
}

fn restarts(report: &mut Report) -> Result<(), BoxError> {
    let rows: u64 = if report.options.quick { 10_000 } else { 300_000 };
    let mut table = Vec::new();
    for regions in [100, 1_000] {
        let mut row = |name: &str, seconds: f64| {
            table.push(vec![
                name.to_owned(),
                short(regions as f64),
                short(rows as f64),
                short(seconds),
            ]);
        };
        row("redb + raft-engine", restart::<Redb, RaftLogFiles>(regions, rows)?);
        #[cfg(feature = "rocksdb")]
        row(
            "rocksdb + raft-engine",
            restart::<raftstore_benches::Rocks, RaftLogFiles>(regions, rows)?,
        );
    }
    report.paper.say("A lone store, from opening its engines until it leads all its regions:");
    report.paper.table(&["data + log", "regions", "rows", "s"], &table);
    Ok(())
}
