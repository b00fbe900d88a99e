//! Which change of a region PD wants next, if any: repair first, then balance.
//!
//! The rules look at one region at a time, when its leader reports. They remember nothing:
//! what an operator that was given up left behind, they finish or clear away like any
//! other state they find.

mod balance;
mod replica;
mod view;

use raftstore_proto::{Peer, StoreId};

pub(super) use self::view::View;
use super::{directory::RegionRecord, operator::OperatorReason};

/// A change that shall be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A new replica on this store.
    Add(StoreId),
    /// A learner becomes a voter.
    Promote(Peer),
    /// A replica goes.
    Remove(Peer),
    /// A new replica on a store, then this one goes.
    Replace(Peer, StoreId),
    /// A learner becomes a voter, then a voter goes.
    PromoteFor(Peer, Peer),
    /// A voter leads.
    Transfer(Peer),
}

/// What is to be done to the region of `record` next.
pub(super) fn plan(view: &View<'_>, record: &RegionRecord) -> Option<(OperatorReason, Plan)> {
    if !view.config.schedule || record.leader.is_none() {
        return None;
    }
    // A joint change is somebody else's, and must be left before the next.
    if record.is_joint() {
        return None;
    }
    if let Some(repair) = replica::plan(view, record) {
        return Some(repair);
    }
    // Only a region in good health is moved.
    let is_complete = record.voters().count() == view.config.max_replicas
        && record.learners().next().is_none()
        && record.voters().all(|peer| view.is_healthy(record, peer));
    if !is_complete {
        return None;
    }
    balance::leader(view, record)
        .map(|plan| (OperatorReason::BalanceLeader, plan))
        .or_else(|| balance::region(view, record).map(|p| (OperatorReason::BalanceRegion, p)))
}
