//! Group XT: failures of other systems, and threats.
//!
//! Hostile bytes (XT-07) meet the decoders in `raftstore-proto/tests/mutations.rs` and
//! `raftstore-proto/tests/guard_memory`, region snapshots in `raftstore-core/src/snap/format`;
//! two processes on one directory (XT-11) meet in `raftkv/src/layout.rs`.

use raftstore_proto::{Body, Command, ResponseBody, StoreId};
use raftstore_sim::{
    cluster::{Cluster, get, header, put, value_in},
    counters::Sometimes,
    disk::{Crash, DiskFault},
    network::Weather,
    plan::{FaultRates, Load, Plan},
    queue::{MILLI, SECOND},
    rng::Rng,
    run::{Outcome, run},
    transcript::Transcript,
};

use crate::{eager_gc, for_seeds, plan_with, scenario_plan};

/// A cluster under load for a while, with faults; judged by every check there is.
fn live_through(mut plan: Plan, faults: FaultRates) -> Outcome {
    plan.load = Load {
        writes_per_second: 10,
        reads_per_second: 10,
        keys: 4,
        deletable_keys: 2,
        value_bytes: 64,
    };
    plan.faults = faults;
    plan.safety = 8 * SECOND;
    let outcome = run(plan, Transcript::default());
    if let Some((at, violation)) = &outcome.violation {
        panic!("seed {} at {} ms: {violation}", outcome.seed, at / MILLI);
    }
    assert!(outcome.counters.get(Sometimes::WritesAcknowledged) > 0, "nothing was acknowledged");
    outcome
}

#[test]
fn xt_01_churn_splits_transfers_crashes_and_partitions_together() {
    for_seeds(|_| {
        let mut plan = scenario_plan(5, 3);
        plan.regions = 8;
        live_through(
            plan,
            FaultRates {
                crash: Some(2 * SECOND),
                power_loss: 500,
                at_step: 500,
                partition: Some(3 * SECOND),
                transfer: Some(SECOND / 2),
                churn: Some(SECOND / 2),
                split: Some(SECOND),
                ..FaultRates::default()
            },
        );
    });
}

/// XT-02: what was acknowledged is there, wherever in its work each store was.
#[test]
fn xt_02_all_stores_lose_power_at_once_any_instant() {
    for_seeds(|_| {
        let mut plan = scenario_plan(3, 3);
        plan.regions = 2;
        let outcome = live_through(
            plan,
            FaultRates {
                blackout: Some(3 * SECOND / 2),
                power_loss: 1000,
                split: Some(2 * SECOND),
                ..FaultRates::default()
            },
        );
        assert!(outcome.counters.get(Sometimes::Blackouts) > 0);
    });
}

/// XT-05: a store that hears of a failed sync never counts on that data, nor asks again. With
/// one replica, whatever was acknowledged must be on this one disk when power goes.
#[test]
fn xt_05_fsync_fails_once() {
    for_seeds(|seed| {
        for fault in [DiskFault::LogSync, DiskFault::KvSync] {
            for nth in 1..=5 {
                let mut plan = plan_with(1, 1, eager_gc);
                // It does not come back by itself.
                plan.restart_after = 1_000_000 * SECOND;
                let mut cluster = Cluster::started(plan);
                cluster.must_put("k0", "v");
                cluster.arm_disk_fault(1, fault);
                let disk = &cluster.nodes[&1].disk;
                match fault {
                    DiskFault::LogSync => disk.log.faults().fail_sync(nth),
                    _ => disk.kv.faults().fail_sync(nth),
                }
                let mut acknowledged = vec!["k0".to_owned()];
                for number in 1..600 {
                    if !cluster.nodes[&1].is_up() {
                        break;
                    }
                    let key = format!("k{number}");
                    let Some(region) = cluster.newest_region(1) else { break };
                    let peer = region.peers[0];
                    let body = Body::Operations(vec![put(&key, "v")]);
                    let command = Command { header: header(&region, peer), body };
                    let answer = cluster.call_within(SECOND, 1, command);
                    if answer.is_some_and(|answer| answer.body.is_ok()) {
                        acknowledged.push(key);
                    }
                    cluster.pass(20 * MILLI);
                }
                assert!(!cluster.nodes[&1].is_up(), "{fault:?} {nth}: it goes on");
                assert_eq!(cluster.counters.get(Sometimes::DiskFailures), 1);
                // What had reached the disk by then, and nothing else.
                let node = cluster.nodes.get_mut(&1).expect("a store");
                node.disk.crash(Crash::PowerLoss, &mut Rng::new(seed));
                cluster.start(1);
                for key in &acknowledged {
                    assert_eq!(cluster.get(key).as_deref(), Some("v"), "{fault:?} {nth}: {key}");
                }
            }
        }
    });
}

