//! Changes of regions: what begins them, carries them on, and ends them.

use raftstore_proto::{Peer, PeerId, RegionId, StoreId};

use super::PdCore;
use crate::{
    Error, OperatorState, OperatorStatus, Order, OrderAction, Result,
    mock::{
        operator::{Operator, OperatorReason, Progress, Step},
        operators::OperatorRecord,
        scheduler::{self, Move, Scattering, View},
    },
};

impl PdCore {
    /// Asks for `action` in every answer to the region's leader until it is seen to have
    /// happened, in whatever epoch the region is then. It takes the place of what was
    /// under way for the region, and obeys no safety rule: that is the store's test.
    ///
    /// # Errors
    /// `Invalid` if the region is not known.
    pub fn force_order(
        &mut self,
        now_ms: u64,
        region: RegionId,
        action: OrderAction,
    ) -> Result<()> {
        let record = self.directory.get(region).ok_or(Error::Invalid("unknown region"))?;
        let version = record.region.epoch.version;
        self.start(
            now_ms,
            region,
            OperatorReason::Forced,
            vec![Step::Literally { action, version }],
        );
        Ok(())
    }

    /// Has regions spread over stores before they are used, evenly among those of the same
    /// group. Takes the place of what was under way for them for the sake of balance. Gives
    /// those that cannot be spread now: unknown, in bad health, or changing otherwise.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn scatter(
        &mut self,
        now_ms: u64,
        regions: &[RegionId],
        group: &str,
    ) -> Result<Vec<RegionId>> {
        self.check_bootstrapped()?;
        let mut left_out = Vec::new();
        let mut given = self.groups.remove(group).unwrap_or_default();
        for id in regions {
            let is_taken = self.operators.get(*id).is_some_and(|operator| {
                operator.reason.is_repair() || operator.reason == OperatorReason::Forced
            });
            let record = self.directory.get(*id).filter(|_| !is_taken);
            match record.and_then(|record| given.scatter(&self.view(now_ms), record)) {
                Some(scattering) => {
                    let steps = self.scatter_steps(*id, &scattering);
                    self.start(now_ms, *id, OperatorReason::Scatter, steps);
                }
                None => left_out.push(*id),
            }
        }
        self.groups.insert(group.to_owned(), given);
        Ok(left_out)
    }

    fn scatter_steps(&mut self, id: RegionId, scattering: &Scattering) -> Vec<Step> {
        let mut steps = Vec::new();
        let voters: Vec<Peer> = self
            .directory
            .get(id)
            .map_or_else(Vec::new, |record| record.voters().copied().collect());
        let mut lead = voters.iter().find(|peer| peer.store == scattering.lead).copied();
        for (old, store) in &scattering.moves {
            let new = self.new_learner(*store);
            if *store == scattering.lead {
                lead = Some(new);
            }
            steps.extend(self.replacement(voters.len(), new, *old));
        }
        steps.extend(lead.map(|peer| Step::Transfer(Peer::voter(peer.id, peer.store))));
        steps
    }

    /// Gives up what is under way for the region.
    pub fn cancel(&mut self, region: RegionId) {
        self.end(self.latest_ms, region, OperatorState::Cancelled);
    }

    /// What is under way, by region.
    pub fn operators(&self) -> impl Iterator<Item = (RegionId, OperatorReason)> {
        self.operators.iter().map(|operator| (operator.region, operator.reason))
    }

    /// Operators that have ended, as far as they are remembered, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &OperatorRecord> {
        self.operators.ended()
    }

    /// What is done to a region now, or was done last, as far as it is remembered.
    #[must_use]
    pub fn operator_status(&self, region: RegionId) -> Option<OperatorStatus> {
        let running = self.operators.get(region).map(|it| (it.reason, OperatorState::Running));
        let ended = || self.history().rev().find(|it| it.region == region);
        let (reason, state) = running.or_else(|| ended().map(|it| (it.reason, it.state)))?;
        Some(OperatorStatus { reason: reason.name().to_owned(), state })
    }

    fn start(&mut self, now_ms: u64, id: RegionId, reason: OperatorReason, steps: Vec<Step>) {
        self.end(now_ms, id, OperatorState::Replaced);
        let Some(record) = self.directory.get(id) else { return };
        let operator = Operator::new(&self.view(now_ms), record, reason, steps);
        self.operators.enter(operator);
        self.counters.started += 1;
    }

    /// Ends what is under way for the region, if anything is.
    pub(super) fn end(&mut self, now_ms: u64, id: RegionId, state: OperatorState) {
        let Some(operator) = self.operators.take(id) else { return };
        match state {
            OperatorState::Running => {}
            OperatorState::Finished => self.counters.finished += 1,
            OperatorState::Cancelled | OperatorState::Replaced => self.counters.cancelled += 1,
            OperatorState::TimedOut => self.counters.timed_out += 1,
        }
        if operator.reason == OperatorReason::HotRegion {
            self.resting.insert(id, now_ms.saturating_add(self.config.hot_rest_ms));
        }
        self.operators.remember(now_ms, operator, state, self.config.history_max);
    }

    /// Goes on with what is under way for the region, or begins something.
    pub(super) fn drive(&mut self, now_ms: u64, id: RegionId) -> Option<Order> {
        if self.operators.get(id).is_some() {
            match self.advance(now_ms, id) {
                Progress::Order(action) => return self.order(id, action),
                Progress::Wait => return None,
                Progress::Done => self.end(now_ms, id, OperatorState::Finished),
                Progress::Void => self.end(now_ms, id, OperatorState::Cancelled),
                Progress::TimedOut(store) => {
                    self.end(now_ms, id, OperatorState::TimedOut);
                    let until_ms = now_ms.saturating_add(self.config.operator_timeout_ms);
                    self.avoided.extend(store.map(|store| ((id, store), until_ms)));
                }
            }
        }
        let record = self.directory.get(id)?;
        let (reason, change) = scheduler::plan(&self.view(now_ms), record)?;
        let steps = self.steps(record.voters().count(), change);
        self.start(now_ms, id, reason, steps);
        match self.advance(now_ms, id) {
            Progress::Order(action) => self.order(id, action),
            _ => None,
        }
    }

    fn advance(&mut self, now_ms: u64, id: RegionId) -> Progress {
        // Taken out, so that its own influence does not count against it.
        let Some(mut operator) = self.operators.take(id) else { return Progress::Done };
        let progress = self
            .directory
            .get(id)
            .map_or(Progress::Void, |record| operator.advance(&self.view(now_ms), record));
        self.operators.enter(operator);
        progress
    }

    const fn view(&self, now_ms: u64) -> View<'_> {
        View {
            now_ms,
            config: &self.config,
            stores: &self.stores,
            directory: &self.directory,
            operators: &self.operators,
            avoided: &self.avoided,
            resting: &self.resting,
        }
    }

    fn new_learner(&mut self, store: StoreId) -> Peer {
        Peer::learner(PeerId::must(self.alloc_id()), store)
    }

    fn steps(&mut self, voters: usize, change: Move) -> Vec<Step> {
        match change {
            Move::Add(store) => {
                let new = self.new_learner(store);
                vec![Step::AddLearner(new), Step::Promote(new)]
            }
            Move::Promote(new) => vec![Step::Promote(new)],
            Move::Remove(old) => vec![Step::Remove(old)],
            Move::Replace(old, store) => {
                let new = self.new_learner(store);
                self.replacement(voters, new, old)
            }
            Move::PromoteFor(new, old) => self.replacement(voters, new, old).split_off(1),
            Move::Transfer(to) => vec![Step::Transfer(to)],
        }
    }

    /// Steps that put `new` in the place of `old`.
    fn replacement(&self, voters: usize, new: Peer, old: Peer) -> Vec<Step> {
        // A lone voter cannot hand leadership to anybody before the new one votes.
        let exchange = if self.config.joint_replacement && voters > 1 {
            Step::Swap { new, old }
        } else {
            Step::Promote(new)
        };
        vec![Step::AddLearner(new), exchange, Step::Remove(old)]
    }

    fn order(&self, id: RegionId, action: OrderAction) -> Option<Order> {
        let record = self.directory.get(id)?;
        Some(Order { region: id, epoch: record.region.epoch, target: record.leader?, action })
    }
}
