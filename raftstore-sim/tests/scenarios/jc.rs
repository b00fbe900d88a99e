//! Group JC: joint consensus.

use std::time::Duration;

use raftstore_core::Config;
use raftstore_proto::{
    AdminCommand, Body, ChangeKind, Command, MessageKind, Peer, PeerChange, PeerId, PeerRole,
    RegionError, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command, header, put},
    network::{Action, FilterId, Match},
    queue::{MILLI, SECOND},
    world::World,
};

use crate::{fair_plan, for_seeds};

fn voter(store: u64, peer: u64) -> Peer {
    Peer::voter(PeerId::must(peer), StoreId::must(store))
}

fn learner(store: u64, peer: u64) -> Peer {
    Peer::learner(PeerId::must(peer), StoreId::must(store))
}

/// A joint configuration stays until a command leaves it.
fn by_hand(config: &mut Config) {
    config.leave_joint_after = Duration::ZERO;
}

/// A joint configuration is left by its leader after a while.
fn by_itself(config: &mut Config) {
    config.leave_joint_after = Duration::from_millis(300);
}

/// Store and role of every member, in order of stores.
fn roles(cluster: &Cluster) -> Vec<(u64, PeerRole)> {
    let region = cluster.region(1);
    let mut roles: Vec<_> = region.peers.iter().map(|peer| (peer.store.get(), peer.role)).collect();
    roles.sort_unstable();
    roles
}

/// Whether the best informed replica knows no joint configuration.
fn are_final(world: &World) -> bool {
    let regions = world.nodes.keys().filter_map(|store| world.peer_status(*store, 1));
    let newest = regions.map(|peer| peer.region).max_by_key(|region| region.epoch.conf_ver);
    newest.is_some_and(|region| !region.is_joint())
}

/// Adds learners on these stores, their peers having ids 400 and something, and waits until
/// they have what the region holds under `k`.
fn add_learners(cluster: &mut Cluster, stores: &[u64], value: &str) {
    for store in stores {
        cluster.must_add_learner(1, *store, 400 + store);
        cluster.must_eq(*store, "k", value);
    }
}

/// From now on only `store` may ask for votes. Gives what has to be lifted in the end.
fn only_candidate(cluster: &mut Cluster, store: u64) -> Vec<FilterId> {
    let stores: Vec<u64> = cluster.nodes.keys().copied().filter(|other| *other != store).collect();
    stores
        .into_iter()
        .map(|other| {
            let kinds = vec![MessageKind::RequestPreVote, MessageKind::RequestVote];
            let takes = Match { kinds, from: Some(other), ..Match::default() };
            cluster.filter(takes, Action::Drop)
        })
        .collect()
}

fn wait_leader_on(cluster: &mut Cluster, store: u64) {
    cluster.wait(&format!("store {store} to lead"), |world| {
        world.leader_store(1) == Some(store)
            && world
                .peer_status(store, 1)
                .is_some_and(|peer| peer.applied.applied_term == peer.term)
    });
}

/// A write that must not be committed: nobody executes it while things are as they are.
fn put_in_vain(cluster: &mut Cluster, leader: u64, value: &str) {
    let region = cluster.region(1);
    let peer = *region.peer_on(StoreId::must(leader)).expect("a member");
    let body = Body::Operations(vec![put("k", value)]);
    let answer =
        cluster.call_within(4 * SECOND, leader, Command { header: header(&region, peer), body });
    assert!(answer.is_none_or(|answer| answer.body.is_err()), "{value} was acknowledged");
    let stores: Vec<u64> = cluster.nodes.keys().copied().collect();
    for store in stores {
        assert_ne!(cluster.on_disk(store, "k").as_deref(), Some(value), "on store {store}");
    }
}

