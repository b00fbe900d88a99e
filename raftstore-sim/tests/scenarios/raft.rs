//! Group RAFT: replication, elections, callbacks. Queues of a transport that are full
//! (RAFT-22) are in `transport-traits/tests/channel.rs`.

use raftstore_proto::{
    AdminCommand, Body, ChangeKind, Command, MessageKind, PeerChange, RegionError, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, header, put},
    disk::Crash,
    network::{Action, Match, Weather},
    queue::{MILLI, SECOND},
    rng::Rng,
    world::World,
};

use crate::{for_seeds, scenario_plan};

fn holders(world: &Cluster, key: &str, value: Option<&str>) -> usize {
    world.nodes.keys().filter(|store| world.on_disk(**store, key).as_deref() == value).count()
}

fn kinds(kinds: &[MessageKind], from: u64) -> Match {
    Match { kinds: kinds.to_vec(), from: Some(from), ..Match::default() }
}

#[test]
fn raft_01_write_reaches_a_quorum_of_engines() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        cluster.must_put("k1", "v1");
        cluster.pass(SECOND);
        assert!(holders(&cluster, "k1", Some("v1")) >= 3);
        assert_eq!(cluster.get("k1").as_deref(), Some("v1"));
        cluster.must_delete("k1");
        cluster.pass(SECOND);
        assert!(holders(&cluster, "k1", None) >= 3);
        assert_eq!(cluster.get("k1"), None);
    });
}

#[test]
fn raft_02_whole_cluster_restart_keeps_acknowledged_data() {
    for_seeds(|_| {
        for way in [None, Some(Crash::Kill), Some(Crash::PowerLoss)] {
            let mut cluster = Cluster::of(5);
            cluster.must_put("k1", "v1");
            for store in 1..=5 {
                match way {
                    None => cluster.stop_store(store),
                    Some(crash) => cluster.crash_store(store, crash),
                }
            }
            for store in 1..=5 {
                cluster.start(store);
            }
            assert_eq!(cluster.get("k1").as_deref(), Some("v1"), "{way:?}");
            for store in 1..=5 {
                cluster.must_eq(store, "k1", "v1");
            }
        }
    });
}

#[test]
fn raft_04_leader_crash_takeover_return() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        cluster.must_put("k1", "v1");
        cluster.must_eq(1, "k1", "v1");
        cluster.kill(1);
        let leader = cluster.wait_leader(1);
        assert_ne!(leader, 1);
        cluster.must_put("k2", "v2");
        cluster.must_delete("k1");
        assert_eq!(cluster.on_disk(1, "k1").as_deref(), Some("v1"));
        assert_eq!(cluster.on_disk(1, "k2"), None);
        cluster.start(1);
        cluster.must_eq(1, "k2", "v2");
        cluster.must_none(1, "k1");
    });
}

#[test]
fn raft_05_partition_with_the_leader_in_either_side() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        cluster.partition(&[1, 2, 3], &[4, 5]);
        cluster.must_put("k1", "v1");
        assert_eq!(cluster.get("k1").as_deref(), Some("v1"));
        assert_eq!(cluster.wait_leader(1), 1);
        cluster.mend();
        cluster.pass(SECOND);
        cluster.lead(1, 1);
        cluster.partition(&[1, 2], &[3, 4, 5]);
        cluster.wait("a leader among 3, 4, 5", |world| {
            world.leader_store(1).is_some_and(|store| store >= 3)
        });
        assert_eq!(cluster.get("k1").as_deref(), Some("v1"));
        cluster.must_put("k1", "changed");
        assert_eq!(cluster.on_disk(1, "k1").as_deref(), Some("v1"));
        cluster.mend();
        cluster.must_put("k2", "v2");
        cluster.must_eq(1, "k1", "changed");
        cluster.must_eq(1, "k2", "v2");
    });
}

