//! Group DISK: stores that run out of room. How a running node finds out is in
//! `raftstore-core/tests/room.rs`.

use raftstore_core::Dropped;
use raftstore_proto::{
    AdminCommand, Body, Cf, ChangeKind, Command, DiskUsage, MessageKind, Operation, Peer, PeerId,
    RegionError, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, get, header, put},
    network::{Action, Match},
    queue::SECOND,
};

use crate::{eager_gc, for_seeds, plan_with, scenario_plan};

fn put_body(key: &str) -> Body {
    Body::Operations(vec![put(key, "v")])
}

fn delete_body(key: &str) -> Body {
    let key = bytes::Bytes::from(key.to_owned());
    Body::Operations(vec![Operation::Delete { cf: Cf::Default, key }])
}

/// Puts a command to the leader and requires that it is refused for want of room on `stores`.
#[track_caller]
fn refused(cluster: &mut Cluster, body: &Body, stores: &[u64]) {
    short(cluster.on_leader(1, body, false), stores);
}

#[track_caller]
fn short<T: std::fmt::Debug>(answer: Result<T, RegionError>, expected: &[u64]) {
    match answer {
        Err(RegionError::DiskFull { stores }) => {
            let stores: Vec<u64> = stores.into_iter().map(StoreId::get).collect();
            assert_eq!(stores, expected);
        }
        other => panic!("{other:?}"),
    }
}

/// Asks for a split until it is answered by a leader that is not about to hand over.
fn split(cluster: &mut Cluster) -> Result<(), RegionError> {
    loop {
        match cluster.split(1, &["m"]) {
            Err(RegionError::NotLeader { .. }) => cluster.pass(SECOND / 2),
            answer => return answer.map(|_| ()),
        }
    }
}

/// Asks store 1, which leads, to hand over.
fn ask_transfer(cluster: &mut Cluster, to: u64) {
    let region = cluster.region(1);
    let leader = *region.peer_on(StoreId::must(1)).expect("a member");
    let to = *region.peer_on(StoreId::must(to)).expect("a member");
    cluster.ask(1, admin_command(&region, leader, AdminCommand::TransferLeader(to)));
}

fn dropped_for_room(cluster: &Cluster, store: u64) -> u64 {
    let lanes = cluster.metrics(store);
    lanes.iter().filter_map(|lane| lane.dropped.get(&Dropped::DiskFull)).sum()
}

#[test]
fn disk_02_almost_full_and_full_leader() {
    for_seeds(|_| {
        for usage in [DiskUsage::AlmostFull, DiskUsage::Full] {
            let mut cluster = Cluster::started(scenario_plan(4, 3));
            cluster.lead(1, 1);
            for key in ["a", "b", "k", "z"] {
                cluster.must_put(key, "v");
                cluster.must_eq(3, key, "v");
            }
            cluster.must_add_learner(1, 4, 404);
            cluster.must_eq(4, "z", "v");
            cluster.pass(SECOND);
            // It has to lead on for a while.
            let stays = cluster.filter(
                Match { kinds: vec![MessageKind::TimeoutNow], ..Match::default() },
                Action::Drop,
            );
            cluster.fill(1, usage);
            cluster.pass(SECOND / 10);
            refused(&mut cluster, &put_body("a"), &[1]);
            let mixed = Body::Operations(vec![put("c", "v"), put("a", "w")]);
            refused(&mut cluster, &mixed, &[1]);
            // What frees space is done, reads are served.
            assert!(cluster.on_leader(1, &delete_body("b"), false).is_ok());
            assert_eq!(cluster.get("b"), None);
            cluster.must_remove(1, 4);
            cluster.pass(SECOND);
            // Upkeep is done while it is almost full only.
            let learner = Peer::learner(PeerId::must(405), StoreId::must(4));
            let added = cluster.change(1, ChangeKind::AddLearner, learner);
            if usage == DiskUsage::Full {
                short(added, &[1]);
            } else {
                assert!(added.is_ok(), "{added:?}");
            }
            let split = split(&mut cluster);
            if usage == DiskUsage::Full {
                short(split, &[1]);
            } else {
                assert!(split.is_ok(), "{split:?}");
            }
            assert_eq!(cluster.leader_store(1), Some(1));
            // It hands over as soon as it can, and is not asked to lead again.
            cluster.release(stays);
            cluster.wait("another leader", |world| {
                world.leader_store(1).is_some_and(|store| store != 1)
            });
            cluster.must_put("y", "w");
            let leader = cluster.wait_leader(1);
            let region = cluster.region(1);
            let from = *region.peer_on(StoreId::must(leader)).expect("a member");
            let to = *region.peer_on(StoreId::must(1)).expect("a member");
            cluster.pass(SECOND);
            let told = cluster.filter(
                Match { kinds: vec![MessageKind::TimeoutNow], ..Match::default() },
                Action::Count,
            );
            cluster.ask(leader, admin_command(&region, from, AdminCommand::TransferLeader(to)));
            assert!(cluster.stays(3 * SECOND, |world| world.leader_store(1) == Some(leader)));
            assert_eq!(cluster.network.taken(told), 0);
            cluster.fill(1, DiskUsage::Normal);
            cluster.pass(SECOND);
            cluster.lead(1, 1);
            cluster.must_put("y", "x");
        }
    });
}

