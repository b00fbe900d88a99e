//! Group LRN: learners.

use raftstore_proto::{
    AdminCommand, ChangeKind, MessageKind, Peer, PeerId, PeerRole, RegionError, StoreId,
};
use raftstore_sim::{
    cluster::{Cluster, admin_command},
    network::{Action, Match},
    queue::{Nanos, SECOND},
    world::World,
};

use crate::{eager_gc, fair_plan, for_seeds, stale::tombstone};

/// How long a member misses its leader before it asks PD.
const MISSING_AFTER: Nanos = 8 * SECOND;

fn voter(store: u64, peer: u64) -> Peer {
    Peer::voter(PeerId::must(peer), StoreId::must(store))
}

fn learner(store: u64, peer: u64) -> Peer {
    Peer::learner(PeerId::must(peer), StoreId::must(store))
}

/// Whether PD knows, from the leader's report, that a store's member waits for a snapshot.
fn is_pending(world: &World, store: u64) -> bool {
    let mut regions = world.pd.core.regions();
    regions.any(|record| record.pending_peers.iter().any(|peer| peer.store.get() == store))
}

fn reason(result: &Result<raftstore_proto::ResponseBody, RegionError>) -> &'static str {
    match result {
        Err(RegionError::ConfChangeRejected { why } | RegionError::ConfChangeUnsafe { why }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn lrn_01_learner_life_cycle() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 5, 2, |_| {}));
        cluster.lead(1, 1);
        cluster.must_put("k", "v1");
        cluster.must_add_learner(1, 4, 10);
        cluster.must_eq(4, "k", "v1");
        for twin in [
            cluster.change(1, ChangeKind::AddLearner, learner(4, 11)),
            cluster.change(1, ChangeKind::AddNode, voter(4, 11)),
            cluster.change(1, ChangeKind::AddLearner, learner(4, 10)),
        ] {
            assert!(reason(&twin).starts_with("duplicated"));
        }
        cluster.must_remove(1, 4);
        cluster.wait_gone(1, 4);
        cluster.must_none(4, "k");
        cluster.must_add_learner(1, 4, 12);
        cluster.must_eq(4, "k", "v1");
        // A learner does not lead.
        let region = cluster.region(1);
        let from = *region.peer_on(StoreId::must(1)).expect("a member");
        let transfer = AdminCommand::TransferLeader(learner(4, 12));
        cluster.call(1, admin_command(&region, from, transfer));
        assert!(cluster.stays(3 * SECOND, |world| world.leader_store(1) == Some(1)));
        cluster.must_add(1, 4, 12);
        cluster.lead(1, 4);
        cluster.must_put("k", "v2");
        // What it says of itself is what it has become.
        cluster.wait("the new role in the leader's report", |world| {
            let route = world.pd.core.region_by_id(raftstore_proto::RegionId::must(1));
            route.and_then(|route| route.leader) == Some(voter(4, 12))
        });
        assert_eq!(cluster.peer_status(4, 1).map(|peer| peer.peer), Some(voter(4, 12)));
        let again = cluster.change(1, ChangeKind::AddLearner, learner(4, 13));
        assert!(reason(&again).starts_with("duplicated"));
        let own = cluster.change(1, ChangeKind::AddLearner, learner(4, 12));
        assert!(reason(&own).contains("demote itself"));
    });
}

#[test]
fn lrn_02_learner_stays_pending_until_its_snapshot_is_applied() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 2, 1, eager_gc));
        for value in ["v1", "v2", "v3"] {
            cluster.must_put("k", value);
        }
        let takes = Match { kinds: vec![MessageKind::Snapshot], to: Some(2), ..Match::default() };
        let failing = cluster.filter(takes, Action::Drop);
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("PD to hear of it", |world| is_pending(world, 2));
        cluster.wait("several attempts", |world| world.network.taken(failing) >= 3);
        assert!(cluster.stays(6 * SECOND, |world| is_pending(world, 2)));
        // Promoting what holds nothing would stop the region.
        let early = cluster.change(1, ChangeKind::AddNode, voter(2, 202));
        assert!(matches!(early, Err(RegionError::ConfChangeUnsafe { .. })), "{early:?}");
        cluster.must_put("k", "v4");
        cluster.release(failing);
        cluster.must_eq(2, "k", "v4");
        cluster.wait("PD to hear of the end", |world| !is_pending(world, 2));
        cluster.must_add(1, 2, 202);
        cluster.must_put("k", "v5");
        cluster.must_eq(2, "k", "v5");
    });
}

#[test]
fn lrn_05_stale_learner_is_removed_via_pd() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 4, 2, |config| {
            config.max_leader_missing_duration = std::time::Duration::from_nanos(MISSING_AFTER);
        }));
        cluster.lead(1, 1);
        cluster.must_put("k", "v1");
        cluster.must_add_learner(1, 3, 303);
        cluster.must_eq(3, "k", "v1");
        cluster.isolate(3);
        // It asks PD again and again whether it is still a member.
        let missing = MISSING_AFTER + 2 * SECOND;
        let keeps = |cluster: &mut Cluster| {
            assert!(cluster.stays(missing, |world| world.peer_status(3, 1).is_some()));
            assert_eq!(cluster.on_disk(3, "k").as_deref(), Some("v1"));
        };
        cluster.must_add(1, 4, 404);
        keeps(&mut cluster);
        cluster.must_put("k", "v2");
        // While it was heard from lately; later it would be a voter that nobody has.
        let promoted = cluster.change(1, ChangeKind::AddNode, voter(3, 303));
        assert!(promoted.is_ok(), "{promoted:?}");
        keeps(&mut cluster);
        cluster.must_remove(1, 3);
        cluster.wait_gone(1, 3);
        cluster.must_none(3, "k");
        cluster.wait("its tombstone", |world| {
            tombstone(world, 3).is_some_and(|gone| gone.peer(PeerId::must(303)).is_some())
        });
        cluster.must_put("k", "v3");
        cluster.must_eq(4, "k", "v3");
    });
}

/// Without hibernation: regions that sleep come with it.
#[test]
fn lrn_06_single_voter_restarts_and_its_learner_still_catches_up() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 2, 1, |_| {}));
        cluster.must_put("k1", "v1");
        cluster.must_add_learner(1, 2, 202);
        cluster.must_eq(2, "k1", "v1");
        if seed % 2 == 0 {
            cluster.kill(2);
        } else {
            cluster.power_loss(2);
        }
        cluster.must_put("k2", "v2");
        if seed % 3 == 0 {
            cluster.kill(1);
        } else {
            cluster.power_loss(1);
        }
        cluster.start(2);
        cluster.pass(SECOND);
        cluster.start(1);
        let began = cluster.now;
        cluster.must_eq(2, "k2", "v2");
        // The voter leads after its own election timeout: nobody else has a vote.
        assert!(cluster.now - began < 5 * SECOND);
        let role = cluster.peer_status(2, 1).map(|peer| peer.peer.role);
        assert_eq!(role, Some(PeerRole::Learner));
    });
}
