//! Which region holds which keys, as far as leaders told; old reports change nothing.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};

use bytes::Bytes;
use raftstore_proto::{Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use super::flow::Flow;
use crate::{Error, PeerDown, RegionRoute, Result};

/// What PD knows of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRecord {
    /// The region.
    pub region: Region,
    /// Its leader, once one has reported.
    pub leader: Option<Peer>,
    /// The leader's term; 0 before the first report.
    pub term: u64,
    /// When the leader reported last, in ms; 0 before the first report.
    pub heard_ms: u64,
    /// Replicas the leader has not heard from.
    pub down_peers: Vec<PeerDown>,
    /// Replicas that need a snapshot or are installing one.
    pub pending_peers: Vec<Peer>,
    /// Rough size in bytes; 0 for unknown.
    pub approximate_size: u64,
    /// How much is written to it.
    pub flow: Flow,
}

impl RegionRecord {
    /// One of which only the region is known.
    #[must_use]
    pub const fn unled(region: Region) -> Self {
        Self {
            region,
            leader: None,
            term: 0,
            heard_ms: 0,
            down_peers: Vec::new(),
            pending_peers: Vec::new(),
            approximate_size: 0,
            flow: Flow::NONE,
        }
    }

    /// Region and leader.
    #[must_use]
    pub fn route(&self) -> RegionRoute {
        RegionRoute { region: self.region.clone(), leader: self.leader }
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &Peer> {
        self.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter)
    }

    pub(super) fn learners(&self) -> impl Iterator<Item = &Peer> {
        self.region.peers.iter().filter(|peer| peer.role == PeerRole::Learner)
    }

    pub(super) fn is_leader(&self, id: PeerId) -> bool {
        self.leader.is_some_and(|leader| leader.id == id)
    }

    /// Whether its members are changing from one set to another.
    pub(super) fn is_joint(&self) -> bool {
        let is_between =
            |peer: &Peer| matches!(peer.role, PeerRole::IncomingVoter | PeerRole::DemotingVoter);
        self.region.peers.iter().any(is_between)
    }

    pub(super) fn is_pending(&self, id: PeerId) -> bool {
        self.pending_peers.iter().any(|peer| peer.id == id)
    }

    /// For how long the leader has not heard of the replica, in ms.
    pub(super) fn down_ms(&self, id: PeerId) -> Option<u64> {
        let down = self.down_peers.iter().find(|down| down.peer.id == id)?;
        Some(down.down_seconds.saturating_mul(1000))
    }
}

/// How much a store carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLoad {
    /// Replicas on it.
    pub regions: u64,
    /// How many of them lead.
    pub leaders: u64,
    /// Sum of their sizes, as far as they are known.
    pub bytes: u64,
    /// Bytes written per second to those of its replicas whose region is hot.
    pub hot_written: u64,
    /// Bytes written per second to those of its leaders whose region is hot.
    pub hot_led: u64,
}

/// Sums over all regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) regions: u64,
    pub(super) bytes: u64,
    /// Bytes written per second.
    pub(super) written: u64,
}

/// Regions by id and by range.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    regions: BTreeMap<RegionId, RegionRecord>,
    /// Start key of every region in `regions`.
    ///
    /// Invariant: no two ranges overlap.
    ranges: BTreeMap<Bytes, RegionId>,
    /// Newest epoch and term of regions that a newer one with some of their keys pushed out
    /// before they reported what is left of them, so that what is older than that stays
    /// unbelieved.
    ///
    /// Invariant: none of them is in `regions`.
    pushed_out: BTreeMap<RegionId, (Epoch, u64)>,
    /// Invariant: counts what is in `regions`.
    loads: BTreeMap<StoreId, StoreLoad>,
    /// Invariant: counts what is in `regions`.
    totals: Totals,
}

