//! A change under way: its steps, and whether the next one may be ordered now.

use std::collections::VecDeque;

use raftstore_proto::{ChangeKind, Peer, PeerChange, PeerRole, RegionId, StoreId};

use super::{directory::RegionRecord, operators::Tally, scheduler::View};
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
    /// Replicas could be further apart.
    Placement,
    /// A store is nearly full.
    LowSpace,
    /// Regions that are written to much are too near each other.
    HotRegion,
    /// Stores lead unevenly.
    BalanceLeader,
    /// Stores are filled unevenly.
    BalanceRegion,
    /// Regions shall be spread before they are used.
    Scatter,
    /// A test or an operator asked for it.
    Forced,
}

impl OperatorReason {
    /// Whether the region is worse off until the change is done.
    pub(super) const fn is_repair(self) -> bool {
        matches!(self, Self::MissingReplica | Self::SurplusReplica | Self::BadReplica)
    }

    /// In words, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingReplica => "missing replica",
            Self::SurplusReplica => "surplus replica",
            Self::BadReplica => "bad replica",
            Self::Placement => "placement",
            Self::LowSpace => "low space",
            Self::HotRegion => "hot region",
            Self::BalanceLeader => "balance of leaders",
            Self::BalanceRegion => "balance of regions",
            Self::Scatter => "scatter",
            Self::Forced => "forced",
        }
    }
}

/// One step. It is repeated until its effect is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Waits for room on both ends of the snapshot.
    AddLearner(Peer),
    /// Waits until the learner has caught up.
    Promote(Peer),
    /// Waits until the learner has caught up; then it becomes a voter, and the old one a
    /// learner, in one step. Hands leadership over first, if it must.
    Swap {
        new: Peer,
        old: Peer,
    },
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
            Self::Swap { new, old } => {
                role(new) == Some(PeerRole::Voter) && role(old) == Some(PeerRole::Learner)
            }
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
            | Self::Swap { new: peer, .. }
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

    /// Where a replica receives data until the step is done.
    fn receiver(&self) -> Option<StoreId> {
        match self {
            Self::AddLearner(peer) | Self::Promote(peer) | Self::Swap { new: peer, .. } => {
                Some(peer.store)
            }
            Self::Remove(_) | Self::Transfer(_) | Self::Literally { .. } => None,
        }
    }

    /// The members once the step is done.
    fn result(&self, members: &[Peer]) -> Vec<Peer> {
        let mut after = members.to_vec();
        let mut set = |peer: &Peer, role| {
            after.retain(|member| member.id != peer.id);
            after.push(Peer { role, ..*peer });
        };
        match self {
            Self::AddLearner(peer) => set(peer, PeerRole::Learner),
            Self::Promote(peer) => set(peer, PeerRole::Voter),
            Self::Swap { new, old } => {
                set(new, PeerRole::Voter);
                set(old, PeerRole::Learner);
            }
            Self::Remove(peer) => after.retain(|member| member.id != peer.id),
            Self::Transfer(_) | Self::Literally { .. } => {}
        }
        after.sort_by_key(|member| member.id);
        after
    }

    /// The members while the step is under way, if it takes more than a moment.
    fn between(&self, members: &[Peer]) -> Option<Vec<Peer>> {
        let Self::Swap { new, old } = self else { return None };
        let mut between = members.to_vec();
        for member in &mut between {
            if member.id == new.id {
                member.role = PeerRole::IncomingVoter;
            } else if member.id == old.id {
                member.role = PeerRole::DemotingVoter;
            }
        }
        Some(between)
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
            // A leader hands nothing over while a member waits for its snapshot.
            Self::Swap { new, .. } if !view.is_healthy(record, new) => None,
            Self::Swap { old, .. } | Self::Remove(old) if record.is_leader(old.id) => {
                let heir = view.heir(record, |store| store != old.store)?;
                Some(OrderAction::TransferLeader(heir))
            }
            Self::Swap { new, old } => view.has_quorum_after(record, new, old).then(|| {
                let (new, old) = (Peer::voter(new.id, new.store), Peer::learner(old.id, old.store));
                OrderAction::ChangePeerV2(vec![
                    PeerChange { kind: ChangeKind::AddNode, peer: new },
                    PeerChange { kind: ChangeKind::AddLearner, peer: old },
                ])
            }),
            Self::Remove(old) => {
                // As what it is now: a swap made a learner of it.
                let member = *record.region.peer(old.id)?;
                let may = view.has_quorum_without(record, &member);
                may.then(|| change(ChangeKind::RemoveNode, member)).flatten()
            }
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
    /// The region has changed in another way, or something else is more urgent.
    Void,
    /// A step took too long; its replica's store, if it is about one.
    TimedOut(Option<StoreId>),
}