fn why(result: Result<raftstore_proto::ResponseBody, RegionError>) -> &'static str {
    match result {
        Err(RegionError::ConfChangeRejected { why }) => why,
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn jc_01_several_changes_in_one_step() {
    for_seeds(|seed| {
        // Left by a command or by the store: it is the same.
        let mut cluster = Cluster::started(fair_plan(
            seed,
            4,
            1,
            if seed % 2 == 0 { by_hand } else { by_itself },
        ));
        let leave = |cluster: &mut Cluster| {
            if seed % 2 == 0 {
                cluster.must_leave(1);
            }
            cluster.wait("the end of the joint configuration", |world| are_final(world));
        };
        cluster.must_put("k", "v1");
        let mut conf_ver = cluster.region(1).epoch.conf_ver;
        let mut rises_by = |cluster: &Cluster, by: u64| {
            let now = cluster.region(1).epoch.conf_ver;
            assert_eq!(now, conf_ver + by);
            conf_ver = now;
        };
        cluster.must_enter(
            1,
            &[
                (ChangeKind::AddNode, voter(2, 202)),
                (ChangeKind::AddNode, voter(3, 203)),
                (ChangeKind::AddLearner, learner(4, 204)),
            ],
        );
        leave(&mut cluster);
        rises_by(&cluster, 3 + 2);
        cluster.must_put("k", "v2");
        for store in 1..=4 {
            cluster.must_eq(store, "k", "v2");
        }
        cluster.lead(1, 1);
        cluster.must_enter(
            1,
            &[(ChangeKind::AddLearner, learner(3, 203)), (ChangeKind::RemoveNode, learner(4, 204))],
        );
        leave(&mut cluster);
        rises_by(&cluster, 2 + 1);
        cluster.wait_gone(1, 4);
        cluster.must_none(4, "k");
        use PeerRole::{Learner, Voter};
        assert_eq!(roles(&cluster), [(1, Voter), (2, Voter), (3, Learner)]);
        cluster.must_put("k", "v3");
        cluster.must_eq(3, "k", "v3");
        // A new voter that nobody has heard of yet: two of three are there.
        cluster.must_enter(
            1,
            &[(ChangeKind::RemoveNode, learner(3, 203)), (ChangeKind::AddNode, voter(4, 405))],
        );
        leave(&mut cluster);
        rises_by(&cluster, 2 + 1);
        cluster.wait_gone(1, 3);
        cluster.must_none(3, "k");
        cluster.must_put("k", "v4");
        for store in [1, 2, 4] {
            cluster.must_eq(store, "k", "v4");
        }
        assert_eq!(roles(&cluster), [(1, Voter), (2, Voter), (4, Voter)]);
    });
}

#[test]
fn jc_02_both_majorities_are_needed_while_joint() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 3, 2, by_hand));
        cluster.lead(1, 1);
        cluster.must_put("k", "v1");
        add_learners(&mut cluster, &[3], "v1");
        let old = *cluster.region(1).peer_on(StoreId::must(2)).expect("a member");
        cluster
            .must_enter(1, &[(ChangeKind::AddLearner, old), (ChangeKind::AddNode, voter(3, 403))]);
        for store in [2, 3] {
            // Both halves know of it: whoever is alone with store 1 knows that it is not enough.
            cluster.wait("the joint configuration everywhere", |world| {
                (1..=3).all(|store| {
                    world.peer_status(store, 1).is_some_and(|peer| peer.region.is_joint())
                })
            });
            cluster.isolate(store);
            put_in_vain(&mut cluster, 1, &format!("without {store}"));
            cluster.mend();
            cluster.lead(1, 1);
            // It may lead without a word from the other half no more than write.
            cluster.must_put("k", &format!("with {store}"));
        }
        cluster.must_leave(1);
        cluster.wait("store 3 to know of the end", |world| {
            world.peer_status(3, 1).is_some_and(|peer| !peer.region.is_joint())
        });
        cluster.isolate(2);
        cluster.must_put("k", "v2");
        cluster.must_eq(3, "k", "v2");
    });
}

