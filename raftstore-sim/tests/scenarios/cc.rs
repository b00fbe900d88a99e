//! Group CC: changes of membership.

use pd_client::{OrderAction, mock::PdConfig};
use raftstore_core::observe::{Cause, RegionEvent};
use raftstore_proto::{
    AdminCommand, Body, ChangeKind, Command, Peer, PeerChange, PeerId, RegionError, RegionId,
    StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, get, header, put},
    queue::SECOND,
    world::Stage,
};

use crate::{eager_gc, fair_plan, for_seeds, one_replica, plan_with, scenario_plan};

fn voter(store: u64, peer: u64) -> Peer {
    Peer::voter(PeerId::must(peer), StoreId::must(store))
}

fn stores_of(cluster: &Cluster) -> Vec<u64> {
    let mut stores: Vec<u64> =
        cluster.region(1).peers.iter().map(|peer| peer.store.get()).collect();
    stores.sort_unstable();
    stores
}

#[test]
fn cc_01_add_remove_add_again_replace() {
    for_seeds(|_| {
        let mut cluster = one_replica(5);
        cluster.must_put("k1", "v1");
        let mut conf_ver = cluster.region(1).epoch.conf_ver;
        let mut rises = |cluster: &Cluster| {
            let now = cluster.region(1).epoch.conf_ver;
            assert!(now > conf_ver, "{now} after {conf_ver}");
            conf_ver = now;
        };
        cluster.must_add(1, 2, 202);
        rises(&cluster);
        cluster.must_eq(2, "k1", "v1");
        cluster.must_add(1, 3, 203);
        rises(&cluster);
        cluster.must_put("k2", "v2");
        cluster.must_eq(3, "k2", "v2");
        cluster.must_remove(1, 2);
        rises(&cluster);
        cluster.wait_gone(1, 2);
        cluster.must_none(2, "k1");
        cluster.must_add(1, 2, 302);
        rises(&cluster);
        cluster.must_eq(2, "k2", "v2");
        let again = cluster.change(1, ChangeKind::AddNode, voter(2, 302));
        assert!(matches!(again, Err(RegionError::ConfChangeRejected { .. })), "{again:?}");
        let twin = cluster.change(1, ChangeKind::AddNode, voter(2, 402));
        assert!(matches!(twin, Err(RegionError::ConfChangeRejected { .. })), "{twin:?}");
        cluster.must_remove(1, 2);
        rises(&cluster);
        cluster.wait_gone(1, 2);
        cluster.must_add(1, 2, 502);
        rises(&cluster);
        cluster.must_put("k3", "v3");
        cluster.must_eq(2, "k3", "v3");
        cluster.must_eq(2, "k1", "v1");
        cluster.must_remove(1, 3);
        rises(&cluster);
        cluster.must_none(3, "k1");
        assert_eq!(stores_of(&cluster), [1, 2]);
    });
}

#[test]
fn cc_02_a_region_re_formed_elsewhere_does_not_come_back() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(6, 3));
        cluster.lead(1, 2);
        cluster.must_put("k1", "v1");
        cluster.isolate(1);
        for store in 4..=6 {
            cluster.must_add(1, store, 400 + store);
            cluster.must_eq(store, "k1", "v1");
        }
        cluster.lead(1, 4);
        cluster.must_remove(1, 2);
        cluster.wait_gone(1, 2);
        cluster.must_remove(1, 3);
        cluster.wait_gone(1, 3);
        cluster.must_remove(1, 1);
        cluster.mend();
        cluster.partition(&[1, 2, 3], &[4, 5, 6]);
        cluster.pass(5 * SECOND);
        assert!(cluster.peer_status(2, 1).is_none(), "store 2 has a second group");
        assert!(cluster.peer_status(1, 1).is_none_or(|peer| !peer.is_leader));
        cluster.must_put("k2", "v2");
        cluster.mend();
        cluster.wait_gone(1, 1);
        assert_eq!(stores_of(&cluster), [4, 5, 6]);
    });
}

#[test]
fn cc_06_unsafe_changes_are_refused_before_proposing() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.isolate(1);
        cluster.wait("a leader elsewhere", |world| {
            world.leader_store(1).is_some_and(|store| store != 1)
                && world.peer_status(1, 1).is_some_and(|peer| !peer.is_leader)
        });
        // Long enough for the silence of store 1 to count.
        cluster.pass(5 * SECOND);
        let leader = cluster.wait_leader(1);
        let other = 5 - leader;
        let region = cluster.region(1);
        let healthy = *region.peer_on(StoreId::must(other)).expect("a member");
        let refused = cluster.change(1, ChangeKind::RemoveNode, healthy);
        assert!(matches!(refused, Err(RegionError::ConfChangeUnsafe { .. })), "{refused:?}");
        let dead = *region.peer_on(StoreId::must(1)).expect("a member");
        assert!(cluster.change(1, ChangeKind::RemoveNode, dead).is_ok());
        assert!(cluster.change(1, ChangeKind::RemoveNode, healthy).is_ok());
        cluster.must_put("k2", "v2");
    });
}

