//! Group READ: lease and index reads on the leader.

use std::time::Duration;

use raftstore_proto::{
    AdminCommand, Body, Cf, ChangeKind, Command, Epoch, MessageKind, Operation, PeerChange, Region,
    RegionError, RegionId, Response, ResponseBody, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, get, header, put, value_in},
    network::{Action, Match},
    plan::Plan,
    queue::{MILLI, SECOND},
    world::Stage,
};

use crate::{for_seeds, plan_with};

/// Index reads and lease reads of a store so far.
fn reads(cluster: &Cluster, store: u64) -> (u64, u64) {
    cluster
        .metrics(store)
        .iter()
        .fold((0, 0), |(index, lease), lane| (index + lane.index_reads, lease + lane.lease_reads))
}

/// Reads `k` from one store, whoever leads.
fn read_from(cluster: &mut Cluster, store: u64, quorum: bool) -> Option<Response> {
    let region = cluster.region(1);
    let peer = *region.peer_on(StoreId::must(store)).expect("a member");
    let body = Body::Operations(vec![get("k")]);
    let mut command = Command { header: header(&region, peer), body };
    command.header.read_quorum = quorum;
    cluster.call_within(5 * SECOND, store, command)
}

fn value(answer: Option<Response>) -> Option<String> {
    match answer.expect("answered").body {
        Ok(ResponseBody::Operations(results)) => value_in(&results),
        other => panic!("{other:?}"),
    }
}

#[test]
fn read_01_expired_lease_on_an_isolated_leader_refuses() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.lead(1, 3);
        cluster.must_put("k", "old");
        cluster.isolate(3);
        cluster.wait("a leader elsewhere", |world| {
            world.leader_store(1).is_some_and(|store| store != 3)
        });
        cluster.must_put("k", "new");
        let answer = read_from(&mut cluster, 3, false);
        assert!(answer.is_none_or(|answer| answer.body.is_err()), "a stale read was served");
        cluster.mend();
        assert_eq!(cluster.get("k").as_deref(), Some("new"));
    });
}

/// A lease much shorter than the time in which others would take over.
fn short_lease(stores: u64) -> Cluster {
    let mut cluster = Cluster::started(plan_with(stores, stores, |config| {
        config.raft_store_max_leader_lease = Duration::from_millis(800);
        config.raft_election_timeout_ticks = 60;
        config.max_leader_missing_duration = Duration::from_secs(60);
        config.raft_log_gc_tick_interval = Duration::ZERO;
    }));
    cluster.lead(1, 1);
    cluster
}

#[test]
fn read_02_lease_is_renewed_by_a_read_and_by_a_write() {
    for_seeds(|_| {
        let mut cluster = short_lease(3);
        cluster.must_put("k", "v1");
        let before = reads(&cluster, 1);
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v1"));
        assert_eq!(reads(&cluster, 1), (before.0, before.1 + 1), "under the lease of the write");

        cluster.pass(2 * SECOND);
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v1"));
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v1"));
        assert_eq!(
            reads(&cluster, 1),
            (before.0 + 1, before.1 + 2),
            "one question, which renews the lease for the next read"
        );

        cluster.pass(2 * SECOND);
        let last = cluster.peer_status(1, 1).expect("running").last_index;
        cluster.must_put("k", "v2");
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v2"));
        assert_eq!(reads(&cluster, 1), (before.0 + 1, before.1 + 3), "the write renewed it");
        assert_eq!(cluster.peer_status(1, 1).expect("running").last_index, last + 1);
    });
}