#[test]
fn disk_03_full_follower() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k", "v0");
        cluster.must_eq(3, "k", "v0");
        // As long as nobody knows, it has to say no itself.
        let unknown = cluster.filter(
            Match { from: Some(3), ..Match::default() },
            Action::Mutate(Box::new(|message| {
                *message = std::mem::take(message).with_disk_usage(DiskUsage::Normal);
            })),
        );
        cluster.fill(3, DiskUsage::Full);
        cluster.pass(SECOND);
        ask_transfer(&mut cluster, 3);
        assert!(cluster.stays(3 * SECOND, |world| world.leader_store(1) == Some(1)));
        cluster.must_put("k", "unheard");
        cluster.pass(SECOND);
        assert_eq!(cluster.on_disk(3, "k").as_deref(), Some("v0"));
        let before = dropped_for_room(&cluster, 3);
        assert!(before > 1, "neither entries nor the order to campaign were dropped");
        cluster.release(unknown);
        cluster.pass(SECOND);
        let before = dropped_for_room(&cluster, 3).max(before);
        // Writes go on without it, and it is not bothered with them.
        for number in 1..=60 {
            cluster.must_put("k", &format!("v{number}"));
            cluster.pass(SECOND / 10);
        }
        assert_eq!(cluster.on_disk(3, "k").as_deref(), Some("v0"));
        assert_eq!(dropped_for_room(&cluster, 3), before, "it is given entries");
        let asked: u64 = cluster.metrics(1).iter().map(|lane| lane.snapshots_asked).sum();
        assert!(
            asked == 0
                && cluster.peer_status(1, 1).is_some_and(|it| it.applied.truncated.index > 30)
        );
        // A read there would not see what is missing.
        let region = cluster.region(1);
        let third = *region.peer_on(StoreId::must(3)).expect("a member");
        let body = Body::Operations(vec![get("k")]);
        let mut read = Command { header: header(&region, third), body };
        read.header.replica_read = true;
        short(cluster.call(3, read).expect("answered").body, &[3]);
        // It is not even told to lead.
        let told = cluster.filter(
            Match { kinds: vec![MessageKind::TimeoutNow], ..Match::default() },
            Action::Count,
        );
        ask_transfer(&mut cluster, 3);
        assert!(cluster.stays(3 * SECOND, |world| world.leader_store(1) == Some(1)));
        assert_eq!(cluster.network.taken(told), 0);
        // It votes: the second cannot be elected without it. What it then has no room for is
        // not promised to anybody.
        cluster.kill(1);
        cluster.wait("the second to lead", |world| world.leader_store(1) == Some(2));
        cluster.start(1);
        cluster.must_put("k", "again");
        cluster.kill(1);
        cluster.pass(10 * SECOND);
        refused(&mut cluster, &put_body("k"), &[3]);
        cluster.start(1);
        cluster.pass(2 * SECOND);
        cluster.must_put("k", "last");
        cluster.fill(3, DiskUsage::Normal);
        cluster.must_eq(3, "k", "last");
    });
}

#[test]
fn disk_05_full_plus_down() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        cluster.must_put("k", "v0");
        let fill = |cluster: &mut Cluster, store, usage| {
            cluster.fill(store, usage);
            cluster.pass(SECOND);
        };
        for store in [3, 4] {
            fill(&mut cluster, store, DiskUsage::AlmostFull);
        }
        // Three have room.
        cluster.must_put("k", "v1");
        fill(&mut cluster, 5, DiskUsage::AlmostFull);
        refused(&mut cluster, &put_body("k"), &[3, 4, 5]);
        // They have room for upkeep, and for what frees space.
        cluster.must_delete("k");
        let parts = cluster.must_split(1, &["b"]);
        assert_eq!(parts.len(), 2);
        fill(&mut cluster, 5, DiskUsage::Normal);
        cluster.must_put("k", "v2");
        // One that had room is gone.
        cluster.kill(2);
        cluster.pass(10 * SECOND);
        refused(&mut cluster, &put_body("k"), &[3, 4]);
        assert_eq!(cluster.get("k").as_deref(), Some("v2"));
        fill(&mut cluster, 4, DiskUsage::Normal);
        cluster.must_put("k", "v3");
        cluster.start(2);
        for store in 1..=5 {
            cluster.must_eq(store, "k", "v3");
        }
    });
}
