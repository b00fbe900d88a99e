//! What raft may see of a region's log: durable entries, and staged ones that are on their
//! way to the disk (R19).
//!
//! raft aborts the process on most storage errors. So this view remembers what went wrong
//! and answers short; the wrapper asks for the damage after each call.

use std::cell::RefCell;

use engine_traits::RaftEngine;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry as RaftEntry, HardState as RaftHardState, Snapshot},
};
use raftstore_proto::{
    Entry, HardState, LocalState, PeerId, PeerRole, Region, RegionId, Truncated,
};

use super::entry_cache::EntryCache;
use crate::GivenUp;

/// How far the making of a snapshot for a lagging member has come.
#[derive(Debug, Default)]
pub(crate) enum SnapshotMaking {
    /// Nobody asked.
    #[default]
    Idle,
    /// raft asked for one that covers at least this index; the peer has to pass it on.
    Wanted(u64),
    /// Passed on.
    Underway(GivenUp),
    /// Made, to be handed to raft the next time it asks.
    Made(Box<Snapshot>),
}

/// The log of one incarnation of one peer.
#[derive(Debug)]
pub(crate) struct PeerStorage<R> {
    engine: R,
    region: RegionId,
    conf_state: ConfState,
    /// Staged: what raft told us last.
    pub(crate) hard_state: HardState,
    /// Staged last entry.
    pub(crate) last_index: u64,
    pub(crate) last_term: u64,
    /// Start of the log. Staged when a snapshot is accepted.
    pub(crate) truncated: Truncated,
    /// Entries up to here are durable.
    pub(crate) persisted_index: u64,
    /// Term and vote on disk.
    pub(crate) persisted_term: u64,
    pub(crate) persisted_vote: u64,
    pub(crate) cache: EntryCache,
    pub(crate) making: RefCell<SnapshotMaking>,
    damage: RefCell<Option<engine_traits::Error>>,
}

impl<R: RaftEngine> PeerStorage<R> {
    pub(crate) fn new(
        engine: R,
        region: &Region,
        local: &LocalState,
        truncated: Truncated,
        last_term: u64,
    ) -> Self {
        Self {
            engine,
            region: region.id,
            conf_state: conf_state_of(region),
            hard_state: local.hard_state,
            last_index: local.last_index,
            last_term,
            truncated,
            persisted_index: local.last_index,
            persisted_term: local.hard_state.term,
            persisted_vote: local.hard_state.vote,
            cache: EntryCache::default(),
            making: RefCell::default(),
            damage: RefCell::new(None),
        }
    }

    /// Index of the first entry raft may ask for.
    pub(crate) fn first(&self) -> u64 {
        self.truncated.index + 1
    }

    /// The record to store beside the log.
    pub(crate) fn local_state(&self, peer: PeerId) -> LocalState {
        LocalState { peer, hard_state: self.hard_state, last_index: self.last_index }
    }

    /// What could not be read since the last call.
    pub(crate) fn take_damage(&self) -> Option<engine_traits::Error> {
        self.damage.take()
    }

    fn note_damage(&self, error: engine_traits::Error) {
        self.damage.borrow_mut().get_or_insert(error);
    }

    /// Stages entries: from their first index on they replace what was there.
    pub(crate) fn stage_entries(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else {
            return;
        };
        let first = entries[0].index();
        assert!(
            first > self.truncated.index && first <= self.last_index + 1,
            "region {}: entries from {first} do not fit a log of ({}, {}]",
            self.region,
            self.truncated.index,
            self.last_index
        );
        self.persisted_index = self.persisted_index.min(first - 1);
        self.last_index = last.index();
        self.last_term = last.term();
        self.cache.append(entries);
    }

    /// Stages an accepted snapshot: the log starts over behind it.
    pub(crate) fn stage_snapshot(&mut self, at: Truncated, conf_state: ConfState) {
        self.truncated = at;
        self.last_index = at.index;
        self.last_term = at.term;
        self.persisted_index = at.index;
        self.conf_state = conf_state;
        self.cache.clear();
    }

