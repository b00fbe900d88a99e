//! Directories that a server must not start on, and what is left of them.

use std::{fs, net::TcpListener};

use pd_client::{
    PdClient,
    grpc::{ServeError, ServeOptions, serve},
};
use raftstore_proto::ClusterId;

use crate::world::{World, block_on};

fn start(options: ServeOptions) -> Result<(), ServeError> {
    serve(TcpListener::bind(("127.0.0.1", 0)).expect("a free port"), options).map(drop)
}

#[test]
fn a_directory_serves_one_at_a_time_and_one_cluster() {
    let mut world = World::new();
    assert!(matches!(start(world.options()), Err(ServeError::Locked(_))));
    world.stop();
    let mut other = world.options();
    other.cluster = Some(ClusterId::must(8));
    let refused = start(other).expect_err("another cluster's");
    assert!(matches!(refused, ServeError::WrongCluster { ours, theirs }
        if ours.get() == 8 && theirs.get() == 7));
    let mut unnamed = world.options();
    unnamed.cluster = None;
    start(unnamed).expect("it is known whose it is");
}

/// Bytes that are not what was written are told, and left as they are.
#[test]
fn damage_is_told_and_nothing_is_changed() {
    let mut world = World::new();
    let client = world.client();
    let id = block_on(client.alloc_id()).expect("the server is there");
    world.kill();
    for name in ["state", "promises"] {
        let path = world.dir.path().join(name);
        let good = fs::read(&path).expect("it was written");
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            for bytes in [&bad[..], &good[..at]] {
                fs::write(&path, bytes).expect("it can be written");
                let refused = start(world.options()).expect_err("it is damaged");
                assert!(
                    matches!(&refused, ServeError::Damaged { path: told, .. } if *told == path)
                );
                assert_eq!(fs::read(&path).expect("it is there"), bytes);
            }
        }
        fs::write(&path, good).expect("it can be written");
    }
    // One of the two without the other is damage as well.
    for name in ["state", "promises"] {
        let path = world.dir.path().join(name);
        let good = fs::read(&path).expect("it was written");
        fs::remove_file(&path).expect("it is there");
        let refused = start(world.options()).expect_err("a part is missing");
        assert!(matches!(&refused, ServeError::Damaged { path: told, .. } if *told == path));
        fs::write(&path, good).expect("it can be written");
    }
    world.start();
    assert!(block_on(client.alloc_id()).expect("the server is there") > id);
}
