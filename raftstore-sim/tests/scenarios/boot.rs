//! Group BOOT: identity and the first region. The machine's own crash points are tested
//! beside it; here it meets PD and several stores.

use engine_traits::{
    Cf, Durability, KvEngine, Range, Reader, WriteBatch,
    mem::{MemEngine, MemRaftLog},
};
use pd_client::{
    StoreInfo, StoreLifecycle,
    mock::{PdConfig, PdCore},
};
use raftstore_core::bootstrap::{Bootstrap, BootstrapAnswer, BootstrapError, BootstrapStep};
use raftstore_proto::{ClusterId, StoreId};

use crate::for_seeds;

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
    kv: &MemEngine,
    log: &MemRaftLog,
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