#[test]
fn read_03_no_lease_reads_once_a_transfer_was_tried() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v");
        }
        let lost = cluster.filter(
            Match { kinds: vec![MessageKind::TimeoutNow], ..Match::default() },
            Action::Drop,
        );
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let target = *region.peer_on(StoreId::must(3)).expect("a member");
        let transfer = admin_command(&region, leader, AdminCommand::TransferLeader(target));
        assert!(cluster.call(1, transfer).expect("answered").body.is_ok());
        assert!(cluster.network.taken(lost) > 0, "the transfer has begun");
        let before = reads(&cluster, 1);
        for _ in 0..2 {
            assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v"));
        }
        assert_eq!(reads(&cluster, 1), (before.0 + 2, before.1), "both asked a quorum");

        // The transfer is given up after an election timeout. The message may still come and
        // its votes would pass by the voters' promises, so this term has no lease any more
        // (H38); the next one has.
        cluster.pass(3 * SECOND);
        cluster.must_put("k", "v2");
        let before = reads(&cluster, 1);
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v2"));
        assert_eq!(reads(&cluster, 1), (before.0 + 1, before.1));
        cluster.release(lost);
        cluster.lead(1, 2);
        cluster.must_put("k", "v3");
        let before = reads(&cluster, 2);
        assert_eq!(value(read_from(&mut cluster, 2, false)).as_deref(), Some("v3"));
        assert_eq!(reads(&cluster, 2), (before.0, before.1 + 1));
    });
}

#[test]
fn read_11_pending_index_read_is_answered_when_the_leader_goes() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v");
        // Confirmations lose what they confirm, so that no read can end.
        for kind in [MessageKind::Heartbeat, MessageKind::HeartbeatResponse] {
            cluster.filter(
                Match { kinds: vec![kind], ..Match::default() },
                Action::Mutate(Box::new(|message| {
                    message.raft_mut().context = bytes::Bytes::new();
                })),
            );
        }
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let mut command =
            Command { header: header(&region, leader), body: Body::Operations(vec![get("k")]) };
        command.header.read_quorum = true;
        let reply = cluster.ask(1, command).expect("store 1 runs");
        cluster.pass(500 * MILLI);
        assert!(cluster.answer_to(reply).is_none(), "nobody can have confirmed it");
        let remove = PeerChange { kind: ChangeKind::RemoveNode, peer: leader };
        cluster.ask(1, admin_command(&region, leader, AdminCommand::ChangePeer(remove)));
        // If the leader will not remove itself, handing over ends the read as well.
        cluster.pass(SECOND);
        if cluster.peer_status(1, 1).is_some_and(|peer| peer.is_leader) {
            let target = *region.peer_on(StoreId::must(2)).expect("a member");
            cluster.ask(1, admin_command(&region, leader, AdminCommand::TransferLeader(target)));
        }
        cluster.wait("an answer to the read", |world| world.answer_to(reply).is_some());
        let answer = cluster.answer_to(reply).expect("just waited for").body.clone();
        assert!(
            matches!(answer, Err(RegionError::RegionNotFound { .. } | RegionError::StaleCommand)),
            "{answer:?}"
        );
    });
}

#[test]
fn read_05_a_read_index_is_at_least_the_applied_index_at_its_start() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v1");
        cluster.kill(3);
        let held = cluster.filter(
            Match { kinds: vec![MessageKind::Heartbeat], from: Some(1), ..Match::default() },
            Action::Hold,
        );
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let quorum_read = || {
            let body = Body::Operations(vec![get("k")]);
            let mut command = Command { header: header(&region, leader), body };
            command.header.read_quorum = true;
            command
        };
        let first = cluster.ask(1, quorum_read()).expect("store 1 runs");
        cluster.pass(50 * MILLI);
        let write = Command {
            header: header(&region, leader),
            body: Body::Operations(vec![put("k", "v2")]),
        };
        assert!(cluster.call(1, write).expect("answered").body.is_ok());
        let second = cluster.ask(1, quorum_read()).expect("store 1 runs");
        cluster.pass(50 * MILLI);
        cluster.release(held);
        cluster.wait("both reads", |world| {
            world.answer_to(first).is_some() && world.answer_to(second).is_some()
        });
        let answer = cluster.answer_to(second).cloned();
        if answer.as_ref().is_some_and(|answer| answer.body.is_ok()) {
            assert_eq!(value(answer).as_deref(), Some("v2"));
        }
    });
}

