//! Replicas, leaders and flows are spread evenly; then nothing moves any more.

use pd_client::mock::{OperatorReason, PdConfig};
use raftstore_proto::{Peer, PeerId, PeerRole};

use super::toy::{Dice, Toy, config, info, store, voters};

const MIB: u64 = 1 << 20;

/// Nothing happens in a long time, whatever is reported again.
fn check_rest(toy: &mut Toy, what: &str) {
    let before = toy.core.counters();
    let orders: usize = (0..300).map(|_| toy.round()).sum();
    assert_eq!(orders, 0, "{what}: {:?}", toy.core.history().rev().take(5).collect::<Vec<_>>());
    assert_eq!(before, toy.core.counters(), "{what}");
}

/// Replicas and leaders spread over 3 to 7 stores, then nothing moves any more.
#[test]
fn balance_converges_and_rests() {
    for stores in 3..=7 {
        let mut toy = Toy::new(config(), stores, 50);
        toy.run_until_rest(3000);
        toy.check_complete(3);
        assert!(toy.region_spread() <= 1, "{stores}: regions differ by {}", toy.region_spread());
        assert!(toy.leader_spread() <= 2, "{stores}: leaders differ by {}", toy.leader_spread());
        check_rest(&mut toy, "balanced");
    }
}

/// Stores that join later get their share.
#[test]
fn new_stores_are_filled() {
    let mut toy = Toy::new(config(), 3, 30);
    toy.run_until_rest(2000);
    for id in 4..=6 {
        toy.join(info(id));
    }
    toy.run_until_rest(3000);
    toy.check_complete(3);
    assert!(toy.region_spread() <= 1 && toy.leader_spread() <= 2);
}

/// Large regions count for more than small ones.
#[test]
fn sizes_are_balanced_not_only_numbers() {
    let mut toy = Toy::new(config(), 5, 40);
    for (number, region) in toy.regions.values_mut().enumerate() {
        region.size = if number % 8 == 0 { 500 * MIB } else { 10 * MIB };
    }
    toy.run_until_rest(5000);
    toy.check_complete(3);
    let base = toy.core.config().region_base_bytes;
    let burden = toy.spread(|toy, id| {
        let load = toy.core.store_load(id);
        load.bytes + load.regions * base
    });
    assert!(burden <= 2 * 90 * MIB + 2 * (10 * MIB + base), "{} MiB", burden / MIB);
    let largest: Vec<_> = (1..=5)
        .map(|id| {
            let here = |toy: &&super::toy::ToyRegion| toy.region.peer_on(store(id)).is_some();
            toy.regions.values().filter(here).filter(|toy| toy.size > 100 * MIB).count()
        })
        .collect();
    assert!(largest.iter().all(|count| (2..=4).contains(count)), "{largest:?}");
    check_rest(&mut toy, "sizes balanced");
}

/// Sizes that grow and shrink a little move nothing.
#[test]
fn small_changes_of_size_move_nothing() {
    let mut dice = Dice::new(3);
    let mut toy = Toy::new(config(), 5, 40);
    for region in toy.regions.values_mut() {
        region.size = 96 * MIB;
    }
    toy.run_until_rest(5000);
    let before = toy.core.counters().started;
    for _ in 0..1000 {
        for region in toy.regions.values_mut() {
            region.size = (86 + dice.below(20)) * MIB;
        }
        toy.round();
    }
    let moved = toy.core.counters().started - before;
    assert!(moved <= 3, "{moved} moves");
}

/// A store that is nearly full gives replicas away, and gets none back.
#[test]
fn a_full_store_is_relieved() {
    let mut toy = Toy::new(config(), 4, 40);
    toy.run_until_rest(3000);
    for region in toy.regions.values_mut() {
        region.size = 100 * MIB;
    }
    toy.run_until_rest(3000);
    // Room for 20 replicas and a little, where 30 are.
    toy.capacity.insert(store(2), 2100 * MIB);
    toy.executed.clear();
    toy.run_until_rest(3000);
    toy.check_complete(3);
    let left = toy.core.store_load(store(2)).regions;
    assert!((16..=20).contains(&left), "{left} replicas are left");
    assert!(!toy.deeds().iter().any(|deed| deed == "+2"), "{:?}", toy.deeds());
    check_rest(&mut toy, "relieved");
}

/// Bytes written in a round by all hot regions that a store leads, and that it has.
fn hot_spread(toy: &Toy) -> (u64, u64) {
    (
        toy.spread(|toy, id| toy.core.store_load(id).hot_led),
        toy.spread(|toy, id| toy.core.store_load(id).hot_written),
    )
}