#[test]
fn raft_06_overwritten_proposal_is_told_it_is_stale() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k1", "v1");
        for store in 1..=3 {
            cluster.must_eq(store, "k1", "v1");
        }
        let votes = [MessageKind::RequestPreVote, MessageKind::RequestVote];
        let no_votes = cluster.filter(kinds(&votes, 3), Action::Drop);
        let no_appends = cluster.filter(kinds(&[MessageKind::Append], 1), Action::Drop);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let body = Body::Operations(vec![put("k2", "lost")]);
        let reply = cluster
            .ask(1, Command { header: header(&region, leader), body })
            .expect("store 1 runs");
        cluster.pass(50 * MILLI);
        let no_beats = cluster.filter(kinds(&[MessageKind::Heartbeat], 1), Action::Drop);
        cluster.wait("store 2 to lead", |world| world.leader_store(1) == Some(2));
        for filter in [no_votes, no_appends, no_beats] {
            cluster.release(filter);
        }
        cluster.must_put("k3", "v3");
        cluster.wait("an answer to the overwritten put", |world| world.answer_to(reply).is_some());
        let answer = cluster.answer_to(reply).expect("just waited for").body.clone();
        assert!(matches!(answer, Err(RegionError::StaleCommand)), "{answer:?}");
        for store in 1..=3 {
            cluster.must_eq(store, "k3", "v3");
            assert_eq!(cluster.on_disk(store, "k2"), None);
        }
    });
}

#[test]
fn raft_07_no_quorum_no_leader() {
    for_seeds(|_| {
        for stores in [4, 5_u64] {
            let mut cluster = Cluster::of(stores);
            let half = stores.div_ceil(2);
            for store in 1..=half {
                cluster.kill(store);
            }
            cluster.pass(5 * SECOND);
            assert!(cluster.stays(5 * SECOND, |world| world.leader_store(1).is_none()));
        }
    });
}

#[test]
fn raft_08_random_restarts_under_writes() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        let mut rng = Rng::new(8);
        for round in 0..10 {
            let store = rng.between(1, 5);
            let (key, value) = (format!("k{round}"), format!("v{}", rng.next_u64()));
            if rng.chance(500) {
                cluster.kill(store)
            } else {
                cluster.power_loss(store)
            }
            cluster.must_put(&key, &value);
            cluster.start(store);
            cluster.must_eq(store, &key, &value);
            cluster.must_delete(&key);
            cluster.must_none(store, &key);
        }
    });
}

#[test]
fn raft_11_removing_the_leader_fails_its_queued_commands_clearly() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(2);
        let no_votes = cluster.filter(
            kinds(&[MessageKind::RequestVote, MessageKind::RequestPreVote], 2),
            Action::Drop,
        );
        let no_appends = cluster.filter(kinds(&[MessageKind::Append], 1), Action::Hold);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let remove = PeerChange { kind: ChangeKind::RemoveNode, peer: leader };
        let admin = admin_command(&region, leader, AdminCommand::ChangePeer(remove));
        let removal = cluster.ask(1, admin).expect("store 1 runs");
        cluster.pass(20 * MILLI);
        let body = Body::Operations(vec![put("k", "v")]);
        let write = cluster
            .ask(1, Command { header: header(&region, leader), body })
            .expect("store 1 runs");
        cluster.pass(20 * MILLI);
        cluster.release(no_appends);
        cluster.release(no_votes);
        cluster.wait("an answer to the put", |world| world.answer_to(write).is_some());
        let answer = cluster.answer_to(write).expect("just waited for").body.clone();
        let removed = cluster.answer_to(removal).map(|answer| answer.body.is_ok());
        // A leader that refuses its own removal is as clear as one that carries it out.
        if removed == Some(true) {
            assert!(
                matches!(
                    answer,
                    Err(RegionError::RegionNotFound { .. }
                        | RegionError::StaleCommand
                        | RegionError::EpochNotMatch { .. })
                ),
                "{answer:?}"
            );
        }
    });
}

fn put_read_delete_read(cluster: &mut Cluster) {
    for round in 0..5 {
        let (key, value) = (format!("k{round}"), format!("v{round}"));
        cluster.must_put(&key, &value);
        assert_eq!(cluster.get(&key), Some(value));
        cluster.must_delete(&key);
        assert_eq!(cluster.get(&key), None);
    }
}

