//! Group SNAP, second part: snapshots that overlap, fail on their way, come too late, or rest
//! on disk for longer than anybody needs them.
//!
//! A receiver that cannot be found (SNAP-24) is in `transport-traits/tests/channel.rs`; what
//! stores make of the failure is in SNAP-17 and SNAP-29.

use std::time::Duration;

use engine_traits::{RaftEngine, mem::Leaves};
use raftstore_core::PeerPhase;
use raftstore_proto::{MessageKind, PeerId, RegionId};
use raftstore_sim::{
    cluster::Cluster,
    counters::Sometimes,
    disk::DiskFault,
    network::{Action, Match},
    queue::{MILLI, SECOND},
    world::{Stage, World},
};
use transport_traits::{SnapDirection, SnapKey, SnapOp, SnapStore};

use crate::{eager_gc, for_seeds, plan_with};

fn snapshots_to(store: u64) -> Match {
    Match { kinds: vec![MessageKind::Snapshot], to: Some(store), ..Match::default() }
}

/// The region snapshots of one direction that rest on a store.
fn resting(world: &World, store: u64, wanted: SnapDirection) -> Vec<SnapKey> {
    let listed = world.nodes[&store].disk.snaps.list().expect("readable").into_iter();
    listed.filter(|(direction, ..)| *direction == wanted).map(|(_, key, _)| key).collect()
}

fn phase(world: &World, store: u64, region: u64) -> Option<PeerPhase> {
    world.peer_status(store, region).map(|peer| peer.phase)
}

/// Snapshots that a store has refused for the range they cover.
fn overlapping(world: &World, store: u64) -> u64 {
    world.metrics(store).iter().map(|lane| lane.snapshots_overlapping).sum()
}

/// Writes until the log of region 1 is cut past `index` on the leader's store.
fn write_until_cut(cluster: &mut Cluster, index: u64) {
    for round in 0..200 {
        cluster.must_put(&format!("fill{}", round % 10), &format!("v{round}"));
        let leader = cluster.wait_leader(1);
        if cluster.peer_status(leader, 1).is_some_and(|it| it.applied.truncated.index > index) {
            return;
        }
        cluster.pass(SECOND / 5);
    }
    panic!("the log was never cut");
}

/// Has store 3 fall behind so far that only a snapshot helps. It is still isolated then.
fn leave_behind(cluster: &mut Cluster) {
    let last = cluster.peer_status(3, 1).expect("running").last_index;
    cluster.isolate(3);
    write_until_cut(cluster, last);
}

#[test]
fn snap_02_overlapping_snapshots_delivered_in_one_batch() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(plan_with(3, 2, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k11", "v11");
        cluster.must_put("k3", "v3");
        let votes = vec![MessageKind::RequestVote, MessageKind::RequestPreVote];
        cluster.filter(Match { kinds: votes, from: Some(2), ..Match::default() }, Action::Drop);
        let hold = cluster.filter(snapshots_to(3), Action::Hold);
        cluster.must_add_learner(1, 3, 303);
        cluster.wait("the first snapshot", |world| world.network.taken(hold) > 0);
        cluster.must_split(1, &["k2"]);
        cluster.wait("the second snapshot", |world| world.network.taken(hold) > 1);
        let mut both = cluster.network.take_held(hold);
        cluster.release(hold);
        if seed % 2 == 0 {
            both.reverse();
        }
        // Both wait when the store takes its next turn.
        cluster.pause(3, SECOND);
        for envelope in both {
            cluster.deliver(envelope);
        }
        cluster.pass(2 * SECOND);
        let counted = overlapping(&cluster, 3)
            + cluster
                .metrics(3)
                .iter()
                .filter_map(|lane| lane.dropped.get(&raftstore_core::Dropped::RegionOverlap))
                .sum::<u64>();
        assert!(counted > 0, "nobody noticed that they overlap");
        cluster.must_put("k4", "v4");
        for (key, value) in [("k3", "v3"), ("k11", "v11"), ("k4", "v4")] {
            cluster.must_eq(3, key, value);
        }
    });
}

