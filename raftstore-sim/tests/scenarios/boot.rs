//! Group BOOT: identity and the first region. The machine's own crash points are tested
//! beside it; here it meets PD and several stores.

use engine_traits::{
    Cf, Durability, KvEngine, RaftEngine, Range, Reader, WriteBatch,
    mem::{MemEngine, MemRaftLog},
};
use pd_client::{
    StoreInfo, StoreLifecycle,
    mock::{PdConfig, PdCore},
};
use raftstore_core::bootstrap::{Bootstrap, BootstrapAnswer, BootstrapError, BootstrapStep};
use raftstore_proto::{ClusterId, StoreId};
use raftstore_sim::{
    cluster::Cluster, disk::Crash, rng::Rng, transcript::Transcript, world::World,
};

use crate::{for_seeds, scenario_plan};

fn info(store: StoreId) -> StoreInfo {
    StoreInfo {
        id: store,
        address: format!("s{store}"),
        labels: Vec::new(),
        lifecycle: StoreLifecycle::Up,
    }
}

/// Bootstraps a store against a PD to the end.
fn bootstrap(
    cluster: u64,
    kv: &impl KvEngine,
    log: &impl RaftEngine,
    pd: &mut PdCore,
    lie: bool,
) -> Result<StoreId, BootstrapError> {
    let mut machine = Bootstrap::new(kv.clone(), log.clone(), ClusterId::must(cluster));
    for _ in 0..32 {
        let answer = match machine.next()? {
            BootstrapStep::Done { store } => return Ok(store),
            // Some are told too early that there is nothing yet.
            BootstrapStep::IsBootstrapped => {
                BootstrapAnswer::IsBootstrapped(pd.is_bootstrapped() && !lie)
            }
            BootstrapStep::AllocId => BootstrapAnswer::Id(pd.alloc_id()),
            BootstrapStep::BootstrapCluster { store, region } => {
                BootstrapAnswer::Offered { taken: pd.bootstrap(0, info(store), region).is_ok() }
            }
            BootstrapStep::RegionByKey { key } => {
                BootstrapAnswer::Region(pd.region_by_key(&key).map(|route| route.region))
            }
        };
        machine.answer(answer)?;
    }
    panic!("the machine does not end");
}

#[test]
fn boot_01_several_stores_start_at_once_one_first_region() {
    for_seeds(|_| {
        let mut pd = PdCore::new(ClusterId::must(1), PdConfig::manual());
        let disks: Vec<(MemEngine, MemRaftLog)> =
            (0..3).map(|_| (MemEngine::new(), MemRaftLog::new())).collect();
        for _ in 0..2 {
            for (kv, log) in &disks {
                bootstrap(1, kv, log, &mut pd, true).expect("bootstraps");
            }
        }
        assert_eq!(pd.regions().count(), 1);
        let first = pd.regions().next().expect("one").region.clone();
        let holders = disks
            .iter()
            .filter(|(kv, _)| {
                let key = raftstore_core::keys::region_state_key(first.id);
                kv.get(Cf::Raft, &key).expect("readable").is_some()
            })
            .count();
        assert_eq!(holders, 1, "nobody keeps a private first region");
    });
}

#[test]
fn boot_06_wrong_cluster_is_fatal_and_changes_nothing() {
    for_seeds(|_| {
        let mut pd = PdCore::new(ClusterId::must(1), PdConfig::manual());
        let (kv, log) = (MemEngine::new(), MemRaftLog::new());
        bootstrap(1, &kv, &log, &mut pd, false).expect("bootstraps");
        let writes = kv.unsynced_writes();
        let mut other = PdCore::new(ClusterId::must(2), PdConfig::manual());
        match bootstrap(2, &kv, &log, &mut other, false) {
            Err(BootstrapError::WrongCluster { ours, theirs }) => {
                assert_eq!((ours.get(), theirs.get()), (2, 1));
            }
            outcome => panic!("{outcome:?}"),
        }
        assert_eq!(kv.unsynced_writes(), writes);
    });
}

#[test]
fn boot_07_a_disk_with_stray_keys_is_refused() {
    for_seeds(|_| {
        let (kv, log) = (MemEngine::new(), MemRaftLog::new());
        let mut batch = kv.write_batch();
        batch.put(Cf::Default, b"zstray", b"v");
        kv.write(batch, Durability::Synced).expect("written");
        let mut pd = PdCore::new(ClusterId::must(1), PdConfig::manual());
        let refused = bootstrap(1, &kv, &log, &mut pd, false);
        assert!(matches!(refused, Err(BootstrapError::NotEmpty { .. })), "{refused:?}");
        let mut rows = 0;
        let mut cursor = kv
            .cursor(Cf::Default, Range::ALL, engine_traits::Direction::Forward)
            .expect("readable");
        while cursor.next().expect("readable").is_some() {
            rows += 1;
        }
        assert_eq!(rows, 1, "nothing was written");
    });
}

/// BOOT-05: the disks of stores that died between their identity and everything else.
#[test]
fn boot_05_crash_right_after_store_identity_is_written() {
    for_seeds(|_| {
        let mut world = World::new(scenario_plan(5, 1), Transcript::readable());
        let mut identities = Vec::new();
        for number in 1..=5 {
            let node = world.nodes.get_mut(&number).expect("a store");
            let (kv, log) = (node.disk.kv.clone(), node.disk.log.clone());
            let mut machine = Bootstrap::new(kv, log, ClusterId::must(1));
            loop {
                let answer = match machine.next().expect("the disk is fresh") {
                    BootstrapStep::IsBootstrapped => BootstrapAnswer::IsBootstrapped(false),
                    BootstrapStep::AllocId => {
                        let id = world.pd.core.alloc_id();
                        machine.answer(BootstrapAnswer::Id(id)).expect("the disk is fresh");
                        identities.push(id);
                        break;
                    }
                    step => panic!("{step:?} before there is an identity"),
                };
                machine.answer(answer).expect("the disk is fresh");
            }
            drop(machine);
            node.disk.crash(Crash::PowerLoss, &mut Rng::new(number));
        }
        // Stores of the simulator are numbered like that.
        assert_eq!(identities, [1, 2, 3, 4, 5]);
        for number in 1..=5 {
            let disk = &world.nodes[&number].disk;
            let (kv, log) = (disk.kv.clone(), disk.log.clone());
            let store = bootstrap(1, &kv, &log, &mut world.pd.core, false).expect("bootstraps");
            assert_eq!(store.get(), number, "a second identity for one disk");
        }
        let first = world.pd.core.regions().next().expect("one").region.clone();
        world.start_all();
        let mut cluster = Cluster { world };
        let region = first.id.get();
        cluster.wait_leader(region);
        let owner = first.peers[0].store.get();
        for store in (1..=5).filter(|store| *store != owner) {
            let peer = cluster.pd.alloc_id();
            cluster.must_add(region, store, peer);
        }
        cluster.must_put("k", "v");
        for store in 1..=5 {
            cluster.must_eq(store, "k", "v");
        }
    });
}
