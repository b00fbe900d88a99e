//! What PD believes of what stores say.

mod reported;

use bytes::Bytes;
use pd_client::{
    Error, OrderAction, PeerDown, RegionHeartbeat, Result, StoreInfo, StoreLifecycle, StoreStats,
    mock::{PdConfig, PdCore, RegionRecord},
};
use raftstore_proto::{
    ChangeKind, ClusterId, Epoch, Peer, PeerChange, PeerId, PeerRole, Region, RegionId, StoreId,
};

use self::reported::{heartbeat, stats};

fn store(id: u64) -> StoreId {
    StoreId::must(id)
}

fn info(id: u64) -> StoreInfo {
    StoreInfo {
        id: store(id),
        address: format!("store-{id}"),
        labels: Vec::new(),
        lifecycle: StoreLifecycle::Up,
    }
}

/// A region on stores 1, 2 and 3.
fn region(id: u64, range: (&str, &str), epoch: (u64, u64)) -> Region {
    Region {
        id: RegionId::must(id),
        start_key: Bytes::from(range.0.to_owned()),
        end_key: Bytes::from(range.1.to_owned()),
        epoch: Epoch { conf_ver: epoch.0, version: epoch.1 },
        peers: (1..=3).map(|on| Peer::voter(PeerId::must(id * 10 + on), store(on))).collect(),
    }
}

/// Two regions, led on store 1 in term 7.
fn known() -> PdCore {
    let mut core = PdCore::new(ClusterId::must(7), PdConfig::manual());
    let both = [region(100, ("", "m"), (5, 3)), region(200, ("m", ""), (5, 3))];
    core.seed(both.to_vec()).expect("apart");
    for id in 1..=3 {
        core.put_store(0, info(id)).expect("a new address");
    }
    for region in both {
        core.region_heartbeat(1000, heartbeat(region, 7)).expect("it is newer");
    }
    core
}

fn all(core: &PdCore) -> Vec<RegionRecord> {
    core.regions().cloned().collect()
}

fn spoilt(spoil: impl FnOnce(&mut RegionHeartbeat)) -> RegionHeartbeat {
    let mut report = heartbeat(region(100, ("", "m"), (6, 4)), 8);
    spoil(&mut report);
    report
}

/// Nothing that is old, foreign or impossible changes anything, ids included.
#[test]
fn bad_reports_change_nothing() {
    let huge = u64::MAX - 5;
    let bad: Vec<(&str, RegionHeartbeat)> = vec![
        ("an old term", spoilt(|it| it.term = 6)),
        ("an old range", spoilt(|it| it.region.epoch.version = 2)),
        ("old members", spoilt(|it| it.region.epoch.conf_ver = 4)),
        (
            "newer in one, older in the other",
            spoilt(|it| {
                it.region.epoch = Epoch { conf_ver: 9, version: 2 };
            }),
        ),
        ("no term", spoilt(|it| it.term = 0)),
        ("a zero epoch", spoilt(|it| it.region.epoch = Epoch { conf_ver: 0, version: 9 })),
        ("no members", spoilt(|it| it.region.peers.clear())),
        ("one store twice", spoilt(|it| it.region.peers[1].store = store(3))),
        ("one id twice", spoilt(|it| it.region.peers[1].id = it.region.peers[2].id)),
        (
            "learners only",
            spoilt(|it| {
                for peer in &mut it.region.peers {
                    peer.role = PeerRole::Learner;
                }
            }),
        ),
        ("an empty range", spoilt(|it| it.region.end_key = it.region.start_key.clone())),
        ("a leader that is a learner", spoilt(|it| it.region.peers[0].role = PeerRole::Learner)),
        ("a leader that is no member", spoilt(|it| it.leader.id = PeerId::must(999))),
        ("a leader on another store", spoilt(|it| it.leader.store = store(2))),
        (
            "an unknown store's leader",
            spoilt(|it| {
                it.region.peers[0].store = store(50);
                it.leader = it.region.peers[0];
            }),
        ),
        ("a region id PD never gave", spoilt(|it| it.region.id = RegionId::must(huge))),
        ("a peer id PD never gave", spoilt(|it| it.region.peers[1].id = PeerId::must(huge))),
        ("a store id PD never gave", spoilt(|it| it.region.peers[1].store = store(huge))),
        (
            "keys of another region of its version",
            spoilt(|it| {
                it.region.epoch.version = 3;
                it.region.end_key = Bytes::from_static(b"p");
            }),
        ),
        (
            "an unknown region over known ones",
            spoilt(|it| {
                it.region.id = RegionId::must(300);
                it.region.epoch.version = 3;
                it.region.start_key = Bytes::from_static(b"c");
            }),
        ),
    ];
    // The range of the fourth would be fine in itself.
    let mut core = known();
    let before = all(&core);
    for (what, mut report) in bad {
        if what == "an empty range" {
            report.region.start_key = Bytes::from_static(b"m");
            report.region.end_key = Bytes::from_static(b"m");
        }
        let outcome = core.region_heartbeat(2000, report);
        assert!(outcome.is_err(), "{what} is believed");
        assert_eq!(all(&core), before, "{what}");
    }
    let counters = core.counters();
    assert_eq!(counters.stale_reports + counters.invalid_reports, 20);
    assert_eq!(counters.stale_reports, 6);
    assert!(core.alloc_id() < 10_000, "no id was taken for given");
}