/// Leaders of hot regions part without a replica being moved, where that is enough.
#[test]
fn hot_leaders_part_first() {
    let mut toy = Toy::placed(config(), 3, 12, |number, id| {
        (1..=3).map(|on| Peer::voter(PeerId::must(id + 10 * number + on), store(on))).collect()
    });
    toy.run_until_rest(500);
    for region in toy.regions.values_mut() {
        region.written = 1000;
    }
    // Three regions of one store's are hot.
    let led_on_one = toy.regions.values_mut().filter(|toy| toy.leader.store == store(1)).take(3);
    let mut made_hot = 0;
    for region in led_on_one {
        region.written = 50 * MIB;
        made_hot += 1;
    }
    assert_eq!(made_hot, 3);
    for _ in 0..100 {
        toy.round();
    }
    toy.run_until_rest(500);
    let hot: Vec<_> = toy.regions.values().filter(|toy| toy.written > MIB).collect();
    let mut led_on: Vec<_> = hot.iter().map(|toy| toy.leader.store.get()).collect();
    led_on.sort_unstable();
    assert_eq!(led_on, [1, 2, 3]);
    assert!(toy.leader_spread() <= 2, "the others make up for it");
    assert!(toy.core.history().any(|ended| ended.reason == OperatorReason::HotRegion));
    assert!(toy.deeds().iter().all(|deed| deed.starts_with('>')), "{:?}", toy.deeds());
    check_rest(&mut toy, "hot leaders apart");
}

/// Where hot regions have all replicas on the same stores, some are moved away.
#[test]
fn hot_replicas_part() {
    let mut toy = Toy::placed(config(), 6, 24, |number, id| {
        let first = 3 * (number % 2);
        (1..=3)
            .map(|on| Peer::voter(PeerId::must(id + 10 * number + on), store(first + on)))
            .collect()
    });
    toy.run_until_rest(500);
    for (number, region) in toy.regions.values_mut().enumerate() {
        // Four, all on stores 1, 2 and 3.
        region.written = if number % 6 == 0 { 40 * MIB } else { 1000 };
    }
    for _ in 0..200 {
        toy.round();
    }
    toy.run_until_rest(1000);
    toy.check_complete(3);
    let flow = 40 * MIB * 1000 / super::toy::ROUND_MS;
    let (led, written) = hot_spread(&toy);
    assert!(led <= flow + flow / 10, "{led}");
    assert!(written < 2 * flow, "{written} of {flow} each");
    assert!(toy.region_spread() <= 1, "the others make up for it");
    check_rest(&mut toy, "hot replicas apart");
}

/// Where all regions are written to alike, none is hot.
#[test]
fn an_even_load_is_not_hot() {
    let mut toy = Toy::new(config(), 4, 40);
    for region in toy.regions.values_mut() {
        region.written = 500 * MIB;
    }
    toy.run_until_rest(3000);
    assert!(toy.core.history().all(|ended| ended.reason != OperatorReason::HotRegion));
    assert!(toy.region_spread() <= 1 && toy.leader_spread() <= 2);
}

/// Flows that waver do not send regions to and fro.
#[test]
fn wavering_flows_move_little() {
    let mut dice = Dice::new(5);
    let mut toy = Toy::new(config(), 5, 60);
    toy.run_until_rest(5000);
    let flows = |toy: &mut Toy, dice: &mut Dice| {
        for (number, region) in toy.regions.values_mut().enumerate() {
            let mean = if number % 10 == 0 { 40 * MIB } else { MIB / 10 };
            region.written = mean / 2 + dice.below(mean);
        }
    };
    for _ in 0..500 {
        flows(&mut toy, &mut dice);
        toy.round();
    }
    let before = toy.core.counters().started;
    for _ in 0..2000 {
        flows(&mut toy, &mut dice);
        toy.round();
    }
    let moved = toy.core.counters().started - before;
    assert!(moved <= 10, "{moved} moves");
}

