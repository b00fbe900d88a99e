//! Group SPL, second part: splits that meet membership, snapshots, restarts and old epochs.

use raftstore_proto::{
    AdminCommand, Body, Command, Epoch, MessageKind, Region, RegionError, SplitRequest, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, get, header, put},
    network::{Action, FilterId, Match},
    plan::Plan,
    queue::{MILLI, SECOND},
};

use crate::{eager_gc, for_seeds};

fn fair(seed: u64, stores: u64, replicas: u64, right: bool) -> Plan {
    let mut plan = Plan::fair(seed, stores, replicas);
    let mut config = (*plan.config).clone();
    config.right_derive_when_split = right;
    plan.config = config.into();
    plan
}

fn with_eager_gc(mut plan: Plan) -> Plan {
    let mut config = (*plan.config).clone();
    eager_gc(&mut config);
    plan.config = config.into();
    plan
}

/// Cuts region 1 at `key`; gives the region that is new.
fn cut(cluster: &mut Cluster, key: &str) -> Region {
    let parts = cluster.must_split(1, &[key]);
    parts.into_iter().find(|part| part.id.get() != 1).expect("one part is new")
}

/// A read addressed to the leader of `region` as the asker knows it.
fn read_with(cluster: &mut Cluster, region: &Region, key: &str) -> Result<(), RegionError> {
    let leader = cluster.wait_leader(region.id.get());
    let peer = *region.peer_on(StoreId::must(leader)).expect("a member leads");
    let command = Command { header: header(region, peer), body: Body::Operations(vec![get(key)]) };
    cluster.call(leader, command).expect("answered").body.map(|_| ())
}

/// The data of a part that s3 has never heard of reaches it through two snapshots; what the
/// shrunken region no longer covers is removed before the other's data lands.
#[test]
fn spl_02_a_newer_snapshot_erases_what_it_no_longer_covers() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(with_eager_gc(fair(seed, 3, 3, true)));
        cluster.lead(1, 1);
        cluster.must_put("k1", "v1");
        cluster.must_put("k2", "v2");
        cluster.must_eq(3, "k2", "v2");
        cluster.isolate(3);
        let fresh = cut(&mut cluster, "k2");
        for round in 0..60 {
            cluster.must_put(if round % 2 == 0 { "k1" } else { "k2" }, &format!("v{round}"));
        }
        for region in [1, fresh.id.get()] {
            cluster.wait("a cut log", |world| {
                world
                    .leader_store(region)
                    .and_then(|leader| world.peer_status(leader, region))
                    .is_some_and(|status| status.applied.truncated.index > 10)
            });
        }
        cluster.lead(1, 2);
        cluster.mend();
        cluster.must_eq(3, "k1", "v58");
        cluster.must_eq(3, "k2", "v59");
    });
}

/// No snapshot of the new region is taken in over the range that the old one still covers.
#[test]
fn spl_03_a_snapshot_of_the_new_region_waits_for_the_old_one() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(with_eager_gc(fair(seed, 3, 3, false)));
        cluster.lead(1, 1);
        let deaf = cluster
            .filter(Match { region: Some(1), to: Some(3), ..Match::default() }, Action::Drop);
        let fresh = cut(&mut cluster, "k2").id.get();
        cluster.must_put("k2", "v2");
        assert!(cluster.stays(2 * SECOND, |world| {
            world.peer_status(3, fresh).is_none_or(|peer| !peer.region.is_initialized())
        }));
        cluster.release(deaf);
        cluster.must_put("k3", "v3");
        cluster.must_eq(3, "k3", "v3");
        cluster.must_eq(3, "k2", "v2");
    });
}

/// The refusal for an old epoch names both parts, the one that keeps the id first.
#[test]
fn spl_06_old_epochs_get_the_new_regions_back() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, seed % 2 == 0));
        cluster.lead(1, 1);
        let before = cluster.region(1);
        let fresh = cut(&mut cluster, "m");
        match read_with(&mut cluster, &before, "a") {
            Err(RegionError::EpochNotMatch { current }) => {
                let ids: Vec<u64> = current.iter().map(|region| region.id.get()).collect();
                assert_eq!(ids, [1, fresh.id.get()]);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// After several splits the oldest epoch gets all descendants, a middle one fewer, and one
/// from the future the region alone.
#[test]
fn spl_19_old_epochs_get_what_was_cut_off_since() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, true));
        cluster.lead(1, 1);
        let mut known = vec![cluster.region(1)];
        let mut cut_off = Vec::new();
        for key in ["k2", "k3", "k4"] {
            cut_off.push(cut(&mut cluster, key).id.get());
            known.push(cluster.region(1));
        }
        let mut future = known[3].clone();
        future.epoch.version += 5;
        let told = |cluster: &mut Cluster, region: &Region| match read_with(cluster, region, "k9") {
            Err(RegionError::EpochNotMatch { current }) => {
                current.iter().map(|region| region.id.get()).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(told(&mut cluster, &known[0]), [1, cut_off[2], cut_off[1], cut_off[0]]);
        assert_eq!(told(&mut cluster, &known[1]), [1, cut_off[2], cut_off[1]]);
        assert_eq!(told(&mut cluster, &future), [1]);
    });
}

