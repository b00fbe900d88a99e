//! Decides who a client of this process speaks to: nodes handed in, and PD for the way.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use engine_traits::KvEngine;
use parking_lot::RwLock;
use pd_client::{PdClient, RegionRoute};
use raftstore_proto::{Command, RegionError, Response, StoreId};

use super::Stores;
use crate::runtime::{Callback, NodeHandle, executor::block_on};

/// A way into a store, whatever engine it runs on.
type Door = Arc<dyn Fn(Command, Callback) + Send + Sync>;

/// The stores of this process. Clones share what they know.
#[derive(Clone)]
pub struct LocalStores {
    pd: Arc<dyn PdClient>,
    doors: Arc<RwLock<BTreeMap<StoreId, Door>>>,
}

impl std::fmt::Debug for LocalStores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalStores").field(&self.doors.read().keys()).finish()
    }
}

impl LocalStores {
    /// None yet. Regions are looked up in `pd`.
    #[must_use]
    pub fn new(pd: Arc<dyn PdClient>) -> Self {
        Self { pd, doors: Arc::default() }
    }

    /// Makes a node reachable, in the place of an earlier one of the same store.
    pub fn add<K: KvEngine>(&self, node: &NodeHandle<K>) {
        let handle = node.clone();
        let door: Door = Arc::new(move |command, answer| handle.command_with(command, answer));
        self.doors.write().insert(node.store(), door);
    }

    /// Makes a store unreachable.
    pub fn remove(&self, store: StoreId) {
        self.doors.write().remove(&store);
    }
}

impl Stores for LocalStores {
    fn send(&self, store: StoreId, command: Command, answer: Callback) {
        let door = self.doors.read().get(&store).cloned();
        match door {
            Some(door) => door(command, answer),
            None => answer(Response::error(0, RegionError::Stopping)),
        }
    }

    fn locate(&self, key: &Bytes) -> Option<RegionRoute> {
        // A client tries again later if PD is away.
        block_on(self.pd.region_by_key(key.clone())).ok().flatten()
    }
}
