//! Replacing a replica in one step, through a joint configuration.

use pd_client::mock::PdConfig;
use raftstore_proto::{Peer, PeerId};

use super::{
    FIRST,
    toy::{Toy, config, store},
};

fn still() -> PdConfig {
    PdConfig { balance_leaders: false, balance_regions: false, joint_replacement: true, ..config() }
}

/// A region on the first `replicas` of `stores`, led on the first.
fn resting(stores: u64, replicas: u64) -> Toy {
    let max_replicas = usize::try_from(replicas).expect("it is small");
    let mut toy = Toy::placed(PdConfig { max_replicas, ..still() }, stores, 1, |_, id| {
        (1..=replicas).map(|on| Peer::voter(PeerId::must(id + on), store(on))).collect()
    });
    toy.run_until_rest(100);
    assert!(toy.executed.is_empty());
    toy
}

/// The number of voters that count never changes; the old one is a learner before it goes.
#[test]
fn a_replica_is_exchanged_in_one_step() {
    let mut toy = resting(4, 3);
    toy.kill(3);
    toy.run_until_rest(200);
    assert_eq!(toy.deeds(), ["+4", "x4-3", "-3"]);
    toy.check_complete(3);
}

/// A leader hands over before it is demoted.
#[test]
fn a_leader_hands_over_first() {
    let mut toy = resting(4, 3);
    toy.core
        .set_lifecycle(store(1), pd_client::StoreLifecycle::Offline)
        .expect("the store is known");
    toy.run_until_rest(200);
    assert_eq!(toy.deeds(), ["+4", ">2", "x4-1", "-1"]);
    toy.check_complete(3);
}

/// A lone voter has nobody to hand over to: it is exchanged the long way.
#[test]
fn a_lone_voter_is_exchanged_the_long_way() {
    let mut toy = resting(2, 1);
    toy.core
        .set_lifecycle(store(1), pd_client::StoreLifecycle::Offline)
        .expect("the store is known");
    toy.run_until_rest(200);
    assert_eq!(toy.deeds(), ["+2", "^2", ">2", "-1"]);
    toy.check_complete(1);
}

/// A joint membership that somebody else began is left to them; then PD goes on.
#[test]
fn a_foreign_joint_membership_is_waited_for() {
    let mut toy = resting(4, 3);
    toy.kill(3);
    while toy.deeds().last().is_none_or(|deed| deed != "x4-3") {
        toy.round();
    }
    // PD forgets that it was its own doing.
    toy.core.cancel(FIRST);
    toy.run_until_rest(200);
    toy.check_complete(3);
    assert!(toy.deeds().contains(&"-3".to_owned()), "{:?}", toy.deeds());
}
