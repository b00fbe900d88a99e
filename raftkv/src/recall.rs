//! What PD must know before stores that have data start again.
//!
//! The in-process PD lives as long as the process. What it has to know is on the stores'
//! disks: which regions there are, and which numbers were given out. The second the records
//! tell only in part: a number may have gone into a log entry that nobody had executed when
//! everything ended. So every run has numbers of its own.

use std::collections::BTreeMap;

use engine_traits::{Cf, Direction, KvEngine, Range};
use pd_client::mock::MockPd;
use raftstore_core::keys;
use raftstore_proto::{Region, RegionId, RegionPhase, wire::record};

/// Numbers that one run can give out; splits and moves take some hundred.
const NUMBERS_PER_RUN: u64 = 1_000_000;

/// Why the memory of a PD cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecallError {
    /// An engine cannot be read.
    #[error("{0}")]
    Engine(#[from] engine_traits::Error),
    /// A record cannot be understood.
    #[error("{0}")]
    Record(#[from] raftstore_proto::DecodeError),
    /// PD does not accept what the stores hold.
    #[error("{0}")]
    Pd(#[from] pd_client::Error),
}

/// Numbers and regions found on disks.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    largest_id: u64,
    regions: BTreeMap<RegionId, Region>,
}

impl Recall {
    /// Takes in what one store holds.
    pub(crate) fn read<K: KvEngine>(&mut self, kv: &K) -> Result<(), RecallError> {
        if let Some(ident) = kv.get(Cf::Default, &keys::STORE_IDENT)? {
            self.see(record::decode_store_ident(&ident)?.store.get());
        }
        let all = Range::new(&keys::REGION_META_MIN, &keys::REGION_META_MAX);
        let mut cursor = kv.cursor(Cf::Raft, all, Direction::Forward)?;
        while let Some((key, value)) = cursor.next()? {
            let Some(id) = keys::decode_region_state_key(key) else { continue };
            let state = record::decode_region_state(id, value)?;
            self.see(id.get());
            for peer in &state.region.peers {
                self.see(peer.id.get());
                self.see(peer.store.get());
            }
            if state.phase != RegionPhase::Tombstone {
                self.learn(state.region);
            }
        }
        Ok(())
    }

    /// Tells the PD of run number `run`. Without any region there was no cluster yet, and
    /// nothing to tell but the numbers.
    pub(crate) fn tell(self, pd: &MockPd, run: u64) -> Result<(), RecallError> {
        let largest = self.largest_id.max(run.saturating_sub(1) * NUMBERS_PER_RUN);
        let regions = self.newest();
        pd.with_core(|core, _| {
            while largest > 0 && core.alloc_id() < largest {}
            if regions.is_empty() { Ok(()) } else { core.seed(regions) }
        })?;
        Ok(())
    }

    /// One region for each key at most, the newest. Where the record of a part of a region
    /// is newer than all that is left of the region itself, the region's leader has to tell.
    fn newest(self) -> Vec<Region> {
        let mut regions: Vec<Region> = self.regions.into_values().collect();
        regions.sort_by_key(|region| std::cmp::Reverse(region.epoch.version));
        let mut kept: Vec<Region> = Vec::new();
        for region in regions {
            if !kept.iter().any(|newer| newer.overlaps(&region)) {
                kept.push(region);
            }
        }
        kept
    }

    fn see(&mut self, id: u64) {
        self.largest_id = self.largest_id.max(id);
    }

    /// Keeps the newest version of each region.
    fn learn(&mut self, region: Region) {
        let is_newer = self.regions.get(&region.id).is_none_or(|known| {
            let of = |region: &Region| (region.epoch.version, region.epoch.conf_ver);
            of(&region) > of(known)
        });
        if is_newer && !region.peers.is_empty() {
            self.regions.insert(region.id, region);
        }
    }
}

#[cfg(test)]
mod tests {
    use engine_traits::{Durability, WriteBatch, mem::MemEngine};
    use pd_client::mock::PdConfig;
    use raftstore_proto::{ClusterId, Epoch, Peer, PeerId, RegionState, StoreId, StoreIdent};

    use super::*;

    type Told = (u64, (&'static str, &'static str), (u64, u64));

    fn region((id, range, (conf_ver, version)): Told) -> Region {
        let peer = |store| Peer::voter(PeerId::must(id * 10 + store), StoreId::must(store));
        Region {
            id: RegionId::must(id),
            start_key: range.0.into(),
            end_key: range.1.into(),
            epoch: Epoch { conf_ver, version },
            peers: (1..=3).map(peer).collect(),
        }
    }

    /// A store that holds records of these regions.
    fn store(regions: &[Told], phase: RegionPhase) -> MemEngine {
        let kv = MemEngine::new();
        let mut batch = kv.write_batch();
        for told in regions {
            let region = region(*told);
            let (id, state) = (region.id, RegionState { phase, region });
            let state = record::encode_region_state(id, &state);
            batch.put(Cf::Raft, &keys::region_state_key(id), &state);
        }
        kv.write(batch, Durability::Buffered).unwrap();
        kv
    }

    /// A PD that was told what the stores hold.
    fn pd(run: u64, stores: &[MemEngine]) -> MockPd {
        let mut recall = Recall::default();
        for kv in stores {
            recall.read(kv).unwrap();
        }
        let pd = MockPd::new(ClusterId::must(1), PdConfig::default());
        recall.tell(&pd, run).unwrap();
        pd
    }

    fn known(pd: &MockPd) -> Vec<(u64, Epoch)> {
        pd.with_core(|core, _| {
            let routes = core.scan_regions(b"", b"", 100);
            routes.into_iter().map(|it| (it.region.id.get(), it.region.epoch)).collect()
        })
    }

    #[test]
    fn the_newest_record_of_each_region_counts() {
        // Store 3 was away while the region was cut and a member was changed.
        let now = [(1, ("", "m"), (1, 2)), (2, ("m", ""), (2, 2))];
        let before = [(1, ("", "m"), (1, 2)), (2, ("m", ""), (1, 2))];
        let away = [(1, ("", ""), (1, 1))];
        let stores = [&now[..], &before[..], &away[..]];
        for turn in 0..3 {
            let mut stores = stores.map(|regions| store(regions, RegionPhase::Normal));
            stores.rotate_left(turn);
            let epoch = |conf_ver| Epoch { conf_ver, version: 2 };
            assert_eq!(known(&pd(1, &stores)), [(1, epoch(1)), (2, epoch(2))]);
        }
    }

    #[test]
    fn what_overlaps_something_newer_is_left_to_its_leader() {
        // The store that had cut region 1 has given its own part away since.
        let part = store(&[(2, ("m", ""), (1, 2))], RegionPhase::Normal);
        let whole = store(&[(1, ("", ""), (1, 1))], RegionPhase::Normal);
        for stores in [[part.clone(), whole.clone()], [whole, part]] {
            assert_eq!(known(&pd(1, &stores)), [(2, Epoch { conf_ver: 1, version: 2 })]);
        }
    }

    #[test]
    fn removed_replicas_are_no_regions_but_their_numbers_are_taken() {
        let gone = store(&[(70, ("", ""), (5, 5))], RegionPhase::Tombstone);
        let pd = pd(1, &[gone]);
        assert!(known(&pd).is_empty());
        assert!(!pd.with_core(|core, _| core.is_bootstrapped()));
        assert_eq!(pd.with_core(|core, _| core.alloc_id()), 704);
    }

    #[test]
    fn numbers_are_above_all_that_are_seen() {
        let kv = store(&[(7, ("", ""), (1, 1))], RegionPhase::Normal);
        let mut batch = kv.write_batch();
        let ident = StoreIdent { cluster: ClusterId::must(1), store: StoreId::must(90) };
        batch.put(Cf::Default, &keys::STORE_IDENT, &record::encode_store_ident(&ident));
        kv.write(batch, Durability::Buffered).unwrap();
        assert_eq!(pd(1, &[kv]).with_core(|core, _| core.alloc_id()), 91);
    }

    /// A split that was proposed and nowhere applied has numbers that no record tells.
    #[test]
    fn every_run_has_numbers_of_its_own() {
        let first = pd(1, &[]);
        assert_eq!(first.with_core(|core, _| core.alloc_id()), 1);
        let stores = [store(&[(7, ("", ""), (1, 1))], RegionPhase::Normal)];
        let third = pd(3, &stores);
        assert_eq!(third.with_core(|core, _| core.alloc_id()), 2 * NUMBERS_PER_RUN + 1);
    }
}