#[test]
fn cc_10_the_same_driven_by_pd() {
    for_seeds(|_| {
        let mut cluster = one_replica(5);
        cluster.must_put("k1", "v1");
        let order = |cluster: &mut Cluster, kind, peer| {
            let now = cluster.now / 1_000_000;
            let action = OrderAction::ChangePeer(PeerChange { kind, peer });
            cluster
                .pd
                .core
                .force_order(now, RegionId::must(1), action)
                .expect("PD knows the region");
        };
        let before = cluster.region(1).epoch.conf_ver;
        let id = cluster.pd.alloc_id();
        let learner = Peer::learner(PeerId::must(id), StoreId::must(2));
        order(&mut cluster, ChangeKind::AddLearner, learner);
        cluster.must_eq(2, "k1", "v1");
        order(&mut cluster, ChangeKind::AddNode, voter(2, id));
        cluster.wait("the promotion", |world| {
            world.leader_store(1).and_then(|store| world.peer_status(store, 1)).is_some_and(
                |leader| {
                    leader.region.peers.len() == 2 && leader.region.epoch.conf_ver == before + 2
                },
            )
        });
        // Repeated in every answer, carried out once.
        cluster.pass(10 * SECOND);
        assert_eq!(cluster.region(1).epoch.conf_ver, before + 2);
        order(&mut cluster, ChangeKind::RemoveNode, voter(2, id));
        cluster.wait_gone(1, 2);
        cluster.must_none(2, "k1");
        cluster.pass(10 * SECOND);
        assert_eq!(cluster.region(1).epoch.conf_ver, before + 3);
    });
}

#[test]
fn cc_16_pd_heals_the_replica_count_up_and_down() {
    for_seeds(|seed| {
        let mut plan = fair_plan(seed, 7, 1, |_| {});
        plan.pd_schedules = true;
        let mut cluster = Cluster::started(plan);
        let five = PdConfig {
            joint_replacement: seed % 2 == 0,
            max_replicas: 5,
            balance_regions: false,
            balance_leaders: false,
            ..cluster.pd.core.config().clone()
        };
        cluster.pd.core.set_config(five);
        cluster.must_put("k1", "v1");
        let has = |count: usize| {
            move |world: &mut raftstore_sim::world::World| {
                world.leader_store(1).and_then(|store| world.peer_status(store, 1)).is_some_and(
                    |leader| {
                        leader.region.peers.len() == count
                            && leader
                                .region
                                .peers
                                .iter()
                                .all(|peer| peer.role == raftstore_proto::PeerRole::Voter)
                    },
                )
            }
        };
        cluster.wait_within(240 * SECOND, "five replicas", has(5));
        let free = (1..=7)
            .find(|store| !stores_of(&cluster).contains(store))
            .expect("two stores have no replica");
        let id = cluster.pd.alloc_id();
        cluster.must_add(1, free, id);
        cluster.wait_within(120 * SECOND, "five replicas again", has(5));
        let leader = cluster.wait_leader(1);
        let victim =
            stores_of(&cluster).into_iter().find(|store| *store != leader).expect("others remain");
        cluster.must_remove(1, victim);
        cluster.wait_within(120 * SECOND, "five replicas once more", has(5));
        // No oscillation.
        let settled = cluster.region(1).epoch.conf_ver;
        cluster.pass(60 * SECOND);
        assert_eq!(cluster.region(1).epoch.conf_ver, settled);
    });
}

#[test]
fn cc_13_writes_flow_while_a_change_is_being_applied() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "v0");
        cluster.stand_still(1, Stage::Apply);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let add = PeerChange {
            kind: ChangeKind::AddLearner,
            peer: Peer::learner(PeerId::must(404), StoreId::must(4)),
        };
        let admin = admin_command(&region, leader, AdminCommand::ChangePeer(add));
        let added = cluster.ask(1, admin).expect("it runs");
        let body = Body::Operations(vec![put("k", "v1")]);
        let written =
            cluster.ask(1, Command { header: header(&region, leader), body }).expect("it runs");
        // Committed and executed by the others, who wait for nobody.
        cluster.must_eq(2, "k", "v1");
        cluster.must_eq(3, "k", "v1");
        assert!(cluster.answer_to(added).is_none() && cluster.answer_to(written).is_none());
        cluster.go_on(1, Stage::Apply);
        for reply in [added, written] {
            cluster.wait("an answer", |world| world.answer_to(reply).is_some());
            let answer = &cluster.answer_to(reply).expect("just seen").body;
            assert!(answer.is_ok(), "{answer:?}");
        }
        cluster.must_eq(4, "k", "v1");
    });
}

