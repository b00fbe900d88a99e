//! Decides what a store's report to PD says about its device (behaviour of a report with a
//! failing device: the last figures known, H68).

use std::{io, sync::Arc, time::SystemTime};

use engine_traits::{KvEngine, RaftEngine};
use pd_client::StoreStats;
use raftstore_proto::DiskUsage;
use transport_traits::SnapStore;

/// What a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What is free, in bytes.
    pub free_bytes: u64,
}

/// Looks at the device the store is on.
pub type DiskProbe = Box<dyn FnMut() -> io::Result<DiskSpace> + Send>;

/// What is reported of a device nobody can look at; some readers take figures as signed.
const UNKNOWN: DiskSpace = DiskSpace { total_bytes: i64::MAX as u64, free_bytes: i64::MAX as u64 };

/// Completes reports.
pub(super) type Figures = Box<dyn FnMut(StoreStats) -> StoreStats + Send>;

/// What completes the reports of a store with these engines. `capacity_bytes` is what it is
/// configured to have; 0 is all of the device.
pub(super) fn figures<K: KvEngine, R: RaftEngine>(
    kv: K,
    raft: R,
    snaps: Arc<dyn SnapStore>,
    capacity_bytes: u64,
    mut probe: Option<DiskProbe>,
) -> Figures {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let start_time_seconds = started.map_or(0, |since| since.as_secs());
    let mut disk = UNKNOWN;
    let mut snapshot_bytes = 0;
    Box::new(move |stats| {
        if let Some(probe) = &mut probe {
            match probe() {
                Ok(found) => disk = found,
                Err(error) => tracing::warn!(%error, "the device cannot be looked at"),
            }
        }
        match snaps.list() {
            Ok(list) => snapshot_bytes = list.iter().map(|(_, _, size_bytes)| size_bytes).sum(),
            Err(error) => tracing::warn!(%error, "region snapshots cannot be listed"),
        }
        let used = kv.stats().used_bytes + raft.stats().used_bytes + snapshot_bytes;
        complete(stats, used, capacity_bytes, disk, start_time_seconds)
    })
}

/// How full a store with `available_bytes` is that is to keep `reserve_bytes` free.
pub(super) const fn usage(available_bytes: u64, reserve_bytes: u64) -> DiskUsage {
    if available_bytes < reserve_bytes {
        DiskUsage::Full
    } else if available_bytes < reserve_bytes.saturating_mul(2) {
        DiskUsage::AlmostFull
    } else {
        DiskUsage::Normal
    }
}

fn complete(
    stats: StoreStats,
    used_bytes: u64,
    configured_bytes: u64,
    disk: DiskSpace,
    start_time_seconds: u64,
) -> StoreStats {
    let is_limited = configured_bytes != 0 && configured_bytes < disk.total_bytes;
    let capacity_bytes = if is_limited { configured_bytes } else { disk.total_bytes };
    let available_bytes = capacity_bytes.saturating_sub(used_bytes).min(disk.free_bytes);
    if available_bytes == 0 {
        tracing::warn!(capacity_bytes, used_bytes, "no space available");
    }
    StoreStats { capacity_bytes, available_bytes, used_bytes, start_time_seconds, ..stats }
}

#[cfg(test)]
mod tests {
    use raftstore_proto::StoreId;

    use super::*;

    fn stats() -> StoreStats {
        StoreStats {
            store: StoreId::must(1),
            capacity_bytes: 0,
            available_bytes: 0,
            used_bytes: 0,
            region_count: 3,
            sending_snapshots: 0,
            receiving_snapshots: 0,
            applying_snapshots: 0,
            start_time_seconds: 0,
            is_busy: false,
            written_bytes: 0,
            written_keys: 0,
            damaged_regions: Vec::new(),
        }
    }

    #[test]
    fn available_is_what_both_limits_leave() {
        let disk = DiskSpace { total_bytes: 1000, free_bytes: 600 };
        let figures = |used, configured| {
            let done = complete(stats(), used, configured, disk, 5);
            assert_eq!((done.region_count, done.start_time_seconds), (3, 5));
            (done.capacity_bytes, done.available_bytes, done.used_bytes)
        };
        assert_eq!(figures(100, 0), (1000, 600, 100));
        assert_eq!(figures(100, 500), (500, 400, 100));
        assert_eq!(figures(600, 500), (500, 0, 600));
        assert_eq!(figures(100, 5000), (1000, 600, 100));
    }

    #[test]
    fn a_store_is_full_below_its_reserve_and_almost_below_twice_that() {
        let of = |available| usage(available, 100);
        assert_eq!([of(0), of(99)], [DiskUsage::Full; 2]);
        assert_eq!([of(100), of(199)], [DiskUsage::AlmostFull; 2]);
        assert_eq!([of(200), of(u64::MAX)], [DiskUsage::Normal; 2]);
        assert_eq!(usage(0, 0), DiskUsage::Normal, "nothing is reserved");
        assert_eq!(usage(u64::MAX - 1, u64::MAX), DiskUsage::Full);
    }

    #[test]
    fn h68_a_failing_probe_repeats_the_last_figures() {
        let mut looks = 0;
        let probe: DiskProbe = Box::new(move || {
            looks += 1;
            if looks == 1 {
                Ok(DiskSpace { total_bytes: 1000, free_bytes: 600 })
            } else {
                Err(io::Error::other("gone"))
            }
        });
        let snaps = Arc::new(transport_traits::MemSnapStore::new(0));
        let kv = engine_traits::mem::MemEngine::new();
        let raft = engine_traits::mem::MemRaftLog::new();
        let mut figures = figures(kv, raft, snaps, 0, Some(probe));
        let first = figures(stats());
        assert_eq!(first, figures(stats()));
        assert_eq!(first.capacity_bytes, 1000);
    }
}
