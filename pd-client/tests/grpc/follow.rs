//! Clients find the PD that leads, and never wait for ever.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use pd_client::{
    Error, PdClient,
    grpc::{ClientOptions, GrpcPdClient, PdServer, ServeOptions, serve},
    mock::PdConfig,
};
use tempfile::TempDir;

use crate::world::{CLUSTER, World, block_on, patient};

/// A deadline that is meant to be met.
fn impatient() -> ClientOptions {
    ClientOptions {
        attempt_timeout: Duration::from_millis(100),
        deadline: Duration::from_millis(300),
        ..ClientOptions::default()
    }
}

/// A PD that says another one leads.
fn follower(dir: &TempDir, leader: SocketAddr) -> PdServer {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let options = ServeOptions {
        cluster: Some(CLUSTER),
        config: PdConfig::manual(),
        advertise: Some(leader.to_string()),
        ..ServeOptions::new(dir.path())
    };
    serve(listener, options).expect("the directory is good")
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}

#[test]
fn questions_go_to_the_leader_through_its_restarts() {
    let mut leader = World::new();
    let dir = tempfile::tempdir().expect("a directory");
    let follower = follower(&dir, leader.address());
    let endpoints = [nobody().to_string(), follower.address().to_string()];
    let client = GrpcPdClient::connect(&endpoints, patient()).expect("one of them answers");
    let ids = |world: &World| {
        world.server().with_core(|core, _| core.alloc_id()).expect("the disk is good")
    };
    let mut last = 0;
    for _ in 0..3 {
        let id = block_on(client.alloc_id()).expect("the leader is there");
        let next = ids(&leader);
        assert!(id > last && next == id + 1, "{id} is not of the leader, which gave {next}");
        last = next;
        leader.kill();
        leader.start();
    }
    follower.stop();
    assert!(block_on(client.alloc_id()).is_ok(), "the leader alone is enough");
}

#[test]
fn who_is_not_there_is_not_waited_for() {
    let mut world = World::new();
    let client =
        GrpcPdClient::connect(&world.endpoints(), impatient()).expect("the server is there");
    world.kill();
    assert!(matches!(block_on(client.alloc_id()), Err(Error::Unavailable { .. })));
    world.start();
    // Back, it is found; how soon depends on when the connection is tried again.
    while block_on(client.alloc_id()).is_err() {}
    // Somebody who takes connections and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let endpoint = silent.local_addr().expect("it is bound").to_string();
    for endpoint in [endpoint, nobody().to_string()] {
        let error = GrpcPdClient::connect(&[endpoint], impatient()).expect_err("nobody answers");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
}

#[test]
fn endpoints_that_cannot_be_are_refused() {
    let refused = |endpoints: &[&str]| {
        let endpoints: Vec<String> = endpoints.iter().map(|&it| it.to_owned()).collect();
        GrpcPdClient::connect(&endpoints, impatient()).expect_err("no good").to_string()
    };
    assert!(refused(&[]).contains("no address"));
    assert!(refused(&["a b:1"]).contains("a b:1"));
    assert!(refused(&["127.0.0.1:1", "http://127.0.0.1:1/"]).contains("twice"));
}

/// Two PDs that do not serve the same cluster are no PDs of one.
#[test]
fn endpoints_of_different_clusters_are_refused() {
    let world = World::new();
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let other = serve(listener, ServeOptions::new(dir.path())).expect("the directory is good");
    let endpoints = [world.address().to_string(), other.address().to_string()];
    let error = GrpcPdClient::connect(&endpoints, patient()).expect_err("two clusters");
    assert!(matches!(error, Error::WrongCluster { ours, theirs }
        if ours == CLUSTER && theirs == other.cluster()));
}

/// Another cluster's PD at the place of ours is noticed, and final.
#[test]
fn another_cluster_at_the_same_address_is_noticed() {
    let mut world = World::new();
    let client = world.client();
    world.kill();
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind(world.address()).expect("the address is free");
    let other = serve(listener, ServeOptions::new(dir.path())).expect("the directory is good");
    let error = block_on(client.alloc_id()).expect_err("another cluster");
    assert!(matches!(error, Error::WrongCluster { theirs, .. } if theirs == other.cluster()));
}
