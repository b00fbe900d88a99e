//! What a store finds in its engines when it starts, and what it repairs before any peer
//! is built.
//!
//! Every replica found is one of: *normal*, *applying* (a snapshot was accepted and has to
//! be installed again), a *tombstone* (its log is cleared if that was interrupted),
//! *uninitialised* (a raft state alone: a vote, kept until the peer is created again), or
//! *quarantined* (a record of it is damaged, now or at an earlier start). Records that are
//! whole and contradict each other mean that an engine has lost what it called durable:
//! then the store does not start.
//!
//! All repairs are written at the end, data engine first, both synced. That also makes
//! durable whatever an ended process left buffered, so that everything read here may be
//! acted on.

use std::collections::BTreeSet;

use engine_traits::{Durability, KvEngine, RaftEngine, RaftLogBatch, WriteBatch};
use raftstore_proto::{
    ApplyState, Cf, DecodeError, LocalState, Peer, PeerId, Region, RegionId, RegionPhase,
    RegionState, StoreId, wire::record,
};

use self::scan::Scanned;
pub(super) use crate::keys::{initial_apply_state, initial_local_state};
use crate::{
    error::FatalError,
    hooks::{Bug, Hooks},
    keys,
};

mod check;
pub(super) mod scan;

/// What recovery found.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Replicas to build, in order of region id.
    pub(crate) peers: Vec<RecoveredPeer>,
    /// Replicas to build whose snapshot has to be installed again.
    pub(crate) applying: Vec<RecoveredPeer>,
    /// Replicas out of service, with the reason.
    pub(crate) quarantined: Vec<(RegionId, String)>,
    /// Replicas that were removed.
    pub(crate) tombstones: usize,
    /// Replicas without data that have voted.
    pub(crate) votes: Vec<(RegionId, PeerId)>,
    /// Data keys `[start, end)` that belong to no region here. Empty while any region's
    /// record is unreadable: its data must not be taken for garbage (W12).
    pub(crate) gaps: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A replica as its records describe it, repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredPeer {
    /// Range and members.
    pub(crate) region: Region,
    /// The local one of them.
    pub(crate) peer: Peer,
    /// State of the log.
    pub(crate) local: LocalState,
    /// State of the data.
    ///
    /// Invariant: `truncated.index <= applied <= local.hard_state.commit <=
    /// local.last_index`.
    pub(crate) apply: ApplyState,
    /// Term of the last log entry.
    pub(crate) last_term: u64,
}

/// Why one replica cannot be recovered.
#[derive(Debug)]
enum Trouble {
    /// Its own records are damaged: it alone is taken out of service.
    Damaged(String),
    /// The store must not start.
    Fatal(FatalError),
}

impl Trouble {
    /// An engine's error about one region: damage if the engine says so, else fatal.
    fn engine(doing: &'static str, region: RegionId) -> impl FnOnce(engine_traits::Error) -> Self {
        move |error| match error {
            engine_traits::Error::Corrupt { .. } | engine_traits::Error::CorruptLog { .. } => {
                Self::Damaged(error.to_string())
            }
            error => Self::Fatal(FatalError::engine(doing, Some(region))(error)),
        }
    }

    fn record(error: DecodeError) -> Self {
        Self::Damaged(error.to_string())
    }

    fn inconsistent(region: RegionId, detail: String) -> Self {
        Self::Fatal(FatalError::inconsistent("recovering a region", Some(region), detail))
    }
}

/// Reads all records of the store, repairs what a crash may have left half done, and says
/// what peers there are.
///
/// # Errors
/// If an engine fails, the store's own record is damaged or names another store, or
/// records contradict each other.
pub(crate) fn recover<K: KvEngine, R: RaftEngine, H: Hooks>(
    kv: &K,
    raft: &R,
    store: StoreId,
    hooks: &H,
) -> Result<Recovery, FatalError> {
    check_ident(kv, store)?;
    let logs: BTreeSet<RegionId> = raft
        .regions()
        .map_err(FatalError::engine("listing the raft logs", None))?
        .into_iter()
        .collect();
    let mut run = Run {
        kv,
        raft,
        store,
        hooks,
        kv_batch: kv.write_batch(),
        log_batch: raft.log_batch(),
        recovery: Recovery::default(),
        ranges: Vec::new(),
        unreadable: false,
    };
    let scanned = scan::regions(kv, &logs)?;
    for (region, found) in &scanned {
        run.region(*region, found, logs.contains(region))?;
    }
    for region in logs.iter().filter(|region| !scanned.contains_key(region)) {
        run.log_alone(*region)?;
    }
    run.finish()
}

