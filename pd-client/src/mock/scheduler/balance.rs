//! Balance: leaders and replicas spread evenly over stores.
//!
//! Each move makes the sum of squares of the counts smaller, and the counts include what
//! is already under way; so moves come to an end, and nothing swings back and forth.

use super::{Plan, View};
use crate::{StoreLifecycle, mock::directory::RegionRecord};

/// A difference of one cannot be made smaller.
const TOLERANCE_MIN: u64 = 2;

/// Hands leadership to a store that leads less.
pub(super) fn leader(view: &View<'_>, record: &RegionRecord) -> Option<Plan> {
    if !view.config.balance_leaders {
        return None;
    }
    let from = record.leader?.store;
    let leaders = view.load(from).leaders;
    let tolerance = view.config.balance_tolerance.max(TOLERANCE_MIN);
    let to = view.heir(record, |store| {
        view.lifecycle(store) == StoreLifecycle::Up && !view.is_avoided(record, store)
    })?;
    let is_worth_it = leaders >= view.load(to.store).leaders + tolerance;
    (is_worth_it && view.has_slot(from) && view.has_slot(to.store)).then_some(Plan::Transfer(to))
}

/// Moves a replica to a store that has fewer.
pub(super) fn region(view: &View<'_>, record: &RegionRecord) -> Option<Plan> {
    if !view.config.balance_regions {
        return None;
    }
    let to = view.target(record)?;
    let tolerance = view.config.balance_tolerance.max(TOLERANCE_MIN);
    let enough = view.load(to).regions + tolerance;
    record
        .voters()
        .map(|peer| (view.load(peer.store).regions, peer))
        .filter(|(regions, peer)| *regions >= enough && view.has_slot(peer.store))
        // Of equally full stores one that does not lead: no transfer is needed then.
        .max_by_key(|(regions, peer)| (*regions, !record.is_leader(peer.id), peer.id))
        .map(|(_, peer)| Plan::Replace(*peer, to))
}
