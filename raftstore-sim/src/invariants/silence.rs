//! A removed peer stays silent and never returns (hazards H10, H11; behaviour I6).

use std::collections::BTreeMap;

use super::{Seen, Violation};

/// Per store and region, the largest peer id that has a durable tombstone.
#[derive(Debug, Default)]
pub struct Silence {
    buried: BTreeMap<(u64, u64), u64>,
}

impl Silence {
    /// A tombstone was found on a disk after a crash: it is durable.
    pub fn bury(&mut self, store: u64, region: u64, peer: u64) {
        let buried = self.buried.entry((store, region)).or_default();
        *buried = peer.max(*buried);
    }

    /// Looks at a living peer.
    ///
    /// # Errors
    /// If it should be dead.
    pub fn check_peer(&self, seen: &Seen) -> Result<(), Violation> {
        self.check(seen.store, seen.region, seen.peer, "lives")
    }

    /// Looks at the sender of a message.
    ///
    /// # Errors
    /// If it should be dead.
    pub fn check_sender(&self, store: u64, region: u64, peer: u64) -> Result<(), Violation> {
        self.check(store, region, peer, "sends a message")
    }

    fn check(&self, store: u64, region: u64, peer: u64, what: &str) -> Result<(), Violation> {
        match self.buried.get(&(store, region)) {
            Some(buried) if peer <= *buried => Err(Violation::new(
                "tombstone peers stay silent",
                format!(
                    "store {store}: peer {peer} of region {region} {what}, but {buried} is buried"
                ),
            )),
            _ => Ok(()),
        }
    }
}
