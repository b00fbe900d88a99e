//! The demo over a network: a placement driver and nodes as processes of their own, a client
//! over gRPC, and a node that is killed on the way.
//!
//! ```text
//!   start -> load ----------------------------------> read all back -> ask all to end
//!             \-- kill the main leader, start it again --/
//! ```

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use pd_client::{
    PdCluster as _,
    grpc::{ClientOptions, GrpcPdClient},
};
use raftkv_client::{Client, ClientError, ClientOptions as RequestOptions};
use tokio::task::JoinSet;

/// Patience with everything that should take seconds.
const PATIENCE: Duration = Duration::from_secs(180);
/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of each value.
const VALUE_BYTES: usize = 256;
/// Records that are read back or written at a time.
const AT_A_TIME: u64 = 64;

/// Time is scaled down, as among stores of one process.
const SETTINGS: &str = "\
[raftstore]
raft-base-tick-interval = \"100ms\"
raft-store-max-leader-lease = \"900ms\"
pd-heartbeat-tick-interval = \"500ms\"
pd-store-heartbeat-tick-interval = \"500ms\"
";

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct ProcessOptions {
    /// Where the processes keep their data.
    pub(crate) dir: PathBuf,
    /// How many nodes.
    pub(crate) stores: u64,
    /// How many records to make up.
    pub(crate) records: u64,
    /// Of the records.
    pub(crate) seed: u64,
}

/// Why the demo has no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The directory or a process.
    #[error("{doing}: {source}: check the disk and the limits of the system")]
    System {
        /// What was being done.
        doing: String,
        /// What the system says.
        source: io::Error,
    },
    /// A process did not say that it is ready.
    #[error("{what} ended before it was ready: it has said why above")]
    NotReady {
        /// Which.
        what: String,
    },
    /// The placement driver.
    #[error("PD: {0}")]
    Pd(#[from] pd_client::Error),
    /// A request that did not succeed.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Something awaited did not happen.
    #[error("{what} did not happen within {} s", PATIENCE.as_secs())]
    Late {
        /// What was awaited.
        what: &'static str,
    },
    /// A process that was asked to end has failed.
    #[error("{what} ended with {status}")]
    Ended {
        /// Which.
        what: String,
        /// How.
        status: std::process::ExitStatus,
    },
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::System { doing: doing.into(), source }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pd: String,
    nodes: Vec<String>,
    records: u64,
    wrong: u64,
    load: Duration,
    /// From the kill until every region had a leader again.
    outage: Duration,
    read_back: Duration,
    regions: usize,
}

impl Outcome {
    pub(crate) const fn is_good(&self) -> bool {
        self.wrong == 0
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("PD on {}\n", self.pd);
        for node in &self.nodes {
            let _ = writeln!(text, "{node}");
        }
        let _ = writeln!(
            text,
            "{} records of {VALUE_BYTES} bytes loaded in {:.1} s over {} regions\n\
             one node killed: all regions led again after {:.1} s\n\
             read back in {:.1} s: {} missing or different",
            self.records,
            self.load.as_secs_f64(),
            self.regions,
            self.outage.as_secs_f64(),
            self.read_back.as_secs_f64(),
            self.wrong,
        );
        text
    }

    pub(crate) fn json(&self) -> String {
        let json = serde_json::json!({
            "pd": self.pd,
            "nodes": self.nodes,
            "records": self.records,
            "wrong": self.wrong,
            "regions": self.regions,
            "load_seconds": self.load.as_secs_f64(),
            "outage_seconds": self.outage.as_secs_f64(),
            "read_back_seconds": self.read_back.as_secs_f64(),
        });
        format!("{json:#}\n")
    }
}

/// A process of this program, killed when it is dropped.
struct Process {
    what: String,
    child: Child,
    /// What it said when it was ready.
    said: String,
}

