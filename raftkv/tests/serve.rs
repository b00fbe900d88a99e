//! Nodes as whoever runs them meets them: what is refused before anything is touched, what a
//! node tells of itself, and how it ends.
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "nothing is killed here")]
mod nodes;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Output},
};

use nodes::Cluster;

/// Runs a node that does not come to serve.
fn refused(arguments: &[String]) -> (i32, String) {
    let Output { status, stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_raftkv")).args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// XT-11: a directory is one node's, and of one pair of engines; a port is one process's.
#[test]
fn xt_11_what_others_hold_is_refused() {
    let mut cluster = Cluster::of(1);
    let (dir, address) = (cluster.nodes[0].dir.clone(), cluster.nodes[0].address.clone());
    let (status, said) = refused(&cluster.arguments(&dir, "127.0.0.1:0"));
    assert!(status == 2 && said.contains("in use by another raftkv"), "{status}: {said}");
    let other = dir.with_file_name("other");
    let (status, said) = refused(&cluster.arguments(&other, &address));
    assert!(status == 2 && said.contains("--addr"), "{status}: {said}");
    assert!(!other.exists(), "a start that was refused leaves nothing behind");

    assert!(cluster.nodes[0].process.take().unwrap().end().success());
    let mut arguments = cluster.arguments(&dir, "127.0.0.1:0");
    arguments.extend(["--raft-log", "redb"].map(str::to_owned));
    let (status, said) = refused(&arguments);
    assert!(status == 2 && said.contains("--raft-log raft-engine"), "{status}: {said}");
    // It was left as it is.
    cluster.restart(0);
}

/// What a status port answers: its code and content.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn a_node_tells_of_itself() {
    let cluster = Cluster::of(1);
    let process = cluster.nodes[0].process.as_ref().unwrap();
    let address = process.word_after("status on");
    let json = |path: &str| -> serde_json::Value {
        let (code, content) = get(&address, path);
        assert_eq!(code, 200, "{content}");
        serde_json::from_str(&content).unwrap()
    };
    assert_eq!(json("/healthz")["healthy"], true);
    let status = json("/status");
    assert_eq!(status["store"], cluster.nodes[0].store.get());
    assert_eq!((&status["engine"], &status["regions"]), (&"redb".into(), &1.into()));
    let regions = json("/regions");
    let id = regions[0]["region"].as_u64().unwrap();
    assert_eq!(json(&format!("/region/{id}"))["peers"][0]["role"], "voter");
    assert_eq!(get(&address, "/region/999999").0, 404);
    assert_eq!(get(&address, "/nothing").0, 404);
    let (code, metrics) = get(&address, "/metrics");
    assert!(code == 200 && metrics.contains("# TYPE raftkv_server_accepted counter"));
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let said = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(|it| (*it).to_owned()).collect();
        refused(&arguments)
    };
    let (status, words) = said(&["serve"]);
    assert!(status == 2 && words.contains("--pd"), "{status}: {words}");
    let (status, words) = said(&["serve", "--pd", "127.0.0.1:1", "--config", "no-such-file"]);
    assert!(status == 2 && words.contains("no-such-file"), "{status}: {words}");
}
