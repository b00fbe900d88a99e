//! Which region holds which keys, as far as leaders told; old reports change nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_proto::{Peer, PeerId, PeerRole, Region, RegionId, StoreId};

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
    /// Replicas the leader has not heard from.
    pub down_peers: Vec<PeerDown>,
    /// Replicas that need a snapshot or are installing one.
    pub pending_peers: Vec<Peer>,
    /// Rough size in bytes; 0 for unknown.
    pub approximate_size: u64,
}

impl RegionRecord {
    /// One of which only the region is known.
    #[must_use]
    pub const fn unled(region: Region) -> Self {
        Self {
            region,
            leader: None,
            term: 0,
            down_peers: Vec::new(),
            pending_peers: Vec::new(),
            approximate_size: 0,
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
}

/// Regions by id and by range.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    regions: BTreeMap<RegionId, RegionRecord>,
    /// Start key of every region in `regions`.
    ///
    /// Invariant: no two ranges overlap.
    ranges: BTreeMap<Bytes, RegionId>,
    /// Invariant: counts what is in `regions`.
    loads: BTreeMap<StoreId, StoreLoad>,
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

    pub(super) fn by_key(&self, key: &[u8]) -> Option<&RegionRecord> {
        let (_, id) = self
            .ranges
            .range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)))
            .next_back()?;
        self.regions.get(id).filter(|record| record.region.contains(key))
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
        if let Some(known) = self.regions.get(&id) {
            let is_older_term = record.term < known.term;
            if is_older_term || record.region.epoch.is_stale_against(&known.region.epoch) {
                return Err(Error::Stale);
            }
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
            self.remove(*region);
        }
        self.remove(id);
        self.insert(record);
        Ok(older)
    }

    /// The others that share keys with `region`.
    fn overlapping<'a>(&'a self, region: &'a Region) -> impl Iterator<Item = &'a RegionRecord> {
        self.scan(&region.start_key)
            .take_while(|other| other.region.overlaps(region))
            .filter(|other| other.region.id != region.id)
    }

    fn insert(&mut self, record: RegionRecord) {
        self.count(&record, 1);
        self.ranges.insert(record.region.start_key.clone(), record.region.id);
        self.regions.insert(record.region.id, record);
    }

    fn remove(&mut self, id: RegionId) {
        if let Some(record) = self.regions.remove(&id) {
            self.ranges.remove(&record.region.start_key);
            self.count(&record, -1);
        }
    }

    fn count(&mut self, record: &RegionRecord, change: i64) {
        for peer in &record.region.peers {
            let load = self.loads.entry(peer.store).or_default();
            load.regions = load.regions.saturating_add_signed(change);
        }
        if let Some(leader) = &record.leader {
            let load = self.loads.entry(leader.store).or_default();
            load.leaders = load.leaders.saturating_add_signed(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use raftstore_proto::Epoch;

    use super::*;

    fn record(id: u64, range: (&'static str, &'static str), version: u64) -> RegionRecord {
        let peer = Peer::voter(PeerId::must(id * 10), StoreId::must(1));
        let mut record = RegionRecord::unled(Region {
            id: RegionId::must(id),
            start_key: Bytes::from_static(range.0.as_bytes()),
            end_key: Bytes::from_static(range.1.as_bytes()),
            epoch: Epoch { conf_ver: 1, version },
            peers: vec![peer],
        });
        record.term = 5;
        record.leader = Some(peer);
        record
    }

    fn ids(directory: &Directory, start: &str) -> Vec<u64> {
        directory.scan(start.as_bytes()).map(|record| record.region.id.get()).collect()
    }

    #[test]
    fn an_older_term_or_epoch_changes_nothing() {
        let mut directory = Directory::default();
        directory.update(record(1, ("", ""), 3)).unwrap();
        let mut old_term = record(1, ("", ""), 4);
        old_term.term = 4;
        let mut old_conf = record(1, ("", ""), 4);
        old_conf.region.epoch.conf_ver = 0;
        for stale in [record(1, ("", ""), 2), old_term, old_conf] {
            assert!(matches!(directory.update(stale), Err(Error::Stale)));
        }
        assert_eq!(directory.get(RegionId::must(1)), Some(&record(1, ("", ""), 3)));
    }

    #[test]
    fn a_newer_part_pushes_the_older_whole_out() {
        let mut directory = Directory::default();
        directory.update(record(1, ("", ""), 1)).unwrap();
        assert_eq!(directory.update(record(2, ("m", ""), 2)).unwrap(), [RegionId::must(1)]);
        assert!(directory.by_key(b"a").is_none(), "nobody told of the left part yet");
        assert!(matches!(directory.update(record(1, ("", ""), 1)), Err(Error::Stale)));
        directory.update(record(1, ("", "m"), 2)).unwrap();
        assert_eq!(ids(&directory, ""), [1, 2]);
        assert_eq!(directory.by_key(b"m").unwrap().region.id.get(), 2);
        assert_eq!(directory.by_key(b"lzz").unwrap().region.id.get(), 1);
        assert_eq!(directory.load(StoreId::must(1)), StoreLoad { regions: 2, leaders: 2 });
    }

    #[test]
    fn one_newer_part_keeps_the_whole_from_coming_back() {
        let mut directory = Directory::default();
        directory.update(record(2, ("c", "f"), 2)).unwrap();
        directory.update(record(3, ("m", "p"), 9)).unwrap();
        assert!(matches!(directory.update(record(1, ("a", "z"), 5)), Err(Error::Stale)));
        assert_eq!(ids(&directory, ""), [2, 3]);
        assert_eq!(ids(&directory, "d"), [2, 3]);
        assert_eq!(ids(&directory, "f"), [3]);
        assert!(ids(&directory, "p").is_empty());
    }
}