fn snap(region: &Region, store: u64) -> Command {
    let peer = *region.peer_on(StoreId::must(store)).expect("a member");
    Command { header: header(region, peer), body: Body::Operations(vec![Operation::Snap]) }
}

/// Waits for all answers of a batch.
fn batch(
    cluster: &mut Cluster,
    store: u64,
    commands: Vec<Command>,
) -> (u64, Vec<Option<Response>>) {
    let reply = cluster.ask_batch(store, commands).expect("the store runs");
    cluster.wait("the answers of a batch", |world| world.answers_to(reply).is_some());
    (reply, cluster.answers_to(reply).expect("just seen").clone())
}

/// A batch is answered once, command by command, in order; what needs a quorum comes back
/// unanswered and is then asked for by itself.
#[test]
fn batched_snapshots_are_answered_each_for_itself() {
    for_seeds(|seed| {
        let mut plan = Plan::quiet(seed, 3, 3);
        plan.regions = 3;
        let mut cluster = Cluster::started(plan);
        cluster.lead(1, 1);
        cluster.lead(2, 1);
        cluster.lead(3, 2);
        for key in ["a", "b", "c"] {
            cluster.must_put(key, "old");
        }
        let regions: Vec<Region> = (1..=3).map(|id| cluster.region(id)).collect();
        let unknown = Region { id: RegionId::must(9), ..regions[0].clone() };
        let mut elsewhere = snap(&regions[1], 1);
        elsewhere.header.peer.store = StoreId::must(2);
        let mut stale = snap(&regions[1], 1);
        stale.header.epoch = Some(Epoch { conf_ver: 1, version: 77 });
        let mut write = snap(&regions[0], 1);
        write.body = Body::Operations(vec![put("a", "no")]);
        let mut quorum = snap(&regions[0], 1);
        quorum.header.read_quorum = true;
        let commands = vec![
            snap(&regions[1], 1),
            snap(&regions[2], 1),
            snap(&unknown, 1),
            elsewhere,
            stale,
            write,
            quorum.clone(),
            snap(&regions[0], 1),
        ];
        let (reply, answers) = batch(&mut cluster, 1, commands);
        let errors: Vec<_> =
            answers.iter().map(|it| it.as_ref().map(|it| it.body.as_ref().err())).collect();
        assert!(
            matches!(
                errors.as_slice(),
                [
                    Some(None),
                    Some(Some(RegionError::NotLeader { .. })),
                    Some(Some(RegionError::RegionNotFound { .. })),
                    Some(Some(RegionError::StoreNotMatch { .. })),
                    Some(Some(RegionError::EpochNotMatch { .. })),
                    Some(Some(RegionError::InvalidCommand { .. })),
                    None,
                    Some(None),
                ]
            ),
            "{errors:?}"
        );

        // What was given out is one moment, whatever is written later.
        cluster.must_put("a", "new");
        for (position, key) in [(0, b"b"), (7, b"a")] {
            let answer = answers[position].as_ref().expect("served");
            let shot = cluster.region_snapshot(reply, answer).expect("served with a moment");
            let value = shot.get(Cf::Default, key).expect("in the region");
            assert_eq!(value.as_deref(), Some(&b"old"[..]));
        }
        // What came back unanswered is served by itself.
        let alone = cluster.ask(1, quorum).expect("the store runs");
        cluster.wait("the answer", |world| world.answer_to(alone).is_some());
        let answer = cluster.answer_to(alone).expect("just seen").clone();
        let shot = cluster.region_snapshot(alone, &answer).expect("served with a moment");
        assert_eq!(shot.get(Cf::Default, b"a").expect("readable").as_deref(), Some(&b"new"[..]));
    });
}

