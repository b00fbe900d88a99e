//! Group RR: reads that any replica serves, after it has asked its leader.

use raftstore_proto::{
    AdminCommand, Body, Command, MessageKind, RegionError, ResponseBody, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, get, header, put, value_in},
    network::{Action, Match},
    plan::Plan,
    queue::SECOND,
};

use crate::for_seeds;

/// Puts a read of `k` to a replica; gives the reply's number.
fn ask(cluster: &mut Cluster, region: u64, store: u64, key: &str) -> u64 {
    let known = cluster.region(region);
    let peer = *known.peer_on(StoreId::must(store)).expect("a member");
    let body = Body::Operations(vec![get(key)]);
    let mut command = Command { header: header(&known, peer), body };
    command.header.replica_read = true;
    cluster.world.ask(store, command).expect("the store runs")
}

fn answered(cluster: &Cluster, reply: u64) -> bool {
    cluster.world.answer_to(reply).is_some()
}

fn value(cluster: &Cluster, reply: u64) -> Result<Option<String>, RegionError> {
    match &cluster.world.answer_to(reply).expect("answered").body {
        Ok(ResponseBody::Operations(results)) => Ok(value_in(results)),
        Err(error) => Err(error.clone()),
        Ok(other) => panic!("{other:?}"),
    }
}

/// Asks until a value comes, as clients do.
fn must_read(cluster: &mut Cluster, region: u64, store: u64, key: &str) -> Option<String> {
    for _ in 0..100 {
        let reply = ask(cluster, region, store, key);
        cluster.wait("an answer", |world| world.answer_to(reply).is_some());
        if let Ok(value) = value(cluster, reply) {
            return value;
        }
        cluster.pass(SECOND / 10);
    }
    panic!("no value from store {store}");
}

fn only(kinds: &[MessageKind]) -> Match {
    Match { kinds: kinds.to_vec(), ..Match::default() }
}

/// A follower waits until its leader has committed in its own term, however often it has to
/// ask, and then gives the new value.
#[test]
fn rr_01_blocked_until_the_leader_has_committed_in_its_term() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "1");
        cluster.must_eq(3, "k", "1");
        let blocked = cluster
            .filter(Match { to: Some(2), ..only(&[MessageKind::AppendResponse]) }, Action::Drop);
        let known = cluster.region(1);
        let to = *known.peer_on(StoreId::must(2)).expect("a member");
        let from = *known.peer_on(StoreId::must(1)).expect("a member");
        let mut asked = 0;
        cluster.wait("store 2 to lead", |world| {
            if world.now >= asked {
                asked = world.now + SECOND / 2;
                let admin = AdminCommand::TransferLeader(to);
                world.ask(1, admin_command(&known, from, admin));
            }
            world.peer_status(2, 1).is_some_and(|status| status.is_leader)
        });
        let reply = ask(&mut cluster, 1, 3, "k");
        cluster.pass(SECOND / 2);
        if answered(&cluster, reply) {
            assert!(value(&cluster, reply).is_err(), "served before the leader could know");
        }
        cluster.release(blocked);
        assert_eq!(must_read(&mut cluster, 1, 3, "k").as_deref(), Some("1"));
    });
}

/// The index obtained is honoured: no answer before this replica's data has come so far.
#[test]
fn rr_02_waits_for_its_own_apply() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "old");
        cluster.must_eq(3, "k", "old");
        // The entry is on its way to store 3 for two seconds; the answer to its question is
        // not.
        let slow = cluster.filter(
            Match { to: Some(3), ..only(&[MessageKind::Append]) },
            Action::Delay(2 * SECOND),
        );
        cluster.must_put("k", "new");
        let reply = ask(&mut cluster, 1, 3, "k");
        assert!(cluster.stays(SECOND, |world| {
            world.answer_to(reply).is_none_or(|answer| answer.body.is_err())
        }));
        cluster.release(slow);
        assert_eq!(must_read(&mut cluster, 1, 3, "k").as_deref(), Some("new"));
    });
}

/// A leader that the majority has left confirms nothing.
#[test]
fn rr_07_false_leader_on_the_minority_side() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 5, 5));
        cluster.lead(1, 1);
        cluster.must_put("k", "old");
        for store in 1..=5 {
            cluster.must_eq(store, "k", "old");
        }
        cluster.partition(&[1, 2], &[3, 4, 5]);
        let reply = ask(&mut cluster, 1, 2, "k");
        cluster.wait("a leader of the majority", |world| {
            world.leader_store(1).is_some_and(|store| store > 2)
        });
        cluster.must_put("k", "new");
        if answered(&cluster, reply) {
            assert!(value(&cluster, reply).is_err(), "confirmed by a minority");
        }
        cluster.mend();
        cluster.wait("an answer", |world| world.answer_to(reply).is_some());
        assert_ne!(value(&cluster, reply), Ok(Some("old".to_owned())));
        assert_eq!(must_read(&mut cluster, 1, 2, "k").as_deref(), Some("new"));
    });
}