#[test]
fn cc_14_a_tick_queued_before_destruction_does_nothing_after_it() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            eager_gc(config);
            config.snap_mgr_gc_tick_interval = std::time::Duration::from_millis(100);
            config.consistency_check_interval = std::time::Duration::from_millis(300);
            config.split_region_check_tick_interval = std::time::Duration::from_millis(100);
        }));
        cluster.lead(1, 1);
        for number in 0..20 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        cluster.lead(1, 3);
        // Everything that store 1 would do waits in its queues, and all of it comes in one
        // turn with what destroys its peer.
        cluster.pause(1, 8 * SECOND);
        cluster.isolate(1);
        cluster.must_remove(1, 1);
        cluster.must_add_learner(1, 1, 104);
        cluster.must_put("k20", "v");
        cluster.mend();
        cluster.pass(9 * SECOND);
        cluster.must_eq(1, "k20", "v");
        cluster.must_eq(1, "k0", "v");
        assert_eq!(cluster.peer_status(1, 1).expect("a peer").peer.id.get(), 104);
        cluster.must_add(1, 1, 104);
        cluster.lead(1, 1);
        cluster.must_put("k21", "v");
    });
}

#[test]
fn cc_15_a_change_does_not_wait_for_heartbeats() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(2, 1, |config| {
            config.raft_heartbeat_ticks = 50;
            config.raft_election_timeout_ticks = 100;
            config.max_leader_missing_duration = std::time::Duration::from_secs(100);
        }));
        cluster.must_put("k", "v");
        let began = cluster.now;
        cluster.must_add_learner(1, 2, 202);
        cluster.must_eq(2, "k", "v");
        cluster.must_add(1, 2, 202);
        // Needs both.
        cluster.must_put("k", "w");
        let took = cluster.now - began;
        assert!(took < 2 * SECOND, "took {} ms", took / 1_000_000);
        cluster.must_eq(2, "k", "w");
    });
}

#[test]
fn cc_18_local_reader_of_a_removed_leader_finds_nothing() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v1");
        let region = cluster.region(1);
        let peer = *region.peer_on(StoreId::must(1)).expect("a member");
        let read =
            Command { header: header(&region, peer), body: Body::Operations(vec![get("k")]) };
        cluster.wait("a warm view", |world| world.read_beside(1, &read).is_some());
        cluster.lead(1, 2);
        assert_eq!(cluster.read_beside(1, &read), None);
        cluster.must_remove(1, 1);
        cluster.wait_gone(1, 1);
        cluster.must_put("k", "v2");
        assert_eq!(cluster.read_beside(1, &read), None);
        match cluster.call(1, read).expect("answered").body {
            Err(RegionError::RegionNotFound { .. } | RegionError::NotLeader { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn cc_19_leadership_never_goes_to_a_removed_or_lagging_member() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(3, 3));
        cluster.lead(1, 3);
        cluster.must_put("k", "v");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v");
        }
        let before = cluster.region(1);
        // Store 1 has the change and has not executed it.
        cluster.stand_still(1, Stage::Apply);
        cluster.must_remove(1, 2);
        cluster.wait("store 1 to have the change", |world| world.waits_at(1, Stage::Apply));
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(3)).expect("a member");
        for other in [2, 1] {
            let to = *before.peer_on(StoreId::must(other)).expect("it was a member");
            cluster.ask(3, admin_command(&region, leader, AdminCommand::TransferLeader(to)));
            assert!(
                cluster.stays(2 * SECOND, |world| world.leader_store(1) == Some(3)),
                "store {other} has been made the leader"
            );
        }
        cluster.must_put("k", "w");
        cluster.go_on(1, Stage::Apply);
        cluster.must_eq(1, "k", "w");
        cluster.lead(1, 1);
        cluster.must_put("k", "x");
    });
}

