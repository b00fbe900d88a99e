//! Group PD: what the placement driver brings about in real stores, and that it rests then.

use pd_client::{OrderAction, SplitPolicy, StoreLifecycle, mock::PdConfig};
use raftstore_proto::{PeerRole, RegionId, StoreId};
use raftstore_sim::{
    cluster::Cluster,
    plan::Plan,
    queue::{MILLI, SECOND},
    world::World,
};

use crate::{fair_plan, for_seeds};

/// A cluster in which PD schedules.
fn scheduled(seed: u64, stores: u64, replicas: u64) -> Cluster {
    let mut plan = fair_plan(seed, stores, replicas, |_| {});
    plan.pd_schedules = true;
    Cluster::started(plan)
}

/// Changes PD's aims.
fn aim(cluster: &mut Cluster, change: impl FnOnce(&mut PdConfig)) {
    let mut config = cluster.pd.core.config().clone();
    change(&mut config);
    config.validate().expect("a scenario's aims make sense");
    cluster.pd.core.set_config(config);
}

/// PD's clock.
fn pd_now(cluster: &Cluster) -> u64 {
    cluster.now / MILLI
}

/// Whether every region has `replicas` voters and nothing else, is led, and PD knows it.
fn is_complete(world: &World, replicas: usize) -> bool {
    world.regions().values().all(|region| {
        let is_whole = region.peers.len() == replicas
            && region.peers.iter().all(|peer| peer.role == PeerRole::Voter);
        let known = world.pd.core.region_by_id(region.id);
        let is_known = known.is_some_and(|it| it.region == *region && it.leader.is_some());
        is_whole && is_known && world.leader_store(region.id.get()).is_some()
    })
}

/// Stores that hold a replica of a region, in order.
fn stores_of(world: &World, region: u64) -> Vec<u64> {
    let region = world.newest_region(region).expect("a running store knows the region");
    let mut stores: Vec<u64> = region.peers.iter().map(|peer| peer.store.get()).collect();
    stores.sort_unstable();
    stores
}

/// PD makes no change for a long time.
fn check_rest(cluster: &mut Cluster) {
    let before = cluster.pd.core.counters().started;
    cluster.pass(120 * SECOND);
    let history: Vec<_> = cluster.pd.core.history().rev().take(3).collect();
    assert_eq!(cluster.pd.core.counters().started, before, "{history:?}");
}

