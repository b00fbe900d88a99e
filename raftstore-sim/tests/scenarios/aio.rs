//! Group AIO: log writes that take long while the world goes on.
//!
//! AIO-07 and AIO-09 are about executing entries that the leader's own log does not hold
//! yet. That cannot occur here: entries are handed out once they are durable at the replica
//! that executes them (R7), on leaders too, so no membership can come from an unwritten log,
//! and no applied index runs ahead of one. AIO-08 and AIO-10 are here without that part.

use engine_traits::RaftEngine;
use raftstore_core::{PeerPhase, PeerStatus};
use raftstore_proto::{Body, Command, PeerId, RegionId, StoreId};
use raftstore_sim::{
    cluster::{Cluster, header, put},
    disk::Crash,
    network::{Action, Match},
    queue::{MILLI, SECOND},
    rng::Rng,
    world::{CutPoint, Stage, World},
};

use crate::{eager_gc, for_seeds, plan_with, stale::tombstone};

fn status(world: &World, store: u64) -> PeerStatus {
    world.peer_status(store, 1).expect("it runs")
}

/// Puts a write to a store's peer, whatever comes of it.
fn ask_put(cluster: &mut Cluster, store: u64, key: &str, value: &str) -> u64 {
    let region = cluster.region(1);
    let peer = *region.peer_on(StoreId::must(store)).expect("a member");
    let body = Body::Operations(vec![put(key, value)]);
    cluster.ask(store, Command { header: header(&region, peer), body }).expect("it runs")
}

#[test]
fn aio_03_commit_without_the_leaders_own_disk() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v0");
        cluster.stand_still(1, Stage::Write);
        let replies: Vec<u64> =
            (1..=5).map(|number| ask_put(&mut cluster, 1, "k", &format!("v{number}"))).collect();
        for store in [2, 3] {
            cluster.must_eq(store, "k", "v5");
        }
        cluster.pass(SECOND);
        assert_eq!(cluster.on_disk(1, "k").as_deref(), Some("v0"), "executed before it is written");
        let leader = status(&cluster, 1);
        assert!(leader.is_leader && leader.committed > leader.persisted_index, "{leader:?}");
        assert!(replies.iter().all(|reply| cluster.answer_to(*reply).is_none()));
        cluster.go_on(1, Stage::Write);
        cluster.wait("all answers", |world| {
            replies.iter().all(|reply| world.answer_to(*reply).is_some())
        });
        assert!(replies.iter().all(|it| cluster.answer_to(*it).is_some_and(|it| it.body.is_ok())));
        assert_eq!(cluster.on_disk(1, "k").as_deref(), Some("v5"));
    });
}

/// AIO-05, R26: the former leader's log is still being written when it is removed. No leader
/// removes itself here, so another one does it.
#[test]
fn aio_05_self_removal_waits_for_its_log_write() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v0");
        cluster.stand_still(1, Stage::Write);
        ask_put(&mut cluster, 1, "k", "v1");
        cluster.must_eq(2, "k", "v1");
        cluster.must_eq(3, "k", "v1");
        // Whoever leads next asks nothing of store 1, which cannot write its vote either.
        cluster.isolate(1);
        cluster.wait("a leader elsewhere", |world| {
            world.leader_store(1).is_some_and(|store| store != 1)
        });
        cluster.must_remove(1, 1);
        cluster.must_add_learner(1, 1, 401);
        cluster.mend();
        cluster.wait("store 1 to hear of it", |world| world.peer_status(1, 1).is_none());
        // Its end waits behind its writes, and so does its successor.
        assert!(cluster.stays(5 * SECOND, |world| world.peer_status(1, 1).is_none()));
        assert!(tombstone(&cluster, 1).is_none());
        assert_eq!(cluster.on_disk(1, "k").as_deref(), Some("v0"));
        let log = cluster.nodes[&1].disk.log.clone();
        let region = RegionId::must(1);
        let before = log.raft_state(region).expect("readable").expect("its log is there");
        cluster.go_on(1, Stage::Write);
        cluster.must_eq(1, "k", "v1");
        assert_eq!(status(&cluster, 1).peer.id, PeerId::must(401));
        let after = log.raft_state(region).expect("readable").expect("a new log");
        assert_ne!(before, after);
        cluster.power_loss(1);
        cluster.start(1);
        cluster.must_put("k", "v2");
        cluster.must_eq(1, "k", "v2");
    });
}

