//! `raftkv pd` as a process: killed and started again, it goes on where it was.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use pd_client::{
    PdClient,
    grpc::{ClientOptions, GrpcPdClient},
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// A process that ends with the test.
struct Process {
    child: Child,
    /// `host:port`.
    address: String,
    line: String,
}

impl Process {
    fn start(dir: &Path, address: &str) -> Self {
        let mut child = command(dir, address).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let url = line.rsplit(' ').next().unwrap_or_default().trim();
        let address = url.trim_start_matches("http://").to_owned();
        Self { child, address, line }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftkv"));
    command.args(["pd", "--cluster-id", "7", "--addr", address, "--dir"]).arg(dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn ids_are_not_repeated_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let process = Process::start(dir.path(), "127.0.0.1:0");
    assert!(process.line.starts_with("PD of cluster 7 listens on "), "{}", process.line);
    let address = process.address.clone();
    let options =
        ClientOptions { deadline: std::time::Duration::from_secs(60), ..ClientOptions::default() };
    let client =
        GrpcPdClient::connect(std::slice::from_ref(&address), options).expect("it is there");
    let first = block_on(client.alloc_id()).expect("it is there");
    drop(process);
    let _process = Process::start(dir.path(), &address);
    let second = block_on(client.alloc_id()).expect("it is there again");
    assert!(second > first, "{second} after {first}");
}

/// What cannot be used is told in words and by the exit status.
#[test]
fn a_directory_in_use_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let _process = Process::start(dir.path(), "127.0.0.1:0");
    let mut second = command(dir.path(), "127.0.0.1:0").spawn().expect("it starts");
    let status = second.wait().expect("it ends");
    let mut text = String::new();
    second.stderr.take().expect("it is piped").read_to_string(&mut text).expect("it is text");
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("in use by another process"), "{text}");
}
