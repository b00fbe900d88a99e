//! How much PD does at a time, and what it remembers of it.

use pd_client::{
    OperatorState, OrderAction,
    mock::{OperatorReason, PdConfig},
};
use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerId};

use super::{
    FIRST, still, three_of,
    toy::{Toy, config, info, store},
};

/// Never more snapshots at a store than it is allowed, on either end.
#[test]
fn snapshots_are_limited_on_both_ends() {
    for max in [1, 3] {
        let config = PdConfig { snapshots_per_store_max: max, ..config() };
        let mut toy = Toy::new(config, 5, 30);
        toy.run_until_rest(5000);
        toy.check_complete(3);
        let (received, sent) = toy.filled_max;
        assert_eq!(sent, max, "all come from one store at first");
        assert!(received <= max, "{received} at a time");
    }
}

/// A store that many could send to is not flooded.
#[test]
fn an_empty_store_is_filled_at_its_own_pace() {
    let config = PdConfig {
        snapshots_per_store_max: 2,
        operators_per_store_max: 20,
        balance_leaders: false,
        ..config()
    };
    let mut toy = Toy::placed(config, 5, 30, |number, id| {
        let on = |step: u64| store(1 + (number + step) % 5);
        (1..=3).map(|step| Peer::voter(PeerId::must(id + 10 * number + step), on(step))).collect()
    });
    toy.run_until_rest(500);
    toy.filled_max = (0, 0);
    toy.join(info(6));
    toy.run_until_rest(2000);
    assert!(toy.region_spread() <= 1);
    assert_eq!(toy.filled_max.0, 2, "received at a time");
}

/// A store that is gone has many replicas, and all are replaced at the pace of those that
/// remain: its own limits do not count.
#[test]
fn a_dead_store_does_not_limit_its_replacement() {
    let config = PdConfig { repairs_per_store_max: 8, operators_per_store_max: 1, ..config() };
    let mut toy = Toy::new(config, 6, 60);
    toy.run_until_rest(10_000);
    let lost = toy.core.store_load(store(6)).regions;
    assert!(lost >= 25);
    toy.kill(6);
    let mut most = 0;
    for _ in 0..60 {
        toy.round();
        most = most.max(toy.core.operators().count());
    }
    assert!(most >= 8, "at most {most} at a time");
    assert_eq!(toy.core.store_load(store(6)).regions, 0);
}

/// Balance waits its turn behind no more operators than allowed.
#[test]
fn moves_are_limited_per_store() {
    let config = PdConfig { operators_per_store_max: 2, ..config() };
    let mut toy = Toy::placed(config, 4, 40, |number, id| {
        (1..=3).map(|on| Peer::voter(PeerId::must(id + 10 * number + on), store(on))).collect()
    });
    let mut most = 0;
    for _ in 0..300 {
        toy.round();
        most = most.max(toy.core.operators().count());
    }
    // Each touches two stores at least.
    assert!((2..=4).contains(&most), "{most} at a time");
    assert!(toy.region_spread() <= 1);
}

/// A repair does not wait for a move that is under way.
#[test]
fn a_repair_overtakes_a_move() {
    let mut toy = three_of(5, still());
    let moved = *toy.regions[&FIRST].region.peer_on(store(3)).expect("a member");
    toy.core.set_config(config());
    let left_out = toy.core.scatter(toy.now_ms, &[FIRST], "").expect("there is a first region");
    assert!(left_out.is_empty());
    // Whatever was begun, a damaged voter comes first.
    toy.damaged.insert(moved.id);
    toy.failures += 1;
    toy.run_until_rest(500);
    toy.check_complete(3);
    assert!(toy.regions[&FIRST].region.peer(moved.id).is_none());
}

/// What has ended is remembered, with what was ordered; but not for ever.
#[test]
fn history_tells_what_became_of_changes() {
    let mut toy = Toy::new(PdConfig { history_max: 4, ..still() }, 3, 1);
    let status = |toy: &Toy| toy.core.operator_status(FIRST).map(|it| (it.reason, it.state));
    assert_eq!(status(&toy), None);
    toy.round();
    let missing = "missing replica".to_owned();
    assert_eq!(status(&toy), Some((missing.clone(), OperatorState::Running)));
    toy.run_until_rest(200);
    assert_eq!(status(&toy), Some((missing, OperatorState::Finished)));
    let ended: Vec<_> = toy.core.history().cloned().collect();
    assert_eq!(ended.len(), 2);
    for record in &ended {
        assert_eq!(record.reason, OperatorReason::MissingReplica);
        assert_eq!(record.state, OperatorState::Finished);
        assert!(record.started_ms < record.ended_ms);
        let kinds: Vec<_> = record
            .orders
            .iter()
            .map(|order| match order {
                OrderAction::ChangePeer(change) => change.kind,
                other => unreachable!("{other:?} is no single change"),
            })
            .collect();
        assert_eq!(kinds, [ChangeKind::AddLearner, ChangeKind::AddNode], "each once");
    }
    let learner = |id| Peer::learner(PeerId::must(id), store(3));
    for id in 90_000..90_010 {
        let change = PeerChange { kind: ChangeKind::AddLearner, peer: learner(id) };
        toy.core
            .force_order(toy.now_ms, FIRST, OrderAction::ChangePeer(change))
            .expect("the region is known");
    }
    let states: Vec<_> = toy.core.history().map(|ended| ended.state).collect();
    assert_eq!(states, [OperatorState::Replaced; 4]);
    toy.core.cancel(FIRST);
    assert_eq!(status(&toy), Some(("forced".to_owned(), OperatorState::Cancelled)));
}

/// Regions that do not report any more do not hold up others for ever.
#[test]
fn operators_of_silent_regions_are_given_up() {
    let mut toy = Toy::new(still(), 3, 2);
    toy.round();
    assert_eq!(toy.core.operators().count(), 2);
    let gone = toy.regions.remove(&FIRST).expect("the first region");
    for _ in 0..100 {
        toy.round();
    }
    assert_eq!(toy.core.operators().count(), 0);
    assert!(
        toy.core.history().any(|ended| {
            ended.region == gone.region.id && ended.state == OperatorState::TimedOut
        })
    );
}
