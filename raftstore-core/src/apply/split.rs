//! What a split entry does: which regions it makes, and which of them are born on this
//! store.
//!
//! The parts and their epochs follow from the entry and the region alone, alike on every
//! replica. Whether a part is born *here* is this store's own matter: it may know a later
//! incarnation of it, or its tombstone (H12). Then its records are left as they are, and its
//! data goes.

use engine_traits::WriteBatch;
use raftstore_proto::{
    Cf, EntryFlags, Peer, PeerId, Region, RegionError, RegionId, RegionPhase, RegionState,
    SplitRequest, StoreId, wire::record,
};

use super::pending::Fill;
use crate::{
    command::check_split,
    keys::{self, initial_apply_state},
};

/// Decides whether a region that a split makes may be born on this store.
pub(super) trait Births {
    /// Whether `peer` may be created. Whoever may is claimed: nobody else creates it.
    fn claim(&self, region: RegionId, peer: PeerId) -> bool;
}

/// The regions that a split makes.
#[derive(Debug)]
pub(super) struct Parts {
    /// The part that keeps the region's id.
    pub(super) derived: Region,
    /// The others, in key order.
    pub(super) new: Vec<Region>,
    pub(super) right_derive: bool,
}

impl Parts {
    /// All of them in key order.
    pub(super) fn in_key_order(&self) -> Vec<Region> {
        let mut all = self.new.clone();
        let place = if self.right_derive { all.len() } else { 0 };
        all.insert(place, self.derived.clone());
        all
    }
}

/// Cuts the region. Every part's version rises by the number of new regions.
///
/// # Errors
/// The same on every replica, among them a split whose entry does not say that it is one:
/// leases rely on that flag (W1).
pub(super) fn cut(
    region: &Region,
    flags: EntryFlags,
    requests: &[SplitRequest],
    right_derive: bool,
) -> Result<Parts, RegionError> {
    if !flags.split {
        return Err(RegionError::InvalidCommand { why: "the entry is not marked as a split" });
    }
    check_split(region, requests)?;
    let mut derived = region.clone();
    derived.epoch.version += requests.len() as u64;
    let mut starts = Vec::with_capacity(requests.len() + 1);
    starts.push(region.start_key.clone());
    starts.extend(requests.iter().map(|request| request.key.clone()));
    let end_of = |part: usize| starts.get(part + 1).unwrap_or(&region.end_key).clone();
    let first_new = usize::from(!right_derive);
    let new = requests
        .iter()
        .enumerate()
        .map(|(at, request)| Region {
            id: request.new_region,
            start_key: starts[first_new + at].clone(),
            end_key: end_of(first_new + at),
            epoch: derived.epoch,
            peers: renamed(&region.peers, &request.new_peers),
        })
        .collect();
    if right_derive {
        derived.start_key = starts[requests.len()].clone();
    } else {
        derived.end_key = end_of(0);
    }
    Ok(Parts { derived, new, right_derive })
}

/// What becomes of the region by a split that is proposed for it as it is: the part that
/// keeps its id. `None` for a split that would be refused.
pub(crate) fn kept_part(
    region: &Region,
    requests: &[SplitRequest],
    right_derive: bool,
) -> Option<Region> {
    let flags = EntryFlags { split: true, ..EntryFlags::NONE };
    cut(region, flags, requests, right_derive).ok().map(|parts| parts.derived)
}

/// The same replicas under new ids, which are given by position.
fn renamed(peers: &[Peer], ids: &[PeerId]) -> Vec<Peer> {
    peers.iter().zip(ids).map(|(peer, id)| Peer { id: *id, ..*peer }).collect()
}

/// Puts the records of the parts into the batch. Gives, for each new part, whether it is born
/// here.
pub(super) fn write<B: WriteBatch>(
    parts: &Parts,
    store: StoreId,
    births: &dyn Births,
    fill: &mut Fill<B>,
) -> Vec<bool> {
    put_state(&parts.derived, fill);
    parts
        .new
        .iter()
        .map(|region| {
            let Some(peer) = region.peer_on(store) else { return false };
            let born = births.claim(region.id, peer.id);
            if born {
                put_state(region, fill);
                let state = record::encode_apply_state(region.id, &initial_apply_state());
                fill.batch.put(Cf::Raft, &keys::apply_state_key(region.id), &state);
            }
            born
        })
        .collect()
}

fn put_state<B: WriteBatch>(region: &Region, fill: &mut Fill<B>) {
    let state = RegionState { phase: RegionPhase::Normal, region: region.clone() };
    let record = record::encode_region_state(region.id, &state);
    fill.batch.put(Cf::Raft, &keys::region_state_key(region.id), &record);
}

#[cfg(test)]
mod tests;