#[test]
fn raft_12_thirty_percent_loss() {
    for_seeds(|_| {
        let mut plan = scenario_plan(5, 5);
        plan.weather = Weather { loss: 300, ..Weather::FAIR };
        put_read_delete_read(&mut Cluster::started(plan));
    });
}

#[test]
fn raft_13_delay_with_reordering() {
    for_seeds(|_| {
        let mut plan = scenario_plan(5, 5);
        plan.weather = Weather { mean_delay: 30 * MILLI, reorder: 500, ..Weather::FAIR };
        put_read_delete_read(&mut Cluster::started(plan));
    });
}

#[test]
fn a_duplicated_world_is_one_world() {
    for_seeds(|_| {
        // Everything arrives twice, the second time late.
        let mut plan = scenario_plan(3, 3);
        plan.weather = Weather { duplicate: 1000, ..Weather::FAIR };
        let mut cluster = Cluster::started(plan);
        put_read_delete_read(&mut cluster);
        let world: &World = &cluster;
        assert!(world.violation().is_none());
    });
}

/// RAFT-19: who has a leader asks nobody for votes, and keeps it when others come back.
#[test]
fn raft_19_pre_vote_partitions_and_reboots_do_not_disturb_a_working_side() {
    for_seeds(|_| {
        let all_votes = [MessageKind::RequestPreVote, MessageKind::RequestVote];
        let reign = |cluster: &Cluster| {
            let leader = cluster.leader_store(1).expect("somebody leads");
            (leader, cluster.peer_status(leader, 1).expect("it runs").term)
        };
        // The leader is in the majority, watched from both sides.
        let mut cluster = Cluster::of(5);
        cluster.must_put("k", "v0");
        let before = reign(&cluster);
        let asked: Vec<_> =
            (1..=5).map(|store| cluster.filter(kinds(&all_votes, store), Action::Count)).collect();
        let votes = cluster.filter(kinds(&[MessageKind::RequestVote], 4), Action::Count);
        cluster.partition(&[1, 2, 3], &[4, 5]);
        cluster.pass(8 * SECOND);
        let taken: Vec<u64> = asked.iter().map(|filter| cluster.network.taken(*filter)).collect();
        assert_eq!(taken[..3], [0, 0, 0], "a side with a leader asks for votes");
        assert!(taken[3] > 0 && taken[4] > 0, "a side without a leader does not");
        assert_eq!(cluster.network.taken(votes), 0, "more than asked for");
        cluster.mend();
        cluster.must_put("k", "v1");
        cluster.pass(5 * SECOND);
        assert_eq!(reign(&cluster), before);

        // It is in the minority.
        cluster.partition(&[1, 2], &[3, 4, 5]);
        cluster.wait("another leader", |world| world.leader_store(1).is_some_and(|it| it > 2));
        cluster.must_put("k", "v2");
        let before = reign(&cluster);
        cluster.pass(8 * SECOND);
        cluster.mend();
        cluster.must_put("k", "v3");
        cluster.pass(5 * SECOND);
        assert_eq!(reign(&cluster), before);
        for store in 1..=5 {
            cluster.must_eq(store, "k", "v3");
        }

        // Followers are started anew, a minority and a majority of them.
        for count in [2, 4] {
            let before = reign(&cluster);
            let followers: Vec<u64> =
                (1..=5).filter(|store| *store != before.0).take(count).collect();
            for store in &followers {
                cluster.kill(*store);
            }
            for store in &followers {
                cluster.start(*store);
            }
            cluster.must_put("k", &format!("after {count}"));
            cluster.pass(5 * SECOND);
            assert_eq!(reign(&cluster), before, "{count} followers started anew");
        }
    });
}

#[test]
fn raft_20_a_lone_follower_comes_back_without_raising_the_term() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        cluster.must_put("k", "v0");
        let term = cluster.peer_status(1, 1).expect("it runs").term;
        cluster.isolate(5);
        cluster.pass(10 * SECOND);
        cluster.mend();
        cluster.must_put("k", "v1");
        cluster.must_eq(5, "k", "v1");
        let leader = cluster.peer_status(1, 1).expect("it runs");
        assert_eq!((leader.is_leader, leader.term), (true, term));
    });
}
