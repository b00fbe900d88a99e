//! The in-process PD brings toy clusters into shape, and then leaves them alone.

mod toy;

use std::collections::BTreeSet;

use pd_client::{
    OrderAction, StoreLifecycle,
    mock::{OperatorReason, PdConfig},
};
use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerId, PeerRole, RegionId};

use self::toy::{Dice, Given, Toy, config, store, voters};

const FIRST: RegionId = RegionId::must(1000);

/// What was done, in short: `+3` learner on 3, `^3` promoted, `-3` removed, `>3` leads.
fn deeds(toy: &Toy) -> Vec<String> {
    let short = |action: &OrderAction| match action {
        OrderAction::ChangePeer(change) => {
            let sign = match change.kind {
                ChangeKind::AddLearner => '+',
                ChangeKind::AddNode => '^',
                ChangeKind::RemoveNode => '-',
            };
            format!("{sign}{}", change.peer.store)
        }
        OrderAction::TransferLeader(peer) => format!(">{}", peer.store),
        other => unreachable!("unknown action {other:?}"),
    };
    toy.executed.iter().map(|order| short(&order.action)).collect()
}

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
    assert_eq!(deeds(&toy), ["+2", "^2", "+3", "^3"]);
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
    assert_eq!(deeds(&toy), ["+2", "^2"]);
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
    for _ in 0..6 {
        assert_eq!(toy.round(), 0, "not yet");
    }
    toy.run_until_rest(200);
    assert_eq!(deeds(&toy), ["+4", "^4", "-3"]);
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
    assert!(deeds(&toy).is_empty());
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
        assert!(toy.executed.len() <= 3, "{:?}", deeds(&toy));
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
    assert_eq!(deeds(&toy), ["+4", "^4", "-2"]);
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
    assert_eq!(deeds(&toy), [format!("-{on}"), format!("+{on}"), format!("^{on}")]);
    toy.check_complete(3);
    let new = toy.regions[&FIRST].region.peer_on(on).expect("a new one");
    assert!(new.id > old.id);
}

/// A learner that never catches up is given up, and another store is tried.
#[test]
fn a_stuck_learner_is_given_up() {
    let mut toy = Toy::new(still(), 3, 1);
    toy.round();
    assert_eq!(deeds(&toy), ["+2"]);
    for _ in 0..40 {
        if let Some(region) = toy.regions.get_mut(&FIRST) {
            let stuck = region.region.peer_on(store(2)).map(|peer| peer.id);
            region.pending.extend(stuck.map(|id| (id, 100)));
        }
        toy.round();
    }
    assert_eq!(deeds(&toy)[..4], ["+2", "-2", "+3", "^3"]);
    assert!(toy.core.counters().timed_out > 0);
}

/// A split in the middle of an operator makes it void; both parts are finished anew.
#[test]
fn a_split_in_between_is_survived() {
    let mut toy = Toy::new(still(), 3, 1);
    for _ in 0..3 {
        toy.round();
    }
    assert_eq!(deeds(&toy), ["+2"]);
    toy.split(FIRST, "m");
    assert_eq!(toy.core.counters().cancelled, 0);
    toy.report();
    assert_eq!(toy.core.counters().cancelled, 1, "the epoch is not the operator's");
    toy.run_until_rest(300);
    assert_eq!(toy.regions.len(), 2);
    toy.check_complete(3);
}

/// Replicas and leaders spread over 3 to 7 stores, then nothing moves any more.
#[test]
fn balance_converges_and_rests() {
    for stores in 3..=7 {
        let mut toy = Toy::new(config(), stores, 50);
        let rounds = toy.run_until_rest(3000);
        toy.check_complete(3);
        assert!(toy.region_spread() <= 1, "{stores}: regions differ by {}", toy.region_spread());
        assert!(toy.leader_spread() <= 2, "{stores}: leaders differ by {}", toy.leader_spread());
        let before = toy.core.counters();
        let orders: usize = (0..100).map(|_| toy.round()).sum();
        assert_eq!(orders, 0, "{stores}: orders after {rounds} rounds of work");
        assert_eq!(before, toy.core.counters());
    }
}