#[test]
fn jc_04_invalid_combinations_are_refused() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 4, 2, by_hand));
        cluster.lead(1, 1);
        cluster.must_put("k", "v");
        add_learners(&mut cluster, &[3], "v");
        let last_index =
            |cluster: &Cluster| cluster.peer_status(1, 1).map(|peer| (peer.term, peer.last_index));
        let before = last_index(&cluster);
        let own = *cluster.region(1).peer_on(StoreId::must(1)).expect("a member");
        let other = *cluster.region(1).peer_on(StoreId::must(2)).expect("a member");
        let third = voter(3, 403);
        let reasons = [
            why(cluster.change_jointly(
                1,
                &[(ChangeKind::AddNode, third), (ChangeKind::RemoveNode, other)],
            )),
            why(cluster.change_jointly(
                1,
                &[(ChangeKind::AddNode, third), (ChangeKind::RemoveNode, third)],
            )),
            why(cluster.change_jointly(
                1,
                &[(ChangeKind::RemoveNode, third), (ChangeKind::AddLearner, learner(4, 404))],
            )),
            why(cluster.change(1, ChangeKind::AddLearner, own)),
            why(cluster.change_jointly(1, &[])),
        ];
        assert_eq!(last_index(&cluster), before, "an entry was proposed");

        cluster.must_enter(1, &[(ChangeKind::AddLearner, own), (ChangeKind::AddNode, third)]);
        assert_eq!(cluster.leader_store(1), Some(1), "it leads on until the end");
        cluster.must_put("k", "while demoting");
        let before = last_index(&cluster);
        let demoting = why(cluster.change_jointly(1, &[]));
        assert_eq!(last_index(&cluster), before, "an entry was proposed");
        let all: std::collections::BTreeSet<_> = reasons.into_iter().chain([demoting]).collect();
        assert_eq!(all.len(), 6, "{all:?}");
        // After a transfer the way is free. The one being demoted is no target on the way.
        cluster.lead(1, 2);
        let region = cluster.region(1);
        let from = *region.peer_on(StoreId::must(2)).expect("a member");
        cluster.call(2, admin_command(&region, from, AdminCommand::TransferLeader(own)));
        assert!(cluster.stays(SECOND, |world| world.leader_store(1) == Some(2)));
        cluster.must_leave(1);
        use PeerRole::{Learner, Voter};
        assert_eq!(roles(&cluster), [(1, Learner), (2, Voter), (3, Voter)]);
        cluster.must_put("k", "after");
        cluster.must_eq(1, "k", "after");
    });
}

/// Old {1, 2, 3}, new {1, 4, 5}, led by store 1.
fn two_halves(seed: u64, leaving: fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::started(fair_plan(seed, 5, 3, leaving));
    cluster.lead(1, 1);
    cluster.must_put("k", "v1");
    add_learners(&mut cluster, &[4, 5], "v1");
    let member = |store| *cluster.region(1).peer_on(StoreId::must(store)).expect("a member");
    let changes = [
        (ChangeKind::AddLearner, member(2)),
        (ChangeKind::AddLearner, member(3)),
        (ChangeKind::AddNode, voter(4, 404)),
        (ChangeKind::AddNode, voter(5, 405)),
    ];
    cluster.must_enter(1, &changes);
    cluster
}

const AFTER_TWO_HALVES: [(u64, PeerRole); 5] = [
    (1, PeerRole::Voter),
    (2, PeerRole::Learner),
    (3, PeerRole::Learner),
    (4, PeerRole::Voter),
    (5, PeerRole::Voter),
];

fn wait_joint_on(cluster: &mut Cluster, stores: &[u64]) {
    cluster.wait("the joint configuration everywhere", |world| {
        stores
            .iter()
            .all(|store| world.peer_status(*store, 1).is_some_and(|peer| peer.region.is_joint()))
    });
}

#[test]
fn jc_06_leader_lost_while_joint_either_side_may_lead() {
    for_seeds(|seed| {
        let mut cluster = two_halves(seed, by_hand);
        wait_joint_on(&mut cluster, &[2, 3, 4, 5]);
        let filters = only_candidate(&mut cluster, 3);
        cluster.isolate(1);
        wait_leader_on(&mut cluster, 3);
        for filter in filters {
            cluster.release(filter);
        }
        cluster.must_put("k", "v2");
        assert_eq!(cluster.leader_store(1), Some(3));
        // Whoever is to be a learner cannot end it.
        assert!(why(cluster.change_jointly(1, &[])).contains("demote the leader"));
        cluster.lead(1, 4);
        cluster.must_put("k", "v3");
        assert_eq!(cluster.leader_store(1), Some(4));
        cluster.must_leave(1);
        cluster.mend();
        assert_eq!(roles(&cluster), AFTER_TWO_HALVES);
        for store in 1..=5 {
            cluster.must_eq(store, "k", "v3");
        }
    });
}

