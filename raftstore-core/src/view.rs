//! What a store publishes about the regions it leads, for readers on other threads.
//!
//! A view says: at this moment this peer leads in this term, has applied an entry of the
//! term, and no other leader can exist before the lease's bound. It is withdrawn *before*
//! the store changes role, range or existence of the peer (H41). A reader looks at it
//! before and after taking an engine snapshot; the same generation both times, and a
//! covering lease the second time, make the snapshot good.

use std::{collections::BTreeMap, sync::Arc};

use raftstore_proto::{Peer, Region, RegionId};

use crate::{
    MonoTime,
    sync::{AtomicBool, Ordering, RwLock},
};

/// What is true of a led region right now.
#[derive(Clone, Debug)]
pub struct ViewState {
    /// Changes whenever anything but the lease does.
    pub generation: u64,
    /// Range and members.
    pub region: Arc<Region>,
    /// The local peer.
    pub peer: Peer,
    /// Its term.
    pub term: u64,
    /// No other leader exists before this moment.
    pub lease_until: MonoTime,
}

/// The view of one region.
#[derive(Debug, Default)]
pub struct View {
    state: RwLock<Option<ViewState>>,
    /// Entries are committed that the data does not contain, and other replicas may have
    /// shown them to somebody (H40).
    is_behind: AtomicBool,
}

impl View {
    /// What is true now; `None` when a read has to go through the store.
    #[must_use]
    pub fn state(&self) -> Option<ViewState> {
        if self.is_behind.load(Ordering::Acquire) {
            return None;
        }
        self.state.read().clone()
    }

    /// To be set before anybody can hear of a commit that the data does not contain.
    pub(crate) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Release);
    }

    pub(crate) fn publish(&self, state: ViewState) {
        *self.state.write() = Some(state);
    }

    pub(crate) fn extend(&self, lease_until: MonoTime) {
        if let Some(state) = self.state.write().as_mut() {
            state.lease_until = lease_until;
        }
    }

    pub(crate) fn withdraw(&self) {
        *self.state.write() = None;
    }
}

/// The views of a store.
#[derive(Debug, Default)]
pub struct Views(RwLock<BTreeMap<RegionId, Arc<View>>>);

impl Views {
    /// The view of a region whose peer lives here.
    #[must_use]
    pub fn get(&self, region: RegionId) -> Option<Arc<View>> {
        self.0.read().get(&region).cloned()
    }

    /// A fresh view for a new peer. A former one, if any, is withdrawn for good.
    pub(crate) fn open(&self, region: RegionId) -> Arc<View> {
        let view = Arc::<View>::default();
        if let Some(former) = self.0.write().insert(region, Arc::clone(&view)) {
            former.withdraw();
        }
        view
    }

    pub(crate) fn close(&self, region: RegionId, view: &Arc<View>) {
        view.withdraw();
        let mut views = self.0.write();
        if views.get(&region).is_some_and(|known| Arc::ptr_eq(known, view)) {
            views.remove(&region);
        }
    }
}
