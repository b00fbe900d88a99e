//! Balance: leaders and replicas spread evenly over stores.
//!
//! A replica weighs what its data weighs, and a little more, so that many empty regions
//! count too. No move overshoots: what it leaves is at least as burdened afterwards as what
//! it reaches. So each makes the sum of squares smaller, and small changes of size do not
//! send a replica back. Hot regions are not moved for balance; see `hot`.

use super::{Move, View};
use crate::{StoreLifecycle, mock::directory::RegionRecord};

const fn is_left_alone(view: &View<'_>, record: &RegionRecord) -> bool {
    view.config.spread_hot_regions && record.flow.is_hot()
}

/// Hands leadership to a store that leads less.
pub(super) fn leader(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    if !view.config.balance_leaders || is_left_alone(view, record) {
        return None;
    }
    let from = record.leader?.store;
    let leaders = view.load(from).leaders;
    let to = view.heir(record, |store| {
        view.lifecycle(store) == StoreLifecycle::Up && !view.is_avoided(record, store)
    })?;
    let is_worth_it = leaders >= view.load(to.store).leaders + view.config.balance_tolerance;
    (is_worth_it && view.has_slot(from) && view.has_slot(to.store)).then_some(Move::Transfer(to))
}

/// Moves a replica to a store that is less burdened.
pub(super) fn region(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    if !view.config.balance_regions || is_left_alone(view, record) {
        return None;
    }
    let enough = view
        .average_weight()
        .saturating_mul(view.config.balance_tolerance)
        .max(view.weight(record).saturating_mul(2));
    record
        .voters()
        .filter_map(|old| {
            let to =
                view.better_homes(record, old).min_by_key(|store| (view.burden(*store), *store))?;
            let difference = view.burden(old.store).saturating_sub(view.burden(to));
            (difference >= enough).then_some((difference, old, to))
        })
        // Of equal differences one that does not lead: no transfer is needed then.
        .max_by_key(|(difference, old, _)| (*difference, !record.is_leader(old.id), old.id))
        .map(|(_, old, to)| Move::Replace(*old, to))
}

/// Moves a replica away from a store that is nearly full.
pub(super) fn space(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    if !view.config.balance_regions {
        return None;
    }
    record
        .voters()
        .filter(|old| view.is_nearly_full(old.store))
        .filter_map(|old| {
            let to =
                view.better_homes(record, old).min_by_key(|store| (view.burden(*store), *store))?;
            Some((old, to))
        })
        .max_by_key(|(old, _)| (!record.is_leader(old.id), old.id))
        .map(|(old, to)| Move::Replace(*old, to))
}
