//! Group STALE: removed peers and their tombstones.

use std::time::Duration;

use engine_traits::{Cf, Direction, Durability, KvEngine, RaftEngine, Range, Reader, WriteBatch};
use raftstore_core::keys;
use raftstore_proto::{
    Body, Command, Epoch, MessageKind, Peer, PeerId, RaftMessage, RegionError, RegionId,
    RegionPhase, StoreId, wire::record,
};
use raftstore_sim::{
    cluster::{Cluster, get, header},
    network::{Action, Envelope, Match},
    queue::SECOND,
    world::{Stage, World},
};

use crate::{for_seeds, plan_with, scenario_plan};

/// Every key in the data engine of a store.
fn rows(world: &World, store: u64) -> Vec<(Cf, Vec<u8>)> {
    let kv = &world.nodes[&store].disk.kv;
    let mut found = Vec::new();
    for cf in [Cf::Default, Cf::Lock, Cf::Write, Cf::Raft] {
        let mut cursor = kv.cursor(cf, Range::ALL, Direction::Forward).expect("readable");
        while let Some((key, _)) = cursor.next().expect("readable") {
            found.push((cf, key.to_vec()));
        }
    }
    found
}

/// The tombstone a store keeps of region 1.
pub(crate) fn tombstone(world: &World, store: u64) -> Option<raftstore_proto::Region> {
    let kv = &world.nodes[&store].disk.kv;
    let record = kv.get(Cf::Raft, &keys::region_state_key(RegionId::must(1))).expect("readable")?;
    let state = record::decode_region_state(RegionId::must(1), &record).expect("whole");
    (state.phase == RegionPhase::Tombstone).then_some(state.region)
}

#[test]
fn stale_01_a_tombstone_leaves_exactly_two_keys() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(5, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(2, "k1", "v1");
        let before = cluster.region(1);
        cluster.must_remove(1, 2);
        cluster.wait_gone(1, 2);
        cluster.wait("store 2 to be emptied", |world| rows(world, 2).len() == 2);
        let left = tombstone(&cluster, 2).expect("a tombstone");
        let now = cluster.region(1).epoch.conf_ver;
        assert!(left.epoch.conf_ver == now || left.epoch.conf_ver + 1 == now);
        cluster.wait("an empty log", |world| {
            world.nodes[&2].disk.log.raft_state(RegionId::must(1)).expect("readable").is_none()
        });

        // An ancient message from a made-up peer to the removed one.
        let to = *before.peer_on(StoreId::must(2)).expect("it was a member");
        let from = Peer::voter(PeerId::must(77), StoreId::must(5));
        let mut message = RaftMessage::new(
            RegionId::must(1),
            from,
            to,
            Epoch { conf_ver: 0, version: 0 },
            RaftMessage::default().into_raft(),
        );
        message.raft_mut().msg_type = MessageKind::RequestVote.into();
        message.raft_mut().term = 1;
        cluster.deliver(Envelope { from: 5, to: 2, message });
        cluster.pass(2 * SECOND);
        assert!(cluster.peer_status(2, 1).is_none());
        assert_eq!(rows(&cluster, 2).len(), 2);
    });
}

#[test]
fn stale_03_a_never_initialised_peer_goes_without_hurting_neighbours() {
    for_seeds(|_| {
        // Two regions; the second one's data is on store 3, of the first only an empty peer.
        let mut plan = scenario_plan(3, 2);
        plan.regions = 2;
        let mut cluster = Cluster::started(plan);
        cluster.must_put("a1", "v");
        cluster.must_put("b1", "v");
        cluster.must_eq(3, "b1", "v");
        let lost = cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], region: Some(1), ..Match::default() },
            Action::Drop,
        );
        cluster.must_add_learner(1, 3, 303);
        cluster.wait("an empty peer", |world| {
            world.peer_status(3, 1).is_some_and(|peer| !peer.region.is_initialized())
        });
        cluster.isolate(3);
        cluster.must_remove(1, 3);
        cluster.mend();
        cluster.wait_gone(1, 3);
        cluster.release(lost);
        cluster.wait("the tombstone", |world| tombstone(world, 3).is_some());
        assert_eq!(cluster.on_disk(3, "b1").as_deref(), Some("v"));
        assert_eq!(cluster.on_disk(3, "a1"), None);
    });
}

