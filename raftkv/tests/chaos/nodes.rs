//! PD and nodes as processes, each reached through the bad network.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::proxy::{End, Network};

/// PD's number among the ends of links.
pub(crate) const PD: End = 0;

/// One process, and how it is begun again.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) end: End,
    arguments: Vec<String>,
    listens: SocketAddr,
    log: PathBuf,
    network: Network,
    child: Option<Child>,
}

impl Process {
    fn new(
        end: End,
        arguments: Vec<String>,
        listens: SocketAddr,
        folder: &Path,
        network: &Network,
    ) -> Self {
        let log = folder.join(format!("{end}.log"));
        Self { end, arguments, listens, log, network: network.clone(), child: None }
    }

    pub(crate) fn start(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(env!("CARGO_BIN_EXE_raftkv"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.network.is_node(child.id(), self.end);
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it listens.
    pub(crate) fn await_listening(&mut self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        while TcpStream::connect(self.listens).is_err() {
            let child = self.child.as_mut().ok_or_else(|| io::Error::other("not started"))?;
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "process {} ended: {status}\n{said}",
                    self.end
                )));
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("process {} does not listen", self.end)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// The process stands still, its sockets open.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it ended by itself: with which status.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(format!("process {} ended by itself: {status}; see {}", self.end, self.log.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

/// PD and some nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) network: Network,
    /// The way to PD.
    pub(crate) pd_address: SocketAddr,
    pub(crate) pd: Process,
    pub(crate) nodes: Vec<Process>,
}

/// Ticks short enough that a leader is missed after a second or two.
const CONFIG: &str = "\
[raftstore]
raft-base-tick-interval = \"100ms\"
raft-store-max-leader-lease = \"900ms\"
pd-heartbeat-tick-interval = \"500ms\"
pd-store-heartbeat-tick-interval = \"1s\"
";

impl Nodes {
    pub(crate) fn start(folder: &Path, count: u32) -> io::Result<Self> {
        let network = Network::default();
        let config = folder.join("config.toml");
        std::fs::write(&config, CONFIG)?;
        let at = |name: &str| folder.join(name).display().to_string();
        let own = free_address()?;
        let pd_address = network.open(PD, own)?;
        let arguments = [
            "pd",
            "--dir",
            &at("pd"),
            "--addr",
            &own.to_string(),
            "--advertise-addr",
            &pd_address.to_string(),
        ];
        let arguments = arguments.map(ToOwned::to_owned).to_vec();
        let mut pd = Process::new(PD, arguments, own, folder, &network);
        pd.start()?;
        pd.await_listening(PATIENCE)?;
        let mut nodes = Vec::new();
        for end in 1..=count {
            let own = free_address()?;
            let way = network.open(end, own)?;
            let arguments = [
                "serve",
                "--config",
                &config.display().to_string(),
                "--data-dir",
                &at(&format!("node-{end}")),
                "--addr",
                &own.to_string(),
                "--advertise-addr",
                &way.to_string(),
                "--pd",
                &pd_address.to_string(),
            ];
            let arguments = arguments.map(ToOwned::to_owned).to_vec();
            let mut node = Process::new(end, arguments, own, folder, &network);
            node.start()?;
            nodes.push(node);
        }
        for node in &mut nodes {
            node.await_listening(PATIENCE)?;
        }
        Ok(Self { network, pd_address, pd, nodes })
    }

    /// Nobody ended but who was killed.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let mut all = std::iter::once(&mut self.pd).chain(&mut self.nodes);
        all.find_map(Process::ended).map_or(Ok(()), Err)
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An address that nobody has now. Somebody may take it before it is used; then the start fails.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