/// Largest difference between stores of a count of PD's.
fn spread(world: &World, count: impl Fn(StoreId) -> u64) -> u64 {
    let counts: Vec<u64> = world.nodes.keys().map(|store| count(StoreId::must(*store))).collect();
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

/// Regions cut from one, all on the same three stores, are spread over five, then rest.
#[test]
fn regions_are_spread_over_stores_and_rest() {
    for_seeds(|seed| {
        let mut cluster = scheduled(seed, 5, 3);
        for key in ["a", "c", "e", "g", "i", "k"] {
            cluster.must_put(key, "v");
        }
        cluster.must_split(1, &["b", "d", "f", "h", "j"]);
        let (mut started, mut since) = (0, 0);
        cluster.wait_within(600 * SECOND, "PD to rest", |world| {
            let now = world.pd.core.counters().started;
            if now != started || world.pd.core.operators().next().is_some() {
                (started, since) = (now, world.now);
            }
            is_complete(world, 3) && world.now >= since + 20 * SECOND
        });
        let load = |store| cluster.pd.core.store_load(store);
        assert!(spread(&cluster, |store| load(store).regions) <= 1);
        assert!(spread(&cluster, |store| load(store).leaders) <= 2);
        for key in ["a", "c", "e", "g", "i", "k"] {
            assert_eq!(cluster.get(key).as_deref(), Some("v"));
        }
        check_rest(&mut cluster);
    });
}

/// A store that does not come back is made up for, by simple and by joint changes.
#[test]
fn a_dead_store_is_made_up_for() {
    for_seeds(|seed| {
        let mut cluster = scheduled(seed, 4, 3);
        aim(&mut cluster, |config| config.joint_replacement = seed % 2 == 0);
        cluster.must_put("k", "v");
        let victim = 1 + seed % 3;
        cluster.kill(victim);
        cluster.wait_within(300 * SECOND, "a replica on the fourth store", |world| {
            let left: Vec<u64> = (1..=4).filter(|store| *store != victim).collect();
            is_complete(world, 3) && stores_of(world, 1) == left
        });
        cluster.must_eq(4, "k", "v");
        // It comes back to learn that it is no member any more.
        cluster.start(victim);
        cluster.wait_gone(1, victim);
        check_rest(&mut cluster);
    });
}

/// A store that shall go hands everything over, leadership too, and may be buried then.
#[test]
fn an_offline_store_is_emptied() {
    for_seeds(|seed| {
        let mut cluster = scheduled(seed, 4, 3);
        aim(&mut cluster, |config| config.joint_replacement = seed % 2 == 1);
        cluster.must_put("a", "v");
        cluster.must_split(1, &["m"]);
        cluster.lead(1, 1);
        let leaving = StoreId::must(1);
        let core = &mut cluster.pd.core;
        assert!(core.set_lifecycle(leaving, StoreLifecycle::Tombstone).is_err(), "not empty");
        core.set_lifecycle(leaving, StoreLifecycle::Offline).expect("the store is known");
        cluster.wait_within(300 * SECOND, "the store to be empty", |world| {
            is_complete(world, 3) && world.pd.core.store_load(leaving).regions == 0
        });
        cluster.wait_gone(1, 1);
        cluster.pd.core.set_lifecycle(leaving, StoreLifecycle::Tombstone).expect("it is empty");
        assert_eq!(cluster.get("a").as_deref(), Some("v"));
        check_rest(&mut cluster);
    });
}

/// W12: a replica whose records are damaged is replaced on another store, under another id.
#[test]
fn w12_a_damaged_replica_is_replaced() {
    for_seeds(|seed| {
        let mut cluster = scheduled(seed, 4, 3);
        cluster.must_put("k", "v");
        let victim = 1 + seed % 3;
        let old = *cluster.region(1).peer_on(StoreId::must(victim)).expect("a member");
        cluster.kill(victim);
        let is_damaged = cluster.nodes[&victim].disk.log.damage_raft_state(RegionId::must(1));
        assert!(is_damaged, "the replica has a raft state");
        cluster.start(victim);
        cluster.wait_within(300 * SECOND, "a replica elsewhere", |world| {
            let left: Vec<u64> = (1..=4).filter(|store| *store != victim).collect();
            is_complete(world, 3) && stores_of(world, 1) == left
        });
        cluster.must_eq(4, "k", "v");
        assert!(cluster.region(1).peer(old.id).is_none());
        check_rest(&mut cluster);
    });
}

/// SPL-36: PD has a region cut in its middle, and another at the keys it names.
#[test]
fn spl_36_pd_orders_splits() {
    for_seeds(|seed| {
        let mut cluster = Cluster::started(fair_plan(seed, 3, 3, |_| {}));
        for row in 0..20 {
            cluster.must_put(&format!("k{row:02}"), "an equal row");
        }
        let order = |cluster: &mut Cluster, region: RegionId, keys: &[&'static str], policy| {
            let keys = keys.iter().map(|key| (*key).into()).collect();
            let now = pd_now(cluster);
            let split = OrderAction::SplitRegion { keys, policy };
            cluster.pd.core.force_order(now, region, split).expect("PD knows the region");
        };
        order(&mut cluster, RegionId::must(1), &[], SplitPolicy::Scan);
        cluster.wait("the first split", |world| world.regions().len() == 2);
        let starts = |cluster: &Cluster| {
            let mut starts: Vec<_> =
                cluster.regions().into_values().map(|region| region.start_key).collect();
            starts.sort();
            starts
        };
        assert_eq!(starts(&cluster)[1].as_ref(), b"k10");
        let left = RegionId::must(cluster.region_of("k00"));
        cluster.wait_leader(left.get());
        order(&mut cluster, left, &["k03", "k07"], SplitPolicy::Keys);
        cluster.wait("the second split", |world| world.regions().len() == 4);
        assert_eq!(starts(&cluster), ["", "k03", "k07", "k10"]);
        // Repeated in every answer until PD saw it, and done once.
        cluster.pass(10 * SECOND);
        assert_eq!(starts(&cluster).len(), 4);
        assert!(cluster.pd.core.operators().next().is_none());
    });
}

/// Regions that shall be scattered are, leaders too, and no data is lost on the way.
#[test]
fn scattered_regions_part() {
    for_seeds(|seed| {
        let mut plan = fair_plan(seed, 5, 3, |_| {});
        plan.regions = 5;
        let mut cluster = Cluster::started(Plan { pd_schedules: false, ..plan });
        cluster.wait("PD to know all leaders", |world| {
            world.pd.core.regions().filter(|record| record.leader.is_some()).count() == 5
        });
        let now = pd_now(&cluster);
        let all: Vec<_> = (1..=5).map(RegionId::must).collect();
        let mut left = all;
        cluster.wait("all regions to be taken on", |world| {
            left = world.pd.core.scatter(now, &left, "new").expect("there is a first region");
            left.is_empty()
        });
        cluster.wait_within(300 * SECOND, "the regions to part", |world| {
            is_complete(world, 3) && world.pd.core.operators().next().is_none()
        });
        let load = |store| cluster.pd.core.store_load(store);
        assert_eq!(spread(&cluster, |store| load(store).regions), 0);
        assert!(spread(&cluster, |store| load(store).leaders) <= 2);
        assert!(cluster.pd.core.history().all(|it| it.state == pd_client::OperatorState::Finished));
    });
}