/// Without a lease nothing in a batch is served, and nothing is asked of others either.
#[test]
fn batched_snapshots_need_a_lease() {
    for_seeds(|_| {
        let mut cluster = short_lease(3);
        cluster.must_put("k", "v");
        let region = cluster.region(1);
        cluster.pass(2 * SECOND);
        let before = reads(&cluster, 1);
        let (_, answers) = batch(&mut cluster, 1, vec![snap(&region, 1)]);
        assert_eq!(answers, [None]);
        assert_eq!(reads(&cluster, 1), before);
        assert_eq!(value(read_from(&mut cluster, 1, true)).as_deref(), Some("v"));
        let (_, answers) = batch(&mut cluster, 1, vec![snap(&region, 1)]);
        assert!(answers[0].as_ref().is_some_and(|it| it.body.is_ok()), "the lease was renewed");
        assert_eq!(reads(&cluster, 1).1, before.1 + 1);
    });
}

/// A read of `key` that a store's peer of `region` is asked for, by quorum or by lease.
fn read_of(region: &Region, store: u64, key: &str, quorum: bool) -> Command {
    let peer = *region.peer_on(StoreId::must(store)).expect("a member");
    let body = Body::Operations(vec![get(key)]);
    let mut command = Command { header: header(region, peer), body };
    command.header.read_quorum = quorum;
    command
}

/// READ-07: an owner of the key elsewhere has a newer value; the old one says nothing while
/// it has not executed the split, and refuses then (H36).
#[test]
fn read_07_stale_read_while_splitting() {
    for_seeds(|_| {
        for (right, key) in [(true, "a"), (false, "z")] {
            let mut cluster = Cluster::started(plan_with(3, 3, |config| {
                config.right_derive_when_split = right;
            }));
            cluster.lead(1, 1);
            cluster.must_put(key, "old");
            for store in 1..=3 {
                cluster.must_eq(store, key, "old");
            }
            let region = cluster.region(1);
            cluster.stand_still(1, Stage::Apply);
            cluster.ask_split(1, region.id, region.epoch, vec!["m".into()]);
            cluster.wait("the split on the other stores", |world| {
                [2, 3].iter().all(|store| world.registered(*store).len() == 2)
            });
            let fresh = cluster.region_of(key);
            assert_ne!(fresh, 1);
            cluster.wait_leader(fresh);
            assert!(cluster.put_to(fresh, key, "new").is_ok());
            assert_eq!(cluster.on_disk(1, key).as_deref(), Some("old"));
            assert!(cluster.peer_status(1, 1).is_some_and(|peer| peer.is_leader));

            let reads = [false, true].map(|quorum| {
                cluster.ask(1, read_of(&region, 1, key, quorum)).expect("store 1 runs")
            });
            let beside = cluster.read_beside(1, &read_of(&region, 1, key, false));
            assert_eq!(beside, None, "served off the store thread");
            cluster.pass(2 * SECOND);
            for reply in reads {
                let answer = cluster.answer_to(reply);
                assert!(answer.is_none_or(|answer| answer.body.is_err()), "{answer:?}");
            }
            cluster.go_on(1, Stage::Apply);
            cluster.wait("both to be answered", |world| {
                reads.iter().all(|reply| world.answer_to(*reply).is_some())
            });
            for reply in reads {
                let answer = cluster.answer_to(reply).expect("just seen").body.clone();
                assert!(answer.is_err(), "{answer:?}");
            }
            cluster.must_eq(1, key, "new");
        }
    });
}

