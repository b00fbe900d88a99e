//! What a store's two engines hold, for whoever has to look into it by hand: reads only, and
//! compaction.
//!
//! Nothing here goes through raft, and no leader is asked: what is read is what *this* store
//! has, perhaps behind the others. [`DebugAccess`] needs the engines and no store, so that it serves
//! a store that runs, one that does not start, and one that is closed.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine_traits::{Direction, KvEngine, RaftEngine, Range};
use raftstore_proto::{
    ApplyState, Cf, DATA_CFS, DecodeError, Entry, LocalState, RegionId, RegionPhase, RegionState,
    wire::record,
};

use super::start::scan;
use crate::{FatalError, FatalSource, keys};

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebugError {
    /// Ask differently.
    #[error("invalid argument: {why}")]
    InvalidArgument {
        /// What is wrong with the question.
        why: &'static str,
    },
    /// There is no such thing on this store.
    #[error("{what} not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It is there, and is not what was written.
    #[error("{what} is corrupt: {detail}")]
    Corrupt {
        /// What was asked for.
        what: String,
        /// What does not fit.
        detail: String,
    },
    /// An engine failed.
    #[error("engine failure")]
    Engine(#[source] engine_traits::Error),
}

type Result<T> = std::result::Result<T, DebugError>;

/// Which of a store's engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DebugEngine {
    /// The data engine.
    Kv,
    /// The raft logs. Whatever engine they are in, their records are asked for by the keys
    /// that they have in a [`KvRaftLog`](engine_traits::KvRaftLog).
    Raft,
}

/// The records of one region. What is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// State of its log.
    pub raft_state: Option<LocalState>,
    /// State of its data.
    pub apply_state: Option<ApplyState>,
    /// Range, members, and where it is in its life.
    pub region_state: Option<RegionState>,
    /// Why it was taken out of service.
    pub quarantined: Option<String>,
}

/// A region of which the store has a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRegion {
    /// Its id.
    pub region: RegionId,
    /// Where it is in its life, or why that cannot be read; `None` if the store has a log of
    /// it, or a mark against it, and no more.
    pub phase: Option<std::result::Result<RegionPhase, String>>,
    /// Whether it has a raft log, or the state of one.
    pub has_log: bool,
    /// Why it was taken out of service.
    pub quarantined: Option<String>,
}

/// A look into the engines of one store.
#[derive(Clone, Debug)]
pub struct DebugAccess<K, R> {
    kv: K,
    raft: R,
}

impl<K: KvEngine, R: RaftEngine> DebugAccess<K, R> {
    /// Over these engines.
    #[must_use]
    pub const fn new(kv: K, raft: R) -> Self {
        Self { kv, raft }
    }

    /// The bytes under a key as it is stored: user keys have their prefix, see
    /// [`keys::data_key`]. The raft logs have the family `default` alone.
    ///
    /// # Errors
    /// `InvalidArgument` for a family that the engine does not have, or a key that no raft
    /// log has; `NotFound`, `Corrupt`, `Engine`.
    pub fn get(&self, engine: DebugEngine, cf: &str, key: &[u8]) -> Result<Bytes> {
        let what = || format!("key {key:02X?}");
        let found = match engine {
            DebugEngine::Kv => {
                let cf = Cf::ALL.into_iter().find(|known| known.name() == cf);
                let cf = cf.ok_or(DebugError::InvalidArgument { why: "no such column family" })?;
                self.kv.get(cf, key).map_err(engine_error(what))?
            }
            DebugEngine::Raft if cf != Cf::Default.name() => {
                let why = "the raft logs have the family default alone";
                return Err(DebugError::InvalidArgument { why });
            }
            DebugEngine::Raft => match LogKey::decode(key) {
                None => return Err(DebugError::InvalidArgument { why: "no raft log's key" }),
                Some(LogKey::State(region)) => self
                    .raft_state(region)?
                    .map(|state| record::encode_local_state(region, &state).into()),
                Some(LogKey::Entry(region, index)) => {
                    let entry = self.raft.entry(region, index).map_err(engine_error(what))?;
                    entry.map(|entry| record::encode_entry(region, &entry).into())
                }
            },
        };
        found.ok_or_else(|| DebugError::NotFound { what: what() })
    }

    /// An entry of a region's raft log.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Engine`.
    pub fn entry(&self, region: RegionId, index: u64) -> Result<Entry> {
        let what = || format!("log entry {index} of region {region}");
        let entry = self.raft.entry(region, index).map_err(engine_error(what))?;
        entry.ok_or_else(|| DebugError::NotFound { what: what() })
    }

    /// Everything that is recorded about a region. Where one record is damaged, the others
    /// can be had one by one.
    ///
    /// # Errors
    /// `NotFound` if there is nothing; `Corrupt`, `Engine`.
    pub fn region(&self, region: RegionId) -> Result<RegionInfo> {
        let info = RegionInfo {
            raft_state: self.raft_state(region)?,
            apply_state: self.apply_state(region)?,
            region_state: self.region_state(region)?,
            quarantined: self.quarantined(region)?,
        };
        if info == RegionInfo::default() {
            return Err(DebugError::NotFound { what: format!("region {region}") });
        }
        Ok(info)
    }