#[test]
fn spl_11_a_store_that_was_down_during_the_split_catches_up() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, seed % 2 == 0));
        cluster.lead(1, 1);
        for key in ["k1", "k3"] {
            cluster.must_put(key, "1");
            cluster.must_eq(3, key, "1");
        }
        cluster.kill(3);
        cut(&mut cluster, "k2");
        cluster.start(3);
        cluster.must_put("k1", "4");
        cluster.must_put("k4", "4");
        cluster.must_eq(3, "k1", "4");
        cluster.must_eq(3, "k4", "4");
    });
}

/// Region 1 is cut while the snapshot with which s3 would begin it is held back. Gives what
/// holds it, and the region that is new.
fn cut_behind_a_held_snapshot(cluster: &mut Cluster) -> (FilterId, u64) {
    cluster.must_put("k1", "1");
    cluster.must_put("k3", "1");
    let snapshot = Match {
        kinds: vec![MessageKind::Snapshot],
        region: Some(1),
        to: Some(3),
        ..Match::default()
    };
    let hold = cluster.filter(snapshot, Action::Hold);
    cluster.must_add_learner(1, 3, 103);
    cluster.wait("a snapshot on its way", |world| world.network.taken(hold) > 0);
    (hold, cut(cluster, "k2").id.get())
}

/// H13, H22: s3 hears of the new region first, builds a peer that waits, and then applies
/// the split itself: one peer, with the split's data.
#[test]
fn spl_14_a_waiting_peer_is_replaced_by_the_split() {
    let replaced = std::cell::Cell::new(0);
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 1, false));
        let (hold, fresh) = cut_behind_a_held_snapshot(&mut cluster);
        cluster.wait("a peer that waits", |world| {
            world.peer_status(3, fresh).is_some_and(|peer| !peer.region.is_initialized())
        });
        cluster.release(hold);
        cluster.must_eq(3, "k3", "1");
        cluster.must_put("k3", "2");
        cluster.must_eq(3, "k3", "2");
        cluster.must_eq(3, "k1", "1");
        let lanes = cluster.metrics(3);
        replaced.set(replaced.get() + lanes.iter().map(|lane| lane.split_replaced).sum::<u64>());
    });
    assert!(replaced.get() > 0, "no waiting peer was replaced in any order of events");
}

/// H12: the replica of the new region was removed from s3 before s3 came to the split that
/// made it.
#[test]
fn spl_15_a_split_does_not_resurrect_a_removed_replica() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 1, false));
        let (hold, fresh) = cut_behind_a_held_snapshot(&mut cluster);
        cluster.wait_leader(fresh);
        cluster
            .wait("a peer that waits or has data", |world| world.peer_status(3, fresh).is_some());
        cluster.must_remove(fresh, 3);
        cluster.wait_gone(fresh, 3);
        cluster.release(hold);
        cluster.must_put("k1", "2");
        cluster.must_eq(3, "k1", "2");
        cluster.must_none(3, "k3");
        assert!(cluster.peer_status(3, fresh).is_none(), "a removed replica came back");
        cluster.must_add_learner(fresh, 3, 999);
        cluster.must_eq(3, "k3", "1");
    });
}

/// A write that was asked for under the old epoch is refused or done before the split,
/// never after it.
#[test]
fn spl_16_writes_proposed_while_a_split_is_applied() {
    for_seeds(|seed| {
        let mut plan = fair(seed, 3, 3, seed % 2 == 0);
        plan.pace.apply = 50 * MILLI;
        let mut cluster = Cluster::started(plan);
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        let known = cluster.region(1);
        let keys = vec![bytes::Bytes::from_static(b"k2")];
        let split = cluster.world.ask_split(1, known.id, known.epoch, keys).expect("it runs");
        cluster.pass(5 * MILLI);
        let peer = *known.peer_on(StoreId::must(1)).expect("a member");
        let body = Body::Operations(vec![put("k1", "2")]);
        let write = Command { header: header(&known, peer), body };
        let write = cluster.world.ask(1, write).expect("it runs");
        for reply in [split, write] {
            cluster.wait("an answer", |world| world.answer_to(reply).is_some());
        }
        let answer = cluster.world.answer_to(write).expect("seen").body.clone();
        let refused = matches!(answer, Err(RegionError::EpochNotMatch { .. }));
        assert!(refused || answer.is_ok(), "{answer:?}");
        let expected = if refused { "1" } else { "2" };
        assert_eq!(cluster.get("k1").as_deref(), Some(expected));
        cluster.must_put("k1", "3");
    });
}