/// A change of one region, in steps.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) region: RegionId,
    pub(super) reason: OperatorReason,
    pub(super) started_ms: u64,
    /// What was ordered for it so far, each once.
    pub(super) orders: Vec<OrderAction>,
    steps: VecDeque<Step>,
    /// Whether the first of `steps` was ordered already.
    is_ordered: bool,
    /// The region's version all the while.
    version: u64,
    /// The members when the first of `steps` became the first, by id.
    members: Vec<Peer>,
    /// How often the region's members had changed then.
    conf_ver: u64,
    deadline_ms: u64,
    /// Where the region is led.
    led_on: Option<StoreId>,
    /// The region's size when the operator was made.
    bytes: u64,
    /// Bytes written per second then, if it was hot.
    hot: u64,
}

fn members(record: &RegionRecord) -> Vec<Peer> {
    let mut members = record.region.peers.clone();
    members.sort_by_key(|member| member.id);
    members
}

impl Operator {
    pub(super) fn new(
        view: &View<'_>,
        record: &RegionRecord,
        reason: OperatorReason,
        steps: impl IntoIterator<Item = Step>,
    ) -> Self {
        let mut new = Self {
            region: record.region.id,
            reason,
            started_ms: view.now_ms,
            orders: Vec::new(),
            steps: steps.into_iter().collect(),
            is_ordered: false,
            version: record.region.epoch.version,
            members: members(record),
            conf_ver: record.region.epoch.conf_ver,
            deadline_ms: 0,
            led_on: record.leader.map(|leader| leader.store),
            bytes: record.approximate_size,
            hot: record.flow.hot(),
        };
        new.give_time(view);
        new
    }

    fn give_time(&mut self, view: &View<'_>) {
        let is_transfer = self.steps.front().is_some_and(Step::is_transfer);
        let limit_ms = if is_transfer {
            view.config.transfer_timeout_ms
        } else {
            view.config.operator_timeout_ms
        };
        self.deadline_ms = view.now_ms.saturating_add(limit_ms);
    }

    /// Takes in what the leader reported last, and says what follows.
    pub(super) fn advance(&mut self, view: &View<'_>, record: &RegionRecord) -> Progress {
        self.led_on = record.leader.map(|leader| leader.store);
        let seen = members(record);
        while let Some(step) = self.steps.front() {
            if !step.has_happened(record) {
                break;
            }
            if !self.is_forced() && (self.is_split(record) || step.result(&self.members) != seen) {
                return Progress::Void;
            }
            if self.has_come_and_gone(record, 1) {
                return Progress::Void;
            }
            self.members.clone_from(&seen);
            self.conf_ver = record.region.epoch.conf_ver;
            self.steps.pop_front();
            self.is_ordered = false;
            self.give_time(view);
        }
        let Some(step) = self.steps.front() else { return Progress::Done };
        if self.has_come_and_gone(record, 0) {
            return Progress::Void;
        }
        if !self.is_forced() {
            let is_between = step.between(&self.members).as_ref() == Some(&seen);
            let is_own = seen == self.members || is_between;
            if !is_own || self.is_split(record) || self.is_untimely(view, record) {
                return Progress::Void;
            }
            if is_between {
                // The leader leaves it by itself.
                return if self.is_overdue(view.now_ms) { self.late() } else { Progress::Wait };
            }
        }
        if let (Step::AddLearner(peer), false) = (step, self.is_ordered)
            && !view.has_snapshot_room(record, peer.store)
        {
            // Not its own fault: its time begins when there is room.
            self.give_time(view);
            return Progress::Wait;
        }
        if self.is_overdue(view.now_ms) {
            return self.late();
        }
        match step.action(view, record) {
            None => Progress::Wait,
            Some(action) => {
                self.is_ordered = true;
                if self.orders.last() != Some(&action) {
                    self.orders.push(action.clone());
                }
                Progress::Order(action)
            }
        }
    }

