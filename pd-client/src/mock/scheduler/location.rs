//! Placement: replicas of a region apart from each other, in the widest place they can be.
//!
//! Two stores are the nearer, the more places they share, counted from the widest. A region
//! is spread well when the sum over all pairs of its replicas cannot be made smaller. Every
//! move for placement makes it smaller and no other makes it larger, so it comes to rest.

use raftstore_proto::StoreId;

use super::{
    super::{config::LABELS_MAX, directory::RegionRecord, stores::Stores},
    Move, View,
    view::others,
};

/// How much more it counts to share a place than to share the one within it. More than the
/// number of replicas, so that many small gains never outweigh a large one.
const STEP: u64 = 64;

// The largest sum: as many replicas as there can be, each as near as can be.
const _: () = assert!(LABELS_MAX == 5 && STEP.checked_pow(6).is_some());

/// How near `store` is to replicas on `others`.
pub(super) fn nearness(
    labels: &[String],
    stores: &Stores,
    store: StoreId,
    others: &[StoreId],
) -> u64 {
    others.iter().map(|other| pair(labels, stores, store, *other)).sum()
}

fn pair(labels: &[String], stores: &Stores, one: StoreId, other: StoreId) -> u64 {
    let mut sum = 0;
    for (level, label) in labels.iter().enumerate() {
        if stores.label(one, label) != stores.label(other, label) {
            break;
        }
        let below = u32::try_from(labels.len() - level - 1).unwrap_or(0);
        sum += STEP.pow(below);
    }
    sum
}

/// Moves a replica further away from the others.
pub(super) fn plan(view: &View<'_>, record: &RegionRecord) -> Option<Move> {
    if view.config.location_labels.is_empty() {
        return None;
    }
    let gain = |old: &raftstore_proto::Peer, to: StoreId| {
        let others = others(record, Some(old));
        view.nearness(old.store, &others).saturating_sub(view.nearness(to, &others))
    };
    record
        .voters()
        .flat_map(|old| view.better_homes(record, old).map(move |to| (gain(old, to), old, to)))
        .filter(|(gain, ..)| *gain > 0)
        // Of equal gains one that does not lead: no transfer is needed then.
        .max_by_key(|(gain, old, to)| {
            let burden = std::cmp::Reverse(view.burden(*to));
            (*gain, !record.is_leader(old.id), burden, old.id, *to)
        })
        .map(|(_, old, to)| Move::Replace(*old, to))
}