#[test]
fn stale_04_left_behind_for_good_learns_it_from_pd() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(6, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(2, "k1", "v1");
        cluster.isolate(2);
        cluster.must_remove(1, 2);
        for store in 4..=6 {
            cluster.must_add(1, store, 400 + store);
            cluster.must_eq(store, "k1", "v1");
        }
        cluster.lead(1, 4);
        cluster.must_remove(1, 1);
        cluster.must_remove(1, 3);
        // Past the time after which a peer without a leader asks PD.
        cluster.wait_within(120 * SECOND, "the peer on store 2 to go", |world| {
            world.peer_status(2, 1).is_none()
        });
        cluster.must_none(2, "k1");
        assert!(tombstone(&cluster, 2).is_some());
        cluster.must_put("k2", "v2");
        for store in 4..=6 {
            cluster.must_eq(store, "k2", "v2");
        }
    });
}

#[test]
fn stale_05_removed_while_isolated_added_with_a_new_id() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(5, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(2, "k1", "v1");
        cluster.isolate(2);
        cluster.must_put("k2", "v2");
        cluster.must_remove(1, 2);
        cluster.must_add_learner(1, 2, 302);
        cluster.must_put("k3", "v3");
        cluster.mend();
        cluster.must_put("k4", "v4");
        cluster.must_eq(2, "k4", "v4");
        cluster.must_eq(2, "k3", "v3");
        let peer = cluster.peer_status(2, 1).expect("a peer").peer;
        assert_eq!(peer.id.get(), 302);
    });
}

#[test]
fn stale_09_a_new_replica_does_not_keep_strays() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        cluster.must_remove(1, 3);
        cluster.wait_gone(1, 3);
        cluster.wait("store 3 to be emptied", |world| rows(world, 3).len() == 2);
        cluster.kill(3);
        let kv = cluster.nodes[&3].disk.kv.clone();
        let mut batch = kv.write_batch();
        batch.put(Cf::Default, &keys::data_key(b"k0"), b"stray");
        kv.write(batch, Durability::Synced).expect("written");
        cluster.start(3);
        cluster.must_add(1, 3, 304);
        cluster.must_put("k2", "v2");
        cluster.must_eq(3, "k2", "v2");
        cluster.must_none(3, "k0");
    });
}

#[test]
fn stale_11_after_isolation_the_old_peer_is_told_by_its_old_friends() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(4, 3, |config| {
            config.max_leader_missing_duration = Duration::from_secs(3_600);
        }));
        cluster.pd.absent_until = u64::MAX;
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        cluster.isolate(3);
        cluster.must_add(1, 4, 404);
        cluster.must_eq(4, "k1", "v1");
        cluster.must_remove(1, 3);
        cluster.pass(5 * SECOND);
        assert_eq!(cluster.on_disk(3, "k1").as_deref(), Some("v1"));
        cluster.mend();
        cluster.wait_within(10 * SECOND, "the data on store 3 to go", |world| {
            rows(world, 3).len() == 2
        });
        assert!(cluster.peer_status(3, 1).is_none());
    });
}

#[test]
fn stale_12_uninitialised_stale_peer_after_restart() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], to: Some(4), ..Match::default() },
            Action::Drop,
        );
        cluster.must_add_learner(1, 4, 404);
        cluster.wait("an empty peer", |world| {
            world.peer_status(4, 1).is_some_and(|peer| !peer.region.is_initialized())
        });
        cluster.pass(SECOND);
        cluster.isolate(4);
        cluster.must_remove(1, 4);
        cluster.power_loss(4);
        cluster.start(4);
        assert!(cluster.stays(5 * SECOND, |world| world.peer_status(4, 1).is_none()));
        cluster.mend();
        cluster.must_put("k2", "v2");
        cluster.pass(5 * SECOND);
        assert!(cluster.peer_status(4, 1).is_none());
        assert_eq!(cluster.on_disk(4, "k1"), None);
    });
}

