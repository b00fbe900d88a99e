//! Ids, and the beginning of a cluster.

use std::{collections::BTreeSet, thread};

use bytes::Bytes;
use raftstore_proto::{Peer, PeerId, StoreId};

use super::{
    PdFixture,
    case::{Failure, Verdict, ensure, refused, same},
    world::{World, ask, first, info, wait},
};
use crate::Error;

pub(super) fn ids_are_new_to_every_client(fixture: &dyn PdFixture) -> Verdict {
    let clients = [fixture.client(), fixture.client()];
    let mut seen = BTreeSet::new();
    for round in 0..100 {
        let id = ask(clients[round % 2].alloc_id())?;
        ensure!(id != 0, "0 is no id");
        ensure!(seen.insert(id), "id {id} was given out twice");
    }
    Ok(())
}

/// BOOT-01: of several stores that start at once one makes the first region, and all can
/// find out whether it was theirs.
pub(super) fn one_of_many_bootstraps(fixture: &dyn PdFixture) -> Verdict {
    if !fixture.is_new() {
        return Err(Failure::Skipped("the cluster may be bootstrapped already"));
    }
    let clients: Vec<_> = (0..6).map(|_| fixture.client()).collect();
    let starts: Vec<Verdict<bool>> = thread::scope(|scope| {
        let start = |pd: std::sync::Arc<dyn crate::PdCluster>| {
            let (store, region) = first(&*pd)?;
            let outcome = wait(pd.bootstrap_cluster(store.clone(), region.clone()))?;
            ensure!(
                matches!(outcome, Ok(()) | Err(Error::AlreadyBootstrapped)),
                "bootstrapping ended with {outcome:?}"
            );
            ask(pd.put_store(store))?;
            let found = ask(pd.region_by_key(Bytes::new()))?;
            let is_mine = found.is_some_and(|route| route.region == region);
            same("whose region it is", &is_mine, &outcome.is_ok())?;
            Ok(is_mine)
        };
        let starts: Vec<_> = clients.into_iter().map(|pd| scope.spawn(move || start(pd))).collect();
        let panicked = |_| Err(Failure::Failed("a start panicked".to_owned()));
        starts.into_iter().map(|start| start.join().unwrap_or_else(panicked)).collect()
    });
    let mut winners = 0;
    for start in starts {
        winners += usize::from(start?);
    }
    same("stores that made the first region", &winners, &1)?;
    same("stores known", &ask(fixture.client().stores())?.len(), &6)
}

pub(super) fn bootstrap_happens_once(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    ensure!(ask(world.pd.is_cluster_bootstrapped())?, "the cluster is not bootstrapped");
    let before = ask(world.pd.region_by_key(Bytes::new()))?;
    let (store, region) = first(&*world.pd)?;
    let again = refused("a second bootstrap", wait(world.pd.bootstrap_cluster(store, region))?)?;
    ensure!(matches!(again, Error::AlreadyBootstrapped), "a second bootstrap gave {again:?}");
    let after = ask(world.pd.region_by_key(Bytes::new()))?;
    same("the region of the empty key", &after, &before)
}

pub(super) fn the_first_region_is_one_voter_with_every_key(fixture: &dyn PdFixture) -> Verdict {
    if !fixture.is_new() {
        return Err(Failure::Skipped("the cluster may be bootstrapped already"));
    }
    let pd = fixture.client();
    let (store, region) = first(&*pd)?;
    refused("a store before the first region", wait(pd.put_store(store.clone()))?)?;
    let mut narrow = region.clone();
    narrow.end_key = Bytes::from_static(b"m");
    let mut crowd = region.clone();
    let peer = PeerId::must(ask(pd.alloc_id())?);
    crowd.peers.push(Peer::voter(peer, StoreId::must(ask(pd.alloc_id())?)));
    let mut elsewhere = region.clone();
    elsewhere.peers[0].store = StoreId::must(ask(pd.alloc_id())?);
    for (what, wrong) in
        [("a part of the keys", narrow), ("two voters", crowd), ("another store's", elsewhere)]
    {
        refused(what, wait(pd.bootstrap_cluster(store.clone(), wrong))?)?;
    }
    ensure!(!ask(pd.is_cluster_bootstrapped())?, "a refused region bootstrapped the cluster");
    ask(pd.bootstrap_cluster(store, region))
}

/// What PD said before it ended without a warning holds afterwards.
pub(super) fn promises_hold_over_a_restart(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let mut seen = BTreeSet::new();
    let store = world.store()?;
    for _ in 0..3 {
        for _ in 0..10 {
            let id = world.id()?;
            ensure!(seen.insert(id), "id {id} was given out twice");
        }
        if !fixture.restart() {
            return Err(Failure::Skipped("PD cannot be restarted"));
        }
        ensure!(ask(world.pd.is_cluster_bootstrapped())?, "the cluster is not bootstrapped");
        same("the store", &ask(world.pd.store(store.id))?, &store)?;
        let (region, leader) = (world.region.clone(), world.leader);
        world.report(&region, leader)?;
    }
    Ok(())
}

pub(super) fn the_cluster_has_a_configuration(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let config = ask(world.pd.cluster_config())?;
    same("its id", &config.cluster, &world.pd.cluster_id())?;
    ensure!(config.max_replicas > 0, "regions shall have no replicas");
    // A store of another name, so that what is put twice is refused for its address alone.
    let id = world.store_id()?;
    let nowhere = wait(world.pd.put_store(info(id, String::new())))?;
    refused("a store without an address", nowhere).map(drop)
}
