//! The main job: load while regions are cut and spread, cut the power of the store that leads
//! most of them, go on, let it come back, and check that nothing acknowledged is missing and
//! all replicas are equal.
//!
//! ```text
//!   verify old data -> load ------------------------> read all back -> compare replicas
//!                        \-- cut, wait, restart, catch up --/   (a second thread)
//! ```

mod check;
mod compare;
mod load;
mod outage;
pub(crate) mod processes;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use raftstore_core::Config;

use self::{
    load::{Load, Loaded, Outage},
    outage::{Cut, cut_and_restart},
};
use crate::{
    cluster::{Cluster, ClusterError, Counts},
    input::{Generator, Input, InputError},
    layout::{self, Layout, LayoutError, Settings},
    machine::{LogFilesMachine, Machine, MemMachine, RedbMachine},
    manifest::{Manifest, ManifestError},
    report::{ReadBack, Regions, Report},
    usage,
};
use raftstore_core::runtime::client::ClientError;

/// Bytes of each value that is made up.
const VALUE_BYTES: usize = 256;

/// Patience with everything that should take seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long nothing may change before regions count as cut and spread: some looks at their
/// size, and two reports to PD.
const QUIET: Duration = Duration::from_secs(1);

/// Least bytes that a region is cut to.
const REGION_BYTES_MIN: u64 = 1 << 10;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What to load; made-up records without one.
    pub(crate) input: Option<PathBuf>,
    /// Where the stores live.
    pub(crate) dir: PathBuf,
    /// How many stores.
    pub(crate) stores: u64,
    /// What holds the raft logs of stores on files.
    pub(crate) raft_log: RaftLogKind,
    /// Requests in flight at a time.
    pub(crate) in_flight: usize,
    /// Of made-up records and of what a cut leaves.
    pub(crate) seed: u64,
    /// How many records to make up.
    pub(crate) records: u64,
    /// Pages swept per second and file; 0 for none.
    pub(crate) sweep: u64,
    /// About how many regions the data is to make.
    pub(crate) regions: u64,
}

/// What the raft logs of a store on files are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RaftLogKind {
    /// Files of raft-engine.
    RaftEngine,
    /// A file of redb.
    Redb,
}

impl Options {
    /// Voters of each region.
    fn replicas(&self) -> usize {
        usize::try_from(self.stores).map_or(3, |stores| stores.min(3))
    }
}

/// Why a demo has no outcome: what, where, and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// The input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The stores.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A request that did not succeed.
    #[error("{doing} key {}: {source}: see RAFTKV_LOG=info for what the stores say", shown(key))]
    Request {
        /// What was being done.
        doing: &'static str,
        /// To which key.
        key: Bytes,
        /// Why it was given up.
        source: ClientError,
    },
    /// An engine, read for the comparison.
    #[error("store {number} cannot be read: {source}: check its disk")]
    Compare {
        /// Which store, from 1.
        number: u64,
        /// What the engine says.
        source: engine_traits::Error,
    },
}

/// A key for a message of one line.
fn shown(key: &[u8]) -> String {
    let text: String = key.escape_ascii().take(80).map(char::from).collect();
    if key.len() > 80 { text + "..." } else { text }
}

/// Something for the person who looks on; results go to the standard output.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Runs the demo on files of redb.
pub(crate) fn run_on_files(options: &Options) -> Result<Report, DemoError> {
    let input = options.input.as_deref().map(Input::at).transpose()?;
    if let Some(path) = &options.input {
        layout::check_apart(path, &options.dir)?;
    }
    let survey = input.as_ref().map(Input::survey).transpose()?;
    let (raft_log, engines) = match options.raft_log {
        RaftLogKind::RaftEngine => ("raft-engine", "redb and raft-engine"),
        RaftLogKind::Redb => ("redb", "redb"),
    };
    let settings = Settings { engine: "redb", raft_log, stores: options.stores };
    let layout = Layout::open(&options.dir, settings)?;
    let manifest = Manifest::open(&layout.manifest())?;
    if !layout.is_new() {
        say(&format!("{} has been used before", layout.dir().display()));
    }
    let sync_latency = usage::sync_latency(layout.dir()).ok();
    let input = input.unwrap_or_else(|| generated(options, manifest.run()));
    let survey = survey.map_or_else(|| input.survey(), Ok)?;
    let job = Job { options, engine: engines, input, survey, manifest };
    let stores =
        (1..=options.stores).map(|number| (layout.store(number), options.seed ^ (number << 32)));
    let mut report = match options.raft_log {
        RaftLogKind::RaftEngine => {
            job.run(stores.map(|(folder, seed)| LogFilesMachine::new(folder, seed)).collect())?
        }
        RaftLogKind::Redb => {
            job.run(stores.map(|(folder, seed)| RedbMachine::new(folder, seed)).collect())?
        }
    };
    report.sync_latency = sync_latency;
    report.disk_bytes =
        (1..=options.stores).map(|number| usage::disk_bytes(&layout.store(number))).collect();
    Ok(report)
}

