//! Servers that are killed and started again.

use std::collections::BTreeSet;

use bytes::Bytes;
use pd_client::{Error, OrderAction, PdClient, PdCluster, RegionRoute};
use raftstore_proto::{Peer, PeerId, StoreId};

use crate::{
    reported::{heartbeat, stats},
    world::{World, block_on, first_region, info},
};

/// Ids that were given out are gone for good, whenever the server is killed.
#[test]
fn ids_never_repeat_over_kills() {
    let mut world = World::new();
    let client = world.client();
    let mut seen = BTreeSet::new();
    for life in 0..4 {
        for _ in 0..700 {
            let id = block_on(client.alloc_id()).expect("the server is there");
            assert!(seen.insert(id), "id {id} was given out twice, the second time in life {life}");
        }
        if life == 1 {
            world.stop()
        } else {
            world.kill()
        }
        world.start();
    }
}

/// Stores and the first region are known at once, regions from their leaders' reports.
#[test]
fn stores_outlive_a_kill_and_regions_are_reported_again() {
    let mut world = World::new();
    let client = world.client();
    let region = first_region(2, 3, 1);
    assert!(!block_on(client.is_cluster_bootstrapped()).expect("the server is there"));
    block_on(client.bootstrap_cluster(info(1, "a:1"), region.clone())).expect("it is the first");
    block_on(client.put_store(info(4, "b:1"))).expect("a new address");
    let mut grown = region.clone();
    grown.epoch.conf_ver = 2;
    grown.peers.push(Peer::learner(PeerId::must(5), StoreId::must(4)));
    for life in 0..3 {
        assert!(block_on(client.is_cluster_bootstrapped()).expect("the server is there"));
        assert_eq!(block_on(client.store(StoreId::must(4))).expect("it is known"), info(4, "b:1"));
        let again = block_on(client.bootstrap_cluster(info(1, "a:1"), region.clone()));
        assert!(matches!(again, Err(Error::AlreadyBootstrapped)));
        block_on(client.store_heartbeat(stats(StoreId::must(1)))).expect("it is known");
        // The report after a forced order is taken in once the order has come back.
        let id = region.id;
        let leader = grown.peers[0];
        let order = OrderAction::TransferLeader(grown.peers[1]);
        let transfer = order.clone();
        world
            .server()
            .with_core(move |core, now_ms| core.force_order(now_ms, id, transfer))
            .expect("the disk is good")
            .expect("the region is known");
        block_on(client.region_heartbeat(heartbeat(grown.clone(), 5 + life))).expect("it is sent");
        let given = block_on(client.next_order(leader.store)).expect("the server is there");
        assert_eq!((given.region, given.target, given.action), (id, leader, order));
        let expected = RegionRoute { region: grown.clone(), leader: Some(leader) };
        let found = block_on(client.region_by_key(Bytes::from_static(b"k")));
        assert_eq!(found.expect("the server is there"), Some(expected.clone()));
        let found = block_on(client.scan_regions(Bytes::new(), Bytes::new(), 9));
        assert_eq!(found.expect("the server is there"), [expected]);
        world.kill();
        world.start();
    }
}
