//! What PD must know before stores that have data start again.
//!
//! The in-process PD lives as long as the process. What it has to know is on the stores'
//! disks: which regions there are, and which numbers were given out.

use std::collections::BTreeMap;

use engine_traits::{Cf, Direction, KvEngine, Range};
use pd_client::mock::MockPd;
use raftstore_core::keys;
use raftstore_proto::{Region, RegionId, RegionPhase, wire::record};

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

    /// Tells a new PD. Without any region there was no cluster yet, and nothing to tell but
    /// the numbers.
    pub(crate) fn tell(self, pd: &MockPd) -> Result<(), RecallError> {
        pd.with_core(|core, _| {
            while core.alloc_id() < self.largest_id {}
            if self.regions.is_empty() {
                return Ok(());
            }
            core.seed(self.regions.into_values().collect())
        })?;
        Ok(())
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
