//! Stores: who is where.

use raftstore_proto::RegionId;

use super::{
    PdFixture,
    case::{Verdict, ensure, refused, same},
    world::{World, ask, info, stats, wait},
};
use crate::Error;

pub(super) fn a_store_is_found_as_it_was_put(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let store = world.store()?;
    let found = ask(fixture.client().store(store.id))?;
    same("the address", &found.address, &store.address)?;
    same("what becomes of it", &found.lifecycle, &store.lifecycle)?;
    for label in &store.labels {
        ensure!(found.labels.contains(label), "label {label:?} is missing in {:?}", found.labels);
    }
    let all = ask(world.pd.stores())?;
    ensure!(all.contains(&found), "{found:?} is not among all stores");
    ask(world.pd.put_store(store))
}

/// XT-11: a store may come back elsewhere, and is found there alone.
pub(super) fn a_store_moves_to_another_address(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let store = world.store()?;
    let moved = info(store.id, format!("moved-{}.invalid:20160", store.id));
    ask(world.pd.put_store(moved.clone()))?;
    same("the address", &ask(world.pd.store(store.id))?.address, &moved.address)?;
    let heirs = info(world.store_id()?, store.address);
    ask(world.pd.put_store(heirs))
}

/// XT-11: two processes that are not the same store never share an address.
pub(super) fn an_address_belongs_to_one_living_store(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let store = world.store()?;
    let twin = info(world.store_id()?, store.address.clone());
    let error = refused("an address of another's", wait(world.pd.put_store(twin.clone()))?)?;
    ensure!(
        matches!(&error, Error::DuplicateAddress { address, other }
            if *address == store.address && *other == store.id),
        "an address of another's gave {error:?}"
    );
    let other = world.store()?;
    let moving = info(other.id, store.address.clone());
    refused("moving to an address of another's", wait(world.pd.put_store(moving))?)?;
    same("the other's address", &ask(world.pd.store(other.id))?.address, &other.address)?;
    let unknown = refused("a store that was refused", wait(world.pd.store(twin.id))?)?;
    ensure!(matches!(unknown, Error::StoreNotFound(id) if id == twin.id), "it is {unknown:?}");
    Ok(())
}

pub(super) fn a_store_that_nobody_put_is_not_found(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let id = world.store_id()?;
    let error = refused("a store nobody knows", wait(world.pd.store(id))?)?;
    ensure!(matches!(error, Error::StoreNotFound(it) if it == id), "it gave {error:?}");
    Ok(())
}

pub(super) fn stores_report_and_strangers_are_refused(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let store = world.store()?;
    ask(world.pd.store_heartbeat(stats(store.id)))?;
    // Damage in a region that PD does not know asks for nothing.
    let mut damaged = stats(store.id);
    damaged.damaged_regions = vec![RegionId::must(world.id()?)];
    ask(world.pd.store_heartbeat(damaged))?;
    let stranger = stats(world.store_id()?);
    refused("a report of a store nobody knows", wait(world.pd.store_heartbeat(stranger))?).map(drop)
}
