//! A change under way: its steps, and whether the next one may be ordered now.

use std::collections::VecDeque;

use raftstore_proto::{ChangeKind, Epoch, Peer, PeerChange, PeerRole, RegionId, StoreId};

use super::{directory::RegionRecord, scheduler::View};
use crate::OrderAction;

/// Why an operator was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperatorReason {
    /// The region has too few voters.
    MissingReplica,
    /// The region has too many replicas.
    SurplusReplica,
    /// A replica is down, damaged or on a store that is to be emptied.
    BadReplica,
    /// Stores lead unevenly.
    BalanceLeader,
    /// Stores are filled unevenly.
    BalanceRegion,
    /// A test or an operator asked for it.
    Forced,
}

/// One step. It is repeated until its effect is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AddLearner(Peer),
    /// Waits until the learner has caught up.
    Promote(Peer),
    /// Hands leadership over first, if it must.
    Remove(Peer),
    Transfer(Peer),
    /// Exactly this, at once, in whatever state the region is.
    Literally {
        action: OrderAction,
        /// The region's version when it was asked for.
        version: u64,
    },
}

impl Step {
    fn has_happened(&self, record: &RegionRecord) -> bool {
        let role = |peer: &Peer| record.region.peer(peer.id).map(|peer| peer.role);
        let has_changed = |change: &PeerChange| match change.kind {
            ChangeKind::AddNode => role(&change.peer) == Some(PeerRole::Voter),
            ChangeKind::AddLearner => role(&change.peer) == Some(PeerRole::Learner),
            ChangeKind::RemoveNode => role(&change.peer).is_none(),
        };
        match self {
            Self::AddLearner(peer) => role(peer) == Some(PeerRole::Learner),
            Self::Promote(peer) => role(peer) == Some(PeerRole::Voter),
            Self::Remove(peer) => role(peer).is_none(),
            Self::Transfer(peer) => record.is_leader(peer.id),
            Self::Literally { action, version } => match action {
                OrderAction::TransferLeader(peer) => record.is_leader(peer.id),
                OrderAction::ChangePeer(change) => has_changed(change),
                OrderAction::ChangePeerV2(changes) => {
                    changes.iter().all(has_changed) && !record.is_joint()
                }
                OrderAction::SplitRegion { .. } => record.region.epoch.version > *version,
            },
        }
    }

    /// The replica the step is about, if it is about one.
    fn peer(&self) -> Option<&Peer> {
        match self {
            Self::AddLearner(peer)
            | Self::Promote(peer)
            | Self::Remove(peer)
            | Self::Transfer(peer) => Some(peer),
            Self::Literally { action, .. } => match action {
                OrderAction::TransferLeader(peer) => Some(peer),
                OrderAction::ChangePeer(change) => Some(&change.peer),
                OrderAction::ChangePeerV2(changes) => changes.first().map(|change| &change.peer),
                OrderAction::SplitRegion { .. } => None,
            },
        }
    }

    const fn is_transfer(&self) -> bool {
        matches!(
            self,
            Self::Transfer(_) | Self::Literally { action: OrderAction::TransferLeader(_), .. }
        )
    }

    /// What to order for it now; `None` to wait, because it would not be safe yet.
    fn action(&self, view: &View<'_>, record: &RegionRecord) -> Option<OrderAction> {
        let change = |kind, peer| Some(OrderAction::ChangePeer(PeerChange { kind, peer }));
        match self {
            Self::AddLearner(peer) => change(ChangeKind::AddLearner, *peer),
            Self::Promote(peer) => {
                let may = view.is_healthy(record, peer) && view.has_quorum_with(record, peer);
                let voter = Peer::voter(peer.id, peer.store);
                may.then(|| change(ChangeKind::AddNode, voter)).flatten()
            }
            Self::Remove(peer) if record.is_leader(peer.id) => {
                let heir = view.heir(record, |store| store != peer.store)?;
                Some(OrderAction::TransferLeader(heir))
            }
            Self::Remove(peer) => view
                .has_quorum_without(record, peer)
                .then(|| change(ChangeKind::RemoveNode, *peer))
                .flatten(),
            Self::Transfer(peer) => {
                view.is_healthy(record, peer).then_some(OrderAction::TransferLeader(*peer))
            }
            Self::Literally { action, .. } => Some(action.clone()),
        }
    }
}

