//! Scattering: regions of a group spread over stores before they are used.
//!
//! Each region is spread by itself, each of its replicas to the store that has got the
//! fewest of the group so far, then its leader. Where equally many are, a replica stays.

use std::collections::{BTreeMap, BTreeSet};

use raftstore_proto::{Peer, StoreId};

use super::{View, is_complete, view::others};
use crate::mock::directory::RegionRecord;

/// What each store has got of a group.
#[derive(Clone, Debug, Default)]
pub(in crate::mock) struct Group {
    /// Replicas and leaders.
    given: BTreeMap<StoreId, (u64, u64)>,
    /// When a region of it was scattered last.
    pub(in crate::mock) used_ms: u64,
}

impl Group {
    fn replicas(&self, store: StoreId) -> u64 {
        self.given.get(&store).map_or(0, |given| given.0)
    }

    fn leaders(&self, store: StoreId) -> u64 {
        self.given.get(&store).map_or(0, |given| given.1)
    }
}

/// Where a region's replicas and its leader shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mock) struct Scattering {
    /// Replicas that move, and where to.
    pub(in crate::mock) moves: Vec<(Peer, StoreId)>,
    /// Where the region is led then.
    pub(in crate::mock) lead: StoreId,
}

impl Group {
    /// Spreads one more region, unless it is in bad health. Stores not known to be able to
    /// take a replica just now are left out; those that must wait their turn are not.
    pub(in crate::mock) fn scatter(
        &mut self,
        view: &View<'_>,
        record: &RegionRecord,
    ) -> Option<Scattering> {
        let leader = record.leader.filter(|_| is_complete(view, record))?;
        self.used_ms = view.now_ms;
        let mut moves = Vec::new();
        let mut homes: BTreeMap<StoreId, StoreId> = BTreeMap::new();
        for old in record.voters() {
            let rest: Vec<StoreId> = others(record, Some(old))
                .into_iter()
                .map(|store| homes.get(&store).copied().unwrap_or(store))
                .collect();
            let now = view.nearness(old.store, &rest);
            let taken: BTreeSet<StoreId> = rest.iter().copied().collect();
            let home = view
                .willing(record)
                .filter(|store| !taken.contains(store))
                .filter(|store| view.nearness(*store, &rest) <= now)
                .chain([old.store])
                .min_by_key(|store| {
                    (self.replicas(*store), *store != old.store, view.burden(*store), *store)
                })?;
            homes.insert(old.store, home);
            if home != old.store {
                moves.push((*old, home));
            }
        }
        let lead = homes
            .values()
            .copied()
            .min_by_key(|store| (self.leaders(*store), *store != leader.store, *store))?;
        for home in homes.values() {
            self.given.entry(*home).or_default().0 += 1;
        }
        self.given.entry(lead).or_default().1 += 1;
        Some(Scattering { moves, lead })
    }
}