/// R17, H66: a leader that finds the end in its log and applies it is a learner from then on,
/// and leads no longer.
#[test]
fn jc_06_r17_a_leader_that_executes_its_own_demotion_steps_down() {
    for_seeds(|seed| {
        let mut cluster = two_halves(seed, by_hand);
        wait_joint_on(&mut cluster, &[2, 3, 4, 5]);
        // Store 1 proposes the end, everybody has it, but store 1 is not told.
        let deaf = cluster.filter(
            Match { kinds: vec![MessageKind::AppendResponse], to: Some(1), ..Match::default() },
            Action::Drop,
        );
        let region = cluster.region(1);
        let own = *region.peer_on(StoreId::must(1)).expect("a member");
        let leave = admin_command(&region, own, AdminCommand::ChangePeerV2(Vec::new()));
        cluster.ask(1, leave);
        let proposed = |world: &World| world.peer_status(1, 1).map(|peer| peer.last_index);
        let before = proposed(&cluster);
        cluster.wait("the proposal", |world| proposed(world) > before);
        let last = proposed(&cluster).expect("it lives");
        cluster.wait("the end in all logs", |world| {
            (2..=5).all(|store| {
                world.peer_status(store, 1).is_some_and(|peer| peer.persisted_index >= last)
            })
        });
        let filters = only_candidate(&mut cluster, 3);
        cluster.isolate(1);
        // It leads for a moment: nobody else may ask, and nobody else can commit the end.
        cluster.wait("store 3 to be a learner", |world| {
            world.peer_status(3, 1).is_some_and(|peer| peer.peer.role == PeerRole::Learner)
        });
        let demoted = cluster.peer_status(3, 1).expect("still a member");
        assert_eq!((demoted.is_leader, demoted.vote), (false, demoted.peer.id.get()));
        for filter in filters {
            cluster.release(filter);
        }
        cluster.must_put("k", "v2");
        assert!(matches!(cluster.leader_store(1), Some(4 | 5)));
        cluster.release(deaf);
        cluster.mend();
        assert_eq!(roles(&cluster), AFTER_TWO_HALVES);
        for store in 1..=5 {
            cluster.must_eq(store, "k", "v2");
        }
    });
}

#[test]
fn jc_07_single_changes_stay_simple_others_are_refused_while_joint() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 5, 3, by_hand));
        cluster.lead(1, 1);
        cluster.must_put("k", "v");
        let conf_ver = cluster.region(1).epoch.conf_ver;
        add_learners(&mut cluster, &[4], "v");
        assert_eq!(cluster.region(1).epoch.conf_ver, conf_ver + 1);
        let promote = [(ChangeKind::AddNode, voter(4, 404))];
        assert!(cluster.change_jointly(1, &promote).is_ok());
        let region = cluster.region(1);
        assert!(!region.is_joint());
        assert_eq!(region.epoch.conf_ver, conf_ver + 2);
        assert_eq!(region.peer_on(StoreId::must(4)), Some(&voter(4, 404)));

        let other = *region.peer_on(StoreId::must(2)).expect("a member");
        cluster.must_enter(
            1,
            &[(ChangeKind::AddLearner, other), (ChangeKind::AddLearner, learner(5, 405))],
        );
        let single = why(cluster.change(1, ChangeKind::RemoveNode, voter(4, 404)));
        assert!(single.starts_with("in joint"), "{single}");
        let several = why(cluster.change_jointly(
            1,
            &[(ChangeKind::AddNode, other), (ChangeKind::AddNode, voter(5, 405))],
        ));
        assert!(several.starts_with("in joint"), "{several}");
        cluster.must_leave(1);
        assert_eq!(cluster.region(1).epoch.conf_ver, conf_ver + 2 + 2 + 1);
        assert!(cluster.change(1, ChangeKind::RemoveNode, voter(4, 404)).is_ok());
    });
}