/// What is said of peers that are no members is left out.
#[test]
fn only_members_are_down_or_pending() {
    let mut core = known();
    let mut report = heartbeat(region(100, ("", "m"), (5, 3)), 7);
    let member = report.region.peers[1];
    let stranger = Peer::voter(PeerId::must(77), store(9));
    let elsewhere = Peer { store: store(3), ..member };
    report.pending_peers = vec![stranger, elsewhere, member];
    report.down_peers =
        [stranger, member, elsewhere].map(|peer| PeerDown { peer, down_seconds: 3 }).to_vec();
    core.region_heartbeat(2000, report).expect("it is current");
    let record = &all(&core)[0];
    assert_eq!(record.pending_peers, [member]);
    assert_eq!(record.down_peers, [PeerDown { peer: member, down_seconds: 3 }]);
}

/// A buried store's word counts for nothing, an unknown one's neither.
#[test]
fn stores_that_are_not_there_are_not_heard() {
    let mut core = known();
    core.put_store(0, info(4)).expect("a new address");
    core.set_lifecycle(store(4), StoreLifecycle::Tombstone).expect("it is empty");
    for id in [4, 5] {
        let stats = StoreStats { capacity_bytes: 1, available_bytes: 9, ..stats(store(id)) };
        let outcome = core.store_heartbeat(10, stats);
        assert!(matches!(outcome, Err(Error::StoreNotFound(_))));
    }
    assert!(matches!(core.put_store(0, info(4)), Err(Error::StoreNotFound(_))));
    let nameless = StoreInfo { address: String::new(), ..info(6) };
    assert!(matches!(core.put_store(0, nameless), Err(Error::Invalid(_))));
    let dead = StoreInfo { lifecycle: StoreLifecycle::Tombstone, ..info(7) };
    assert!(matches!(core.put_store(0, dead), Err(Error::Invalid(_))));
}

/// What is told of splits is looked at like reports, and so are questions about them.
#[test]
fn senseless_splits_are_refused() {
    let mut core = known();
    let before = all(&core);
    let old = region(100, ("", "m"), (5, 2));
    assert!(matches!(core.ask_split(&old, 1), Err(Error::Stale)));
    let fits = region(100, ("", "m"), (5, 3));
    for count in [0, 5000, usize::MAX] {
        assert!(matches!(core.ask_split(&fits, count), Err(Error::Invalid(_))));
    }
    let mut empty = fits;
    empty.peers.clear();
    assert!(matches!(core.ask_split(&empty, 1), Err(Error::Invalid(_))));
    let parts = |cut: (&str, &str)| {
        vec![region(100, ("", cut.0), (5, 4)), region(300, (cut.1, "m"), (5, 4))]
    };
    assert!(core.report_split(parts(("c", "d"))).is_err(), "a hole");
    assert!(core.report_split(parts(("d", "c"))).is_err(), "an overlap");
    assert!(core.report_split(vec![empty]).is_err());
    assert_eq!(all(&core), before);
    // Old parts are passed over.
    core.report_split(vec![old]).expect("nothing wrong with it");
    assert_eq!(all(&core), before);
}

/// Ids for many regions at once: all new, as many peers as the region has, in its order.
#[test]
fn ids_for_a_split_of_many() -> Result<()> {
    let mut core = known();
    let fits = region(100, ("", "m"), (5, 3));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        for (region, peers) in core.ask_split(&fits, 100)? {
            assert_eq!(peers.len(), 3);
            assert!(seen.insert(region.get()));
            assert!(peers.iter().all(|peer| seen.insert(peer.get())));
        }
    }
    assert!(seen.first().is_some_and(|least| *least > 2003), "larger than any known");
    Ok(())
}

/// The size of a whole is shared by its parts until their leaders know better; a leader that
/// knows none does not make PD forget.
#[test]
fn sizes_are_not_forgotten() {
    let mut core = known();
    let sizes = |core: &PdCore| -> Vec<u64> {
        core.scan_regions(b"", b"", 9)
            .iter()
            .map(|route| {
                let mut records = core.regions();
                let record = records.find(|record| record.region.id == route.region.id);
                record.expect("just scanned").approximate_size
            })
            .collect()
    };
    let mut report = heartbeat(region(100, ("", "m"), (5, 3)), 7);
    report.approximate_size = 900;
    core.region_heartbeat(2000, report).expect("it is current");
    core.region_heartbeat(3000, heartbeat(region(100, ("", "m"), (5, 3)), 8)).expect("newer");
    assert_eq!(sizes(&core), [900, 0]);
    let parts = vec![
        region(100, ("", "c"), (5, 5)),
        region(300, ("c", "f"), (5, 5)),
        region(400, ("f", "m"), (5, 5)),
    ];
    core.report_split(parts).expect("neighbours");
    assert_eq!(sizes(&core), [300, 300, 300, 0]);
    assert_eq!(core.store_load(store(2)).bytes, 900);
}

/// What PD orders is for the leader and the epoch that reported, whoever led before (H72).
#[test]
fn h72_orders_fit_the_report_they_answer() {
    let mut core = known();
    let peer = Peer::learner(PeerId::must(5000), store(9));
    let change = PeerChange { kind: ChangeKind::AddLearner, peer };
    let id = RegionId::must(100);
    core.force_order(1000, id, OrderAction::ChangePeer(change)).expect("it is known");
    let mut report = heartbeat(region(100, ("", "m"), (8, 4)), 9);
    report.leader = report.region.peers[2];
    let order = core.region_heartbeat(2000, report.clone()).expect("newer").expect("forced");
    assert_eq!((order.epoch, order.target), (report.region.epoch, report.leader));
    let late = heartbeat(region(100, ("", "m"), (8, 4)), 8);
    assert!(matches!(core.region_heartbeat(2001, late), Err(Error::Stale)), "no order for it");
}
