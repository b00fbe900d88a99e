//! Which region holds a key, who leads it, and where that is.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::RwLock;
use raftstore_grpc::pb::{kvrpcpb, metapb};

/// Where requests for a key go.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) region: metapb::Region,
    pub(crate) leader: metapb::Peer,
}

impl Route {
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        let end = &self.region.end_key;
        *key >= *self.region.start_key && (end.is_empty() || *key < **end)
    }

    /// What a request says of the region it is for.
    pub(crate) fn context(&self) -> kvrpcpb::Context {
        let mut context = kvrpcpb::Context::default();
        context.set_region_id(self.region.id);
        context.set_region_epoch(self.region.get_region_epoch().clone());
        context.set_peer(self.leader.clone());
        context
    }
}

/// What is known of the key space.
#[derive(Debug, Default)]
pub(crate) struct Routes(RwLock<BTreeMap<Bytes, Route>>);

impl Routes {
    pub(crate) fn find(&self, key: &[u8]) -> Option<Route> {
        let routes = self.0.read();
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (_, route) = routes.range::<[u8], _>(upto).next_back()?;
        route.holds(key).then(|| route.clone())
    }

    /// Takes the place of whatever shares a key with it.
    pub(crate) fn learn(&self, route: Route) {
        let mut routes = self.0.write();
        let (start, end) = (route.region.start_key.clone(), route.region.end_key.clone());
        routes.retain(|from, known| {
            let known_end = &known.region.end_key;
            let before = !known_end.is_empty() && *known_end <= start;
            let after = !end.is_empty() && *from >= end;
            before || after
        });
        routes.insert(start, route);
    }

    /// A store has named the leader of a region.
    pub(crate) fn leads(&self, region: u64, leader: &metapb::Peer) {
        let mut routes = self.0.write();
        if let Some(route) = routes.values_mut().find(|route| route.region.id == region) {
            route.leader = leader.clone();
        }
    }

    pub(crate) fn forget(&self, start: &Bytes) {
        self.0.write().remove(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(id: u64, start: &'static str, end: &'static str) -> Route {
        let mut region = metapb::Region::default();
        region.set_id(id);
        region.set_start_key(start.into());
        region.set_end_key(end.into());
        Route { region, leader: metapb::Peer::default() }
    }

    #[test]
    fn a_new_region_takes_the_place_of_all_it_overlaps() {
        let routes = Routes::default();
        routes.learn(route(1, "", ""));
        assert_eq!(routes.find(b"x").unwrap().region.id, 1);
        routes.learn(route(2, "m", ""));
        assert!(routes.find(b"a").is_none(), "what is left of the old one is not known");
        routes.learn(route(1, "", "m"));
        let found = |key: &str| routes.find(key.as_bytes()).map(|route| route.region.id);
        assert_eq!(
            (found("a"), found("l"), found("m"), found("z")),
            (Some(1), Some(1), Some(2), Some(2))
        );
        routes.learn(route(3, "f", "t"));
        assert_eq!((found("a"), found("g"), found("z")), (None, Some(3), None));
    }

    #[test]
    fn a_named_leader_is_asked_from_then_on() {
        let routes = Routes::default();
        routes.learn(route(1, "", ""));
        let mut leader = metapb::Peer::default();
        leader.set_store_id(7);
        routes.leads(1, &leader);
        assert_eq!(routes.find(b"x").unwrap().leader.store_id, 7);
        routes.forget(&Bytes::new());
        assert!(routes.find(b"x").is_none());
    }
}