/// Questions of two replicas made in the same moment reach their own askers.
#[test]
fn rr_08_questions_of_two_followers_in_one_moment() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "1");
        let held =
            cluster.filter(Match { to: Some(1), ..only(&[MessageKind::ReadIndex]) }, Action::Hold);
        let replies = [2, 3].map(|store| ask(&mut cluster, 1, store, "k"));
        cluster.pass(SECOND / 20);
        cluster.release(held);
        for (store, reply) in [2, 3].into_iter().zip(replies) {
            cluster.wait("an answer", |world| world.answer_to(reply).is_some());
            assert_eq!(value(&cluster, reply), Ok(Some("1".to_owned())), "store {store}");
        }
    });
}

/// A question that names the leader as its sender, or carries nothing, harms nobody.
#[test]
fn rr_10_malformed_questions_do_no_harm() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "1");
        let own = cluster.region(1).peer_on(StoreId::must(1)).expect("a member").id.get();
        let mut turn = 0;
        let filter = cluster.filter(
            Match { to: Some(1), ..only(&[MessageKind::ReadIndex]) },
            Action::Mutate(Box::new(move |message| {
                turn += 1;
                if turn % 2 == 0 {
                    message.raft_mut().from = own;
                } else {
                    message.raft_mut().entries.clear();
                }
            })),
        );
        let reply = ask(&mut cluster, 1, 2, "k");
        cluster.pass(2 * SECOND);
        cluster.release(filter);
        cluster.wait("an answer", |world| world.answer_to(reply).is_some());
        assert_eq!(must_read(&mut cluster, 1, 3, "k").as_deref(), Some("1"));
    });
}

/// The follower of a region that was just cut off knows its leader soon.
#[test]
fn rr_12_a_replica_of_a_fresh_split_serves_soon() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("a", "1");
        cluster.must_put("z", "1");
        let parts = cluster.must_split(1, &["m"]);
        let fresh = parts.iter().find(|part| part.id.get() != 1).expect("one is new").clone();
        let key = if fresh.start_key.is_empty() { "a" } else { "z" };
        let id = fresh.id.get();
        cluster.wait("its replica on store 3", |world| {
            world.peer_status(3, id).is_some_and(|status| status.leader != 0)
        });
        assert_eq!(must_read(&mut cluster, id, 3, key).as_deref(), Some("1"));
    });
}

/// H40: a replica may have applied what its leader has not. Who has read there and then asks
/// the leader must not be told the past.
#[test]
fn rr_h40_the_leaders_lease_read_is_not_behind_a_replicas() {
    for_seeds(|seed| {
        let mut plan = Plan::fair(seed, 3, 3);
        plan.pace.apply = 40 * raftstore_sim::queue::MILLI;
        let mut cluster = Cluster::started(plan);
        cluster.lead(1, 1);
        for round in 0..20 {
            let (key, value) = ("k", format!("{round}"));
            let known = cluster.region(1);
            let leader = *known.peer_on(StoreId::must(1)).expect("a member");
            let body = Body::Operations(vec![put(key, &value)]);
            let write = Command { header: header(&known, leader), body };
            let write = cluster.world.ask(1, write).expect("the store runs");
            while must_read(&mut cluster, 1, 2, key).as_deref() != Some(value.as_str()) {}
            let body = Body::Operations(vec![get(key)]);
            let command = Command { header: header(&known, leader), body };
            let answer = cluster.call(1, command).expect("answered").body;
            let Ok(ResponseBody::Operations(results)) = answer else { panic!("{answer:?}") };
            assert_eq!(value_in(&results), Some(value), "seed {seed}");
            cluster.wait("the write's answer", |world| world.answer_to(write).is_some());
        }
    });
}