/// What comes of looking at an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// This is to be done next.
    Order(OrderAction),
    /// Nothing may be done yet.
    Wait,
    /// All steps have happened.
    Done,
    /// The region has changed in another way.
    Void,
    /// A step took too long; its replica's store, if it is about one.
    TimedOut(Option<StoreId>),
}

/// A change of one region, in steps.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) region: RegionId,
    pub(super) reason: OperatorReason,
    steps: VecDeque<Step>,
    /// The epoch in which the first of `steps` was ordered.
    epoch: Epoch,
    deadline_ms: u64,
    /// Where the region was led when the operator was made.
    led_on: Option<StoreId>,
}

impl Operator {
    pub(super) fn new(
        record: &RegionRecord,
        reason: OperatorReason,
        steps: impl IntoIterator<Item = Step>,
        deadline_ms: u64,
    ) -> Self {
        Self {
            region: record.region.id,
            reason,
            steps: steps.into_iter().collect(),
            epoch: record.region.epoch,
            deadline_ms,
            led_on: record.leader.map(|leader| leader.store),
        }
    }

    /// Takes in what the leader reported last, and says what follows.
    pub(super) fn advance(&mut self, view: &View<'_>, record: &RegionRecord) -> Progress {
        let seen = record.region.epoch;
        while let Some(step) = self.steps.front() {
            if !step.has_happened(record) {
                break;
            }
            let is_own = seen == self.epoch || (!step.is_transfer() && self.is_next(seen));
            if !is_own && !self.is_forced() {
                return Progress::Void;
            }
            self.epoch = seen;
            self.deadline_ms = view.now_ms.saturating_add(view.config.operator_timeout_ms);
            self.steps.pop_front();
        }
        let Some(step) = self.steps.front() else { return Progress::Done };
        if seen != self.epoch {
            if !self.is_forced() {
                return Progress::Void;
            }
            self.epoch = seen;
        }
        if self.is_overdue(view.now_ms) {
            return Progress::TimedOut(step.peer().map(|peer| peer.store));
        }
        step.action(view, record).map_or(Progress::Wait, Progress::Order)
    }

    /// Whether `seen` is what one membership change makes of the epoch.
    const fn is_next(&self, seen: Epoch) -> bool {
        seen.version == self.epoch.version && seen.conf_ver == self.epoch.conf_ver + 1
    }

    fn is_forced(&self) -> bool {
        self.reason == OperatorReason::Forced
    }

    pub(super) const fn is_overdue(&self, now_ms: u64) -> bool {
        now_ms >= self.deadline_ms
    }

    pub(super) fn touches(&self, store: StoreId) -> bool {
        self.steps.iter().any(|step| step.peer().is_some_and(|peer| peer.store == store))
            || (self.led_on == Some(store) && self.steps.iter().any(Step::is_transfer))
    }

    /// How many replicas and leaders `store` will have more when all steps have happened.
    pub(super) fn influence(&self, store: StoreId) -> (i64, i64) {
        let (mut regions, mut leaders) = (0, 0);
        for step in &self.steps {
            let is_here = i64::from(step.peer().is_some_and(|peer| peer.store == store));
            match step {
                Step::AddLearner(_) => regions += is_here,
                Step::Remove(_) => regions -= is_here,
                Step::Transfer(_) => leaders += is_here - i64::from(self.led_on == Some(store)),
                Step::Promote(_) | Step::Literally { .. } => {}
            }
        }
        (regions, leaders)
    }
}
