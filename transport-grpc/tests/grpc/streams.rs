//! Streams of messages between stores that keep to the rules.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use pd_client::{
    PdClient as _, StoreInfo, StoreLifecycle,
    mock::{MockPd, PdConfig},
};
use raftstore_grpc::ServerConfig;
use raftstore_proto::{ClusterId, Epoch, MessageKind, Region, RegionId, StoreId};
use tonic::{Status, server::NamedService, service::Routes};
use transport_grpc::{GrpcConfig, PdResolver, Refusal};
use transport_traits::{SendError, StoreResolver, Transport};

use crate::common::{
    Addresses, CLUSTER, End,
    log::{Node, ONE, TWO, beat, message, peer},
    raw, wait_until,
};

pub fn pair(config: &GrpcConfig) -> (Node, Node) {
    let addresses = Arc::<Addresses>::default();
    let one = Node::new(End::plain(config.clone(), &addresses), ONE);
    let two = Node::new(End::plain(config.clone(), &addresses), TWO);
    addresses.set(ONE, one.end.address);
    addresses.set(TWO, two.end.address);
    (one, two)
}

/// The service for clients: of the same name, and unwilling.
#[derive(Clone)]
struct Clients;

impl NamedService for Clients {
    const NAME: &'static str = "tikvpb.Tikv";
}

impl tower::Service<http::Request<tonic::body::Body>> for Clients {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        let mut status = Status::unavailable("for clients");
        status.metadata_mut().insert("raftstore-refused", "clients".parse().expect("it is text"));
        ready(Ok(status.into_http()))
    }
}

#[test]
fn the_calls_between_stores_win_over_a_service_of_the_same_name() {
    let addresses = Arc::<Addresses>::default();
    let resolver = Arc::clone(&addresses) as Arc<dyn StoreResolver>;
    let mut one = Node::new(End::plain(GrpcConfig::default(), &addresses), ONE);
    let server = ServerConfig::default();
    let end = End::start(GrpcConfig::default(), server, CLUSTER, resolver, Routes::new(Clients));
    let two = Node::new(end, TWO);
    addresses.set(TWO, two.end.address);
    one.reach(&two, ONE, TWO);
    let runtime = one.end.transport.runtime();
    let call = raw::call(two.end.address, "/tikvpb.Tikv/RawGet", &[], raw::body(&[]));
    assert_eq!(runtime.block_on(call).as_deref(), Some("clients"));
    assert_eq!(two.counters().refused, [0; Refusal::ALL.len()]);
}

/// RAFT-22: a full queue costs messages, each of which its sender hears of at once; the
/// connection stays.
#[test]
fn raft_22_a_full_queue_costs_no_connection() {
    let config = GrpcConfig { queue_messages_max: 4, ..GrpcConfig::default() };
    let (mut one, two) = pair(&config);
    one.reach(&two, ONE, TWO);
    let before = one.counters();
    let mut refused = 0;
    for _ in 0..100 {
        match one.sender.send(beat(ONE, TWO)) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, SendError::Full(TWO));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(one.counters().full_messages - before.full_messages, refused);
    one.sender.flush();
    one.reach(&two, ONE, TWO);
    assert_eq!(one.counters().opened_streams, before.opened_streams);
}

#[test]
fn a_message_at_the_limit_passes_and_one_over_it_is_refused_here() {
    let frame_bytes_max = 1 << 16;
    let batch_bytes_max = frame_bytes_max;
    let config = GrpcConfig { frame_bytes_max, batch_bytes_max, ..GrpcConfig::default() };
    let config = GrpcConfig { snapshot_chunk_bytes: 1 << 10, ..config };
    let (mut one, two) = pair(&config);
    let sized = |extra: usize| {
        let mut message = message(MessageKind::Append, ONE, TWO);
        message.raft_mut().context = vec![7; extra].into();
        message
    };
    let most = frame_bytes_max - 1024 - sized(0).encoded_len_hint();
    let sent = sized(most);
    one.sender.send(sent.clone()).expect("it is allowed");
    let refused = one.sender.send(sized(most + 1));
    assert!(matches!(refused, Err(SendError::TooLarge { .. })), "{refused:?}");
    one.sender.flush();
    wait_until("delivery", || !two.log.told().messages.is_empty());
    assert_eq!(two.log.told().messages[0].0, sent);
    assert_eq!(one.counters().too_large_messages, 1);
    // Both at once are longer than a frame, and go in two.
    one.sender.send(sized(most)).expect("it is allowed");
    one.sender.send(sized(most)).expect("it is allowed");
    one.sender.flush();
    wait_until("delivery", || two.log.told().messages.len() == 3);
}

