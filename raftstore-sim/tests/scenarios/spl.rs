//! Splits.

use raftstore_proto::{RegionError, RegionId};
use raftstore_sim::{cluster::Cluster, plan::Plan};

/// The old id stays on the chosen side, the bounds meet, writes go on in both parts.
#[test]
fn spl_01_split_partitions_the_keys() {
    for right in [true, false] {
        let mut plan = Plan::quiet(1, 5, 5);
        let mut config = (*plan.config).clone();
        config.right_derive_when_split = right;
        plan.config = config.into();
        let mut cluster = Cluster::started(plan);
        for key in ["a", "k", "m", "z"] {
            cluster.must_put(key, "1");
        }
        let parts = cluster.must_split(1, &["m"]);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].end_key, parts[1].start_key);
        assert_eq!(parts[usize::from(right)].id, RegionId::must(1));
        for (part, key) in [(0, "k"), (1, "m")] {
            let id = parts[part].id.get();
            cluster.wait_leader(id);
            let read = cluster.put_to(id, key, "2");
            assert!(read.is_ok(), "{key}: {read:?}");
            for store in 1..=5 {
                cluster.must_eq(store, key, "2");
            }
        }
        let wrong = cluster.put_to(parts[0].id.get(), "z", "3");
        assert!(matches!(wrong, Err(RegionError::KeyNotInRegion { .. })), "{wrong:?}");
    }
}
