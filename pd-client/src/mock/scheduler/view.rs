//! What the rules may look at, and the judgements they share: healthy, quorum, load, room.

use std::{cmp::Reverse, collections::BTreeMap};

use raftstore_proto::{Peer, RegionId, StoreId};

use super::{
    super::{
        config::PdConfig,
        directory::{Directory, RegionRecord, StoreLoad},
        operators::Operators,
        stores::{StoreRecord, Stores},
    },
    location,
};
use crate::StoreLifecycle;

/// PD's knowledge at one moment.
pub(in crate::mock) struct View<'a> {
    pub(in crate::mock) now_ms: u64,
    pub(in crate::mock) config: &'a PdConfig,
    pub(in crate::mock) stores: &'a Stores,
    pub(in crate::mock) directory: &'a Directory,
    pub(in crate::mock) operators: &'a Operators,
    /// Until when a store is not to be tried again for a region.
    pub(in crate::mock) avoided: &'a BTreeMap<(RegionId, StoreId), u64>,
    /// Until when a hot region is left where it is.
    pub(in crate::mock) resting: &'a BTreeMap<RegionId, u64>,
}

/// Health.
impl View<'_> {
    /// Whether PD hears from the store.
    pub(in crate::mock) fn is_heard(&self, store: StoreId) -> bool {
        self.silent_ms(store).is_some_and(|ms| ms < self.config.store_silent_ms)
    }

    /// For how long PD has not heard from a store that may still be there.
    fn silent_ms(&self, store: StoreId) -> Option<u64> {
        let record = self.stores.get(store)?;
        (record.info.lifecycle != StoreLifecycle::Tombstone)
            .then(|| self.now_ms.saturating_sub(record.heard_ms))
    }

    /// Whether the store reports its replica of the region as damaged.
    pub(super) fn is_damaged(&self, record: &RegionRecord, peer: &Peer) -> bool {
        self.stores
            .get(peer.store)
            .is_some_and(|store| store.damaged_regions.contains(&record.region.id))
    }

    /// Whether the replica has been missed for long enough to give it up. The leader must
    /// miss it; for how long is also known to PD, since a new leader begins to count anew.
    pub(super) fn is_lost(&self, record: &RegionRecord, peer: &Peer) -> bool {
        let long = self.config.max_store_down_ms;
        record.down_ms(peer.id).is_some_and(|ms| {
            ms >= long || self.silent_ms(peer.store).is_some_and(|silent| silent >= long)
        })
    }

    /// A store that PD does not know has yet to introduce itself.
    pub(super) fn lifecycle(&self, store: StoreId) -> StoreLifecycle {
        self.stores.get(store).map_or(StoreLifecycle::Up, |record| record.info.lifecycle)
    }

    /// Whether the replica is to be replaced.
    pub(in crate::mock) fn is_bad(&self, record: &RegionRecord, peer: &Peer) -> bool {
        self.is_damaged(record, peer)
            || self.is_lost(record, peer)
            || self.lifecycle(peer.store) != StoreLifecycle::Up
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

    /// Whether the healthy voters are a quorum now, and also with `new` in place of `old`:
    /// a joint change needs both.
    pub(in crate::mock) fn has_quorum_after(
        &self,
        record: &RegionRecord,
        new: &Peer,
        old: &Peer,
    ) -> bool {
        let others = record.voters().filter(|voter| voter.id != old.id && voter.id != new.id);
        self.has_quorum(record, record.voters()) && self.has_quorum(record, others.chain([new]))
    }

    pub(super) fn is_busy(&self, store: StoreId) -> bool {
        self.stores
            .get(store)
            .and_then(|record| record.stats.as_ref())
            .is_some_and(|stats| stats.is_busy)
    }
}

/// Load and room.
impl View<'_> {
    /// What the store carries once all operators are through.
    pub(super) fn load(&self, store: StoreId) -> StoreLoad {
        let now = self.directory.load(store);
        let tally = self.operators.tally(store);
        StoreLoad {
            regions: now.regions.saturating_add_signed(tally.regions),
            leaders: now.leaders.saturating_add_signed(tally.leaders),
            bytes: now.bytes.saturating_add_signed(tally.bytes_in - tally.bytes_out),
            hot_written: now.hot_written.saturating_add_signed(tally.hot_written),
            hot_led: now.hot_led.saturating_add_signed(tally.hot_led),
        }
    }

    /// What a replica of the region weighs in balance.
    pub(super) const fn weight(&self, record: &RegionRecord) -> u64 {
        record.approximate_size.saturating_add(self.config.region_base_bytes)
    }

    /// The sum of the weights of all replicas on the store, once all operators are through.
    pub(super) fn burden(&self, store: StoreId) -> u64 {
        let load = self.load(store);
        load.regions.saturating_mul(self.config.region_base_bytes).saturating_add(load.bytes)
    }

    /// The weight of a replica of average size.
    pub(super) fn average_weight(&self) -> u64 {
        let totals = self.directory.totals();
        self.config.region_base_bytes.saturating_add(totals.bytes / totals.regions.max(1))
    }

    /// Whether one more operator may touch the store for the sake of balance.
    pub(super) fn has_slot(&self, store: StoreId) -> bool {
        self.operators.tally(store).moves < self.config.operators_per_store_max
    }

    fn has_repair_slot(&self, store: StoreId) -> bool {
        self.operators.tally(store).repairs < self.config.repairs_per_store_max
    }

    /// Whether one more replica of the region may be filled on `to` now.
    pub(in crate::mock) fn has_snapshot_room(&self, record: &RegionRecord, to: StoreId) -> bool {
        let max = self.config.snapshots_per_store_max;
        let stats = |store| self.stores.get(store).and_then(|record| record.stats.as_ref());
        // What is ordered and what is reported overlap: the larger counts.
        let receiving =
            stats(to).map_or(0, |stats| stats.receiving_snapshots + stats.applying_snapshots);
        if receiving.max(self.operators.tally(to).receiving) >= max {
            return false;
        }
        record.leader.is_none_or(|leader| {
            let sending = stats(leader.store).map_or(0, |stats| stats.sending_snapshots);
            sending.max(self.operators.tally(leader.store).sending) < max
        })
    }

    /// Whether at least so much of the store's capacity is available, with `coming` bytes
    /// more; what has not said how full it is, is empty.
    fn has_percent(&self, store: StoreId, percent: u64, coming: i64) -> bool {
        let stats = self.stores.get(store).and_then(|record| record.stats.as_ref());
        stats.is_none_or(|stats| {
            let available = stats.available_bytes.saturating_add_signed(coming.saturating_neg());
            // In u128, or large capacities would overflow.
            u128::from(available) * 100 >= u128::from(stats.capacity_bytes) * u128::from(percent)
        })
    }

    /// Whether the store has room for more, with all that is on its way to it.
    fn has_room(&self, store: StoreId) -> bool {
        let coming = self.operators.tally(store).bytes_in;
        self.has_percent(store, self.config.min_available_percent, coming)
    }

    /// Whether the store is so full that replicas must leave it, besides those that do.
    pub(super) fn is_nearly_full(&self, store: StoreId) -> bool {
        let leaving = self.operators.tally(store).bytes_out;
        !self.has_percent(store, self.config.low_space_percent, -leaving)
    }
}

