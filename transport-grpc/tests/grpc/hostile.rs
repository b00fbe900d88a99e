//! Peers that do not keep to the rules: refused for a counted reason, and nobody else notices.

use std::{io::Write as _, net::TcpStream, sync::Arc, time::Duration};

use axum::body::Body;
use raftstore_grpc::ServerConfig;
use raftstore_proto::{MessageKind, RaftMessage, StoreId};
use tonic::service::Routes;
use transport_grpc::{GrpcConfig, Refusal};
use transport_traits::StoreResolver;

use crate::{
    common::{
        Addresses, CLUSTER, End,
        log::{Node, ONE, TWO, announcement, beat, message},
        raw::{self, BATCH_RAFT, greeting},
        wait_until,
    },
    streams::pair,
};

const THREE: StoreId = StoreId::must(3);

/// Makes a call to store 2, and gives what it was refused for.
fn call(two: &Node, headers: &[(&'static str, String)], body: Body) -> Option<String> {
    let call = raw::call(two.end.address, BATCH_RAFT, headers, body);
    two.end.transport.runtime().block_on(call)
}

#[test]
fn a_call_without_a_greeting_or_with_a_wrong_one_is_refused() {
    let (mut one, two) = pair(&GrpcConfig::default());
    let messages = || raw::body(&[raw::batch(&[beat(ONE, TWO)])]);
    let with = |key: &str, value: &str| {
        let mut headers = greeting(ONE, TWO);
        headers.iter_mut().filter(|(name, _)| *name == key).for_each(|header| {
            header.1 = value.to_owned();
        });
        headers
    };
    let cases = [
        (Vec::new(), "unidentified"),
        (with("raftstore-from", "0"), "unidentified"),
        (with("raftstore-connection", "64"), "unidentified"),
        (with("raftstore-cluster", "../../etc"), "unidentified"),
        (with("raftstore-protocol", "2"), "protocol"),
        (with("raftstore-cluster", "78"), "cluster"),
        (with("raftstore-to", "3"), "store"),
    ];
    for (headers, reason) in &cases {
        assert_eq!(call(&two, headers, messages()).as_deref(), Some(*reason));
    }
    assert!(two.log.told().messages.is_empty());
    assert_eq!(two.counters().refused_for(Refusal::Unidentified), 4);
    assert_eq!(call(&two, &greeting(ONE, TWO), messages()), None);
    assert_eq!(two.log.told().messages.len(), 1);
    one.reach(&two, ONE, TWO);
}

#[test]
fn messages_that_are_not_the_callers_or_not_for_this_store_end_the_stream() {
    let (mut one, two) = pair(&GrpcConfig::default());
    let good = beat(ONE, TWO);
    let nobody = RaftMessage::default();
    for (bad, reason) in [
        (beat(THREE, TWO), "forged_sender"),
        (nobody, "forged_sender"),
        (beat(ONE, THREE), "misdirected"),
    ] {
        let frames = [
            raw::batch(&[good.clone(), bad, good.clone()]),
            raw::batch(std::slice::from_ref(&good)),
        ];
        let refused = call(&two, &greeting(ONE, TWO), raw::body(&frames));
        assert_eq!(refused.as_deref(), Some(reason));
    }
    // What came before was in order.
    assert_eq!(two.log.told().messages.len(), 3);
    one.reach(&two, ONE, TWO);
}

#[test]
fn messages_that_never_come_over_a_network_are_passed_over() {
    let (_, two) = pair(&GrpcConfig::default());
    let mut bad: Vec<_> = MessageKind::ALL
        .iter()
        .filter(|kind| kind.is_local())
        .map(|kind| message(*kind, ONE, TWO))
        .collect();
    let local = bad.len() as u64;
    bad.push(announcement(ONE, TWO));
    bad.push(beat(ONE, TWO));
    assert_eq!(call(&two, &greeting(ONE, TWO), raw::body(&[raw::batch(&bad)])), None);
    assert_eq!(two.log.told().messages.len(), 1);
    assert_eq!(two.counters().refused_for(Refusal::Local), local);
    assert_eq!(two.counters().refused_for(Refusal::NoSnapshot), 1);
}

/// RAFT-06, RAFT-07: bytes that are no message end their stream, not the process.
#[test]
fn garbage_ends_its_stream_alone() {
    let (mut one, two) = pair(&GrpcConfig::default());
    one.reach(&two, ONE, TWO);
    let good = raw::batch(&[beat(ONE, TWO)]);
    let mut compressed = good.clone();
    compressed[0] = 1;
    let giant = [&[0][..], &u32::MAX.to_be_bytes(), &[0; 100]].concat();
    let cut = good[..good.len() - 1].to_vec();
    let mut dear = message(MessageKind::Append, THREE, TWO);
    dear.raft_mut().entries = vec![Default::default(); 200_000].into();
    let bad = [
        raw::frame(b"\xff\xff\xff\xff"),
        raw::frame(&[0x0a, 0x05, 1, 2]),
        vec![0xff; 4096],
        compressed,
        giant,
        cut,
        raw::batch(&[dear]),
    ];
    for (number, bad) in bad.iter().enumerate() {
        let before = two.log.told().messages.len();
        let frames = [raw::batch(&[beat(THREE, TWO)]), bad.clone()];
        call(&two, &greeting(THREE, TWO), raw::body(&frames));
        assert_eq!(two.log.told().messages.len(), before + 1, "number {number}");
    }
    assert_eq!(two.counters().refused_for(Refusal::Malformed), 3);
    assert_eq!(two.counters().refused_for(Refusal::TooLarge), 1);
    // The stream that was there all the while is the same.
    one.reach(&two, ONE, TWO);
    assert_eq!(one.counters().opened_streams, 1);
}

#[test]
fn a_stream_that_brings_nothing_is_ended() {
    let first_message_timeout = Duration::from_millis(20);
    let idle_timeout = Duration::from_millis(20);
    let config = GrpcConfig { first_message_timeout, idle_timeout, ..GrpcConfig::default() };
    let (mut one, two) = pair(&config);
    let (_open, body) = raw::open_body(Vec::new());
    assert_eq!(call(&two, &greeting(ONE, TWO), body).as_deref(), Some("slow"));
    // Half a frame is no message either.
    let half = raw::batch(&[beat(ONE, TWO)])[..8].to_vec();
    let (_open, body) = raw::open_body(half);
    assert_eq!(call(&two, &greeting(ONE, TWO), body).as_deref(), Some("slow"));
    // One that has brought something is ended in order, and opened again when it is needed:
    // nothing is lost, and nobody is told of a loss.
    one.reach(&two, ONE, TWO);
    wait_until("the end of the silence", || two.counters().idle_streams > 0);
    one.reach(&two, ONE, TWO);
    assert_eq!(one.counters().broken_streams, 0);
}

#[test]
fn streams_are_bounded_and_the_same_one_opened_again_replaces_the_first() {
    let (_, two) = pair(&GrpcConfig { streams_max: 2, ..GrpcConfig::default() });
    let runtime = two.end.transport.runtime();
    let open = |from: StoreId| {
        let (sender, body) = raw::open_body(raw::batch(&[beat(from, TWO)]));
        let address = two.end.address;
        let call = async move { raw::call(address, BATCH_RAFT, &greeting(from, TWO), body).await };
        (sender, runtime.spawn(call))
    };
    let (_first, ended) = open(ONE);
    let (_second, _task) = open(THREE);
    wait_until("both streams", || two.counters().accepted_streams == 2);
    let four = StoreId::must(4);
    let refused = call(&two, &greeting(four, TWO), raw::body(&[raw::batch(&[beat(four, TWO)])]));
    assert_eq!(refused.as_deref(), Some("too_many_streams"));
    let (_again, _task) = open(ONE);
    wait_until("the stream that replaces", || two.counters().replaced_streams == 1);
    assert_eq!(runtime.block_on(ended).expect("it does not panic"), None, "it was not refused");
}

/// Connections that say nothing, or something else, take a bounded number of places for a
/// bounded time.
#[test]
fn silent_and_foreign_connections_are_bounded_and_dropped() {
    let addresses = Arc::<Addresses>::default();
    let resolver = Arc::clone(&addresses) as Arc<dyn StoreResolver>;
    let server = ServerConfig {
        connections_max: 8,
        handshake_timeout: Duration::from_millis(300),
        ..ServerConfig::default()
    };
    let end = End::start(GrpcConfig::default(), server, CLUSTER, resolver, Routes::default());
    let two = Node::new(end, TWO);
    addresses.set(TWO, two.end.address);
    let connect = || TcpStream::connect(two.end.address).expect("it listens");
    let figures = || two.end.server.figures();

    let silent: Vec<_> = (0..100).map(|_| connect()).collect();
    wait_until("all to be seen", || {
        let figures = figures();
        figures.refused_full + figures.refused_slow + figures.connections >= 100
    });
    assert!(figures().connections <= 8);
    assert!(figures().refused_full > 0);
    wait_until("all to be dropped", || figures().connections == 0);
    drop(silent);

    let mut foreign = connect();
    foreign.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it takes a few bytes");
    wait_until("the foreigner to be seen", || figures().refused_protocol == 1);
    let mut gone = connect();
    gone.write_all(b"PRI * HTT").expect("it takes a few bytes");
    drop(gone);
    wait_until("the one that went to be seen", || figures().refused_ended == 1);

    let mut one = Node::new(End::plain(GrpcConfig::default(), &addresses), ONE);
    one.reach(&two, ONE, TWO);
}