#[test]
fn snap_11_peer_replaced_while_its_snapshot_apply_is_pending() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        leave_behind(&mut cluster);
        cluster.stand_still(3, Stage::RegionWork);
        cluster.mend();
        cluster.wait("a snapshot that waits to be installed", |world| {
            phase(world, 3, 1) == Some(PeerPhase::Applying) && world.waits_at(3, Stage::RegionWork)
        });
        cluster.isolate(3);
        cluster.must_remove(1, 3);
        cluster.must_add_learner(1, 3, 304);
        cluster.plan.pace.apply = 50 * MILLI;
        cluster.mend();
        cluster.wait("the old peer to be on its way out", |world| {
            phase(world, 3, 1) == Some(PeerPhase::GoingAway)
        });
        let before = cluster.counters.get(Sometimes::InstallsCancelled);
        cluster.go_on(3, Stage::RegionWork);
        cluster.wait("the new peer", |world| {
            world.peer_status(3, 1).is_some_and(|it| it.peer.id == PeerId::must(304))
        });
        assert_eq!(cluster.counters.get(Sometimes::InstallsCancelled), before + 1);
        cluster.must_put("k2", "v2");
        cluster.must_eq(3, "k2", "v2");
        cluster.must_eq(3, "k1", "v1");
    });
}

#[test]
fn snap_17_receiving_fails_in_the_middle() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(2, 1, eager_gc));
        cluster.must_put("k1", "v1");
        cluster.network.weather.snapshot_loss = 1000;
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("two failed transfers", |world| {
            world.counters.get(Sometimes::SnapshotsLost) >= 2
        });
        assert_eq!(resting(&cluster, 2, SnapDirection::Received), []);
        assert_eq!(phase(&cluster, 2, 1), Some(PeerPhase::Uninitialized));
        cluster.network.weather.snapshot_loss = 0;
        cluster.must_eq(2, "k1", "v1");
        cluster.must_remove(1, 2);
        cluster.wait_gone(1, 2);
        cluster.wait("nothing to be left of it", |world| {
            (1..=2).all(|store| world.nodes[&store].disk.snaps.used_bytes() == 0)
        });
    });
}

#[test]
fn snap_18_snapshot_files_are_collected_on_both_sides() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            eager_gc(config);
            config.snap_mgr_gc_tick_interval = Duration::from_millis(500);
            config.snap_gc_timeout = Duration::from_secs(2);
        }));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        leave_behind(&mut cluster);
        // Two attempts stay on the way for longer than a snapshot may rest unfetched.
        let lost = cluster.filter(snapshots_to(3), Action::Hold);
        cluster.mend();
        let mut made = std::collections::BTreeSet::new();
        for attempt in 1..=2 {
            cluster.wait("an attempt", |world| world.network.taken(lost) == attempt);
            made.extend(resting(&cluster, 1, SnapDirection::Generated));
            cluster.wait("it to be given up", |world| {
                resting(world, 1, SnapDirection::Generated).is_empty()
            });
            cluster.must_put("k1", &format!("w{attempt}"));
            cluster.report_snapshot_failed(1, RegionId::must(1), PeerId::must(103));
        }
        assert_eq!(made.len(), 2, "{made:?}");
        drop(cluster.network.take_held(lost));
        cluster.release(lost);
        cluster.must_put("k2", "v2");
        cluster.must_eq(3, "k2", "v2");
        for round in 0..20 {
            cluster.must_put(&format!("fill{}", round % 10), "last");
            cluster.pass(200 * MILLI);
        }
        cluster.wait("no snapshot to be left anywhere", |world| {
            (1..=3).all(|store| world.nodes[&store].disk.snaps.used_bytes() == 0)
        });
    });
}

#[test]
fn snap_20_damaged_on_the_way_detected_and_retried() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(2, 1, eager_gc));
        for number in 0..20 {
            cluster.must_put(&format!("k{number}"), &"v".repeat(100));
        }
        cluster.network.weather.snapshot_damage = 1000;
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("two damaged transfers", |world| {
            world.counters.get(Sometimes::SnapshotsDamaged) >= 2
        });
        cluster.pass(SECOND);
        assert_eq!(phase(&cluster, 2, 1), Some(PeerPhase::Uninitialized), "it was taken in");
        assert_eq!(resting(&cluster, 2, SnapDirection::Received), []);
        cluster.network.weather.snapshot_damage = 0;
        for number in [0, 19] {
            cluster.must_eq(2, &format!("k{number}"), &"v".repeat(100));
        }
    });
}