/// Runs the demo in memory. The directory is not touched.
pub(crate) fn run_in_memory(options: &Options) -> Result<Report, DemoError> {
    let input = options.input.as_deref().map(Input::at).transpose()?;
    let manifest = Manifest::in_memory();
    let input = input.unwrap_or_else(|| generated(options, manifest.run()));
    let survey = input.survey()?;
    let job = Job { options, engine: "memory", input, survey, manifest };
    job.run((0..options.stores).map(|_| MemMachine::default()).collect())
}

fn generated(options: &Options, run: u64) -> Input {
    let Options { records: count, seed, .. } = *options;
    Input::Generated(Generator { count, value_bytes: VALUE_BYTES, seed, run })
}

/// The settings of the stores: those of stores in one process, with memory for three, and
/// with regions of `region_bytes`.
fn config(region_bytes: u64) -> Config {
    let mib = 1 << 20;
    Config {
        split_region_check_tick_interval: Duration::from_millis(200),
        region_split_size: region_bytes,
        region_max_size: region_bytes + region_bytes / 2,
        region_split_check_diff: region_bytes / 8,
        entry_cache_bytes: 16 * mib,
        apply_backlog_bytes: 32 * mib,
        max_uncommitted_bytes: 32 * mib,
        max_in_flight_bytes: 32 * mib,
        ..Config::in_process()
    }
}

/// A moment of the load.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    acknowledged: u64,
    log_syncs: u64,
}

/// What was noted while a load ran.
struct Course {
    begin: Mark,
    /// None if the load ended before anything was cut.
    cut: Option<Cut>,
    end: Mark,
}

/// What the checks found.
struct Checked {
    old: ReadBack,
    lease_reads: ReadBack,
    index_reads: ReadBack,
    replicas_equal: bool,
}

struct Job<'a> {
    options: &'a Options,
    engine: &'static str,
    input: Input,
    survey: crate::input::Survey,
    manifest: Manifest,
}

