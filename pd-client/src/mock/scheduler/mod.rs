//! Which change of a region PD wants next, if any: repair first, then placement, then
//! balance.
//!
//! The rules look at one region at a time, when its leader reports. They remember nothing:
//! what an operator that was given up left behind, they finish or clear away like any
//! other state they find.
//!
//! *Why it comes to rest.* Each rule makes a quantity of its own smaller and none of those
//! before it larger: the number of replicas that are missing, surplus or bad; how near
//! replicas of one region are; bytes on stores that are nearly full; the unevenness (sum of
//! squares over stores) of what is written to hot replicas, of what all replicas weigh, of
//! what is written to hot leaders, and of the number of leaders. The last four can be
//! played against each other only because balance by weight and number leaves hot regions
//! alone. What is under way counts as done.

mod balance;
mod hot;
mod location;
mod replica;
mod scatter;
mod view;

use raftstore_proto::{Peer, StoreId};

pub(super) use self::{
    scatter::{Group, Scattering},
    view::View,
};
use super::{directory::RegionRecord, operator::OperatorReason};

/// A change that shall be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
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
pub(super) fn plan(view: &View<'_>, record: &RegionRecord) -> Option<(OperatorReason, Move)> {
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
    if !is_complete(view, record) {
        return None;
    }
    let because = |reason| move |change| (reason, change);
    location::plan(view, record)
        .map(because(OperatorReason::Placement))
        .or_else(|| balance::space(view, record).map(because(OperatorReason::LowSpace)))
        .or_else(|| hot::plan(view, record).map(because(OperatorReason::HotRegion)))
        .or_else(|| balance::region(view, record).map(because(OperatorReason::BalanceRegion)))
        .or_else(|| balance::leader(view, record).map(because(OperatorReason::BalanceLeader)))
}

/// Whether the region has all replicas, and all of them are healthy.
pub(super) fn is_complete(view: &View<'_>, record: &RegionRecord) -> bool {
    !record.is_joint()
        && record.voters().count() == view.config.max_replicas
        && record.learners().next().is_none()
        && record.voters().all(|peer| view.is_healthy(record, peer))
}
