//! What clients believe about the key space: which region holds a key, and who leads it.
//!
//! They learn from refusals, and where those do not tell, from whatever running store knows
//! a region with the key. What was true before is kept for a while, for clients who have
//! not heard.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;
use raftstore_proto::{Peer, Region, RegionError};

use crate::{rng::Rng, world::World};

/// Routes that were replaced and are kept.
const OLD_ROUTES: usize = 8;

/// A region as clients believe it is.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) region: Region,
    pub(super) leader: Peer,
}

/// All that clients believe.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By start key. Their ranges do not overlap.
    current: BTreeMap<Bytes, Route>,
    old: VecDeque<Route>,
}

impl Routes {
    /// The route to a key.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Route> {
        let (_, route) = self.current.range::<[u8], _>(up_to(key)).next_back()?;
        route.region.contains(key).then_some(route)
    }

    /// A route to the key that was replaced; sometimes.
    pub(super) fn find_old(&self, key: &[u8], rng: &mut Rng) -> Option<&Route> {
        if self.old.is_empty() || !rng.chance(30) {
            return None;
        }
        let fitting: Vec<&Route> =
            self.old.iter().filter(|route| route.region.contains(key)).collect();
        (!fitting.is_empty()).then(|| *rng.pick(&fitting))
    }

    /// A region is heard of. What is known to be newer stays.
    pub(super) fn learn(&mut self, region: &Region, rng: &mut Rng) {
        if !region.is_initialized() {
            return;
        }
        let overlapped: Vec<Bytes> = self
            .current
            .iter()
            .filter(|(_, route)| route.region.overlaps(region))
            .map(|(start, _)| start.clone())
            .collect();
        let is_newer = |known: &Region| {
            known.epoch.version > region.epoch.version
                || (known.id == region.id && known.epoch.conf_ver > region.epoch.conf_ver)
        };
        if overlapped.iter().any(|start| is_newer(&self.current[start].region)) {
            return;
        }
        let mut leader = None;
        for start in overlapped {
            let Some(route) = self.current.remove(&start) else { continue };
            leader = region.peer_on(route.leader.store).copied();
            if route.region.epoch != region.epoch {
                self.old.push_back(route);
            }
        }
        while self.old.len() > OLD_ROUTES {
            self.old.pop_front();
        }
        let leader = leader.unwrap_or_else(|| *rng.pick(&region.peers));
        let route = Route { region: region.clone(), leader };
        self.current.insert(region.start_key.clone(), route);
    }

    /// The leader of the region with the key is heard of.
    pub(super) fn set_leader(&mut self, key: &[u8], leader: Peer) {
        let Some(route) = self.find_mut(key) else { return };
        if route.region.peers.iter().any(|peer| peer.is_same_replica(&leader)) {
            route.leader = leader;
        } else {
            // The members are others.
            let start = route.region.start_key.clone();
            self.current.remove(&start);
        }
    }

    /// The leader is somewhere else, or the members are others.
    pub(super) fn guess_other(&mut self, key: &[u8], rng: &mut Rng) {
        let forget = rng.chance(300);
        let Some(route) = self.find_mut(key) else { return };
        if forget {
            let start = route.region.start_key.clone();
            self.current.remove(&start);
        } else {
            route.leader = *rng.pick(&route.region.peers);
        }
    }

    fn find_mut(&mut self, key: &[u8]) -> Option<&mut Route> {
        let (_, route) = self.current.range_mut::<[u8], _>(up_to(key)).next_back()?;
        route.region.contains(key).then_some(route)
    }

    /// Takes in what a refusal of a call for `key` says.
    pub(super) fn take_in(&mut self, key: &[u8], error: &RegionError, rng: &mut Rng) {
        match error {
            RegionError::NotLeader { leader: Some(leader), .. } => self.set_leader(key, *leader),
            RegionError::EpochNotMatch { current } if !current.is_empty() => {
                for region in current {
                    self.learn(region, rng);
                }
            }
            RegionError::KeyNotInRegion { region, .. } => self.learn(region, rng),
            RegionError::ServerIsBusy { .. } => {}
            _ => self.guess_other(key, rng),
        }
    }
}

/// Everything up to `key` itself.
const fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

impl World {
    /// The route to a key, looked up where clients know none.
    pub(super) fn route(&mut self, key: &[u8]) -> Option<Route> {
        if let Some(route) = self.clients.routes.find_old(key, &mut self.clients.rng) {
            return Some(route.clone());
        }
        if let Some(route) = self.clients.routes.find(key) {
            return Some(route.clone());
        }
        let region = self.region_holding(key)?;
        self.clients.routes.learn(&region, &mut self.clients.rng);
        let route = self.clients.routes.find(key).cloned();
        // What is known beside it may be newer: then the region found is old, and will say so.
        route.or_else(|| {
            let leader = *self.clients.rng.pick(&region.peers);
            Some(Route { region, leader })
        })
    }
}

#[cfg(test)]
mod tests {
    use raftstore_proto::{Epoch, PeerId, RegionId, StoreId};

    use super::*;

    fn region(id: u64, version: u64, start: &'static str, end: &'static str) -> Region {
        Region {
            id: RegionId::must(id),
            start_key: start.into(),
            end_key: end.into(),
            epoch: Epoch { conf_ver: 1, version },
            peers: (1..=3)
                .map(|store| Peer::voter(PeerId::must(id * 10 + store), StoreId::must(store)))
                .collect(),
        }
    }

    fn id_of(routes: &Routes, key: &str) -> Option<u64> {
        routes.find(key.as_bytes()).map(|route| route.region.id.get())
    }

    #[test]
    fn newer_regions_replace_what_they_overlap() {
        let mut rng = Rng::new(1);
        let mut routes = Routes::default();
        routes.learn(&region(1, 1, "", ""), &mut rng);
        routes.set_leader(b"k", region(1, 1, "", "").peers[1]);
        routes.learn(&region(2, 2, "m", ""), &mut rng);
        assert_eq!((id_of(&routes, "a"), id_of(&routes, "z")), (None, Some(2)));
        assert_eq!(routes.find(b"z").map(|route| route.leader.id.get()), Some(22));
        routes.learn(&region(1, 2, "", "m"), &mut rng);
        // An answer that was long on its way.
        routes.learn(&region(1, 1, "", ""), &mut rng);
        assert_eq!((id_of(&routes, "a"), id_of(&routes, "z")), (Some(1), Some(2)));
    }

    #[test]
    fn a_refusal_names_the_parts() {
        let mut rng = Rng::new(1);
        let mut routes = Routes::default();
        routes.learn(&region(1, 1, "", ""), &mut rng);
        let current = vec![region(1, 2, "m", ""), region(2, 2, "", "m")];
        routes.take_in(b"z", &RegionError::EpochNotMatch { current }, &mut rng);
        assert_eq!((id_of(&routes, "a"), id_of(&routes, "z")), (Some(2), Some(1)));
        let old = (0..200).find_map(|_| routes.find_old(b"c", &mut rng));
        assert_eq!(old.map(|route| route.region.epoch.version), Some(1));
    }
}