#[test]
fn xt_09_paused_leader() {
    for_seeds(|seed| {
        let mut rng = Rng::new(seed);
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v0");
        for round in 1..=6 {
            let leader = cluster.wait_leader(1);
            let term = cluster.peer_status(leader, 1).expect("it leads").term;
            let region = cluster.region(1);
            let peer = *region.peer_on(StoreId::must(leader)).expect("a member");
            let read =
                Command { header: header(&region, peer), body: Body::Operations(vec![get("k")]) };
            // Under way when it stops, and when it goes on.
            let before = format!("v{}", round - 1);
            let early = cluster.ask(leader, read.clone()).expect("it runs");
            cluster.pass(rng.below(3 * MILLI));
            let span = rng.between(100 * MILLI, 5 * SECOND);
            cluster.pause(leader, span);
            let until = cluster.now + span;
            let mut newer = before.clone();
            cluster.wait("the pause to end, or a leader elsewhere", |world| {
                world.now >= until || world.leader_store(1).is_some_and(|store| store != leader)
            });
            if cluster.leader_store(1).is_some_and(|store| store != leader) {
                newer = format!("v{round}");
                cluster.must_put("k", &newer);
            }
            let late = cluster.ask(leader, read).expect("it runs");
            cluster.pass(until.saturating_sub(cluster.now) + 2 * SECOND);
            for (reply, allowed) in [(early, [&before, &newer]), (late, [&newer, &newer])] {
                let body = cluster.answer_to(reply).map(|answer| answer.body.clone());
                if let Some(Ok(ResponseBody::Operations(results))) = body {
                    let found = value_in(&results).expect("a value");
                    assert!(allowed.contains(&&found), "{found} in round {round}: {allowed:?}");
                }
            }
            cluster.must_put("k", &format!("v{round}"));
            let leader = cluster.wait_leader(1);
            let now = cluster.peer_status(leader, 1).expect("it leads").term;
            assert!(now <= term + 1, "terms {term} to {now} in round {round}");
        }
    });
}

#[test]
fn xt_10_duplicate_and_very_old_messages() {
    for_seeds(|_| {
        let mut plan = scenario_plan(4, 3);
        plan.regions = 2;
        plan.weather =
            Weather { duplicate: 300, reorder: 200, late: 50, very_late: 20, ..plan.weather };
        live_through(
            plan,
            FaultRates {
                crash: Some(2 * SECOND),
                power_loss: 500,
                transfer: Some(SECOND),
                churn: Some(SECOND / 2),
                split: Some(SECOND),
                ..FaultRates::default()
            },
        );
    });
}

/// The highest term of region 1.
fn term(cluster: &Cluster) -> u64 {
    let terms = cluster.nodes.keys().filter_map(|store| cluster.peer_status(*store, 1));
    terms.map(|peer| peer.term).max().expect("somebody runs")
}

/// Ten election timeouts of at most two seconds.
const SERVED_AGAIN: u64 = 20 * SECOND;

/// Waits until a write through whoever leads is acknowledged.
fn serves(cluster: &mut Cluster, value: &str) {
    let began = cluster.now;
    cluster.must_put("k", value);
    let took = cluster.now - began;
    assert!(took <= SERVED_AGAIN, "served again after {} ms", took / MILLI);
}

#[test]
fn xt_12_one_way_cuts_flapping_links_clogs() {
    for_seeds(|seed| {
        let mut rng = Rng::new(seed);
        // One direction is cut, to and from the leader.
        for (from, to) in [(1, 2), (2, 1)] {
            let mut cluster = Cluster::three();
            let began = term(&cluster);
            cluster.network.cut(from, to);
            for round in 0..10 {
                serves(&mut cluster, &format!("v{round}"));
                cluster.pass(3 * SECOND);
            }
            // Stable for thirty seconds, in which fifteen elections would have had room.
            assert!(term(&cluster) <= began + 4, "{from} to {to}: term {}", term(&cluster));
        }
        // A link goes up and down.
        let mut cluster = Cluster::three();
        let began = term(&cluster);
        for round in 0..300 {
            if round % 2 == 0 {
                cluster.network.cut(1, 3);
                cluster.network.cut(3, 1);
            } else {
                cluster.network.mend(1, 3);
                cluster.network.mend(3, 1);
            }
            if round % 30 == 0 {
                serves(&mut cluster, &format!("v{round}"));
            }
            cluster.pass(100 * MILLI);
        }
        assert!(term(&cluster) <= began + 4, "flapping: term {}", term(&cluster));
        // Stores are clogged one by one, and freed in another order.
        let mut cluster = Cluster::of(5);
        for round in 0..6 {
            let began = term(&cluster);
            let mut links: Vec<(u64, u64)> = Vec::new();
            for from in 1..=5 {
                for to in 1..=5 {
                    if from != to && rng.chance(400) {
                        links.push((from, to));
                    }
                }
            }
            rng.shuffle(&mut links);
            for (from, to) in &links {
                cluster.network.cut(*from, *to);
                cluster.pass(rng.below(SECOND));
            }
            rng.shuffle(&mut links);
            for (from, to) in &links {
                cluster.network.mend(*from, *to);
                cluster.pass(rng.below(SECOND));
            }
            serves(&mut cluster, &format!("w{round}"));
            // At most one election in a timeout.
            assert!(term(&cluster) <= began + 20, "round {round}: term {}", term(&cluster));
        }
    });
}