/// An answer to a question of a replica's former life is not taken for one to a question of
/// this life.
#[test]
fn rr_r20_answers_to_a_former_life_are_void() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "old");
        cluster.must_eq(3, "k", "old");
        let held = cluster
            .filter(Match { to: Some(3), ..only(&[MessageKind::ReadIndexResponse]) }, Action::Hold);
        let before = ask(&mut cluster, 1, 3, "k");
        cluster.wait("an answer on its way", |world| world.network.taken(held) > 0);
        let answers = cluster.world.network.take_held(held);
        cluster.release(held);
        cluster.kill(3);
        assert!(!answered(&cluster, before));
        cluster.start(3);
        cluster.wait("a leader that is known", |world| {
            world.peer_status(3, 1).is_some_and(|status| status.leader != 0)
        });
        // Nothing new reaches it but the answer from before.
        let deaf = cluster.filter(
            Match { to: Some(3), ..only(&[MessageKind::Append, MessageKind::ReadIndexResponse]) },
            Action::Drop,
        );
        cluster.must_put("k", "new");
        let reply = ask(&mut cluster, 1, 3, "k");
        cluster.pass(SECOND / 20);
        cluster.release(deaf);
        for answer in answers {
            cluster.deliver(answer);
        }
        cluster.wait("an answer", |world| world.answer_to(reply).is_some());
        assert_ne!(value(&cluster, reply), Ok(Some("old".to_owned())));
    });
}

/// RR-06: the new leader knows of no commit after the old one's first, and must not say what
/// it knows before it has committed in its own term.
#[test]
fn rr_06_new_leader_with_a_lagging_commit_index() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 3, 3));
        cluster.lead(1, 1);
        cluster.must_put("k", "v1");
        for store in 1..=3 {
            cluster.must_eq(store, "k", "v1");
        }
        // Store 2 gets the entries and does not hear that they are committed.
        let commits = cluster.filter(
            Match {
                to: Some(2),
                from: Some(1),
                ..only(&[MessageKind::Append, MessageKind::Heartbeat])
            },
            Action::Mutate(Box::new(|message| message.raft_mut().commit = 0)),
        );
        cluster.must_put("k", "v2");
        cluster.must_eq(3, "k", "v2");
        assert_eq!(cluster.on_disk(2, "k").as_deref(), Some("v1"));
        let no_votes = only(&[MessageKind::RequestVote, MessageKind::RequestPreVote]);
        let second_only = cluster.filter(Match { from: Some(3), ..no_votes }, Action::Drop);
        let unheard = cluster
            .filter(Match { to: Some(2), ..only(&[MessageKind::AppendResponse]) }, Action::Hold);
        cluster.kill(1);
        cluster.wait("store 2 to lead", |world| {
            world.peer_status(2, 1).is_some_and(|status| status.is_leader)
        });
        let asked = [3, 3, 2].map(|store| ask(&mut cluster, 1, store, "k"));
        cluster.pass(SECOND / 2);
        for reply in asked {
            if answered(&cluster, reply) {
                assert_ne!(value(&cluster, reply), Ok(Some("v1".to_owned())));
            }
        }
        for filter in [commits, second_only, unheard] {
            cluster.release(filter);
        }
        assert_eq!(must_read(&mut cluster, 1, 3, "k").as_deref(), Some("v2"));
        cluster.wait("all answers", |world| {
            asked.iter().all(|reply| world.answer_to(*reply).is_some())
        });
        for reply in asked {
            assert_ne!(value(&cluster, reply), Ok(Some("v1".to_owned())));
        }
    });
}

/// RR-11: the first question waits for a member that goes, the second needs nobody.
#[test]
fn rr_11_answers_out_of_order_after_a_membership_change() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(Plan::fair(seed, 2, 2));
        cluster.lead(1, 1);
        cluster.must_put("k", "v");
        cluster.must_eq(2, "k", "v");
        cluster.filter(only(&[MessageKind::HeartbeatResponse]), Action::Drop);
        let quorum_read = |cluster: &mut Cluster| {
            let known = cluster.region(1);
            let peer = *known.peer_on(StoreId::must(1)).expect("a member");
            let body = Body::Operations(vec![get("k")]);
            let mut command = Command { header: header(&known, peer), body };
            command.header.read_quorum = true;
            cluster.world.ask(1, command).expect("the store runs")
        };
        let first = quorum_read(&mut cluster);
        cluster.pass(SECOND / 10);
        assert!(!answered(&cluster, first), "nobody can have confirmed it");
        cluster.must_remove(1, 2);
        let second = quorum_read(&mut cluster);
        cluster.wait("both answers", |world| {
            [first, second].iter().all(|reply| world.answer_to(*reply).is_some())
        });
        assert_eq!(value(&cluster, second), Ok(Some("v".to_owned())));
    });
}
