//! The main job: load, cut the power of the store that leads, go on, let it come back, and
//! check that nothing acknowledged is missing and all replicas are equal.
//!
//! ```text
//!   verify old data -> load ------------------------> read all back -> compare replicas
//!                        \-- cut, wait, restart, catch up --/   (a second thread)
//! ```

mod check;
mod load;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use indicatif::{ProgressBar, ProgressStyle};
use raftstore_core::Config;

use self::load::{Load, Loaded, Outage, Phase};
use crate::{
    client::ClientError,
    cluster::{Cluster, ClusterError, Counts},
    input::{Generator, Input, InputError},
    layout::{self, Layout, LayoutError, Settings},
    machine::{Machine, MemMachine, RedbMachine},
    manifest::{Manifest, ManifestError},
    report::{ReadBack, Report},
    usage,
};

/// Bytes of each value that is made up.
const VALUE_BYTES: usize = 256;

/// How long the store that was cut stays away.
const AWAY: Duration = Duration::from_secs(3);

/// Patience with everything that should take seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What to load; made-up records without one.
    pub(crate) input: Option<PathBuf>,
    /// Where the stores live.
    pub(crate) dir: PathBuf,
    /// How many stores.
    pub(crate) stores: u64,
    /// Requests in flight at a time.
    pub(crate) in_flight: usize,
    /// Of made-up records and of what a cut leaves.
    pub(crate) seed: u64,
    /// How many records to make up.
    pub(crate) records: u64,
    /// Pages swept per second and file; 0 for none.
    pub(crate) sweep: u64,
}

impl Options {
    /// Voters of the region. More stores than these stay spare.
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
    let settings = Settings { engine: "redb", stores: options.stores };
    let layout = Layout::open(&options.dir, settings)?;
    let manifest = Manifest::open(&layout.manifest())?;
    if !layout.is_new() {
        say(&format!("{} has been used before", layout.dir().display()));
    }
    let sync_latency = usage::sync_latency(layout.dir()).ok();
    let machines = (1..=options.stores)
        .map(|number| RedbMachine::new(layout.store(number), options.seed ^ (number << 32)))
        .collect();
    let input = input.unwrap_or_else(|| generated(options, manifest.run()));
    let survey = survey.map_or_else(|| input.survey(), Ok)?;
    let job = Job { options, engine: settings.engine, input, survey, manifest };
    let mut report = job.run(machines)?;
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

/// The settings of the stores: those of production with time scaled down, so that an outage
/// takes seconds, and with memory for three stores in one process.
fn config() -> Config {
    let mib = 1 << 20;
    Config {
        raft_base_tick_interval: Duration::from_millis(100),
        raft_store_max_leader_lease: Duration::from_millis(900),
        raft_log_gc_tick_interval: Duration::from_secs(2),
        pd_heartbeat_tick_interval: Duration::from_millis(500),
        pd_store_heartbeat_tick_interval: Duration::from_secs(1),
        entry_cache_bytes: 16 * mib,
        apply_backlog_bytes: 32 * mib,
        max_uncommitted_bytes: 32 * mib,
        max_in_flight_bytes: 32 * mib,
        ..Config::default()
    }
}

/// A moment of the load.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    acknowledged: u64,
    log_syncs: u64,
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
        let cluster = Cluster::start(machines, replicas, config(), self.options.sweep)?;
        let outcome = self.work(&cluster, replicas);
        let stopped = cluster.stop();
        let report = outcome?;
        stopped?;
        self.manifest.sync()?;
        Ok(Report { peak_memory_bytes: usage::peak_memory_bytes(), ..report })
    }

    fn work<M: Machine>(
        &mut self,
        cluster: &Cluster<M>,
        replicas: usize,
    ) -> Result<Report, DemoError> {
        cluster.wait_for_replicas(replicas, PATIENCE)?;
        let in_flight = self.options.in_flight;
        let old = check::read_back(cluster, &mut self.manifest, in_flight, false, "verifying")?;
        let (loaded, marks) = self.load(cluster)?;
        let lease_reads =
            check::read_back(cluster, &mut self.manifest, in_flight, false, "reading by lease")?;
        let index_reads =
            check::read_back(cluster, &mut self.manifest, in_flight, true, "reading by index")?;
        let replicas_equal = check::replicas_are_equal(cluster, PATIENCE)?;
        cluster.check()?;
        let counts = cluster.counts();
        Ok(self.report(old, loaded, &marks, lease_reads, index_reads, replicas_equal, counts))
    }

    /// Loads while a second thread cuts the leader's power and brings it back. Gives the
    /// marks of the begin, the cut, the end of the outage, and the end; without an outage
    /// the two in the middle are missing.
    fn load<M: Machine>(&mut self, cluster: &Cluster<M>) -> Result<(Loaded, Vec<Mark>), DemoError> {
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
            let outage_thread = scope.spawn(|| cut_and_restart(cluster, &outage, &signal, mark));
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
            let middle = outage_thread.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
            bar.finish_and_clear();
            let loaded = loaded?;
            let mut marks = vec![begin];
            marks.extend(middle?);
            marks.push(end);
            Ok((loaded, marks))
        })
    }

    #[expect(clippy::too_many_arguments, reason = "it only puts together what was measured")]
    fn report(
        &self,
        old: ReadBack,
        loaded: Loaded,
        marks: &[Mark],
        lease_reads: ReadBack,
        index_reads: ReadBack,
        replicas_equal: bool,
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
        let (first, last) = (&marks[0], &marks[marks.len() - 1]);
        let parts = match marks {
            [begin, cut, back, end] => vec![between(begin, cut), between(back, end)],
            _ => vec![between(first, last)],
        };
        let quiet = parts.iter().fold((0, 0, Duration::ZERO), |sum, part| {
            (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2)
        });
        let outage = match marks {
            [_, cut, back, _] => Some(back.at.saturating_duration_since(cut.at)),
            _ => None,
        };
        Report {
            engine: self.engine,
            stores: self.options.stores,
            in_flight: self.options.in_flight,
            old,
            records: loaded.records,
            bytes: loaded.bytes,
            retries: loaded.retries,
            load_time: last.at.saturating_duration_since(first.at),
            outage,
            pause: outage.map(|_| loaded.longest_pause),
            quiet: (quiet.0, quiet.2),
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
            lease_reads,
            index_reads,
            replicas_equal,
            disk_bytes: Vec::new(),
            peak_memory_bytes: None,
        }
    }
}

/// Waits for the signal, cuts the power of the store that leads, and brings it back after a
/// while. Gives the marks of the cut and of the moment it had caught up; none if the load
/// ended before the signal.
fn cut_and_restart<M: Machine>(
    cluster: &Cluster<M>,
    outage: &Outage,
    signal: &Receiver<()>,
    mark: impl Fn() -> Mark,
) -> Result<Vec<Mark>, DemoError> {
    if signal.recv().is_err() {
        return Ok(Vec::new());
    }
    let mut leader = None;
    cluster.wait("an election", PATIENCE, || {
        leader = cluster.leading().map(|it| it.slot);
        leader.is_some()
    })?;
    let Some(slot) = leader else { return Ok(Vec::new()) };
    let cut = mark();
    outage.enter(Phase::Outage);
    cluster.cut(slot);
    // The end of the load is no reason to come back earlier.
    thread::sleep(AWAY);
    cluster.restart(slot)?;
    cluster.wait_for_caught_up(slot, PATIENCE)?;
    outage.enter(Phase::After);
    Ok(vec![cut, mark()])
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
