//! The order in which observers are called, and where a call ends.
#![expect(clippy::disallowed_types, reason = "observers are shared by threads, in tests too")]

use std::sync::Mutex;

use raftstore_proto::{Epoch, PeerId, RegionId, StoreId};

use super::*;

/// Writes its name down when it is called.
struct Named {
    name: &'static str,
    log: Arc<Mutex<Vec<&'static str>>>,
    bypasses: bool,
    refuses: bool,
}

impl Named {
    fn called(&self) {
        self.log.lock().unwrap().push(self.name);
    }
}

impl Observer for Named {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&self) {
        self.called();
    }

    fn stop(&self) {
        self.called();
    }

    fn pre_admin(&self, asked: &mut Asked<'_>, _: &mut AdminCommand) -> Result<(), RegionError> {
        self.called();
        if self.bypasses {
            asked.bypass();
        }
        if self.refuses {
            let why = "on principle".to_owned();
            return Err(RegionError::Refused { by: self.name, why });
        }
        Ok(())
    }

    fn role_changed(&self, _: &RoleChange<'_>) {
        self.called();
    }
}

fn region() -> Region {
    Region {
        id: RegionId::must(1),
        start_key: "a".into(),
        end_key: "b".into(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(2), StoreId::must(1))],
    }
}

struct Chain {
    log: Arc<Mutex<Vec<&'static str>>>,
    observers: Observers,
}

impl Chain {
    fn new() -> Self {
        Self { log: Arc::default(), observers: Observers::default() }
    }

    fn add(&mut self, priority: u32, name: &'static str, bypasses: bool, refuses: bool) {
        let named = Named { name, log: Arc::clone(&self.log), bypasses, refuses };
        self.observers = self.observers.with(priority, Arc::new(named));
    }

    fn admin(&self) -> Result<(), RegionError> {
        self.observers.pre_admin(&region(), &mut AdminCommand::ComputeHash)
    }

    fn called(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

#[test]
fn lower_numbers_come_first_and_equals_in_order() {
    let mut chain = Chain::new();
    for (priority, name) in [(20, "c"), (10, "a"), (20, "d"), (10, "b")] {
        chain.add(priority, name, false, false);
    }
    assert_eq!(chain.admin(), Ok(()));
    assert_eq!(chain.called(), ["a", "b", "c", "d"]);
    chain.observers.start();
    assert_eq!(chain.called(), ["a", "b", "c", "d"]);
    chain.observers.stop();
    assert_eq!(chain.called(), ["a", "b", "c", "d"]);
    assert_eq!(format!("{:?}", chain.observers), "{\"a\": 10, \"b\": 10, \"c\": 20, \"d\": 20}");
}

#[test]
fn the_first_refusal_counts_and_nobody_behind_is_asked() {
    let mut chain = Chain::new();
    chain.add(1, "a", false, false);
    chain.add(2, "b", false, true);
    chain.add(3, "c", false, true);
    let refused = chain.admin();
    assert_eq!(refused, Err(RegionError::Refused { by: "b", why: "on principle".to_owned() }));
    assert_eq!(refused.unwrap_err().to_string(), "refused by b: on principle");
    assert_eq!(chain.called(), ["a", "b"]);
}

#[test]
fn a_bypass_ends_the_chain_but_not_what_is_only_told() {
    let mut chain = Chain::new();
    chain.add(1, "a", true, false);
    chain.add(2, "b", false, true);
    assert_eq!(chain.admin(), Ok(()));
    assert_eq!(chain.called(), ["a"]);
    let (region, peer) = (region(), region().peers[0]);
    let change = RoleChange { region: &region, peer, role: Role::Leader, term: 6, leader: 2 };
    chain.observers.role_changed(&change);
    assert_eq!(chain.called(), ["a", "b"]);
}

#[test]
fn adding_leaves_earlier_lists_alone() {
    let none = Observers::default();
    let mut chain = Chain::new();
    chain.add(1, "a", false, false);
    assert!(none.is_empty() && !chain.observers.is_empty());
    assert_eq!(none.pre_admin(&region(), &mut AdminCommand::ComputeHash), Ok(()));
}
