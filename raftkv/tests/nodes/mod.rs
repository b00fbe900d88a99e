//! A cluster of processes: a placement driver and nodes, each of which may be killed, asked to
//! end, and started again.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use pd_client::{
    PdCluster, RegionRoute,
    grpc::{ClientOptions, GrpcPdClient},
};
use raftstore_proto::StoreId;

/// How long anything awaited may take: far longer than it does.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Elections within a second or two, so that a test need not wait ten.
pub(crate) const SETTINGS: &str = r#"
[raftstore]
raft-base-tick-interval = "100ms"
raft-store-max-leader-lease = "900ms"
pd-heartbeat-tick-interval = "500ms"
pd-store-heartbeat-tick-interval = "500ms"
"#;

/// A process of this program.
pub(crate) struct Process {
    child: Child,
    /// What it said when it was ready.
    pub(crate) said: String,
}

impl Process {
    /// Starts one and waits until it says that it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_raftkv"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let _ = sender.send(line.unwrap_or_default());
            }
        });
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        match lines.recv_timeout(DEADLINE) {
            Ok(said) => Self { child, said },
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("{arguments:?} is not ready: {}", errors.join().unwrap());
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{arguments:?} has ended: {}", errors.join().unwrap());
            }
        }
    }

    /// The word behind `words` in what it said.
    pub(crate) fn word_after(&self, words: &str) -> String {
        let (_, rest) = self.said.split_once(words).unwrap_or_else(|| panic!("{}", self.said));
        rest.trim_start().split([' ', ',']).next().unwrap().to_owned()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the wait for the end.
    pub(crate) fn end(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node that runs or not.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    /// Where it is reached, from its first start on.
    pub(crate) address: String,
    pub(crate) store: StoreId,
    pub(crate) process: Option<Process>,
}

/// A placement driver and three nodes.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    _pd_process: Process,
    pub(crate) pd_address: String,
    pub(crate) pd: Arc<GrpcPdClient>,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// One with this many nodes.
    pub(crate) fn of(nodes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("pd");
        let process = Process::start(&["pd", "--addr", "127.0.0.1:0", "--dir", &text(&dir)]);
        let pd_address = process.word_after("listens on");
        let pd = GrpcPdClient::connect(std::slice::from_ref(&pd_address), ClientOptions::default())
            .unwrap();
        std::fs::write(folder.path().join("node.toml"), SETTINGS).unwrap();
        let mut this =
            Self { folder, _pd_process: process, pd_address, pd: Arc::new(pd), nodes: Vec::new() };
        for number in 1..=nodes {
            let dir = this.folder.path().join(format!("node-{number}"));
            let process = this.spawn(&dir, "127.0.0.1:0");
            let address = process.word_after("serves on");
            let store = StoreId::must(process.word_after("store").parse().unwrap());
            this.nodes.push(Node { dir, address, store, process: Some(process) });
        }
        this
    }

    fn spawn(&self, dir: &Path, address: &str) -> Process {
        let arguments = self.arguments(dir, address);
        Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What a node is started with.
    pub(crate) fn arguments(&self, dir: &Path, address: &str) -> Vec<String> {
        let config = text(&self.folder.path().join("node.toml"));
        let dir = text(dir);
        let fixed = ["serve", "--config", &config, "--dir", &dir, "--addr", address, "--pd"];
        let mut all: Vec<_> = fixed.map(str::to_owned).into();
        all.push(self.pd_address.clone());
        all.extend(["--status-addr", "127.0.0.1:0"].map(str::to_owned));
        all
    }

    /// Starts a node again where it was.
    pub(crate) fn restart(&mut self, at: usize) {
        let node = &self.nodes[at];
        assert!(node.process.is_none());
        let process = self.spawn(&node.dir, &node.address);
        assert_eq!(process.word_after("store"), node.store.to_string());
        self.nodes[at].process = Some(process);
    }

    pub(crate) fn node_of(&self, store: StoreId) -> usize {
        self.nodes.iter().position(|node| node.store == store).unwrap()
    }

    /// Every region as PD knows it.
    pub(crate) async fn regions(&self) -> Vec<RegionRoute> {
        let all = self.pd.scan_regions(bytes::Bytes::new(), bytes::Bytes::new(), 1000);
        all.await.unwrap_or_default()
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Polls until `look` gives something.
pub(crate) async fn wait_until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