impl Job<'_> {
    fn run<M: Machine>(mut self, machines: Vec<M>) -> Result<Report, DemoError> {
        if let Some(left_out) = self.survey.left_out() {
            say(&left_out);
        }
        let replicas = self.options.replicas();
        let config = config(self.region_bytes());
        let (run, sweep) = (self.manifest.run(), self.options.sweep);
        let cluster = Cluster::start(machines, replicas, run, config, sweep)?;
        let outcome = self.work(&cluster, replicas);
        let stopped = cluster.stop();
        let report = outcome?;
        stopped?;
        self.manifest.sync()?;
        Ok(Report { peak_memory_bytes: usage::peak_memory_bytes(), ..report })
    }

    /// Bytes to cut regions to. What earlier runs have left counts, or a small load over
    /// much data would cut it to pieces.
    fn region_bytes(&self) -> u64 {
        let bytes = self.survey.bytes.max(self.manifest.bytes());
        (bytes / self.options.regions.max(1)).max(REGION_BYTES_MIN)
    }

    fn work<M: Machine>(
        &mut self,
        cluster: &Cluster<M>,
        replicas: usize,
    ) -> Result<Report, DemoError> {
        let begin = cluster.wait_for_replicas(replicas, PATIENCE)?;
        let in_flight = self.options.in_flight;
        let mut read = |read_quorum, doing| {
            check::read_back(cluster, &mut self.manifest, in_flight, read_quorum, doing)
        };
        let old = read(false, "verifying")?;
        let (loaded, course) = self.load(cluster, replicas)?;
        let end = cluster.wait_for_rest(replicas, QUIET, PATIENCE)?;
        let mut read = |read_quorum, doing| {
            check::read_back(cluster, &mut self.manifest, in_flight, read_quorum, doing)
        };
        let lease_reads = read(false, "reading by lease")?;
        let index_reads = read(true, "reading by index")?;
        let replicas_equal = compare::replicas_are_equal(cluster, PATIENCE)?;
        cluster.check()?;
        let checked = Checked { old, lease_reads, index_reads, replicas_equal };
        let regions = Regions {
            splits: end.regions().len().saturating_sub(begin.regions().len()) as u64,
            membership_changes: cluster.membership_changes(),
            before: course.cut.as_ref().map(|cut| cut.regions.clone()),
            end,
        };
        Ok(self.report(loaded, &course, checked, regions, cluster.counts()))
    }

    /// Loads while a second thread cuts the power of the store that leads most regions and
    /// brings it back.
    fn load<M: Machine>(
        &mut self,
        cluster: &Cluster<M>,
        replicas: usize,
    ) -> Result<(Loaded, Course), DemoError> {
        let acknowledged = AtomicU64::new(0);
        let mark = || Mark {
            at: Instant::now(),
            acknowledged: acknowledged.load(Ordering::Acquire),
            log_syncs: cluster.counts().log_syncs,
        };
        let outage = Outage::default();
        let bar = progress_bar("loading", self.survey.records);
        let begin = mark();
        let (go, signal) = crossbeam_channel::bounded::<()>(1);
        thread::scope(|scope| {
            let outage_thread =
                scope.spawn(|| cut_and_restart(cluster, replicas, &outage, &signal, mark));
            let load = Load {
                cluster,
                manifest: &mut self.manifest,
                in_flight: self.options.in_flight,
                total: self.survey.records,
                acknowledged: &acknowledged,
                outage: &outage,
                halfway: go,
                bar: &bar,
            };
            // The load owns the sender: its end, good or bad, ends the wait for halfway.
            let loaded = load.run(self.input.records()?);
            let end = mark();
            let cut = outage_thread.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
            bar.finish_and_clear();
            Ok((loaded?, Course { begin, cut: cut?, end }))
        })
    }

    fn report(
        &self,
        loaded: Loaded,
        course: &Course,
        checked: Checked,
        regions: Regions,
        counts: Counts,
    ) -> Report {
        let between = |from: &Mark, to: &Mark| {
            let time = to.at.saturating_duration_since(from.at);
            (
                to.acknowledged.saturating_sub(from.acknowledged),
                to.log_syncs.saturating_sub(from.log_syncs),
                time,
            )
        };
        let Course { begin, cut, end } = course;
        let parts = match cut {
            Some(Cut { cut, back, .. }) => vec![between(begin, cut), between(back, end)],
            None => vec![between(begin, end)],
        };
        let quiet = parts.iter().fold((0, 0, Duration::ZERO), |sum, part| {
            (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2)
        });
        let outage = cut.as_ref().map(|it| it.back.at.saturating_duration_since(it.cut.at));
        Report {
            engine: self.engine,
            stores: self.options.stores,
            in_flight: self.options.in_flight,
            old: checked.old,
            records: loaded.records,
            bytes: loaded.bytes,
            retries: loaded.retries,
            load_time: end.at.saturating_duration_since(begin.at),
            outage,
            pause: outage.map(|_| loaded.longest_pause),
            quiet: (quiet.0, quiet.2.saturating_sub(loaded.held)),
            latencies: loaded.latencies,
            quiet_latencies: loaded.quiet_latencies,
            log_syncs: quiet.1,
            sync_latency: None,
            elections: counts.elections,
            snapshots: counts.snapshots,
            log_entries: counts.log_entries,
            checked_files: counts.checked_files,
            swept_pages: counts.swept_pages,
            damaged_pages: counts.damaged_pages,
            transfers: counts.transfers,
            regions,
            lease_reads: checked.lease_reads,
            index_reads: checked.index_reads,
            replicas_equal: checked.replicas_equal,
            disk_bytes: Vec::new(),
            peak_memory_bytes: None,
        }
    }
}

/// A bar on the terminal, if there is one.
fn progress_bar(doing: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}
