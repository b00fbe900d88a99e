//! Everything goes wrong at once, and comes back.

use std::collections::BTreeSet;

use pd_client::mock::PdConfig;

use super::toy::{self, Dice, Given, Toy, config, voters};

/// Orders that are lost, late, doubled and shuffled, while stores fail and regions split:
/// no order takes a quorum away (asserted by the toy at each), and when the faults stop,
/// every region becomes whole and PD rests.
#[test]
fn random_faults_never_cost_a_quorum() {
    for seed in 0..120 {
        let mut dice = Dice::new(seed);
        // Even numbers too: there a removal can cost the quorum of a region that has one.
        let max_replicas = [3, 2, 5, 3, 4][usize::try_from(seed % 5).expect("below 5")];
        let stores = max_replicas as u64 + 1 + dice.below(4);
        // With everything PD can do, in all combinations.
        let location_labels = if dice.percent(50) { vec!["zone".to_owned()] } else { Vec::new() };
        let joint_replacement = dice.percent(50);
        let config = PdConfig { max_replicas, location_labels, joint_replacement, ..config() };
        let mut toy = Toy::new(config, stores, 4 + dice.below(5));
        for id in 1..=stores {
            toy.join(toy::in_zone(id, 1 + id % 3));
        }
        let mut late: Vec<Given> = Vec::new();
        for _ in 0..250 {
            disturb(&mut toy, &mut dice, stores);
            late.extend(toy.report());
            // In random order; some are lost, some are kept and come again.
            for _ in 0..late.len() {
                let pick = usize::try_from(dice.below(late.len() as u64)).expect("it is small");
                let given = late[pick].clone();
                if dice.percent(70) {
                    late.swap_remove(pick);
                }
                if dice.percent(60) {
                    toy.execute(&given);
                }
                if late.is_empty() {
                    break;
                }
            }
            late.truncate(200);
        }
        for id in 1..=stores {
            toy.revive(id);
        }
        toy.run_until_rest(3000);
        toy.check_complete(max_replicas);
    }
}

/// Something goes wrong, or comes back.
fn disturb(toy: &mut Toy, dice: &mut Dice, stores: u64) {
    let id = 1 + dice.below(stores);
    match dice.below(100) {
        0..=3 => toy.kill(id),
        4..=15 => toy.revive(id),
        20..=24 => {
            let regions: Vec<_> = toy.regions.keys().copied().collect();
            let region = toy.regions.get_mut(dice.pick(&regions)).expect("just listed");
            region.size = dice.below(300 << 20);
            region.written = if dice.percent(20) { dice.below(64 << 20) } else { 0 };
        }
        25 => {
            let regions: Vec<_> =
                toy.regions.keys().copied().filter(|_| dice.percent(30)).collect();
            toy.core.scatter(toy.now_ms, &regions, "some").expect("there is a first region");
        }
        16..=17 => {
            let key = format!("k{:04}x{}", dice.below(9), dice.below(10));
            let regions: Vec<_> = toy.regions.keys().copied().collect();
            if toy.regions.len() < 20 {
                for region in regions {
                    toy.split(region, &key);
                }
            }
        }
        18..=19 => damage(toy, dice),
        _ => {}
    }
}

/// Damages a voter of a region in which no other is damaged and two more are there, so
/// that the region can be healed at all.
fn damage(toy: &mut Toy, dice: &mut Dice) {
    let candidates: Vec<_> = toy
        .regions
        .values()
        .filter(|it| it.region.peers.iter().all(|peer| !toy.damaged.contains(&peer.id)))
        .map(|toy| voters(&toy.region))
        .filter(|voters| voters.len() >= 3)
        .collect();
    if candidates.is_empty() {
        return;
    }
    let voters = dice.pick(&candidates).clone();
    let peer = *dice.pick(&voters);
    toy.damaged.insert(peer.id);
    toy.failures += 1;
    let living: BTreeSet<_> =
        toy.regions.values().flat_map(|toy| toy.region.peers.iter().map(|peer| peer.id)).collect();
    toy.damaged.retain(|peer| living.contains(peer));
}