#[test]
fn read_15_leader_steps_down_right_when_the_round_completes() {
    for_seeds(|seed| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v");
        }
        let to_one = |kinds: &[MessageKind]| Match {
            kinds: kinds.to_vec(),
            to: Some(1),
            ..Match::default()
        };
        let confirmations = cluster.filter(to_one(&[MessageKind::HeartbeatResponse]), Action::Hold);
        let taking_over = [MessageKind::RequestVote, MessageKind::Append, MessageKind::Heartbeat];
        let votes = cluster.filter(to_one(&taking_over), Action::Hold);
        let region = cluster.region(1);
        let read = cluster.ask(1, read_of(&region, 1, "k", true)).expect("store 1 runs");
        cluster.wait("a confirmation", |world| world.network.taken(confirmations) > 0);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let target = *region.peer_on(StoreId::must(3)).expect("a member");
        cluster.ask(1, admin_command(&region, leader, AdminCommand::TransferLeader(target)));
        cluster.wait("a vote to be asked for", |world| world.network.taken(votes) > 0);
        let early = cluster.answer_to(read);
        assert!(early.is_none_or(|answer| answer.body.is_err()), "nobody can have confirmed it");
        // All that is said to the old leader comes in one turn.
        let began = cluster.now;
        cluster.pause(1, 50 * MILLI);
        for filter in if seed % 2 == 0 { [confirmations, votes] } else { [votes, confirmations] } {
            cluster.release(filter);
        }
        cluster.wait("an answer to the read", |world| world.answer_to(read).is_some());
        assert!(cluster.now - began <= 50 * MILLI + 200 * MILLI, "longer than a heartbeat");
        let answer = cluster.answer_to(read).cloned();
        if answer.as_ref().is_some_and(|answer| answer.body.is_ok()) {
            assert_eq!(value(answer).as_deref(), Some("v"));
        }
        cluster.wait("the new leader", |world| world.leader_store(1) == Some(3));
        cluster.must_put("k", "w");
        assert_eq!(cluster.get_quorum("k").as_deref(), Some("w"));
    });
}

/// Waits until a store serves `k` under the lease, off its thread; gives the value.
fn read_beside(cluster: &mut Cluster, store: u64) -> Option<String> {
    let mut found = None;
    cluster.wait("a read off the store thread", |world| {
        let region = world.newest_region(1).expect("somebody knows it");
        let command = read_of(&region, store, "k", false);
        found = world.read_beside(store, &command);
        // What a lease needs is renewed by what goes through the store.
        if found.is_none() {
            world.ask(store, command);
        }
        found.is_some()
    });
    value(found)
}

#[test]
fn read_16_replaced_peer_id_in_a_cached_delegate() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v1");
        assert_eq!(read_beside(&mut cluster, 1).as_deref(), Some("v1"));
        let before = cluster.region(1);
        cluster.lead(1, 2);
        cluster.must_remove(1, 1);
        cluster.wait_gone(1, 1);
        cluster.must_add(1, 1, 401);
        cluster.must_put("k", "v2");
        cluster.must_eq(1, "k", "v2");
        cluster.lead(1, 1);
        cluster.must_put("k", "v3");
        assert_eq!(read_beside(&mut cluster, 1).as_deref(), Some("v3"));
        assert_eq!(cluster.get("k").as_deref(), Some("v3"));
        // The old id is not served.
        let old = read_of(&before, 1, "k", false);
        assert_eq!(cluster.read_beside(1, &old), None);
        assert!(cluster.call(1, old).expect("answered").body.is_err());
    });
}

#[test]
fn read_17_reads_work_again_after_a_failed_transfer() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "v1");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v1");
        }
        cluster.isolate(3);
        let region = cluster.region(1);
        let leader = *region.peer_on(StoreId::must(1)).expect("a member");
        let target = *region.peer_on(StoreId::must(3)).expect("a member");
        let transfer = admin_command(&region, leader, AdminCommand::TransferLeader(target));
        assert!(cluster.call(1, transfer).expect("answered").body.is_ok());
        // Two are asked while it is under way.
        let early = [false, true]
            .map(|quorum| cluster.ask(1, read_of(&region, 1, "k", quorum)).expect("it runs"));
        cluster.pass(4 * SECOND);
        for reply in early {
            assert!(cluster.answer_to(reply).is_some(), "left hanging");
        }
        assert_eq!(cluster.wait_leader(1), 1);
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v1"));
        assert_eq!(value(read_from(&mut cluster, 1, true)).as_deref(), Some("v1"));
        cluster.must_put("k", "v2");
        assert_eq!(value(read_from(&mut cluster, 1, false)).as_deref(), Some("v2"));
    });
}