#[test]
fn messages_wait_for_others_if_that_is_wanted() {
    let batch_wait = std::time::Duration::from_millis(20);
    let (mut one, two) = pair(&GrpcConfig { batch_wait, ..GrpcConfig::default() });
    one.reach(&two, ONE, TWO);
    let before = one.counters();
    for _ in 0..50 {
        one.sender.send(beat(ONE, TWO)).expect("there is room");
        one.sender.flush();
    }
    let sent = || one.counters().sent_messages - before.sent_messages;
    wait_until("sending", || sent() >= 50);
    let batches = one.counters().sent_batches - before.sent_batches;
    assert!(batches < sent(), "{batches} batches of {} messages", sent());
}

/// What a store of another cluster sends is not looked at, and it is told of the loss.
#[test]
fn a_store_of_another_cluster_is_refused() {
    let addresses = Arc::<Addresses>::default();
    let resolver = Arc::clone(&addresses) as Arc<dyn StoreResolver>;
    let (config, server) = (GrpcConfig::default(), ServerConfig::default());
    let other = ClusterId::must(CLUSTER.get() + 1);
    let end = End::start(config, server, other, resolver, Routes::default());
    let mut stranger = Node::new(end, ONE);
    let two = Node::new(End::plain(GrpcConfig::default(), &addresses), TWO);
    addresses.set(TWO, two.end.address);
    stranger.sender.send(beat(ONE, TWO)).expect("there is room");
    stranger.sender.flush();
    wait_until("the loss", || !stranger.log.told().unreachable.is_empty());
    assert_eq!(two.counters().refused_for(Refusal::Cluster), 1);
    assert_eq!(stranger.counters().refused_connects, 1);
    assert!(two.log.told().messages.is_empty());
}

/// An address may be that of another store by now: nothing meant for one is given to another.
#[test]
fn another_store_at_the_address_is_not_spoken_to() {
    let (mut one, two) = pair(&GrpcConfig::default());
    let three = StoreId::must(3);
    let addresses = Arc::<Addresses>::default();
    addresses.set(three, two.end.address);
    let mut lost = Node::new(End::plain(GrpcConfig::default(), &addresses), ONE);
    lost.sender.send(beat(ONE, three)).expect("there is room");
    lost.sender.flush();
    wait_until("the loss", || !lost.log.told().unreachable.is_empty());
    assert_eq!(two.counters().refused_for(Refusal::Store), 1);
    one.reach(&two, ONE, TWO);
    assert!(two.log.told().messages.iter().all(|(message, _)| *message == beat(ONE, TWO)));
}

/// Before a store is connected, and after it has gone, others are told that there is none.
#[test]
fn without_a_store_streams_are_refused() {
    let (mut one, two) = pair(&GrpcConfig::default());
    one.reach(&two, ONE, TWO);
    let Node { end, log, sender, .. } = two;
    drop(sender);
    assert_eq!(Arc::strong_count(&log), 1, "the transport holds the inbox of a store that went");
    one.sender.send(beat(ONE, TWO)).expect("the connection has not been missed");
    one.sender.flush();
    wait_until("the refusal", || {
        let _ = one.sender.send(beat(ONE, TWO));
        one.sender.flush();
        end.transport.counters().refused_for(Refusal::NotServing) > 0
    });
    // Another life on the same transport is reached without anything being done about it.
    let again = Node::new(end, TWO);
    one.reach(&again, ONE, TWO);
}

/// The first region of a cluster.
fn region() -> Region {
    Region {
        id: RegionId::must(1),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![peer(TWO)],
    }
}

#[test]
fn stores_are_found_by_pd_and_found_again_when_they_move() {
    let pd = MockPd::new(CLUSTER, PdConfig::default());
    let resolver = Arc::new(PdResolver::new(Arc::new(pd.clone())));
    let addresses = Arc::<Addresses>::default();
    let find = Arc::clone(&resolver) as Arc<dyn StoreResolver>;
    let (config, server) = (GrpcConfig::default(), ServerConfig::default());
    let mut one = Node::new(End::start(config, server, CLUSTER, find, Routes::default()), ONE);
    let runtime = one.end.transport.runtime();
    let announce = |address: std::net::SocketAddr| {
        let info = StoreInfo {
            id: TWO,
            address: address.to_string(),
            labels: Vec::new(),
            lifecycle: StoreLifecycle::Up,
        };
        runtime.block_on(async {
            if !pd.is_cluster_bootstrapped().await? {
                pd.bootstrap_cluster(info.clone(), region()).await?;
            }
            pd.put_store(info).await
        })
    };
    let mut two = Node::new(End::plain(GrpcConfig::default(), &addresses), TWO);
    announce(two.end.address).expect("it is new");
    one.reach(&two, ONE, TWO);
    two.end.stop();
    let moved = Node::new(End::plain(GrpcConfig::default(), &addresses), TWO);
    announce(moved.end.address).expect("it is the same store");
    one.reach(&moved, ONE, TWO);
    let (lookups, _) = resolver.lookups();
    assert!((2..50).contains(&lookups), "{lookups} lookups");
}
