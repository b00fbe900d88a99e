//! Which messages a test wants lost on their way.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;
use raftstore_proto::{RaftMessage, StoreId};

/// Says whether a message that a store sends may pass.
pub type MessageFilter = dyn Fn(StoreId, &RaftMessage) -> bool + Send + Sync;

#[derive(Default)]
struct Rules {
    /// Cut directions, as sender and receiver.
    cuts: BTreeSet<(StoreId, StoreId)>,
    filter: Option<Arc<MessageFilter>>,
}

/// The rules, with a flag in front so that traffic without faults takes no lock.
#[derive(Default)]
pub(super) struct Faults {
    any: AtomicBool,
    rules: RwLock<Rules>,
}

impl Faults {
    pub(super) fn cut(&self, from: StoreId, to: StoreId) {
        self.change(|rules| {
            rules.cuts.insert((from, to));
        });
    }

    pub(super) fn heal(&self, from: StoreId, to: StoreId) {
        self.change(|rules| {
            rules.cuts.remove(&(from, to));
        });
    }

    pub(super) fn clear(&self) {
        self.change(|rules| *rules = Rules::default());
    }

    pub(super) fn set_filter(&self, filter: Option<Arc<MessageFilter>>) {
        self.change(|rules| rules.filter = filter);
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        let mut rules = self.rules.write();
        change(&mut rules);
        self.any.store(!rules.cuts.is_empty() || rules.filter.is_some(), Ordering::Release);
    }

    pub(super) fn is_cut(&self, from: StoreId, to: StoreId) -> bool {
        self.any.load(Ordering::Acquire) && self.rules.read().cuts.contains(&(from, to))
    }

    pub(super) fn passes(&self, from: StoreId, to: StoreId, message: &RaftMessage) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return true;
        }
        let filter = {
            let rules = self.rules.read();
            if rules.cuts.contains(&(from, to)) {
                return false;
            }
            rules.filter.clone()
        };
        // Outside the lock: a filter may itself change the rules.
        filter.is_none_or(|filter| filter(from, message))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.read();
        f.debug_struct("Faults")
            .field("cuts", &rules.cuts)
            .field("has_filter", &rules.filter.is_some())
            .finish()
    }
}
