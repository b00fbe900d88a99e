//! A removed peer stays silent and never returns (hazards H10, H11; behaviour I6).

use std::collections::BTreeMap;

use raftstore_proto::Region;

use super::{Seen, Violation};

/// Per store and region, the largest peer id that has a durable tombstone.
#[derive(Debug, Default)]
pub struct Silence {
    buried: BTreeMap<(u64, u64), u64>,
    /// The same for peers that ended while their store lived: it knows, durable or not.
    gone: BTreeMap<(u64, u64), u64>,
}

impl Silence {
    /// A tombstone was found on a disk after a crash: it is durable.
    pub fn bury(&mut self, store: u64, region: u64, peer: u64) {
        let buried = self.buried.entry((store, region)).or_default();
        *buried = peer.max(*buried);
    }

    /// A peer has ended. `region` is what the log has made of its region so far.
    ///
    /// # Errors
    /// If it was still a member: nobody may have had it removed.
    pub fn ended(
        &mut self,
        store: u64,
        region: u64,
        peer: u64,
        shape: Option<&Region>,
    ) -> Result<(), Violation> {
        let gone = self.gone.entry((store, region)).or_default();
        *gone = peer.max(*gone);
        match shape.filter(|shape| shape.peers.iter().any(|member| member.id.get() == peer)) {
            None => Ok(()),
            Some(shape) => Err(Violation::new(
                "members are not destroyed",
                format!("store {store}: peer {peer} has ended, a member of {shape:?}"),
            )),
        }
    }

    /// The store has died: what it had not written it has forgotten.
    pub fn store_died(&mut self, store: u64) {
        self.gone.retain(|(of, _), _| *of != store);
    }

    /// Looks at a living peer.
    ///
    /// # Errors
    /// If it should be dead.
    pub fn check_peer(&self, seen: &Seen) -> Result<(), Violation> {
        let key = (seen.store, seen.region);
        let ended = self.buried.get(&key).max(self.gone.get(&key));
        check(seen.store, seen.region, seen.peer, ended, "lives")
    }

    /// Looks at the sender of a message. What a peer said just before its end may leave
    /// after it, as long as the end is not durable.
    ///
    /// # Errors
    /// If it should be dead.
    pub fn check_sender(&self, store: u64, region: u64, peer: u64) -> Result<(), Violation> {
        let buried = self.buried.get(&(store, region));
        check(store, region, peer, buried, "sends a message")
    }
}

fn check(
    store: u64,
    region: u64,
    peer: u64,
    ended: Option<&u64>,
    what: &str,
) -> Result<(), Violation> {
    match ended {
        Some(ended) if peer <= *ended => Err(Violation::new(
            "tombstone peers stay silent",
            format!("store {store}: peer {peer} of region {region} {what}, but {ended} has ended"),
        )),
        _ => Ok(()),
    }
}
