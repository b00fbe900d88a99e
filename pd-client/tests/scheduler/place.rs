//! Placement over zones and hosts, and scattering.

use std::collections::BTreeMap;

use pd_client::mock::{OperatorReason, PdConfig};
use raftstore_proto::{Peer, PeerId, RegionId};

use super::toy::{Toy, config, in_zone, store};

fn labelled(labels: &[&str]) -> PdConfig {
    let location_labels = labels.iter().map(|label| (*label).to_owned()).collect();
    PdConfig { location_labels, ..config() }
}

/// Six stores, two in each of three zones.
fn zone_of(id: u64) -> u64 {
    1 + (id - 1) / 2
}

/// The six stores join, or come with their labels, and PD has its way.
fn join_three_zones(toy: &mut Toy) {
    for id in 1..=6 {
        toy.join(in_zone(id, zone_of(id)));
    }
    toy.run_until_rest(5000);
}

/// The zones of a region's members, sorted.
fn zones(toy: &Toy, region: RegionId) -> Vec<u64> {
    let mut zones: Vec<_> =
        toy.regions[&region].region.peers.iter().map(|peer| zone_of(peer.store.get())).collect();
    zones.sort_unstable();
    zones
}

/// Six stores in three zones: each region gets one replica in each.
#[test]
fn replicas_are_spread_over_zones() {
    let mut toy = Toy::new(labelled(&["zone"]), 6, 30);
    join_three_zones(&mut toy);
    toy.check_complete(3);
    for region in toy.regions.keys() {
        assert_eq!(zones(&toy, *region), [1, 2, 3]);
    }
    assert!(toy.region_spread() <= 1, "evenly too");
    assert!(toy.core.history().all(|ended| ended.reason != OperatorReason::Placement));
}

/// Regions that were placed without labels are moved apart once there are some.
#[test]
fn labels_that_come_later_move_replicas() {
    let mut toy = Toy::placed(labelled(&["zone"]), 6, 12, |number, id| {
        (1..=3).map(|on| Peer::voter(PeerId::must(id + 10 * number + on), store(on))).collect()
    });
    toy.run_until_rest(5000);
    join_three_zones(&mut toy);
    toy.check_complete(3);
    for region in toy.regions.keys() {
        assert_eq!(zones(&toy, *region), [1, 2, 3]);
    }
    assert!(toy.core.history().any(|ended| ended.reason == OperatorReason::Placement));
}

/// A zone that is gone leaves two: replicas share one as long as they must, and no longer.
#[test]
fn a_lost_zone_is_made_up_for() {
    let mut toy = Toy::new(labelled(&["zone"]), 6, 10);
    join_three_zones(&mut toy);
    toy.kill(5);
    toy.kill(6);
    toy.run_until_rest(5000);
    toy.check_complete(3);
    for region in toy.regions.keys() {
        let zones = zones(&toy, *region);
        assert!(zones == [1, 1, 2] || zones == [1, 2, 2], "{zones:?}");
    }
    toy.revive(5);
    toy.revive(6);
    toy.run_until_rest(5000);
    for region in toy.regions.keys() {
        assert_eq!(zones(&toy, *region), [1, 2, 3]);
    }
}

/// With two zones only, two replicas share one, but not the host in it.
#[test]
fn inner_places_count_where_outer_ones_are_shared() {
    let mut toy = Toy::new(labelled(&["zone", "host"]), 6, 12);
    let zone_of = |id| id % 2;
    for id in 1..=6 {
        let mut info = in_zone(id, zone_of(id));
        info.labels = vec![
            ("zone".to_owned(), zone_of(id).to_string()),
            // Two stores of each zone on one host.
            ("host".to_owned(), if id <= 4 { "shared".to_owned() } else { id.to_string() }),
        ];
        toy.join(info);
    }
    toy.run_until_rest(5000);
    toy.check_complete(3);
    for toy_region in toy.regions.values() {
        let mut by_zone: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for peer in &toy_region.region.peers {
            by_zone.entry(zone_of(peer.store.get())).or_default().push(peer.store.get());
        }
        for stores in by_zone.values().filter(|stores| stores.len() == 2) {
            // One of the two is alone on its host.
            assert!(stores.iter().any(|store| *store > 4), "{stores:?} share a host");
        }
        assert_eq!(by_zone.len(), 2);
    }
}

/// Regions of a group are spread evenly before anything is in them, leaders too.
#[test]
fn scattered_regions_are_even() {
    for joint_replacement in [false, true] {
        let still = PdConfig {
            balance_leaders: false,
            balance_regions: false,
            joint_replacement,
            ..config()
        };
        let mut toy = Toy::placed(still, 6, 24, |number, id| {
            (1..=3).map(|on| Peer::voter(PeerId::must(id + 10 * number + on), store(on))).collect()
        });
        toy.run_until_rest(100);
        let regions: Vec<_> = toy.regions.keys().copied().collect();
        let unknown = RegionId::must(77);
        let wanted: Vec<_> = regions.iter().copied().chain([unknown]).collect();
        let left_out = toy.core.scatter(toy.now_ms, &wanted, "table").expect("bootstrapped");
        assert_eq!(left_out, [unknown]);
        toy.run_until_rest(3000);
        toy.check_complete(3);
        assert_eq!(toy.region_spread(), 0);
        assert!(toy.leader_spread() <= 1, "{}", toy.leader_spread());
        // Once more, nothing has to move.
        toy.executed.clear();
        let left_out = toy.core.scatter(toy.now_ms, &regions, "again").expect("bootstrapped");
        assert!(left_out.is_empty());
        toy.run_until_rest(1000);
        let moves = toy.deeds().iter().filter(|deed| deed.starts_with('+')).count();
        assert!(moves <= 6, "{:?}", toy.deeds());
    }
}

/// A region in bad health is not scattered, and one under repair goes on with that.
#[test]
fn scattering_does_not_disturb_repair() {
    let mut toy = Toy::new(config(), 3, 2);
    toy.round();
    let regions: Vec<_> = toy.regions.keys().copied().collect();
    let left_out = toy.core.scatter(toy.now_ms, &regions, "").expect("bootstrapped");
    assert_eq!(left_out, regions);
    toy.run_until_rest(500);
    toy.check_complete(3);
    assert!(toy.core.history().all(|ended| ended.reason != OperatorReason::Scatter));
}
