//! A region's epoch never goes back on a store (behaviour I8), and one epoch means one
//! membership and one range everywhere (I7).

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_proto::{Epoch, Peer, Region};

use super::Violation;

/// The epochs that were seen.
#[derive(Debug, Default)]
pub struct Epochs {
    /// By store and region: the newest epoch.
    newest: BTreeMap<(u64, u64), Epoch>,
    /// By region, version and conf_ver: the members.
    members: BTreeMap<(u64, u64, u64), Vec<Peer>>,
    /// By region and version: the range.
    ranges: BTreeMap<(u64, u64), (Bytes, Bytes)>,
}

impl Epochs {
    /// Looks at a region as one store knows it.
    ///
    /// # Errors
    /// If its epoch is older than before, or another store has other members or another
    /// range in it.
    pub fn check(&mut self, store: u64, region: &Region) -> Result<(), Violation> {
        let before = self.newest.insert((store, region.id.get()), region.epoch);
        if before == Some(region.epoch) {
            return Ok(());
        }
        if let Some(before) = before
            && region.epoch.is_stale_against(&before)
        {
            return Err(Violation::new(
                "epochs never go back",
                format!("store {store}: {region:?} after {before:?}"),
            ));
        }
        let range = (region.start_key.clone(), region.end_key.clone());
        let known = self
            .ranges
            .entry((region.id.get(), region.epoch.version))
            .or_insert_with(|| range.clone());
        if *known != range {
            return Err(Violation::new(
                "one version, one range",
                format!("store {store}: {region:?}, but elsewhere its range is {known:?}"),
            ));
        }
        let key = (region.id.get(), region.epoch.version, region.epoch.conf_ver);
        let mut members = region.peers.clone();
        members.sort_unstable_by_key(|peer| peer.id);
        match self.members.get(&key) {
            None => {
                self.members.insert(key, members);
                Ok(())
            }
            Some(known) if *known == members => Ok(()),
            Some(known) => Err(Violation::new(
                "one epoch, one membership",
                format!("store {store}: {region:?}, but elsewhere its members are {known:?}"),
            )),
        }
    }

    /// The store has died: changes that were not durable are executed again.
    pub fn store_died(&mut self, store: u64) {
        self.newest.retain(|(of, _), _| *of != store);
    }
}
