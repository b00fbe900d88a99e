//! Hot regions apart: those that are written to much more than others.
//!
//! Leaders move first, which is cheap: a leader also sends what is written to others. When
//! no transfer helps, replicas move. No move overshoots, as in `balance`; and a region that
//! was moved is left alone for a while, since flows waver more than sizes do.

use raftstore_proto::Peer;

use super::{Move, View};
use crate::{StoreLifecycle, mock::directory::RegionRecord};

/// Hands a hot region's leadership over, or moves one of its replicas.
pub(super) fn plan(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    let id = record.region.id;
    let rests = view.resting.get(&id).is_some_and(|until| view.now_ms < *until);
    if !view.config.spread_hot_regions || !record.flow.is_hot() || rests {
        return None;
    }
    leader(view, record).or_else(|| replica(view, record))
}

/// Whether moving `flow` from a store with `from` to one with `to` leaves the former with no
/// less than the latter.
const fn helps(flow: u64, from: u64, to: u64) -> bool {
    from.saturating_sub(to) >= flow.saturating_mul(2)
}

fn leader(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    let from = record.leader?.store;
    let may = |store| {
        view.lifecycle(store) == StoreLifecycle::Up
            && !view.is_avoided(record, store)
            && view.has_slot(store)
    };
    let led = |peer: &Peer| view.load(peer.store).hot_led;
    let to = view.heirs(record, may).min_by_key(|peer| (led(peer), peer.store))?;
    let is_worth_it = helps(record.flow.per_second(), view.load(from).hot_led, led(to));
    (is_worth_it && view.has_slot(from)).then_some(Move::Transfer(*to))
}

fn replica(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    let written = |store| view.load(store).hot_written;
    record
        .voters()
        .filter_map(|old| {
            let to = view
                .better_homes(record, old)
                .min_by_key(|store| (written(*store), view.burden(*store), *store))?;
            let (from, at) = (written(old.store), written(to));
            helps(record.flow.per_second(), from, at).then(|| (from - at, old, to))
        })
        .max_by_key(|(difference, old, _)| (*difference, !record.is_leader(old.id), old.id))
        .map(|(_, old, to)| Move::Replace(*old, to))
}