/// Choice.
impl View<'_> {
    /// The voter that shall lead instead of the present leader: one that has caught up,
    /// on a store that `may` lead, with the fewest leaders.
    pub(in crate::mock) fn heir(
        &self,
        record: &RegionRecord,
        may: impl Fn(StoreId) -> bool,
    ) -> Option<Peer> {
        self.heirs(record, may)
            .min_by_key(|peer| {
                let is_leaving = self.lifecycle(peer.store) != StoreLifecycle::Up;
                (is_leaving, self.load(peer.store).leaders, peer.store)
            })
            .copied()
    }

    /// The voters that could lead instead of the present leader.
    pub(super) fn heirs<'r>(
        &self,
        record: &'r RegionRecord,
        may: impl Fn(StoreId) -> bool,
    ) -> impl Iterator<Item = &'r Peer> {
        record
            .voters()
            .filter(move |peer| !record.is_leader(peer.id) && may(peer.store))
            .filter(|peer| self.is_healthy(record, peer) && !self.is_busy(peer.store))
    }

    /// Where a new replica of the region goes to repair it, in place of `old` if that is
    /// given: as far from the others as can be, and there the least burdened store.
    pub(super) fn target(&self, record: &RegionRecord, old: Option<&Peer>) -> Option<StoreId> {
        let from = record.leader.map(|leader| leader.store);
        if from.is_some_and(|from| !self.has_repair_slot(from)) {
            return None;
        }
        let others = others(record, old);
        self.candidates(record)
            .filter(|store| self.has_repair_slot(*store))
            .min_by_key(|store| (self.nearness(*store, &others), self.burden(*store), *store))
    }

    /// Where the replica `old` may go for the sake of balance: stores that are no nearer to
    /// the other replicas.
    pub(super) fn better_homes<'v>(
        &'v self,
        record: &'v RegionRecord,
        old: &Peer,
    ) -> impl Iterator<Item = StoreId> + 'v {
        let others = others(record, Some(old));
        let now = self.nearness(old.store, &others);
        let leads_on = record.leader.map(|leader| leader.store);
        let may_move =
            self.has_slot(old.store) && leads_on.is_none_or(|store| self.has_slot(store));
        self.candidates(record)
            .filter(move |store| may_move && self.has_slot(*store))
            .filter(move |store| self.nearness(*store, &others) <= now)
    }

    /// Stores that could take a new replica of the region now.
    fn candidates<'v>(&'v self, record: &'v RegionRecord) -> impl Iterator<Item = StoreId> + 'v {
        self.willing(record).filter(|store| self.has_snapshot_room(record, *store))
    }

    /// Stores that could take a new replica of the region sooner or later.
    pub(super) fn willing<'v>(
        &'v self,
        record: &'v RegionRecord,
    ) -> impl Iterator<Item = StoreId> + 'v {
        self.stores
            .iter()
            .filter(|store| self.can_take(store))
            // What is damaged there has to go first; some of it can never.
            .filter(|store| !store.damaged_regions.contains(&record.region.id))
            .map(|store| store.info.id)
            .filter(|store| record.region.peer_on(*store).is_none())
            .filter(|store| !self.is_avoided(record, *store))
    }

    fn can_take(&self, record: &StoreRecord) -> bool {
        let store = record.info.id;
        record.info.lifecycle == StoreLifecycle::Up
            && self.is_heard(store)
            && !self.is_busy(store)
            && self.has_room(store)
    }

    /// How near the store is to replicas on `others`; 0 is as far as can be.
    pub(super) fn nearness(&self, store: StoreId, others: &[StoreId]) -> u64 {
        location::nearness(&self.config.location_labels, self.stores, store, others)
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
            Reverse(self.nearness(peer.store, &others(record, Some(peer)))),
            Reverse(self.burden(peer.store)),
            Reverse(peer.id),
        )
    }
}

/// Stores of the region's members but `old`.
pub(super) fn others(record: &RegionRecord, old: Option<&Peer>) -> Vec<StoreId> {
    let peers = record.region.peers.iter();
    peers.filter(|peer| old.is_none_or(|old| peer.id != old.id)).map(|peer| peer.store).collect()
}