#[test]
fn aio_06_snapshot_being_persisted_no_destruction_no_new_ready() {
    for_seeds(|_| {
        for removed in [false, true] {
            let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
            cluster.lead(1, 1);
            cluster.must_put("k0", "v");
            cluster.must_eq(3, "k0", "v");
            let last = status(&cluster, 3).last_index;
            cluster.isolate(3);
            for round in 0..200 {
                if status(&cluster, 1).applied.truncated.index > last {
                    break;
                }
                cluster.must_put("k0", &format!("v{round}"));
                cluster.pass(SECOND / 5);
            }
            cluster.stand_still(3, Stage::Write);
            cluster.mend();
            cluster.wait("a snapshot being persisted", |world| {
                status(world, 3).phase == PeerPhase::Applying
            });
            let before = status(&cluster, 3);
            for number in 1..30 {
                cluster.must_put(&format!("k{number}"), "v");
            }
            cluster.lead(1, 2);
            if removed {
                cluster.must_remove(1, 3);
                cluster.must_add_learner(1, 3, 304);
            }
            let unchanged = |world: &mut World| {
                world.peer_status(3, 1).map_or(removed, |now| {
                    (now.peer, now.incarnation, now.last_index, now.applied)
                        == (before.peer, before.incarnation, before.last_index, before.applied)
                })
            };
            assert!(cluster.stays(3 * SECOND, unchanged));
            assert!(tombstone(&cluster, 3).is_none());
            cluster.go_on(3, Stage::Write);
            cluster.must_eq(3, "k29", "v");
            let expected = if removed { 304 } else { 103 };
            assert_eq!(status(&cluster, 3).peer.id, PeerId::must(expected));
            cluster.must_put("k30", "v");
            cluster.must_eq(3, "k30", "v");
        }
    });
}

/// AIO-08, H3: it knows of more committed entries than it has written when power goes.
#[test]
fn aio_08_commit_check_uses_min_of_persisted_and_committed() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            config.max_rounds_in_flight = 1_024;
        }));
        cluster.lead(1, 1);
        cluster.must_put("k0", "v");
        cluster.must_eq(3, "k0", "v");
        if seed % 2 == 0 {
            cluster.stand_still(3, Stage::Write);
        } else {
            cluster.stand_still(3, Stage::Apply);
        }
        for number in 1..=150 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        cluster.wait("store 3 to know that many are committed", |world| {
            let follower = status(world, 3);
            let behind =
                if seed % 2 == 0 { follower.persisted_index } else { follower.applied.applied };
            follower.committed > behind + 50
        });
        cluster.power_loss(3);
        cluster.start(3);
        let after = status(&cluster, 3);
        assert!(after.committed <= after.persisted_index, "{after:?}");
        cluster.must_eq(3, "k150", "v");
        // Once more, with power going in the middle of the catching up.
        cluster.isolate(3);
        for number in 151..=200 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        cluster.mend();
        let point = *Rng::new(seed).pick(&[
            CutPoint::BeforeApplyAnswers,
            CutPoint::InsideGroup,
            CutPoint::BeforeProof,
            CutPoint::BeforeApply,
        ]);
        cluster.cut_at(3, point, Crash::PowerLoss);
        cluster.wait("power to go", |world| !world.nodes[&3].is_up());
        cluster.must_eq(3, "k200", "v");
    });
}

/// AIO-10, R35: a leader whose own entries are still being written is deposed, and its log
/// replaced under them. Nothing of them is executed, here or anywhere.
#[test]
fn aio_10_fetch_and_cache_when_roles_change() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            config.peer_entry_cache_count = 1;
            config.max_rounds_in_flight = 1_024;
        }));
        cluster.lead(1, 1);
        cluster.must_put("k", "v0");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v0");
        }
        cluster.stand_still(1, Stage::Write);
        // Nothing it says is heard; it hears everything.
        cluster.filter(Match { from: Some(1), ..Match::default() }, Action::Drop);
        let lost: Vec<u64> =
            (0..20).map(|number| ask_put(&mut cluster, 1, "lost", &format!("v{number}"))).collect();
        cluster.pass(100 * MILLI);
        let end = status(&cluster, 1).last_index;
        cluster.wait("the old leader to follow, and its log to be replaced", |world| {
            !status(world, 1).is_leader && status(world, 1).last_index < end
        });
        for number in 1..=10 {
            cluster.must_put("k", &format!("v{number}"));
        }
        assert!(cluster.stays(2 * SECOND, |world| {
            status(world, 1).applied.applied <= status(world, 1).persisted_index
        }));
        cluster.network.clear_filters();
        cluster.go_on(1, Stage::Write);
        cluster.must_eq(1, "k", "v10");
        cluster.lead(1, 1);
        cluster.must_put("k", "last");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "last");
            assert_eq!(cluster.on_disk(store, "lost"), None);
        }
        for reply in lost {
            let answer = cluster.answer_to(reply).expect("answered long ago");
            assert!(answer.body.is_err(), "{answer:?}");
        }
    });
}