/// Stores that join later get their share.
#[test]
fn new_stores_are_filled() {
    let mut toy = Toy::new(config(), 3, 30);
    toy.run_until_rest(2000);
    for id in 4..=6 {
        toy.core.put_store(toy.now_ms, toy::info(id)).expect("a new address");
        toy.revive(id);
    }
    toy.run_until_rest(3000);
    toy.check_complete(3);
    assert!(toy.region_spread() <= 1 && toy.leader_spread() <= 2);
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
    assert_eq!(deeds(&toy), ["+4"]);
    assert_eq!(toy.round(), 0);
    assert_eq!(toy.core.counters().finished, 1);
    let role = toy.regions[&FIRST].region.peer(learner.id).map(|peer| peer.role);
    assert_eq!(role, Some(PeerRole::Learner));
}

/// Orders that are lost, late, doubled and shuffled, while stores fail and regions split:
/// no order takes a quorum away (asserted by the toy at each), and when the faults stop,
/// every region becomes whole and PD rests.
#[test]
fn random_faults_never_cost_a_quorum() {
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        // Even numbers too: there a removal can cost the quorum of a region that has one.
        let max_replicas = [3, 2, 5, 3, 4][usize::try_from(seed % 5).expect("below 5")];
        let stores = max_replicas as u64 + 1 + dice.below(4);
        let config = PdConfig { max_replicas, ..config() };
        let mut toy = Toy::new(config, stores, 4 + dice.below(5));
        let mut late: Vec<Given> = Vec::new();
        for _ in 0..250 {
            disturb(&mut toy, &mut dice, stores);
            late.extend(toy.report());
            // In random order; some are lost, some are kept and come again.
            for _ in 0..late.len() {
                let pick = usize::try_from(dice.below(late.len() as u64)).expect("it is small");
                let given = late[pick].clone();
                if dice.percent(70) {
                    late.swap_remove(pick);
                }
                if dice.percent(60) {
                    toy.execute(&given);
                }
                if late.is_empty() {
                    break;
                }
            }
            late.truncate(200);
        }
        for id in 1..=stores {
            toy.revive(id);
        }
        toy.run_until_rest(3000);
        toy.check_complete(max_replicas);
        assert!(toy.region_spread() <= 1, "seed {seed}");
    }
}

/// Something goes wrong, or comes back.
fn disturb(toy: &mut Toy, dice: &mut Dice, stores: u64) {
    let id = 1 + dice.below(stores);
    match dice.below(100) {
        0..=3 => toy.kill(id),
        4..=15 => toy.revive(id),
        16..=17 => {
            let key = format!("k{:04}x{}", dice.below(9), dice.below(10));
            let regions: Vec<_> = toy.regions.keys().copied().collect();
            if toy.regions.len() < 20 {
                for region in regions {
                    toy.split(region, &key);
                }
            }
        }
        18..=19 => damage(toy, dice),
        _ => {}
    }
}

/// Damages a voter of a region in which no other is damaged and two more are there, so
/// that the region can be healed at all.
fn damage(toy: &mut Toy, dice: &mut Dice) {
    let candidates: Vec<_> = toy
        .regions
        .values()
        .map(|toy| voters(&toy.region))
        .filter(|voters| voters.len() >= 3)
        .filter(|voters| voters.iter().all(|peer| !toy.damaged.contains(&peer.id)))
        .collect();
    if candidates.is_empty() {
        return;
    }
    let pick = |dice: &mut Dice, len: usize| {
        usize::try_from(dice.below(len as u64)).expect("smaller than len")
    };
    let voters = &candidates[pick(dice, candidates.len())];
    let peer = voters[pick(dice, voters.len())];
    toy.damaged.insert(peer.id);
    toy.failures += 1;
    let living: BTreeSet<_> =
        toy.regions.values().flat_map(|toy| toy.region.peers.iter().map(|peer| peer.id)).collect();
    toy.damaged.retain(|peer| living.contains(peer));
}
