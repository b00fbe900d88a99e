//! What the rules may look at, and the judgements they share: healthy, quorum, load.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use raftstore_proto::{Peer, RegionId, StoreId};

use super::super::{
    config::PdConfig,
    core::StoreRecord,
    directory::{Directory, RegionRecord, StoreLoad},
    operator::Operator,
};
use crate::StoreLifecycle;

/// PD's knowledge at one moment.
pub(in crate::mock) struct View<'a> {
    pub(in crate::mock) now_ms: u64,
    pub(in crate::mock) config: &'a PdConfig,
    pub(in crate::mock) stores: &'a BTreeMap<StoreId, StoreRecord>,
    pub(in crate::mock) directory: &'a Directory,
    pub(in crate::mock) operators: &'a BTreeMap<RegionId, Operator>,
    /// Until when a store is not to be tried again for a region.
    pub(in crate::mock) avoided: &'a BTreeMap<(RegionId, StoreId), u64>,
}

impl View<'_> {
    /// Whether PD hears from the store.
    pub(in crate::mock) fn is_heard(&self, store: StoreId) -> bool {
        self.stores.get(&store).is_some_and(|record| {
            record.info.lifecycle != StoreLifecycle::Tombstone
                && self.now_ms.saturating_sub(record.heard_ms) < self.config.store_silent_ms
        })
    }

    /// Whether the store reports its replica of the region as damaged.
    pub(super) fn is_damaged(&self, record: &RegionRecord, peer: &Peer) -> bool {
        self.stores
            .get(&peer.store)
            .is_some_and(|store| store.damaged_regions.contains(&record.region.id))
    }

    /// Whether the leader has missed the replica for long enough to give it up.
    pub(super) fn is_lost(&self, record: &RegionRecord, peer: &Peer) -> bool {
        record.down_ms(peer.id).is_some_and(|ms| ms >= self.config.max_store_down_ms)
    }

    pub(super) fn lifecycle(&self, store: StoreId) -> StoreLifecycle {
        // PD never forgets a store: what it does not know is gone for good.
        self.stores.get(&store).map_or(StoreLifecycle::Tombstone, |record| record.info.lifecycle)
    }

    /// Whether the store failed to do something for the region not long ago.
    pub(super) fn is_avoided(&self, record: &RegionRecord, store: StoreId) -> bool {
        self.avoided.get(&(record.region.id, store)).is_some_and(|until| self.now_ms < *until)
    }

    /// Whether the replica has all data and answers, so that a quorum may rest on it.
    pub(in crate::mock) fn is_healthy(&self, record: &RegionRecord, peer: &Peer) -> bool {
        if self.is_damaged(record, peer) {
            return false;
        }
        // The leader has just reported.
        record.is_leader(peer.id)
            || (record.down_ms(peer.id).is_none()
                && !record.is_pending(peer.id)
                && self.is_heard(peer.store))
    }

    fn has_quorum<'p>(
        &self,
        record: &RegionRecord,
        voters: impl Iterator<Item = &'p Peer>,
    ) -> bool {
        let (mut all, mut healthy) = (0, 0);
        for voter in voters {
            all += 1;
            healthy += usize::from(self.is_healthy(record, voter));
        }
        healthy > all / 2
    }

    /// Whether the healthy voters are a quorum once `peer` is a voter too.
    pub(in crate::mock) fn has_quorum_with(&self, record: &RegionRecord, peer: &Peer) -> bool {
        let others = record.voters().filter(|voter| voter.id != peer.id);
        self.has_quorum(record, others.chain([peer]))
    }

    /// Whether the healthy voters are a quorum once `peer` is gone.
    pub(in crate::mock) fn has_quorum_without(&self, record: &RegionRecord, peer: &Peer) -> bool {
        self.has_quorum(record, record.voters().filter(|voter| voter.id != peer.id))
    }

    /// What the store carries once all operators are through.
    pub(super) fn load(&self, store: StoreId) -> StoreLoad {
        let now = self.directory.load(store);
        let (regions, leaders) = self
            .operators
            .values()
            .map(|operator| operator.influence(store))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        StoreLoad {
            regions: now.regions.saturating_add_signed(regions),
            leaders: now.leaders.saturating_add_signed(leaders),
        }
    }

    /// Whether one more operator may touch the store.
    pub(super) fn has_slot(&self, store: StoreId) -> bool {
        let running = self.operators.values().filter(|operator| operator.touches(store)).count();
        running < self.config.operators_per_store_max
    }

    /// The voter that shall lead instead of the present leader: one that has caught up,
    /// on a store that `may` lead, with the fewest leaders.
    pub(in crate::mock) fn heir(
        &self,
        record: &RegionRecord,
        may: impl Fn(StoreId) -> bool,
    ) -> Option<Peer> {
        record
            .voters()
            .filter(|peer| !record.is_leader(peer.id) && may(peer.store))
            .filter(|peer| self.is_healthy(record, peer) && !self.is_busy(peer.store))
            .min_by_key(|peer| {
                let is_leaving = self.lifecycle(peer.store) != StoreLifecycle::Up;
                (is_leaving, self.load(peer.store).leaders, peer.store)
            })
            .copied()
    }

    fn is_busy(&self, store: StoreId) -> bool {
        self.stores
            .get(&store)
            .and_then(|record| record.stats.as_ref())
            .is_some_and(|stats| stats.is_busy)
    }

    /// Where a new replica of the region goes: the emptiest store that can take it.
    pub(super) fn target(&self, record: &RegionRecord) -> Option<StoreId> {
        let taken: BTreeSet<_> = record.region.peers.iter().map(|peer| peer.store).collect();
        self.stores
            .iter()
            .filter(|(store, target)| !taken.contains(store) && self.can_take(**store, target))
            .map(|(store, _)| *store)
            .filter(|store| !self.is_avoided(record, *store) && self.has_slot(*store))
            .min_by_key(|store| (self.load(*store).regions, *store))
    }

    fn can_take(&self, store: StoreId, record: &StoreRecord) -> bool {
        if record.info.lifecycle != StoreLifecycle::Up || !self.is_heard(store) {
            return false;
        }
        record.stats.as_ref().is_none_or(|stats| {
            let snapshots = stats.receiving_snapshots + stats.applying_snapshots;
            // In u128, or large capacities would overflow.
            let has_space = u128::from(stats.available_bytes) * 100
                >= u128::from(stats.capacity_bytes) * u128::from(self.config.min_available_percent);
            !stats.is_busy && snapshots < self.config.snapshots_per_store_max && has_space
        })
    }

    /// The order in which replicas are given up: the first is of least use.
    pub(super) fn worth(&self, record: &RegionRecord, peer: &Peer) -> impl Ord + use<> {
        (
            record.is_leader(peer.id),
            !self.is_damaged(record, peer),
            !self.is_lost(record, peer),
            self.lifecycle(peer.store) != StoreLifecycle::Tombstone,
            self.is_healthy(record, peer),
            self.lifecycle(peer.store) == StoreLifecycle::Up,
            Reverse(self.load(peer.store).regions),
            Reverse(peer.id),
        )
    }
}
