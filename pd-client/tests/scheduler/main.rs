//! The in-process PD brings toy clusters into shape, and then leaves them alone.

mod balance;
mod faults;
mod joint;
mod limits;
mod place;
mod toy;

use pd_client::{
    OrderAction, StoreLifecycle,
    mock::{OperatorReason, PdConfig},
};
use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerId, PeerRole, RegionId};

use self::toy::{Given, Toy, config, store};

const FIRST: RegionId = RegionId::must(1000);

fn still() -> PdConfig {
    PdConfig { balance_leaders: false, balance_regions: false, ..config() }
}

/// A region on stores 1, 2 and 3 of `stores`, and nothing under way.
fn three_of(stores: u64, config: PdConfig) -> Toy {
    let mut toy = Toy::new(config, stores, 1);
    toy.run_until_rest(200);
    toy.check_complete(3);
    toy.executed.clear();
    toy
}

/// One voter grows to three: learner, snapshot, promotion, one after the other.
#[test]
fn one_replica_becomes_three_by_learners() {
    let mut toy = Toy::new(still(), 3, 1);
    toy.run_until_rest(200);
    toy.check_complete(3);
    assert_eq!(toy.deeds(), ["+2", "^2", "+3", "^3"]);
    let mut ids: Vec<_> = toy.regions[&FIRST].region.peers.iter().map(|peer| peer.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3, "a promoted learner keeps its id");
}

/// A learner is not promoted while it waits for its snapshot.
#[test]
fn a_pending_learner_waits() {
    let mut toy = Toy::new(still(), 2, 1);
    assert_eq!(toy.round(), 1);
    let pending = toy.regions.get_mut(&FIRST).expect("the region is there");
    for rounds in pending.pending.values_mut() {
        *rounds = 20;
    }
    for _ in 0..15 {
        assert_eq!(toy.round(), 0);
    }
    toy.run_until_rest(200);
    assert_eq!(toy.deeds(), ["+2", "^2"]);
}

/// Without a store to go to, nothing is ordered.
#[test]
fn two_stores_hold_two_replicas_and_rest() {
    let mut toy = Toy::new(config(), 2, 1);
    toy.run_until_rest(200);
    toy.check_complete(2);
}

/// A replica that stays down is replaced, and goes only after the new one votes.
#[test]
fn a_down_peer_is_replaced() {
    let mut toy = three_of(4, still());
    toy.kill(3);
    for _ in 0..5 {
        assert_eq!(toy.round(), 0, "not yet");
    }
    toy.run_until_rest(200);
    assert_eq!(toy.deeds(), ["+4", "^4", "-3"]);
    toy.check_complete(3);
}

/// A replica that comes back in time stays.
#[test]
fn a_short_absence_changes_nothing() {
    let mut toy = three_of(4, still());
    toy.kill(3);
    for _ in 0..4 {
        toy.round();
    }
    toy.revive(3);
    toy.run_until_rest(200);
    assert!(toy.deeds().is_empty());
}

/// With no other store, a replica that is down stays a member.
#[test]
fn nothing_is_removed_without_a_replacement() {
    let mut toy = three_of(3, config());
    toy.kill(2);
    for _ in 0..100 {
        assert_eq!(toy.round(), 0);
    }
    assert_eq!(toy.regions[&FIRST].region.peers.len(), 3);
}

/// Five voters become three; the leader is not among those that go.
#[test]
fn five_replicas_become_three() {
    let five = PdConfig { max_replicas: 5, ..still() };
    let mut toy = Toy::new(five, 5, 4);
    toy.run_until_rest(500);
    toy.check_complete(5);
    let leaders: Vec<_> = toy.regions.values().map(|toy| toy.leader.id).collect();
    toy.core.set_config(still());
    toy.run_until_rest(500);
    toy.check_complete(3);
    assert_eq!(leaders, toy.regions.values().map(|toy| toy.leader.id).collect::<Vec<_>>());
}

/// CC-16: one too many, or one too few, made by hand, is healed without swinging.
#[test]
fn cc_16_the_rule_heals_up_and_down() {
    let five = PdConfig { max_replicas: 5, ..still() };
    let mut toy = Toy::new(five, 7, 1);
    toy.run_until_rest(500);
    for (kind, on) in [(ChangeKind::AddNode, 6), (ChangeKind::RemoveNode, 2)] {
        toy.executed.clear();
        let region = &toy.regions[&FIRST].region;
        let new = Peer::voter(PeerId::must(90_000), store(6));
        let peer = region.peer_on(store(on)).copied().unwrap_or(new);
        let change = PeerChange { kind, peer };
        toy.core
            .force_order(toy.now_ms, FIRST, OrderAction::ChangePeer(change))
            .expect("the region is known");
        toy.run_until_rest(500);
        toy.check_complete(5);
        assert!(toy.executed.len() <= 3, "{:?}", toy.deeds());
    }
}