impl Process {
    fn start(what: String, arguments: &[&str]) -> Result<Self, ProcessError> {
        let program = std::env::current_exe().map_err(system("looking for this program"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(system(format!("starting {what}")))?;
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            let mut out = BufReader::new(out);
            out.read_line(&mut said).map_err(system(format!("hearing from {what}")))?;
        }
        let this = Self { what, child, said: said.trim_end().to_owned() };
        if this.said.is_empty() {
            return Err(ProcessError::NotReady { what: this.what.clone() });
        }
        Ok(this)
    }

    fn word_after(&self, words: &str) -> String {
        let rest = self.said.split_once(words).map_or("", |(_, rest)| rest).trim_start();
        rest.split([' ', ',']).next().unwrap_or_default().to_owned()
    }

    fn end(mut self) -> Result<(), ProcessError> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // One that has ended already tells by its status.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let status = self.child.wait().map_err(system(format!("waiting for {}", self.what)))?;
        if status.success() {
            return Ok(());
        }
        Err(ProcessError::Ended { what: self.what.clone(), status })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes of a cluster.
struct Cluster {
    dir: PathBuf,
    pd: Process,
    pd_address: String,
    nodes: Vec<Process>,
}

impl Cluster {
    fn start(options: &ProcessOptions) -> Result<Self, ProcessError> {
        let dir = options.dir.clone();
        std::fs::create_dir_all(&dir).map_err(system(format!("making {}", dir.display())))?;
        std::fs::write(dir.join("node.toml"), SETTINGS).map_err(system("writing settings"))?;
        let replicas = options.stores.min(3).to_string();
        let pd = Process::start(
            "PD".to_owned(),
            &[
                "pd",
                "--addr",
                "127.0.0.1:0",
                "--max-replicas",
                &replicas,
                "--dir",
                &text(&dir.join("pd")),
            ],
        )?;
        let pd_address = pd.word_after("listens on");
        let mut this = Self { dir, pd, pd_address, nodes: Vec::new() };
        for number in 1..=options.stores {
            let node = this.start_node(number, "127.0.0.1:0")?;
            this.nodes.push(node);
        }
        Ok(this)
    }

    fn start_node(&self, number: u64, address: &str) -> Result<Process, ProcessError> {
        let (config, dir) = (self.dir.join("node.toml"), self.dir.join(format!("node-{number}")));
        Process::start(
            format!("node {number}"),
            &[
                "serve",
                "--config",
                &text(&config),
                "--dir",
                &text(&dir),
                "--addr",
                address,
                "--pd",
                &self.pd_address,
            ],
        )
    }

    /// Kills the node of a store without a warning, and gives its number and address.
    fn kill(&mut self, store: u64) -> Option<(u64, String)> {
        let name = store.to_string();
        let at = self.nodes.iter().position(|node| node.word_after("store") == name)?;
        let address = self.nodes[at].word_after("serves on");
        drop(self.nodes.remove(at));
        let number = (1..)
            .find(|number| !self.nodes.iter().any(|node| node.what == format!("node {number}")));
        number.map(|number| (number, address))
    }

    fn end(self) -> Result<(), ProcessError> {
        // Stores first: they tell PD that they go.
        for node in self.nodes {
            node.end()?;
        }
        self.pd.end()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Carries the demo out.
pub(crate) fn run(options: &ProcessOptions) -> Result<Outcome, ProcessError> {
    let mut cluster = Cluster::start(options)?;
    let pd =
        GrpcPdClient::connect(std::slice::from_ref(&cluster.pd_address), ClientOptions::default())?;
    let pd = Arc::new(pd);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(system("starting threads"))?;
    let how = RequestOptions { batched: true, patience: PATIENCE, ..RequestOptions::default() };
    let endpoints = std::slice::from_ref(&cluster.pd_address);
    let client = runtime.block_on(Client::connect(endpoints, how))?;
    let mut outcome = Outcome {
        pd: cluster.pd_address.clone(),
        nodes: cluster.nodes.iter().map(|node| node.said.clone()).collect(),
        records: options.records,
        ..Outcome::default()
    };
    let voters = usize::try_from(options.stores.min(3)).unwrap_or(3);
    runtime.block_on(replicated(&pd, voters))?;
    let half = options.records / 2;
    let begun = Instant::now();
    runtime.block_on(write(&client, options.seed, 0, half))?;
    // With less than three stores the others are no majority.
    if options.stores >= 3 {
        let killed = Instant::now();
        let leader = runtime.block_on(main_leader(&pd));
        let gone = leader.and_then(|store| cluster.kill(store));
        if let (Some(store), Some((number, address))) = (leader, gone) {
            runtime.block_on(led_elsewhere(&pd, store))?;
            outcome.outage = killed.elapsed();
            runtime.block_on(write(&client, options.seed, half, half + options.records / 4))?;
            let node = cluster.start_node(number, &address)?;
            cluster.nodes.push(node);
        }
    }
    runtime.block_on(write(&client, options.seed, half, options.records))?;
    outcome.load = begun.elapsed();
    let begun = Instant::now();
    outcome.wrong = runtime.block_on(read_back(&client, options.seed, options.records))?;
    outcome.read_back = begun.elapsed();
    outcome.regions = runtime.block_on(regions(&pd)).len();
    cluster.end()?;
    Ok(outcome)
}

fn key(number: u64) -> Bytes {
    format!("record-{number:012}").into()
}

/// What a record holds: its number and seed, again and again.
fn value(seed: u64, number: u64) -> Bytes {
    let word = format!("{seed}:{number};");
    let mut value = word.repeat(VALUE_BYTES / word.len() + 1);
    value.truncate(VALUE_BYTES);
    value.into()
}

/// Runs `each` for all numbers in the range, some at a time.
async fn for_all<F>(
    client: &Client,
    (from, to): (u64, u64),
    each: impl Fn(Client, u64) -> F + Clone + Send + 'static,
) -> Result<u64, ProcessError>
where
    F: Future<Output = Result<u64, ClientError>> + Send,
{
    let next = Arc::new(AtomicU64::new(from));
    let mut tasks: JoinSet<Result<u64, ClientError>> = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (client, next, each) = (client.clone(), Arc::clone(&next), each.clone());
        tasks.spawn(async move {
            let mut sum = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return Ok(sum);
                }
                sum += each(client.clone(), number).await?;
            }
        });
    }
    let mut sum = 0;
    while let Some(ended) = tasks.join_next().await {
        // A task that panicked has said why.
        sum += ended.unwrap_or(Ok(1))?;
    }
    Ok(sum)
}

async fn write(client: &Client, seed: u64, from: u64, to: u64) -> Result<(), ProcessError> {
    let put = move |client: Client, number| async move {
        client.put(key(number), value(seed, number)).await.map(|()| 0)
    };
    for_all(client, (from, to), put).await.map(drop)
}

/// How many records are missing or different.
async fn read_back(client: &Client, seed: u64, records: u64) -> Result<u64, ProcessError> {
    let get = move |client: Client, number| async move {
        let read = client.get(key(number)).await?;
        Ok(u64::from(read != Some(value(seed, number))))
    };
    for_all(client, (0, records), get).await
}

async fn regions(pd: &GrpcPdClient) -> Vec<pd_client::RegionRoute> {
    pd.scan_regions(Bytes::new(), Bytes::new(), 10_000).await.unwrap_or_default()
}

async fn main_leader(pd: &GrpcPdClient) -> Option<u64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for leader in regions(pd).await.iter().filter_map(|route| route.leader) {
        *counts.entry(leader.store.get()).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(store, _)| store)
}

async fn awaited(
    what: &'static str,
    pd: &GrpcPdClient,
    holds: impl Fn(&[pd_client::RegionRoute]) -> bool,
) -> Result<(), ProcessError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = regions(pd).await;
        if !all.is_empty() && holds(&all) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ProcessError::Late { what });
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn replicated(pd: &GrpcPdClient, voters: usize) -> Result<(), ProcessError> {
    let has_all = |route: &pd_client::RegionRoute| {
        route.region.peers.iter().filter(|peer| peer.role.votes_after()).count() >= voters
    };
    awaited("the placing of replicas", pd, |all| all.iter().all(has_all)).await
}

async fn led_elsewhere(pd: &GrpcPdClient, store: u64) -> Result<(), ProcessError> {
    let elsewhere = |route: &pd_client::RegionRoute| {
        route.leader.is_some_and(|leader| leader.store.get() != store)
    };
    awaited("the election of leaders", pd, |all| all.iter().all(elsewhere)).await
}
