//! Repair: the right number of voters, all of them of use.
//!
//! In this order:
//! - more voters than wanted: the least useful goes;
//! - a learner that somebody left: it is finished if it is needed, else it goes;
//! - fewer voters than wanted: one is added, as a learner that is promoted later;
//! - a voter that is damaged, lost, or on a store that is to be emptied: another one is
//!   added first, then it goes. A damaged one goes also without another, if the rest is a
//!   quorum: it counts for nothing, and its store may be the only one for a new one.

use raftstore_proto::Peer;

use super::{Move, View};
use crate::{
    StoreLifecycle,
    mock::{directory::RegionRecord, operator::OperatorReason},
};

pub(super) fn plan(view: &View<'_>, record: &RegionRecord) -> Option<(OperatorReason, Move)> {
    let wanted = view.config.max_replicas;
    let voters = record.voters().count();
    if voters > wanted {
        return surplus(view, record)
            .map(|peer| (OperatorReason::SurplusReplica, Move::Remove(peer)));
    }
    let bad = bad_voter(view, record);
    if let Some(learner) = record.learners().min_by_key(|peer| peer.id) {
        return Some(left_learner(view, record, *learner, voters < wanted, bad));
    }
    if voters < wanted {
        let store = view.target(record, None)?;
        return Some((OperatorReason::MissingReplica, Move::Add(store)));
    }
    let bad = bad?;
    let plan = match view.target(record, Some(&bad)) {
        Some(store) => Move::Replace(bad, store),
        None if view.is_damaged(record, &bad) && view.has_quorum_without(record, &bad) => {
            Move::Remove(bad)
        }
        None => return None,
    };
    Some((OperatorReason::BadReplica, plan))
}

/// The voter to remove, if one can be spared.
fn surplus(view: &View<'_>, record: &RegionRecord) -> Option<Peer> {
    record
        .voters()
        .filter(|peer| view.has_quorum_without(record, peer))
        .min_by_key(|peer| view.worth(record, peer))
        .copied()
}

/// The voter to replace, if there is one.
fn bad_voter(view: &View<'_>, record: &RegionRecord) -> Option<Peer> {
    record
        .voters()
        .filter(|peer| view.is_bad(record, peer))
        .min_by_key(|peer| view.worth(record, peer))
        .copied()
}

fn left_learner(
    view: &View<'_>,
    record: &RegionRecord,
    learner: Peer,
    is_missing: bool,
    bad: Option<Peer>,
) -> (OperatorReason, Move) {
    let is_hopeless = view.is_lost(record, &learner)
        || view.is_avoided(record, learner.store)
        || view.lifecycle(learner.store) != StoreLifecycle::Up;
    match bad {
        _ if is_hopeless => (OperatorReason::SurplusReplica, Move::Remove(learner)),
        _ if is_missing => (OperatorReason::MissingReplica, Move::Promote(learner)),
        Some(bad) => (OperatorReason::BadReplica, Move::PromoteFor(learner, bad)),
        None => (OperatorReason::SurplusReplica, Move::Remove(learner)),
    }
}