/// A member that has not executed the change which brought its leader in knows that leader
/// from nothing but its messages.
#[test]
fn cc_20_peer_lookup_survives_a_stale_cache() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "v0");
        cluster.must_eq(2, "k", "v0");
        cluster.stand_still(2, Stage::Apply);
        cluster.must_add(1, 4, 404);
        cluster.must_eq(4, "k", "v0");
        cluster.lead(1, 4);
        assert!(cluster.peer_status(2, 1).expect("it runs").region.peers.len() == 3);
        // Three of four are needed, and one is gone.
        cluster.kill(3);
        cluster.must_put("k", "v1");
        assert_eq!(cluster.get_quorum("k").as_deref(), Some("v1"));
        assert_eq!(cluster.on_disk(2, "k").as_deref(), Some("v0"));
        cluster.go_on(2, Stage::Apply);
        cluster.must_eq(2, "k", "v1");
    });
}

#[test]
fn cc_12_apply_that_stops_in_the_middle_of_a_change_goes_on_correctly() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(scenario_plan(3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k0", "v");
        cluster.must_eq(3, "k0", "v");
        cluster.stand_still(3, Stage::Apply);
        cluster.must_remove(1, 3);
        cluster.wait("the removal on store 3", |world| world.waits_at(3, Stage::Apply));
        if seed % 2 == 0 {
            // The successor is there before the old peer has executed its end.
            cluster.must_add_learner(1, 3, 304);
            cluster.pass(SECOND);
            cluster.go_on(3, Stage::Apply);
        } else {
            cluster.go_on(3, Stage::Apply);
            cluster.wait_gone(1, 3);
            cluster.must_add_learner(1, 3, 304);
        }
        for number in 1..=20 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        for number in 0..=20 {
            cluster.must_eq(3, &format!("k{number}"), "v");
        }
        assert_eq!(cluster.peer_status(3, 1).expect("a peer").peer.id.get(), 304);
    });
}

/// What an observer on store 2 is told of the life of a region there. That nothing is missing
/// and nothing too much is watched on every store in every run; here it is spelled out.
#[test]
fn cc_21_region_change_events_are_ordered_and_complete() {
    for_seeds(|_| {
        let mut cluster = one_replica(3);
        cluster.must_put("a", "v1");
        cluster.must_put("z", "v1");
        let mut told = 0;
        let mut news = |cluster: &Cluster| -> Vec<(u64, RegionEvent)> {
            let lines = cluster.nodes[&2].chronicle.lines();
            let new = lines[told..].iter().map(|line| (line.region.id.get(), line.event));
            let new = new.collect();
            told = lines.len();
            new
        };
        cluster.must_add(1, 2, 202);
        cluster.must_eq(2, "a", "v1");
        assert_eq!(news(&cluster), [(1, RegionEvent::Created(Cause::Snapshot))]);
        cluster.must_add(1, 3, 303);
        cluster.must_put("a", "v2");
        cluster.must_eq(2, "a", "v2");
        assert_eq!(news(&cluster), [(1, RegionEvent::Updated(Cause::Membership))]);
        let parts = cluster.must_split(1, &["m"]);
        cluster.must_put("a", "v3");
        cluster.must_put("z", "v3");
        cluster.must_eq(2, "a", "v3");
        cluster.must_eq(2, "z", "v3");
        let child = parts.iter().map(|part| part.id.get()).find(|id| *id != 1).expect("two parts");
        assert_eq!(
            news(&cluster),
            [(1, RegionEvent::Updated(Cause::Split)), (child, RegionEvent::Created(Cause::Split)),]
        );
        cluster.must_remove(1, 2);
        cluster.wait_gone(1, 2);
        let end = news(&cluster);
        // It may be gone before it hears that its removal is committed.
        let alone = [(1, RegionEvent::Destroyed(Cause::NotListed))];
        let with_update = [
            (1, RegionEvent::Updated(Cause::Membership)),
            (1, RegionEvent::Destroyed(Cause::Removed)),
        ];
        assert!(end == alone || end == with_update, "{end:?}");
        cluster.must_add(1, 2, 402);
        cluster.must_put("z", "v4");
        cluster.must_eq(2, "z", "v4");
        assert_eq!(news(&cluster), [(1, RegionEvent::Created(Cause::Snapshot))]);
        let lines = cluster.nodes[&2].chronicle.lines();
        let epochs: Vec<_> = lines
            .iter()
            .filter(|line| line.region.id.get() == 1)
            .map(|line| (line.region.epoch.version, line.region.epoch.conf_ver))
            .collect();
        assert!(epochs.is_sorted(), "{epochs:?}");
        // A new life begins with what is found.
        cluster.kill(2);
        cluster.start(2);
        let mut found: Vec<_> = cluster.nodes[&2].chronicle.lines();
        found.sort_by_key(|line| line.region.id);
        let found: Vec<_> = found.iter().map(|line| (line.region.id.get(), line.event)).collect();
        let opened = |id| (id, RegionEvent::Created(Cause::Opened));
        assert_eq!(found, [opened(1), opened(child)]);
    });
}