/// The raft state of an uninitialised peer from before a restart (H9). `None` if there is
/// none, or only that of an earlier incarnation, which binds nobody any more (W2).
///
/// A record of a *later* incarnation is given as it is: the caller must not build `peer`
/// then, since its vote would overwrite the later one's.
///
/// # Errors
/// If the engine fails.
pub(crate) fn load_uninitialized<R: RaftEngine>(
    raft: &R,
    region: RegionId,
    peer: PeerId,
) -> Result<Option<LocalState>, FatalError> {
    let state =
        raft.raft_state(region).map_err(FatalError::engine("creating a peer", Some(region)))?;
    Ok(state.filter(|state| state.peer >= peer))
}

/// D15: damage of the store's own record concerns every replica on it.
fn check_ident<K: KvEngine>(kv: &K, store: StoreId) -> Result<(), FatalError> {
    const DOING: &str = "reading the store's identity";
    let record =
        kv.get(Cf::Default, &keys::STORE_IDENT).map_err(FatalError::engine(DOING, None))?;
    let Some(record) = record else {
        return Ok(());
    };
    let ident = record::decode_store_ident(&record).map_err(FatalError::record(DOING, None))?;
    if ident.store == store {
        Ok(())
    } else {
        let detail = format!("the engines belong to store {}, not {store}", ident.store);
        Err(FatalError::inconsistent(DOING, None, detail))
    }
}