#[test]
fn snap_21_late_overlapping_snapshot_is_deleted_not_kept() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 2, eager_gc));
        cluster.lead(1, 2);
        cluster.must_put("k1", "v1");
        cluster.must_put("k3", "v3");
        cluster.stand_still(2, Stage::Build);
        cluster.must_add_learner(1, 3, 303);
        cluster.wait("a snapshot to be made", |world| world.waits_at(2, Stage::Build));
        let parts = cluster.must_split(1, &["k2"]);
        let left = parts[0].id.get();
        assert_ne!(left, 1);
        cluster.lead(left, 1);
        cluster.must_eq(3, "k1", "v1");
        assert_eq!(phase(&cluster, 3, 1), Some(PeerPhase::Uninitialized));
        // Now the old one, of the whole range.
        let old = cluster.filter(snapshots_to(3), Action::Count);
        cluster.go_on(2, Stage::Build);
        cluster.wait("the old snapshot to be sent", |world| world.network.taken(old) > 0);
        cluster.wait("the old snapshot to be refused", |world| overlapping(world, 3) > 0);
        cluster.must_eq(3, "k3", "v3");
        assert_eq!(cluster.on_disk(3, "k1").as_deref(), Some("v1"));
        cluster.wait("no received snapshot to be left", |world| {
            resting(world, 3, SnapDirection::Received).is_empty()
        });
        cluster.must_put("k1", "w1");
        cluster.must_eq(3, "k1", "w1");
    });
}

/// Indexes of region 1 that a store's log holds, up to `last`.
fn logged(world: &World, store: u64, last: u64) -> Vec<u64> {
    let log = &world.nodes[&store].disk.log;
    let is_there = |index: &u64| log.entry(RegionId::must(1), *index).expect("readable").is_some();
    (1..=last).filter(is_there).collect()
}

/// Where the log of region 1 was cut on a store.
fn cut(world: &World, store: u64) -> u64 {
    world.peer_status(store, 1).map_or(0, |peer| peer.applied.truncated.index)
}

#[test]
fn snap_23_stale_log_entries_are_gone_after_a_snapshot() {
    for_seeds(|_| {
        for removal_lost in [false, true] {
            let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
            cluster.lead(1, 1);
            cluster.must_put("k1", "v1");
            cluster.must_eq(3, "k1", "v1");
            if removal_lost {
                // The log is cut, but what was cut off is not removed before the process ends.
                cluster.stand_still(3, Stage::KvSync);
                let mut round = 0;
                while cut(&cluster, 3) <= 8 {
                    assert!(round < 200, "the log was never cut");
                    round += 1;
                    cluster.must_put("k2", &format!("v{round}"));
                    cluster.pass(SECOND / 5);
                }
                let stale = cut(&cluster, 3);
                cluster.kill(3);
                assert!(logged(&cluster, 3, stale).len() > 2, "removed already");
                let last = cluster.peer_status(1, 1).expect("running").last_index;
                write_until_cut(&mut cluster, last);
                cluster.start(3);
            } else {
                leave_behind(&mut cluster);
                cluster.mend();
            }
            let before = cluster.counters.get(Sometimes::SnapshotsInstalled);
            cluster.wait("the snapshot", |world| {
                world.counters.get(Sometimes::SnapshotsInstalled) > before
            });
            cluster.must_put("k3", "v3");
            cluster.must_eq(3, "k3", "v3");
            let first = cut(&cluster, 3);
            assert!(logged(&cluster, 3, first).is_empty(), "below the first index {first}");
            let last = cluster.peer_status(3, 1).expect("running").persisted_index;
            let newer = logged(&cluster, 3, last);
            assert_eq!(newer, (first + 1..=last).collect::<Vec<_>>());
        }
    });
}

