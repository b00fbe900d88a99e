//! Group TL: leadership transfer.

use pd_client::{Order, OrderAction};
use raftstore_proto::{
    AdminCommand, Body, Command, MessageKind, RegionError, ResponseBody, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, get, header, put, value_in},
    network::{Action, Match},
    queue::SECOND,
    world::Stage,
};

use crate::{for_seeds, plan_with, scenario_plan};

#[test]
fn tl_01_transfer_is_quick_and_the_old_leader_refuses() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            config.raft_heartbeat_ticks = 20;
            config.raft_election_timeout_ticks = 100;
            config.max_leader_missing_duration = std::time::Duration::from_secs(60);
        }));
        cluster.lead(1, 1);
        cluster.must_put("k", "v");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v");
        }
        let began = cluster.now;
        cluster.lead(1, 2);
        assert!(cluster.now - began <= 2 * SECOND, "longer than one heartbeat period");
        let region = cluster.region(1);
        let old = *region.peer_on(StoreId::must(1)).expect("a member");
        let write =
            Command { header: header(&region, old), body: Body::Operations(vec![put("k", "v2")]) };
        match cluster.call(1, write).expect("answered").body {
            Err(RegionError::NotLeader { leader, .. }) => {
                assert_eq!(leader.map(|peer| peer.store.get()), Some(2));
            }
            other => panic!("{other:?}"),
        }
        cluster.lead(1, 1);
        cluster.must_put("k", "v3");
    });
}

#[test]
fn tl_02_a_refused_transfer_does_not_stop_writes() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(3, 2));
        cluster.lead(1, 1);
        cluster.must_put("k", "v");
        cluster.must_eq(2, "k", "v");
        cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], to: Some(3), ..Match::default() },
            Action::Drop,
        );
        cluster.filter(
            Match { kinds: vec![MessageKind::TimeoutNow], ..Match::default() },
            Action::Drop,
        );
        cluster.must_add_learner(1, 3, 303);
        cluster.pass(SECOND);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let target = *region.peer_on(StoreId::must(2)).expect("a member");
        cluster.call(1, admin_command(&region, leader, AdminCommand::TransferLeader(target)));
        let began = cluster.now;
        cluster.must_put("k", "v2");
        assert!(cluster.now - began < 3 * SECOND, "writes were stopped for too long");
    });
}

#[test]
fn tl_04_pd_orders_a_transfer_to_each_member_in_turn() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v");
        for store in [2, 3, 1] {
            for other in 1..=3 {
                cluster.must_eq(other, "k", "v");
            }
            let from = cluster.wait_leader(1);
            let region = cluster.region(1);
            let target = *region.peer_on(StoreId::must(from)).expect("a member");
            let to = *region.peer_on(StoreId::must(store)).expect("a member");
            let mut ordered = 0;
            cluster.wait("the transfer", |world| {
                // PD repeats what has no effect yet.
                if world.now >= ordered {
                    ordered = world.now + SECOND;
                    let (epoch, action) = (region.epoch, OrderAction::TransferLeader(to));
                    world.order(from, Order { region: region.id, epoch, target, action });
                }
                world.leader_store(1) == Some(store)
                    && world
                        .peer_status(store, 1)
                        .is_some_and(|peer| peer.applied.applied_term == peer.term)
            });
            let command =
                Command { header: header(&region, to), body: Body::Operations(vec![get("k")]) };
            match cluster.call(store, command).expect("answered").body {
                Ok(ResponseBody::Operations(results)) => {
                    assert_eq!(value_in(&results).as_deref(), Some("v"));
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn tl_05_not_to_one_that_applies_slowly() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.stand_still(3, Stage::Apply);
        for number in 0..300 {
            cluster.must_put("k", &format!("v{number}"));
        }
        cluster.pass(SECOND);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let target = *region.peer_on(StoreId::must(3)).expect("a member");
        let transfer = admin_command(&region, leader, AdminCommand::TransferLeader(target));
        assert!(cluster.call(1, transfer).expect("answered").body.is_ok(), "it is advice");
        assert!(cluster.stays(3 * SECOND, |world| world.leader_store(1) == Some(1)));
        cluster.must_put("k", "after");
        cluster.go_on(3, Stage::Apply);
        cluster.must_eq(3, "k", "after");
        cluster.lead(1, 3);
        cluster.must_put("k", "last");
    });
}