/// A recovery under way.
struct Run<'a, K: KvEngine, R: RaftEngine, H> {
    kv: &'a K,
    raft: &'a R,
    store: StoreId,
    hooks: &'a H,
    kv_batch: K::WriteBatch,
    log_batch: R::LogBatch,
    recovery: Recovery,
    /// Every range that belongs to somebody here.
    ranges: Vec<Region>,
    /// Some region's range is not known.
    unreadable: bool,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Run<'_, K, R, H> {
    fn region(&mut self, id: RegionId, found: &Scanned, has_log: bool) -> Result<(), FatalError> {
        let state = match &found.state {
            Some(Ok(state)) => state,
            Some(Err(why)) => {
                self.unreadable = true;
                self.quarantine(id, why.clone());
                return Ok(());
            }
            None => {
                // A mark without a record: the peer never knew its range.
                self.quarantine(id, found.quarantined.clone().unwrap_or_default());
                return Ok(());
            }
        };
        if state.phase == RegionPhase::Tombstone {
            self.recovery.tombstones += 1;
            return self.tombstone(state, has_log);
        }
        if state.region.is_initialized() {
            self.ranges.push(state.region.clone());
        }
        if let Some(why) = &found.quarantined {
            self.quarantine(id, why.clone());
            return Ok(());
        }
        let recovered = match state.phase {
            RegionPhase::Normal => self.normal(&state.region),
            RegionPhase::Applying => self.applying(&state.region),
            RegionPhase::Quarantined => Err(Trouble::Damaged("found out of service".to_owned())),
            RegionPhase::Merging => Err(Trouble::inconsistent(
                id,
                "it is being merged into a neighbour, which this version cannot go on with: \
                 start the version that began it"
                    .to_owned(),
            )),
            RegionPhase::Tombstone => Err(Trouble::inconsistent(
                id,
                format!("{:?} is no phase to start from", state.phase),
            )),
        };
        match recovered {
            Ok(peer) if state.phase == RegionPhase::Normal => self.recovery.peers.push(peer),
            // A planted bug: half an installation is taken for a whole one.
            Ok(peer) if self.hooks.planted(Bug::InstallNotRedone) => {
                self.kv_batch.delete(Cf::Raft, &keys::snapshot_raft_state_key(id));
                self.put_region_state(&RegionState { phase: RegionPhase::Normal, ..state.clone() });
                self.recovery.peers.push(peer);
            }
            Ok(peer) => self.recovery.applying.push(peer),
            Err(Trouble::Damaged(why)) => self.quarantine(id, why),
            Err(Trouble::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    fn quarantine(&mut self, region: RegionId, why: String) {
        tracing::error!(%region, why, "replica is out of service");
        self.recovery.quarantined.push((region, why));
    }

    /// Completes a removal whose log part is missing. A raft state of a larger peer id is
    /// the vote of a newer incarnation that is not initialised yet: it stays (W2).
    fn tombstone(&mut self, state: &RegionState, has_log: bool) -> Result<(), FatalError> {
        let id = state.region.id;
        if !has_log {
            return Ok(());
        }
        let removed = state.region.peer_on(self.store).map(|peer| peer.id);
        let stored = match self.raft.raft_state(id) {
            Ok(stored) => stored,
            Err(error) => match Trouble::engine("recovering a tombstone", id)(error) {
                Trouble::Fatal(error) => return Err(error),
                // Whose vote it was cannot be known, so nobody may vote here.
                Trouble::Damaged(why) => {
                    self.quarantine(id, why);
                    return Ok(());
                }
            },
        };
        if let Some(stored) = stored
            && removed.is_none_or(|removed| stored.peer > removed)
        {
            self.recovery.votes.push((id, stored.peer));
            return Ok(());
        }
        self.kv_batch.delete(Cf::Raft, &keys::apply_state_key(id));
        self.kv_batch.delete(Cf::Raft, &keys::snapshot_raft_state_key(id));
        self.kv_batch.delete(Cf::Raft, &keys::quarantine_key(id));
        self.put_region_state(state);
        self.log_batch.clear_region(id);
        Ok(())
    }

    fn put_region_state(&mut self, state: &RegionState) {
        let key = keys::region_state_key(state.region.id);
        let record = record::encode_region_state(state.region.id, state);
        self.kv_batch.put(Cf::Raft, &key, &record);
    }

    /// A log whose region has no record: the vote of a peer without data, kept until the
    /// peer is created again (H9). Entries without a region mean that its record is lost.
    fn log_alone(&mut self, id: RegionId) -> Result<(), FatalError> {
        match self.raft.raft_state(id).map_err(Trouble::engine("recovering a vote", id)) {
            Ok(Some(LocalState { last_index: 0, peer, .. })) => {
                self.recovery.votes.push((id, peer));
            }
            Ok(_) => {
                self.unreadable = true;
                self.quarantine(id, "log entries without a region record".to_owned());
            }
            Err(Trouble::Damaged(why)) => self.quarantine(id, why),
            Err(Trouble::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    /// Writes the repairs and closes the result.
    fn finish(mut self) -> Result<Recovery, FatalError> {
        let mut ranges = std::mem::take(&mut self.ranges);
        ranges.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
            let detail = format!("{:?} overlaps {:?}", pair[0], pair[1]);
            return Err(FatalError::inconsistent("recovering regions", Some(pair[1].id), detail));
        }
        if !self.unreadable {
            self.recovery.gaps = gaps(&ranges);
        }
        self.kv
            .write(self.kv_batch, Durability::Synced)
            .map_err(FatalError::engine("writing repaired region states", None))?;
        self.raft
            .write(self.log_batch, Durability::Synced)
            .map_err(FatalError::engine("writing repaired raft states", None))?;
        Ok(self.recovery)
    }
}

/// What lies between, before and behind ranges that are in order and disjoint.
fn gaps(ranges: &[Region]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut gaps = Vec::new();
    let mut free_from = keys::DATA_MIN.to_vec();
    for region in ranges {
        let (start, end) = keys::region_data_range(region);
        if free_from < start {
            gaps.push((free_from, start));
        }
        free_from = end;
    }
    if free_from.as_slice() < keys::DATA_MAX.as_slice() {
        gaps.push((free_from, keys::DATA_MAX.to_vec()));
    }
    gaps
}

#[cfg(test)]
mod tests;