#[test]
fn snap_26_shutdown_while_files_are_being_collected() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            eager_gc(config);
            config.snap_mgr_gc_tick_interval = Duration::from_millis(200);
            config.snap_gc_timeout = Duration::from_millis(500);
        }));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        leave_behind(&mut cluster);
        // In one half the collector waits behind the installation, in the other it has its way
        // before there is one.
        let stage = if seed % 2 == 0 { Stage::RegionWork } else { Stage::KvSync };
        cluster.stand_still(3, stage);
        cluster.mend();
        cluster.wait("a snapshot that waits to be installed", |world| {
            phase(world, 3, 1) == Some(PeerPhase::Applying) && world.waits_at(3, stage)
        });
        cluster.pass(2 * SECOND);
        let there = resting(&cluster, 3, SnapDirection::Received);
        assert_eq!(there.len(), 1);
        cluster.stop_store(3);
        assert_eq!(resting(&cluster, 3, SnapDirection::Received), there);
        // Nobody can send it again.
        cluster.isolate(3);
        cluster.start(3);
        cluster.wait("the snapshot to be installed", |world| {
            phase(world, 3, 1) == Some(PeerPhase::Normal)
        });
        assert_eq!(cut(&cluster, 3), there[0].index);
        // Nothing but the snapshot can have brought that.
        assert!(cluster.on_disk(3, "fill0").is_some());
        cluster.mend();
        cluster.must_put("k2", "v2");
        cluster.must_eq(3, "k2", "v2");
        cluster.must_eq(3, "k1", "v1");
    });
}

#[test]
fn snap_28_sending_takes_too_long() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(2, 1, eager_gc));
        cluster.must_put("k1", "v1");
        // The first stream hangs, until its transport gives up on it.
        let hangs = cluster.filter(snapshots_to(2), Action::Hold);
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("the first attempt", |world| world.network.taken(hangs) > 0);
        assert!(cluster.stays(3 * SECOND, |world| world.network.taken(hangs) == 1));
        drop(cluster.network.take_held(hangs));
        cluster.release(hangs);
        let second = cluster.filter(snapshots_to(2), Action::Count);
        cluster.report_snapshot_failed(1, RegionId::must(1), PeerId::must(202));
        cluster.must_eq(2, "k1", "v1");
        assert_eq!(cluster.network.taken(second), 1);
        cluster.must_put("k2", "v2");
        cluster.must_eq(2, "k2", "v2");
    });
}

#[test]
fn snap_29_failed_sends_leave_no_files() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(2, 1, eager_gc));
        cluster.must_put("k1", "v1");
        cluster.network.weather.snapshot_loss = 1000;
        cluster.must_add_learner(1, 2, 202);
        cluster
            .wait("a failed transfer", |world| world.counters.get(Sometimes::SnapshotsLost) >= 1);
        let first = resting(&cluster, 1, SnapDirection::Generated);
        // The next one has another name.
        for round in 0..10 {
            cluster.must_put("k2", &format!("v{round}"));
        }
        cluster.network.weather.snapshot_loss = 0;
        cluster.must_eq(2, "k2", "v9");
        cluster.wait("no snapshot to be left", |world| {
            (1..=2).all(|store| world.nodes[&store].disk.snaps.used_bytes() == 0)
        });
        assert!(first.len() <= 1, "{first:?}");
    });
}

#[test]
fn snap_31_file_collection_goes_on_past_a_broken_one() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            config.snap_mgr_gc_tick_interval = Duration::from_secs(1);
        }));
        // Left by nobody knows whom; all of one lane.
        let snaps = cluster.nodes[&1].disk.snaps.clone();
        for index in [6, 7] {
            let key = SnapKey { region: RegionId::must(900), term: 5, index };
            let mut writer = snaps.create(SnapDirection::Received, key).expect("there is room");
            writer.write(b"idle").expect("there is room");
            writer.finish().expect("there is room");
        }
        snaps.fail_next(SnapOp::Delete, 1);
        cluster.wait("one of them to go", |world| {
            resting(world, 1, SnapDirection::Received).len() < 2
        });
        let left = resting(&cluster, 1, SnapDirection::Received);
        assert_eq!(left.iter().map(|key| key.index).collect::<Vec<_>>(), [6], "the broken one");
        // It is tried again.
        cluster.wait("both to go", |world| resting(world, 1, SnapDirection::Received).is_empty());
    });
}