impl Directory {
    pub(super) fn get(&self, id: RegionId) -> Option<&RegionRecord> {
        self.regions.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RegionRecord> {
        self.regions.values()
    }

    pub(super) fn load(&self, store: StoreId) -> StoreLoad {
        self.loads.get(&store).copied().unwrap_or_default()
    }

    pub(super) const fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn by_key(&self, key: &[u8]) -> Option<&RegionRecord> {
        let (_, id) = self.ranges.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        self.regions.get(id).filter(|record| record.region.contains(key))
    }

    /// The region whose keys end where `key` begins; none for the empty key.
    pub(super) fn ending_at(&self, key: &[u8]) -> Option<&RegionRecord> {
        let (_, id) = self.ranges.range::<[u8], _>((Unbounded, Excluded(key))).next_back()?;
        self.regions.get(id).filter(|record| record.region.end_key == key)
    }

    /// Regions in key order, from the one that holds `start`, or the next.
    pub(super) fn scan(&self, start: &[u8]) -> impl Iterator<Item = &RegionRecord> {
        let first = self.by_key(start).map(|record| record.region.start_key.clone());
        let from = first.unwrap_or_else(|| Bytes::copy_from_slice(start));
        self.ranges.range(from..).filter_map(|(_, id)| self.regions.get(id))
    }

    /// Takes in a report and gives the regions it pushed out: those that overlap it and
    /// are older.
    ///
    /// # Errors
    /// `Stale` if something newer is known of the region, or of a part of its range.
    /// Nothing is changed then.
    pub(super) fn update(&mut self, record: RegionRecord) -> Result<Vec<RegionId>> {
        let id = record.region.id;
        if let Some((epoch, term)) = self.newest(id)
            && (record.term < term || record.region.epoch.is_stale_against(&epoch))
        {
            return Err(Error::Stale);
        }
        let mut older = Vec::new();
        for other in self.overlapping(&record.region) {
            // Two regions of one version never overlap: the first one told is kept.
            if other.region.epoch.version >= record.region.epoch.version {
                return Err(Error::Stale);
            }
            older.push(other.region.id);
        }
        for region in &older {
            if let Some(gone) = self.remove(*region) {
                self.pushed_out.insert(*region, (gone.region.epoch, gone.term));
            }
        }
        self.remove(id);
        self.pushed_out.remove(&id);
        self.insert(record);
        Ok(older)
    }

    /// Regions that were pushed out and have not come back.
    pub(super) fn pushed_out(&self) -> impl Iterator<Item = (RegionId, (Epoch, u64))> {
        self.pushed_out.iter().map(|(id, newest)| (*id, *newest))
    }

    /// Remembers the newest epoch and term of a region that is not known otherwise.
    pub(super) fn push_out(&mut self, id: RegionId, epoch: Epoch, term: u64) {
        if !self.regions.contains_key(&id) {
            self.pushed_out.insert(id, (epoch, term));
        }
    }

    fn newest(&self, id: RegionId) -> Option<(Epoch, u64)> {
        let known = self.regions.get(&id).map(|known| (known.region.epoch, known.term));
        known.or_else(|| self.pushed_out.get(&id).copied())
    }

    /// The others that share keys with `region`.
    fn overlapping<'a>(&'a self, region: &'a Region) -> impl Iterator<Item = &'a RegionRecord> {
        self.scan(&region.start_key)
            .take_while(|other| other.region.overlaps(region))
            .filter(|other| other.region.id != region.id)
    }

    fn insert(&mut self, record: RegionRecord) {
        self.count(&record, u64::saturating_add);
        self.ranges.insert(record.region.start_key.clone(), record.region.id);
        self.regions.insert(record.region.id, record);
    }

    fn remove(&mut self, id: RegionId) -> Option<RegionRecord> {
        let record = self.regions.remove(&id)?;
        self.ranges.remove(&record.region.start_key);
        self.count(&record, u64::saturating_sub);
        Some(record)
    }

    fn count(&mut self, record: &RegionRecord, change: fn(u64, u64) -> u64) {
        let apply = |sum: &mut u64, by: u64| *sum = change(*sum, by);
        let hot = record.flow.hot();
        for peer in &record.region.peers {
            let load = self.loads.entry(peer.store).or_default();
            apply(&mut load.regions, 1);
            apply(&mut load.bytes, record.approximate_size);
            apply(&mut load.hot_written, hot);
        }
        if let Some(leader) = &record.leader {
            let load = self.loads.entry(leader.store).or_default();
            apply(&mut load.leaders, 1);
            apply(&mut load.hot_led, hot);
        }
        apply(&mut self.totals.regions, 1);
        apply(&mut self.totals.bytes, record.approximate_size);
        apply(&mut self.totals.written, record.flow.per_second());
    }
}

#[cfg(test)]
mod tests;