/// R40: raft's own way to leave is lost with the leader. Whoever leads in a joint
/// configuration ends it, be it that it was not the one that entered it.
#[test]
fn r40_a_joint_configuration_is_left_by_whoever_leads() {
    for_seeds(|seed| {
        let mut cluster = two_halves(seed, |config| {
            config.leave_joint_after = Duration::from_secs(5);
        });
        wait_joint_on(&mut cluster, &[2, 3, 4, 5]);
        cluster.kill(1);
        cluster.wait_leader(1);
        cluster.wait("the end of the joint configuration", |world| are_final(world));
        assert!(matches!(cluster.leader_store(1), Some(4 | 5)));
        assert_eq!(roles(&cluster), AFTER_TWO_HALVES);
        cluster.must_put("k", "v2");
        cluster.start(1);
        for store in 1..=5 {
            cluster.must_eq(store, "k", "v2");
        }
    });
}

/// R40: a leader whose demotion is the end hands over to one that may lead, and that ends it.
#[test]
fn r40_a_leader_that_is_to_be_demoted_hands_over() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 4, 3, by_itself));
        cluster.lead(1, 1);
        cluster.must_put("k", "v1");
        add_learners(&mut cluster, &[4], "v1");
        let own = *cluster.region(1).peer_on(StoreId::must(1)).expect("a member");
        cluster
            .must_enter(1, &[(ChangeKind::AddLearner, own), (ChangeKind::AddNode, voter(4, 404))]);
        let began = cluster.now;
        cluster.wait("the end of the joint configuration", |world| are_final(world));
        assert!(cluster.now - began < 10 * SECOND, "{} ms", (cluster.now - began) / MILLI);
        assert_ne!(cluster.wait_leader(1), 1);
        use PeerRole::{Learner, Voter};
        assert_eq!(roles(&cluster), [(1, Learner), (2, Voter), (3, Voter), (4, Voter)]);
        cluster.must_put("k", "v2");
        cluster.must_eq(1, "k", "v2");
    });
}

/// PD orders a joint step and its end like any other change; an order that is repeated is
/// carried out once (H72).
#[test]
fn jc_01_the_same_ordered_by_pd() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 4, 3, by_hand));
        cluster.lead(1, 1);
        cluster.must_put("k", "v1");
        add_learners(&mut cluster, &[4], "v1");
        let region = cluster.region(1);
        let target = *region.peer_on(StoreId::must(1)).expect("a member");
        let other = *region.peer_on(StoreId::must(2)).expect("a member");
        let change = |kind, peer| PeerChange { kind, peer };
        let changes =
            vec![change(ChangeKind::AddLearner, other), change(ChangeKind::AddNode, voter(4, 404))];
        let order = |cluster: &mut Cluster, epoch, changes| {
            let action = pd_client::OrderAction::ChangePeerV2(changes);
            let order = pd_client::Order { region: region.id, epoch, target, action };
            cluster.order(1, order.clone());
            cluster.order(1, order);
        };
        order(&mut cluster, region.epoch, changes);
        cluster.wait("the joint configuration", |world| !are_final(world));
        let entered = cluster.region(1).epoch;
        assert_eq!(entered.conf_ver, region.epoch.conf_ver + 2);
        assert!(cluster.stays(2 * SECOND, |world| !are_final(world)));
        order(&mut cluster, entered, Vec::new());
        cluster.wait("the end of the joint configuration", |world| are_final(world));
        cluster.pass(2 * SECOND);
        assert_eq!(cluster.region(1).epoch.conf_ver, entered.conf_ver + 2);
        use PeerRole::{Learner, Voter};
        assert_eq!(roles(&cluster), [(1, Voter), (2, Learner), (3, Voter), (4, Voter)]);
    });
}