/// A cluster in any state that stores could have reported.
fn any_state(dice: &mut Dice) -> Toy {
    let max_replicas = usize::try_from(1 + dice.below(5)).expect("it is small");
    let stores = max_replicas as u64 + dice.below(6);
    let labels = [&[][..], &["zone"], &["zone", "host"], &["host"]];
    let config = PdConfig {
        max_replicas,
        location_labels: dice.pick(&labels).iter().map(|label| (*label).to_owned()).collect(),
        joint_replacement: dice.percent(50),
        balance_tolerance: 2 + dice.below(3),
        snapshots_per_store_max: 1 + dice.below(8),
        operators_per_store_max: 1 + usize::try_from(dice.below(8)).expect("it is small"),
        balance_leaders: !dice.percent(10),
        balance_regions: !dice.percent(10),
        spread_hot_regions: !dice.percent(20),
        ..config()
    };
    let regions = 1 + dice.below(40);
    let mut next = 0;
    let mut toy = Toy::placed(config, stores, regions, |_, id| {
        let mut on: Vec<u64> = (1..=stores).collect();
        let count = 1 + dice.below((max_replicas as u64 + 2).min(stores));
        (0..count)
            .map(|number| {
                let place = usize::try_from(dice.below(on.len() as u64)).expect("it is small");
                next += 1;
                let role = if number > 0 && dice.percent(15) {
                    PeerRole::Learner
                } else {
                    PeerRole::Voter
                };
                Peer { id: PeerId::must(id + next), store: store(on.swap_remove(place)), role }
            })
            .collect()
    });
    for id in 1..=stores {
        toy.join(super::toy::in_zone(id, 1 + dice.below(4)));
    }
    let size = dice.below(400);
    for region in toy.regions.values_mut() {
        region.size = dice.below(size + 1) * MIB;
        let is_hot = dice.percent(10);
        region.written = if is_hot { dice.below(100 * MIB) } else { dice.below(MIB) };
    }
    toy
}

/// The sum over pairs of replicas of a region that share a zone.
fn pairs_in_a_zone(toy: &Toy) -> u64 {
    let zone = |on| {
        let record = toy.core.store(on).expect("it introduced itself");
        record.info.labels.iter().find(|(key, _)| key == "zone").map(|(_, zone)| zone.clone())
    };
    let pairs = |region: &super::toy::ToyRegion| {
        let zones: Vec<_> = voters(&region.region).iter().map(|peer| zone(peer.store)).collect();
        let same = |at: usize| zones[at + 1..].iter().filter(|zone| **zone == zones[at]).count();
        (0..zones.len()).map(same).sum::<usize>() as u64
    };
    toy.regions.values().map(pairs).sum()
}

/// The fewest pairs in a zone that any placement can have.
fn fewest_pairs(toy: &Toy) -> u64 {
    let mut zones = std::collections::BTreeMap::<String, u64>::new();
    for record in toy.core.stores() {
        let zone = record.info.labels.iter().find(|(key, _)| key == "zone");
        *zones.entry(zone.expect("every store has one").1.clone()).or_default() += 1;
    }
    let mut taken = std::collections::BTreeMap::<&String, u64>::new();
    let mut pairs = 0;
    for _ in 0..toy.core.config().max_replicas {
        let free = zones.iter().filter(|(zone, room)| taken.get(zone).unwrap_or(&0) < room);
        let least = free.min_by_key(|(zone, _)| taken.get(zone).copied().unwrap_or(0));
        let count = taken.entry(least.expect("stores are enough").0).or_default();
        pairs += *count;
        *count += 1;
    }
    pairs * toy.regions.len() as u64
}

/// From any state PD brings the cluster into the wanted one in finite time, and then rests.
#[test]
fn any_state_comes_to_rest() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let mut toy = any_state(&mut dice);
        // Flows are averaged over a while.
        for _ in 0..60 {
            toy.round();
        }
        toy.run_until_rest(20_000);
        let config = toy.core.config().clone();
        toy.check_complete(config.max_replicas);
        if config.location_labels.first().is_some_and(|label| label == "zone") {
            assert_eq!(pairs_in_a_zone(&toy), fewest_pairs(&toy), "seed {seed}");
        }
        let has_hot = toy.core.regions().any(|record| record.flow.is_hot());
        if config.balance_leaders && !(has_hot && config.spread_hot_regions) {
            // A region can be led on three stores only, so this is not always a tight fit.
            let spread = toy.leader_spread();
            let bound = config.balance_tolerance * (1 + toy.up.len() as u64);
            assert!(spread <= bound, "seed {seed}: leaders differ by {spread}");
        }
        if config.balance_regions && config.location_labels.is_empty() && !has_hot {
            let base = config.region_base_bytes;
            let burden = |toy: &Toy, id| {
                let load = toy.core.store_load(id);
                load.regions * base + load.bytes
            };
            let heaviest = toy.regions.values().map(|toy| toy.size).max().unwrap_or(0) + base;
            let spread = toy.spread(burden);
            let bound = 2 * heaviest * config.balance_tolerance;
            assert!(spread <= bound, "seed {seed}: {} MiB", spread / MIB);
        }
        check_rest(&mut toy, &format!("seed {seed}"));
    }
}