/// W15: the new region's leader is where the old one's is, at once.
#[test]
fn spl_20_the_new_region_elects_at_once_on_the_old_leaders_store() {
    for_seeds(|seed| {
        let mut plan = fair(seed, 3, 3, seed % 2 == 0);
        plan.pace = raftstore_sim::plan::Pace::FAST;
        let mut cluster = Cluster::started(plan);
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        let fresh = cut(&mut cluster, "k2").id.get();
        cluster.wait_within(200 * MILLI, "a leader within two ticks", |world| {
            world.leader_store(fresh) == Some(1)
        });
        let term = cluster.peer_status(1, fresh).expect("it leads").term;
        assert_eq!(term, 6, "one vote round, without asking first");
    });
}

/// The peer that was replaced has late messages of every kind: they hurt nobody.
#[test]
fn spl_21_late_messages_for_a_replaced_peer() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, false));
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        cluster.must_put("k3", "1");
        let slow = cluster
            .filter(Match { region: Some(1), to: Some(3), ..Match::default() }, Action::Hold);
        let fresh = cut(&mut cluster, "k2").id.get();
        let late = cluster
            .filter(Match { region: Some(fresh), to: Some(3), ..Match::default() }, Action::Hold);
        cluster.must_put("k3", "2");
        cluster.pass(SECOND);
        let old = cluster.world.network.take_held(late);
        cluster.release(slow);
        cluster.release(late);
        cluster.must_eq(3, "k3", "2");
        cluster.must_remove(fresh, 3);
        cluster.wait_gone(fresh, 3);
        for envelope in old {
            cluster.deliver(envelope);
        }
        cluster.pass(SECOND);
        assert!(cluster.peer_status(3, fresh).is_none());
        cluster.must_none(3, "k3");
    });
}

#[test]
fn spl_22_splitting_again_at_the_same_key_is_refused() {
    for_seeds(|seed| {
        let right = seed % 2 == 0;
        let mut cluster = Cluster::started(fair(seed, 5, 5, right));
        cluster.lead(1, 1);
        let fresh = cut(&mut cluster, "k22").id.get();
        let starts_there = if right { 1 } else { fresh };
        cluster.wait_leader(starts_there);
        let before = cluster.region(starts_there).epoch;
        let again = cluster.split(starts_there, &["k22"]);
        assert!(matches!(again, Err(RegionError::InvalidCommand { .. })), "{again:?}");
        assert_eq!(cluster.region(starts_there).epoch, before);
    });
}

/// The replica of the new region on s2 was replaced by another one before anything of it
/// arrived: the successor gets its data, and can lead.
#[test]
fn spl_26_a_snapshot_for_the_successor_of_a_replica_that_never_came() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(with_eager_gc(fair(seed, 3, 3, false)));
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        cluster.must_put("k3", "1");
        let deaf = cluster
            .filter(Match { region: Some(1), to: Some(2), ..Match::default() }, Action::Drop);
        let fresh = cut(&mut cluster, "k2").id.get();
        cluster.wait_leader(fresh);
        cluster.must_remove(fresh, 2);
        cluster.must_add_learner(fresh, 2, 888);
        cluster.must_put("k3", "2");
        cluster.pass(SECOND);
        cluster.release(deaf);
        cluster.must_eq(2, "k3", "2");
        cluster.must_add(fresh, 2, 888);
        cluster.wait("a voter", |world| {
            world.peer_status(2, fresh).is_some_and(|peer| {
                peer.region
                    .peer_on(StoreId::must(2))
                    .is_some_and(|own| own.role == raftstore_proto::PeerRole::Voter)
            })
        });
        cluster.lead(fresh, 2);
        cluster.must_put("k3", "3");
    });
}

/// A proposal that reached the log before the split is carried out.
#[test]
fn spl_28_proposals_in_the_log_before_the_split_succeed() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, seed % 2 == 0));
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        let known = cluster.region(1);
        let peer = *known.peer_on(StoreId::must(1)).expect("a member");
        let body = Body::Operations(vec![put("k1", "2")]);
        let write = Command { header: header(&known, peer), body };
        let write = cluster.world.ask(1, write).expect("it runs");
        let keys = vec![bytes::Bytes::from_static(b"k2")];
        let split = cluster.world.ask_split(1, known.id, known.epoch, keys).expect("it runs");
        for reply in [write, split] {
            cluster.wait("an answer", |world| world.answer_to(reply).is_some());
            let answer = &cluster.world.answer_to(reply).expect("seen").body;
            assert!(answer.is_ok(), "{answer:?}");
        }
        assert_eq!(cluster.get("k1").as_deref(), Some("2"));
    });
}