/// A store that shall go is emptied, leaders first handing over, and can be buried.
#[test]
fn an_offline_store_is_drained() {
    let mut toy = Toy::new(config(), 4, 12);
    toy.run_until_rest(1000);
    assert!(toy.core.store_load(store(1)).leaders > 0);
    let early = toy.core.set_lifecycle(store(1), StoreLifecycle::Tombstone);
    assert!(early.is_err(), "it still holds replicas");
    toy.core.set_lifecycle(store(1), StoreLifecycle::Offline).expect("the store is known");
    toy.run_until_rest(1000);
    toy.check_complete(3);
    assert_eq!(toy.core.store_load(store(1)).regions, 0);
    toy.core.set_lifecycle(store(1), StoreLifecycle::Tombstone).expect("it is empty");
    toy.run_until_rest(200);
}

/// A damaged replica is replaced elsewhere under a new peer id.
#[test]
fn a_damaged_replica_is_replaced_elsewhere() {
    let mut toy = three_of(4, still());
    let peer = *toy.regions[&FIRST].region.peer_on(store(2)).expect("a member");
    toy.damaged.insert(peer.id);
    toy.run_until_rest(200);
    assert_eq!(toy.deeds(), ["+4", "^4", "-2"]);
    toy.check_complete(3);
}

/// With no other store it is replaced where it was, under a new peer id.
#[test]
fn a_damaged_replica_is_replaced_in_place() {
    let mut toy = three_of(3, still());
    let old = toy.regions[&FIRST].leader;
    toy.damaged.insert(old.id);
    toy.run_until_rest(200);
    let on = old.store;
    assert_eq!(toy.deeds(), [format!("-{on}"), format!("+{on}"), format!("^{on}")]);
    toy.check_complete(3);
    let new = toy.regions[&FIRST].region.peer_on(on).expect("a new one");
    assert!(new.id > old.id);
}

/// A learner that never catches up is given up, and another store is tried.
#[test]
fn a_stuck_learner_is_given_up() {
    let mut toy = Toy::new(still(), 3, 1);
    toy.round();
    assert_eq!(toy.deeds(), ["+2"]);
    for _ in 0..40 {
        if let Some(region) = toy.regions.get_mut(&FIRST) {
            let stuck = region.region.peer_on(store(2)).map(|peer| peer.id);
            region.pending.extend(stuck.map(|id| (id, 100)));
        }
        toy.round();
    }
    assert_eq!(toy.deeds()[..4], ["+2", "-2", "+3", "^3"]);
    assert!(toy.core.counters().timed_out > 0);
}

/// A split in the middle of an operator makes it void; both parts are finished anew.
#[test]
fn a_split_in_between_is_survived() {
    let mut toy = Toy::new(still(), 3, 1);
    for _ in 0..3 {
        toy.round();
    }
    assert_eq!(toy.deeds(), ["+2"]);
    toy.split(FIRST, "m");
    assert_eq!(toy.core.counters().cancelled, 0);
    toy.report();
    assert_eq!(toy.core.counters().cancelled, 1, "the epoch is not the operator's");
    toy.run_until_rest(300);
    assert_eq!(toy.regions.len(), 2);
    toy.check_complete(3);
}

/// A learner that came and went between two reports has used up its id: its store refuses
/// that for ever, so another one is given.
#[test]
fn a_replica_that_came_and_went_unseen_is_not_ordered_again() {
    let mut toy = Toy::new(still(), 2, 1);
    let added = |orders: &[Given]| match &orders[0].order.action {
        OrderAction::ChangePeer(change) => change.peer,
        other => panic!("a learner is to be added, not {other:?}"),
    };
    let first = added(&toy.report());
    toy.regions.get_mut(&FIRST).expect("the region is there").region.epoch.conf_ver += 2;
    let second = added(&toy.report());
    assert_eq!(first.store, second.store);
    assert_ne!(first.id, second.id);
    assert_eq!(toy.core.counters().cancelled, 1);
    toy.run_until_rest(100);
    toy.check_complete(2);
}

/// Without leave to schedule, PD is silent but for what it is told to order.
#[test]
fn by_itself_a_manual_pd_orders_nothing() {
    let mut toy = Toy::new(PdConfig { schedule: false, ..config() }, 3, 5);
    for _ in 0..50 {
        assert_eq!(toy.round(), 0);
    }
    assert_eq!(toy.core.counters().started, 0);
}

/// CC-10: a forced order is repeated in every answer until it has happened, once.
#[test]
fn cc_10_a_forced_order_is_repeated_and_done_once() {
    let mut toy = Toy::new(PdConfig { schedule: false, ..config() }, 5, 1);
    let learner = Peer::learner(PeerId::must(70_000), store(4));
    let add = PeerChange { kind: ChangeKind::AddLearner, peer: learner };
    toy.core
        .force_order(toy.now_ms, FIRST, OrderAction::ChangePeer(add))
        .expect("the region is known");
    let orders: Vec<_> = (0..5).flat_map(|_| toy.report()).collect();
    assert_eq!(orders.len(), 5);
    assert!(orders.iter().all(|given| given.order == orders[0].order));
    assert_eq!(
        toy.core.operators().collect::<Vec<_>>(),
        [(FIRST, OperatorReason::Forced)],
        "until it is seen to have happened"
    );
    for given in &orders {
        toy.execute(given);
    }
    assert_eq!(toy.deeds(), ["+4"]);
    assert_eq!(toy.round(), 0);
    assert_eq!(toy.core.counters().finished, 1);
    let role = toy.regions[&FIRST].region.peer(learner.id).map(|peer| peer.role);
    assert_eq!(role, Some(PeerRole::Learner));
}