    fn late(&self) -> Progress {
        Progress::TimedOut(self.steps.front().and_then(Step::peer).map(|peer| peer.store))
    }

    fn is_forced(&self) -> bool {
        self.reason == OperatorReason::Forced
    }

    const fn is_split(&self, record: &RegionRecord) -> bool {
        record.region.epoch.version != self.version
    }

    /// Whether the replica that the step adds may have been a member before it was seen, when
    /// the members shall have changed `own` times for it. Its id is used up then: where it was
    /// removed its store refuses it for ever.
    fn has_come_and_gone(&self, record: &RegionRecord, own: u64) -> bool {
        matches!(self.steps.front(), Some(Step::AddLearner(_)))
            && record.region.epoch.conf_ver > self.conf_ver + own
    }

    /// Whether the region is moved about while it needs repair.
    fn is_untimely(&self, view: &View<'_>, record: &RegionRecord) -> bool {
        let leaves = |peer: &Peer| {
            self.steps.iter().any(|step| matches!(step, Step::Remove(old) if old.id == peer.id))
        };
        !self.reason.is_repair()
            && record.voters().any(|peer| !leaves(peer) && view.is_bad(record, peer))
    }

    pub(super) const fn is_overdue(&self, now_ms: u64) -> bool {
        now_ms >= self.deadline_ms
    }

    /// What each store will have more when all steps have happened, and what it is busy with
    /// until then.
    pub(super) fn tallies(&self) -> Vec<(StoreId, Tally)> {
        let mut all: Vec<(StoreId, Tally)> = Vec::new();
        let mut at = |store: StoreId, change: &dyn Fn(&mut Tally)| {
            let place = all.iter().position(|(known, _)| *known == store).unwrap_or_else(|| {
                all.push((store, Tally::default()));
                all.len() - 1
            });
            change(&mut all[place].1);
        };
        let is_repair = self.reason.is_repair();
        let mut leads = self.led_on;
        let mut busy: Vec<StoreId> = Vec::new();
        for step in &self.steps {
            match step {
                Step::AddLearner(peer) => at(peer.store, &|tally| {
                    tally.add_replica(1, self.bytes, self.hot);
                }),
                Step::Remove(peer) => {
                    at(peer.store, &|tally| tally.add_replica(-1, self.bytes, self.hot));
                    if leads == Some(peer.store) {
                        at(peer.store, &|tally| tally.add_leader(-1, self.hot));
                        leads = None;
                    }
                }
                Step::Transfer(peer) => {
                    if let Some(from) = leads {
                        at(from, &|tally| tally.add_leader(-1, self.hot));
                    }
                    at(peer.store, &|tally| tally.add_leader(1, self.hot));
                    leads = Some(peer.store);
                    busy.extend(self.led_on);
                    busy.push(peer.store);
                }
                Step::Promote(_) | Step::Swap { .. } | Step::Literally { .. } => {}
            }
            if let Some(receiver) = step.receiver() {
                busy.push(receiver);
                busy.extend(self.led_on);
            } else if !is_repair {
                // Where a bad replica was is not kept busy by its removal.
                busy.extend(step.peer().map(|peer| peer.store));
            }
        }
        busy.sort_unstable();
        busy.dedup();
        for store in busy {
            at(store, &|tally| tally.add_operator(is_repair));
        }
        if let Some(receiver) = self.steps.front().and_then(Step::receiver)
            && (self.is_ordered || !matches!(self.steps.front(), Some(Step::AddLearner(_))))
        {
            at(receiver, &|tally| tally.receiving += 1);
            if let Some(sender) = self.led_on {
                at(sender, &|tally| tally.sending += 1);
            }
        }
        all
    }
}