    /// Entries of `[low, high)` as far as they are stored and readable.
    fn fetch(&self, low: u64, high: u64, max_bytes: u64) -> Vec<Entry> {
        let mut out = Vec::new();
        let cached_from = self.cache.first_index().unwrap_or(u64::MAX).clamp(low, high);
        let mut bytes = 0;
        if low < cached_from {
            match self.engine.entries(self.region, low, cached_from, max_bytes, &mut out) {
                Ok(count) if low + count as u64 == cached_from => {}
                Ok(count) => {
                    bytes = out.iter().map(|entry| entry.payload_len() as u64).sum();
                    let missing = low + count as u64;
                    let limited = bytes >= max_bytes
                        || matches!(self.engine.entry(self.region, missing), Ok(Some(_)));
                    if !limited {
                        self.note_damage(engine_traits::Error::CorruptLog {
                            engine: self.engine.name(),
                            region: self.region,
                            place: format!("entry {missing}"),
                            detail: "the entry is missing".to_owned(),
                        });
                    }
                    return out;
                }
                Err(error) => {
                    self.note_damage(error);
                    return out;
                }
            }
            bytes = out.iter().map(|entry| entry.payload_len() as u64).sum();
        }
        for index in cached_from..high {
            let Some(entry) = self.cache.get(index) else {
                break;
            };
            bytes += entry.payload_len() as u64;
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    /// Term of the entry at `index`, which lies in the log or right before it.
    pub(crate) fn term_at(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last_index {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        if index == self.last_index || self.truncated.term == self.last_term {
            return Ok(self.last_term);
        }
        if let Some(entry) = self.cache.get(index) {
            return Ok(entry.term());
        }
        match self.engine.entry(self.region, index) {
            Ok(Some(entry)) => return Ok(entry.term()),
            Ok(None) => self.note_damage(engine_traits::Error::CorruptLog {
                engine: self.engine.name(),
                region: self.region,
                place: format!("entry {index}"),
                detail: "the entry is missing".to_owned(),
            }),
            Err(error) => self.note_damage(error),
        }
        Err(raft::Error::Store(StorageError::Unavailable))
    }
}

impl<R: RaftEngine> Storage for PeerStorage<R> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = RaftHardState {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit: self.hard_state.commit,
            ..RaftHardState::default()
        };
        Ok(RaftState::new(hard_state, self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        if low <= self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            low <= high && high <= self.last_index + 1,
            "region {}: entries [{low}, {high}) asked of a log that ends at {}",
            self.region,
            self.last_index
        );
        let entries = self.fetch(low, high, max_size.into().unwrap_or(u64::MAX));
        Ok(entries.into_iter().map(Entry::into_raft).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let unavailable = Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        let mut making = self.making.borrow_mut();
        match &*making {
            SnapshotMaking::Made(snapshot) => {
                let index = snapshot.get_metadata().index;
                let fits = index >= request_index && index >= self.truncated.index;
                let SnapshotMaking::Made(snapshot) = std::mem::take(&mut *making) else {
                    return unavailable;
                };
                if fits {
                    return Ok(*snapshot);
                }
                *making = SnapshotMaking::Wanted(request_index);
            }
            SnapshotMaking::Idle => *making = SnapshotMaking::Wanted(request_index),
            SnapshotMaking::Wanted(_) | SnapshotMaking::Underway(_) => {}
        }
        // Never any other error: raft aborts on it (H49).
        unavailable
    }
}

/// raft's configuration, which is always exactly the region's peer list (I7).
pub(crate) fn conf_state_of(region: &Region) -> ConfState {
    let mut state = ConfState::default();
    let joint = region.is_joint();
    for peer in &region.peers {
        let id = peer.id.get();
        match peer.role {
            PeerRole::Voter | PeerRole::IncomingVoter => state.mut_voters().push(id),
            PeerRole::Learner => state.mut_learners().push(id),
            // Still a voter of the old half, and no learner before the change is left.
            PeerRole::DemotingVoter => state.mut_learners_next().push(id),
        }
        if joint && peer.role.voted_before() {
            state.mut_voters_outgoing().push(id);
        }
    }
    state
}

#[cfg(test)]
mod tests;
