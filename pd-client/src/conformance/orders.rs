//! What PD wants done, and how it tells.

use bytes::Bytes;
use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerId, RegionId};

use super::{
    PdFixture,
    case::{Failure, Verdict, same},
    world::{World, ask, heartbeat, wait},
};
use crate::{Error, Order, OrderAction, SplitPolicy};

/// Has PD want something of the region, and gives what arrives.
fn ordered(fixture: &dyn PdFixture, world: &mut World, action: &OrderAction) -> Verdict<Order> {
    if !fixture.force_order(world.region.id, action.clone()) {
        return Err(Failure::Skipped("PD cannot be told what to want"));
    }
    let (region, leader, term) = (world.region.clone(), world.leader, world.next_term());
    ask(world.pd.region_heartbeat(heartbeat(region, leader, term)))?;
    ask(world.pd.next_order(leader.store))
}

pub(super) fn every_kind_of_order_arrives_as_it_was_given(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let store = world.store()?;
    let learner = Peer::learner(PeerId::must(world.id()?), store.id);
    let voter = Peer::voter(learner.id, learner.store);
    let change = |kind, peer| PeerChange { kind, peer };
    let keys = vec![Bytes::from_static(b"d"), Bytes::from_static(b"m")];
    let split = |keys, policy| OrderAction::SplitRegion { keys, policy };
    let actions = [
        OrderAction::ChangePeer(change(ChangeKind::AddLearner, learner)),
        OrderAction::ChangePeer(change(ChangeKind::AddNode, voter)),
        OrderAction::ChangePeer(change(ChangeKind::RemoveNode, world.leader)),
        OrderAction::ChangePeerV2(vec![
            change(ChangeKind::AddNode, voter),
            change(ChangeKind::AddLearner, world.leader),
        ]),
        OrderAction::TransferLeader(voter),
        split(keys, SplitPolicy::Keys),
        split(Vec::new(), SplitPolicy::Scan),
        split(Vec::new(), SplitPolicy::Approximate),
    ];
    for action in actions {
        let order = ordered(fixture, &mut world, &action)?;
        let expected = Order {
            region: world.region.id,
            epoch: world.region.epoch,
            target: world.leader,
            action,
        };
        same("the order", &order, &expected)?;
    }
    Ok(())
}

pub(super) fn an_order_is_repeated_until_it_has_happened(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let store = world.store()?;
    let peer = Peer::learner(PeerId::must(world.id()?), store.id);
    let change = PeerChange { kind: ChangeKind::AddLearner, peer };
    let action = OrderAction::ChangePeer(change);
    let first = ordered(fixture, &mut world, &action)?;
    for _ in 0..3 {
        let (region, leader, term) = (world.region.clone(), world.leader, world.next_term());
        ask(world.pd.region_heartbeat(heartbeat(region, leader, term)))?;
        same("the order again", &ask(world.pd.next_order(leader.store))?, &first)?;
    }
    // Seen to have happened, it is not repeated: what arrives next is what comes next.
    let leader = world.leader;
    world.region = world.with_peer(peer);
    let region = world.region.clone();
    world.report(&region, leader)?;
    let transfer = OrderAction::TransferLeader(peer);
    let order = ordered(fixture, &mut world, &transfer)?;
    same("the next order", &order.action, &transfer)
}

/// A region nobody knows cannot be spread over stores.
pub(super) fn what_cannot_be_spread_is_named(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let id = RegionId::must(world.id()?);
    match wait(world.pd.scatter_regions(vec![id], "group".to_owned()))? {
        Ok(left_out) => same("what was left out", &left_out, &vec![id]),
        // Some say so in words.
        Err(Error::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
