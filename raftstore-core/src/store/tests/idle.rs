//! Duties cost as much as there is to do, not as much as there are regions (D12).

use std::time::Duration;

use raftstore_proto::{Region, RegionId};

use super::harness::*;
use crate::{CheckGoal, Config, Event, PdRequest, Task, TaskDone};

/// Every duty but the reports on regions comes round at each tick or soon after.
fn busy() -> Config {
    const SECOND: Duration = Duration::from_secs(1);
    Config {
        raft_log_gc_tick_interval: SECOND,
        raft_log_gc_threshold: 3,
        split_region_check_tick_interval: SECOND,
        region_compact_check_interval: SECOND,
        region_compact_delete_keys_count: 2,
        pd_heartbeat_tick_interval: 100 * SECOND,
        pd_store_heartbeat_tick_interval: SECOND,
        snap_mgr_gc_tick_interval: SECOND,
        lock_cf_compact_interval: SECOND,
        ..Config::default()
    }
}

/// Regions 1 to `count`, side by side on these stores.
fn row(count: u64, stores: &[u64]) -> Vec<Region> {
    let key = |at: u64| format!("k{at:06}");
    (1..=count)
        .map(|id| {
            let start = if id == 1 { String::new() } else { key(id) };
            let end = if id == count { String::new() } else { key(id + 1) };
            region(RegionId::must(id), &start, &end, stores)
        })
        .collect()
}

impl Node {
    /// Ticks, one at a time, with everything done that they ask for; looks at sizes find
    /// nothing to cut.
    fn live(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick(1);
            for task in std::mem::take(&mut self.tasks) {
                if let Task::CheckSplit { region, incarnation, goal: CheckGoal::Auto } = task {
                    let (version, region) = (region.epoch.version, region.id);
                    self.take(Event::TaskDone(TaskDone::SplitChecked {
                        region,
                        incarnation,
                        version,
                        goal: CheckGoal::Auto,
                        size_bytes: 0,
                        keys: Vec::new(),
                    }));
                } else {
                    self.tasks.push_back(task);
                }
            }
            self.settle();
        }
    }

    fn visits(&self) -> u64 {
        self.store.metrics().duty_visits
    }

    fn reports(&mut self) -> (u64, u64, u64) {
        let pd = std::mem::take(&mut self.pd);
        let of_regions = pd.iter().filter(|ask| matches!(ask, PdRequest::RegionHeartbeat(_)));
        (of_regions.count() as u64, self.store.metrics().regions, self.store.metrics().leaders)
    }
}

/// Thousands of idle regions are visited by no duty; those with something to do are, and
/// then no more.
#[test]
fn duties_visit_active_regions_only() {
    const REGIONS: u64 = 3_000;
    let mut node = Node::new(1, busy(), &row(REGIONS, &[1]));
    node.settle();
    node.live(20);
    assert_eq!(node.reports(), (REGIONS, REGIONS, REGIONS), "each new leader reports");
    let settled = node.visits();
    node.live(60);
    assert_eq!(node.visits(), settled, "idle regions were visited");
    assert_eq!(node.reports().0, 0, "nothing has changed, and no report was due");
    // A region that is written to has its commit index flushed, its log looked at and cut.
    let active = RegionId::must(7);
    let cuts = node.store.metrics().log_cuts;
    for n in 0..10 {
        node.put(active, "k000007", &n.to_string());
        node.settle();
    }
    let ticks = 30;
    node.live(ticks);
    let visits = node.visits() - settled;
    assert!(visits > 0 && visits < 3 * ticks, "{visits} visits for one active region");
    assert_eq!(node.store.metrics().log_cuts, cuts + 1);
    let settled = node.visits();
    node.live(ticks);
    assert_eq!(node.visits(), settled, "the region is idle again");
}

/// Reports on regions are for leaders, as often as the interval says, and the counts of the
/// store's report are those of a walk: with debug assertions each report compares them.
#[test]
fn reports_count_by_what_was_noted() {
    const REGIONS: u64 = 20;
    let mut cluster = Cluster::with(busy(), 3, &row(REGIONS, &[1, 2, 3]));
    let led_by_1 = |cluster: &mut Cluster| {
        (1..=REGIONS).filter(|id| cluster.on(1).status(RegionId::must(*id)).is_leader).count()
            as u64
    };
    for _ in 0..40 {
        if led_by_1(&mut cluster) == REGIONS {
            break;
        }
        cluster.on(1).live(1);
        cluster.settle();
    }
    let everybody = |cluster: &mut Cluster, ticks: u64| {
        for _ in 0..ticks {
            for store in 1..=3 {
                cluster.on(store).live(1);
            }
            cluster.settle();
        }
    };
    everybody(&mut cluster, 30);
    assert_eq!(cluster.on(1).reports().1, REGIONS);
    let settled: Vec<u64> = cluster.nodes.iter().map(Node::visits).collect();
    let reported = cluster.on(1).store.metrics().region_reports;
    everybody(&mut cluster, 100);
    for (node, before) in cluster.nodes.iter().zip(settled) {
        assert_eq!(node.visits(), before, "store {} visited idle regions", node.id);
    }
    assert_eq!(cluster.on(1).store.metrics().region_reports - reported, REGIONS);
    assert_eq!((cluster.on(2).reports().1, cluster.on(2).reports().2), (REGIONS, 0));
    // Another store takes over one of them.
    let moved = RegionId::must(3);
    let order = raftstore_proto::AdminCommand::TransferLeader(voter(moved, 2));
    cluster.on(1).ask(moved, raftstore_proto::Body::Admin(order));
    cluster.settle();
    everybody(&mut cluster, 2);
    assert_eq!(cluster.on(1).reports().2, REGIONS - 1);
    assert_eq!(cluster.on(2).reports().2, 1);
}