/// SNAP-25: a store whose engine fails stops as a whole (D15), so that nothing half-made is
/// served; the others go on.
#[test]
fn snap_25_apply_fails_with_an_io_error() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |config| {
            eager_gc(config);
            config.snap_apply_batch_size = 64;
            config.snapshot_chunk_bytes = 4096;
        }));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        leave_behind(&mut cluster);
        cluster.stand_still(3, Stage::RegionWork);
        cluster.mend();
        cluster.wait("a snapshot that waits to be installed", |world| {
            phase(world, 3, 1) == Some(PeerPhase::Applying) && world.waits_at(3, Stage::RegionWork)
        });
        cluster.pass(SECOND);
        cluster.arm_disk_fault(3, DiskFault::KvWrite(Leaves::Nothing));
        cluster.go_on(3, Stage::RegionWork);
        cluster.wait("the store to stop", |world| !world.nodes[&3].is_up());
        assert_eq!(cluster.counters.get(Sometimes::DiskFailures), 1);
        cluster.must_put("k2", "v2");
        // It comes back by itself, and does it over.
        cluster.must_eq(3, "k2", "v2");
        cluster.must_eq(3, "k1", "v1");
        assert_eq!(phase(&cluster, 3, 1), Some(PeerPhase::Normal));
    });
}

#[test]
fn snap_27_the_one_who_asked_has_gone() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(plan_with(5, 2, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(2, "k1", "v1");
        cluster.stand_still(1, Stage::Build);
        cluster.must_add_learner(1, 3, 303);
        cluster.wait("a snapshot to be made", |world| world.waits_at(1, Stage::Build));
        match seed % 3 {
            0 => cluster.must_remove(1, 3),
            1 => cluster.kill(3),
            // The leader steps down meanwhile, and what it builds is of no use any more.
            _ => cluster.lead(1, 2),
        }
        cluster.go_on(1, Stage::Build);
        cluster.must_add_learner(1, 4, 404);
        cluster.must_eq(4, "k1", "v1");
        cluster.must_put("k2", "v2");
        cluster.must_eq(4, "k2", "v2");
    });
}

#[test]
fn snap_32_a_restarted_peer_that_has_finished_applying_starts_ticking() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, |_| {}));
        cluster.lead(1, 1);
        cluster.must_put("k", "v0");
        cluster.must_eq(3, "k", "v0");
        cluster.stand_still(3, Stage::Apply);
        for number in 1..=300 {
            cluster.must_put("k", &format!("v{number}"));
        }
        cluster.pass(SECOND);
        cluster.kill(3);
        cluster.start(3);
        cluster.stand_still(3, Stage::Apply);
        cluster.pass(5 * SECOND);
        assert_eq!(cluster.on_disk(3, "k").as_deref(), Some("v0"));
        cluster.go_on(3, Stage::Apply);
        cluster.must_eq(3, "k", "v300");
        // Nobody else is to take over.
        let votes = vec![MessageKind::RequestVote, MessageKind::RequestPreVote];
        cluster.filter(Match { kinds: votes, from: Some(2), ..Match::default() }, Action::Drop);
        cluster.kill(1);
        cluster.wait("store 3 to lead", |world| world.leader_store(1) == Some(3));
        cluster.must_put("k", "last");
    });
}

#[test]
fn snap_33_a_snapshot_is_made_although_nothing_is_committed() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_eq(3, "k1", "v1");
        let last = cluster.peer_status(3, 1).expect("running").last_index;
        leave_behind(&mut cluster);
        cluster.pass(5 * SECOND);
        let committed = cluster.peer_status(1, 1).expect("running").committed;
        cluster.mend();
        cluster.wait_within(10 * SECOND, "the snapshot", |world| {
            phase(world, 3, 1) == Some(PeerPhase::Normal) && cut(world, 3) > last
        });
        assert_eq!(cluster.peer_status(1, 1).expect("running").committed, committed);
    });
}