/// H25: ids are given by position, so a split made for other members is refused.
#[test]
fn spl_29_the_conf_version_is_checked_for_a_split() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, true));
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        cluster.must_eq(2, "k1", "1");
        cluster.must_eq(3, "k1", "1");
        let before = cluster.region(1);
        cluster.must_remove(1, 3);
        let now = cluster.region(1);
        let requests = vec![SplitRequest {
            key: bytes::Bytes::from_static(b"k2"),
            new_region: raftstore_proto::RegionId::must(500),
            new_peers: vec![raftstore_proto::PeerId::must(501), raftstore_proto::PeerId::must(502)],
        }];
        let admin = AdminCommand::BatchSplit { requests, right_derive: true };
        let peer = *now.peer_on(StoreId::must(1)).expect("a member");
        let mut command = admin_command(&now, peer, admin);
        let epoch = Epoch { conf_ver: before.epoch.conf_ver, version: now.epoch.version };
        command.header.epoch = Some(epoch);
        let answer = cluster.call(1, command).expect("answered").body;
        assert!(matches!(answer, Err(RegionError::EpochNotMatch { .. })), "{answer:?}");
        assert_eq!(cluster.region(1).epoch, now.epoch);
    });
}

/// Followers hear at once that a split is committed, although other commits are told with
/// whatever is sent next.
#[test]
fn spl_31_the_commit_of_a_split_is_told_eagerly() {
    for_seeds(|seed| {
        let mut plan = fair(seed, 3, 3, seed % 2 == 0);
        let mut config = (*plan.config).clone();
        // Heartbeats would tell it too; there is none for a long time.
        config.raft_election_timeout_ticks = 100;
        config.raft_heartbeat_ticks = 90;
        config.raft_store_max_leader_lease = std::time::Duration::from_secs(1);
        config.max_leader_missing_duration = std::time::Duration::from_secs(60);
        config.pd_heartbeat_tick_interval = std::time::Duration::ZERO;
        config.raft_log_gc_tick_interval = std::time::Duration::ZERO;
        plan.config = config.into();
        let mut cluster = Cluster::started(plan);
        cluster.lead(1, 1);
        cluster.must_put("k1", "1");
        let fresh = cut(&mut cluster, "k2").id.get();
        cluster.wait_within(2 * SECOND, "the split on every store", |world| {
            (1..=3).all(|store| world.peer_status(store, fresh).is_some())
        });
    });
}

/// PD orders cuts: in the middle, and at keys.
#[test]
fn spl_36_splits_that_pd_orders() {
    use pd_client::{Order, OrderAction, SplitPolicy};
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair(seed, 3, 3, true));
        cluster.lead(1, 1);
        for row in 0..20 {
            cluster.must_put(&format!("k{row:02}"), "equal");
        }
        let order = |region: &Region, keys: Vec<bytes::Bytes>, policy| Order {
            region: region.id,
            epoch: region.epoch,
            target: *region.peer_on(StoreId::must(1)).expect("a member"),
            action: OrderAction::SplitRegion { keys, policy },
        };
        // PD repeats an order until it sees the effect.
        let until = |cluster: &mut Cluster, count: usize, keys: Vec<bytes::Bytes>, policy| {
            let mut ordered = 0;
            cluster.wait("the split", |world| {
                if world.now >= ordered {
                    ordered = world.now + SECOND;
                    let known = world.newest_region(1).expect("it is known");
                    if world.regions().len() < count {
                        world.order(1, order(&known, keys.clone(), policy));
                    }
                }
                world.regions().len() == count
            });
        };
        until(&mut cluster, 2, Vec::new(), SplitPolicy::Scan);
        assert_eq!(cluster.region(1).start_key.as_ref(), b"k10");
        let keys = ["k12", "k15"].map(|key| bytes::Bytes::from_static(key.as_bytes())).to_vec();
        until(&mut cluster, 4, keys, SplitPolicy::Keys);
        let starts: Vec<_> =
            cluster.world.regions().into_values().map(|region| region.start_key).collect();
        assert!(starts.iter().any(|key| key.as_ref() == b"k12"));
        assert!(starts.iter().any(|key| key.as_ref() == b"k15"));
    });
}