#[test]
fn stale_13_local_read_cache_and_a_late_apply_of_a_removed_peer() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(2, "k1", "v1");
        cluster.stand_still(2, Stage::Apply);
        cluster.must_add_learner(1, 4, 404);
        cluster.wait("store 2 to have the change before it", |world| {
            let leader = world.peer_status(1, 1).expect("it runs");
            let follower = world.peer_status(2, 1).expect("it runs");
            world.waits_at(2, Stage::Apply) && follower.committed == leader.committed
        });
        assert_eq!(cluster.peer_status(2, 1).expect("it runs").region.epoch.conf_ver, 1);
        cluster.isolate(2);
        cluster.must_remove(1, 2);
        // Longer than a peer goes without a leader before it asks PD.
        cluster.pass(20 * SECOND);
        let region = cluster.region(1);
        cluster.go_on(2, Stage::Apply);
        cluster.wait_gone(1, 2);
        cluster.wait("store 2 to be emptied", |world| rows(world, 2).len() == 2);
        assert!(tombstone(&cluster, 2).is_some());
        let gone = Peer::voter(PeerId::must(102), StoreId::must(2));
        let read =
            Command { header: header(&region, gone), body: Body::Operations(vec![get("k1")]) };
        assert_eq!(cluster.read_beside(2, &read), None);
        match cluster.call(2, read).expect("answered").body {
            Err(RegionError::RegionNotFound { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn stale_14_a_one_replica_region_never_suspects_itself() {
    for_seeds(|_| {
        let short = |config: &mut raftstore_core::Config| {
            config.max_leader_missing_duration = Duration::from_secs(3);
        };
        let mut cluster = Cluster::started(plan_with(1, 1, short));
        cluster.must_put("k1", "v1");
        cluster.pass(10 * SECOND);
        assert_eq!(cluster.pd.validations, 0);
        cluster.kill(1);
        cluster.start(1);
        cluster.pass(10 * SECOND);
        assert_eq!(cluster.pd.validations, 0);
        assert_eq!(cluster.get("k1").as_deref(), Some("v1"));

        // Others do.
        let mut cluster = Cluster::started(plan_with(3, 3, short));
        cluster.isolate(3);
        cluster.pass(10 * SECOND);
        assert!(cluster.pd.validations > 0);
    });
}

#[test]
fn stale_15_removed_replicas_on_the_minority_side_remove_themselves() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(5, 5));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        for store in [4, 5] {
            cluster.must_eq(store, "k1", "v1");
        }
        cluster.partition(&[1, 2, 3], &[4, 5]);
        cluster.must_remove(1, 4);
        cluster.must_remove(1, 5);
        for store in [4, 5] {
            cluster.wait_gone(1, store);
            cluster.wait("the store to be emptied", |world| rows(world, store).len() == 2);
        }
        cluster.must_put("k2", "v2");
    });
}

/// STALE-17: no leader is there to tell it anything.
#[test]
fn stale_17_restart_with_committed_unapplied_log_on_a_learner() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(scenario_plan(4, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "v0");
        cluster.must_add_learner(1, 4, 404);
        cluster.must_eq(4, "k", "v0");
        cluster.stand_still(4, Stage::Apply);
        for number in 1..=20 {
            cluster.must_put("k", &format!("v{number}"));
        }
        cluster.pass(SECOND);
        let before = cluster.peer_status(4, 1).expect("it runs");
        for store in 1..=4 {
            cluster.kill(store);
        }
        let log = &cluster.nodes[&4].disk.log;
        let state = log.raft_state(RegionId::must(1)).expect("readable").expect("a state");
        let known = state.hard_state.commit;
        assert!(known >= before.applied.applied + 15, "{known} beside {before:?}");
        cluster.start(4);
        cluster.wait("what it knows to be executed", |world| {
            world.peer_status(4, 1).is_some_and(|peer| peer.applied.applied == known)
        });
        assert_ne!(cluster.on_disk(4, "k").as_deref(), Some("v0"));
        for store in 1..=3 {
            cluster.start(store);
        }
        cluster.must_eq(4, "k", "v20");
    });
}