    /// The state of a region's log, if there is one.
    ///
    /// # Errors
    /// `Corrupt`, `Engine`.
    pub fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        self.raft.raft_state(region).map_err(engine_error(|| format!("raft state of {region}")))
    }

    /// The state of a region's data, if there is one.
    ///
    /// # Errors
    /// `Corrupt`, `Engine`.
    pub fn apply_state(&self, region: RegionId) -> Result<Option<ApplyState>> {
        let what = || format!("apply state of region {region}");
        self.record(&keys::apply_state_key(region), what, |bytes| {
            record::decode_apply_state(region, bytes)
        })
    }

    /// Range, members and phase of a region, if they are recorded.
    ///
    /// # Errors
    /// `Corrupt`, `Engine`.
    pub fn region_state(&self, region: RegionId) -> Result<Option<RegionState>> {
        let what = || format!("state of region {region}");
        self.record(&keys::region_state_key(region), what, |bytes| {
            record::decode_region_state(region, bytes)
        })
    }

    /// Why a region's replica was taken out of service, if it was.
    ///
    /// # Errors
    /// `Corrupt`, `Engine`.
    pub fn quarantined(&self, region: RegionId) -> Result<Option<String>> {
        let what = || format!("mark against region {region}");
        self.record(&keys::quarantine_key(region), what, |bytes| {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        })
    }

    /// Bytes of values in a region's range, for each of these families. Reads all of it.
    ///
    /// # Errors
    /// `InvalidArgument` for a family without user data; `NotFound` if the store has no data
    /// of the region, be it that the replica was removed; `Corrupt`, `Engine`.
    pub fn region_size(&self, region: RegionId, cfs: &[Cf]) -> Result<Vec<(Cf, u64)>> {
        if !cfs.iter().all(|cf| cf.is_data()) {
            return Err(DebugError::InvalidArgument { why: "the family holds no user data" });
        }
        let state = self
            .region_state(region)?
            .filter(|state| state.region.is_initialized() && state.phase != RegionPhase::Tombstone);
        let Some(state) = state else {
            return Err(DebugError::NotFound { what: format!("data of region {region}") });
        };
        let (start, end) = keys::region_data_range(&state.region);
        let what = || format!("data of region {region}");
        let mut sizes = Vec::with_capacity(cfs.len());
        for cf in cfs {
            let mut bytes = 0;
            let range = Range::new(&start, &end);
            let cursor = self.kv.cursor(*cf, range, Direction::Forward);
            let mut cursor = cursor.map_err(engine_error(what))?;
            while let Some((_, value)) = cursor.next().map_err(engine_error(what))? {
                bytes += value.len() as u64;
            }
            sizes.push((*cf, bytes));
        }
        Ok(sizes)
    }

    /// [`DebugAccess::region_size`] of all families with user data.
    ///
    /// # Errors
    /// As there.
    pub fn region_sizes(&self, region: RegionId) -> Result<Vec<(Cf, u64)>> {
        self.region_size(region, &DATA_CFS)
    }

    /// Gives the space of removed keys between two stored keys back, as far as the engine can.
    /// An empty bound is open.
    ///
    /// # Errors
    /// `InvalidArgument` for a range that ends before it begins; `Engine`.
    pub fn compact(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<()> {
        let range = Range::new(start, end);
        if range.is_empty() {
            return Err(DebugError::InvalidArgument { why: "the range ends before it begins" });
        }
        self.kv.compact(cf, range).map_err(engine_error(|| format!("family {cf}")))
    }

    /// Every region of which there is a record, a log or a mark, ascending; those whose
    /// replica was removed are among them.
    ///
    /// # Errors
    /// `Corrupt` if the records cannot be walked through, `Engine`.
    pub fn regions(&self) -> Result<Vec<ListedRegion>> {
        let logs = self.raft.regions().map_err(engine_error(|| "list of raft logs".to_owned()))?;
        let logs: BTreeSet<RegionId> = logs.into_iter().collect();
        let mut records = scan::regions(&self.kv, &logs).map_err(scan_error)?;
        let all: BTreeSet<RegionId> = logs.iter().chain(records.keys()).copied().collect();
        let listed = all.into_iter().map(|region| {
            let found = records.remove(&region).unwrap_or_default();
            ListedRegion {
                region,
                phase: found.state.map(|state| state.map(|state| state.phase)),
                has_log: logs.contains(&region),
                quarantined: found.quarantined,
            }
        });
        Ok(listed.collect())
    }

    fn record<T>(
        &self,
        key: &[u8],
        what: impl Fn() -> String,
        decode: impl FnOnce(&[u8]) -> std::result::Result<T, DecodeError>,
    ) -> Result<Option<T>> {
        let bytes = self.kv.get(Cf::Raft, key).map_err(engine_error(&what))?;
        let decoded = bytes.map(|bytes| decode(&bytes)).transpose();
        decoded.map_err(|error| DebugError::Corrupt { what: what(), detail: error.to_string() })
    }
}

fn engine_error(what: impl FnOnce() -> String) -> impl FnOnce(engine_traits::Error) -> DebugError {
    move |error| match error {
        engine_traits::Error::Corrupt { .. } | engine_traits::Error::CorruptLog { .. } => {
            DebugError::Corrupt { what: what(), detail: error.to_string() }
        }
        error => DebugError::Engine(error),
    }
}

fn scan_error(error: FatalError) -> DebugError {
    match error.source {
        FatalSource::Engine(source) => engine_error(|| "list of regions".to_owned())(source),
        source => {
            DebugError::Corrupt { what: "list of regions".to_owned(), detail: source.to_string() }
        }
    }
}

/// A record of a raft log, by the key that it has on a data engine.
enum LogKey {
    State(RegionId),
    Entry(RegionId, u64),
}

impl LogKey {
    /// Length, prefix and suffix must all fit (H64).
    fn decode(key: &[u8]) -> Option<Self> {
        let (head, rest) = key.split_first_chunk::<10>()?;
        let [0x01, 0x02, number @ ..] = head else { return None };
        let region = RegionId::new(u64::from_be_bytes(*number))?;
        match rest {
            [0x02] => Some(Self::State(region)),
            [0x01, index @ ..] => {
                Some(Self::Entry(region, u64::from_be_bytes(index.try_into().ok()?)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
