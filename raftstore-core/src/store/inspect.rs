//! A store's peers as data, for checkers, tools and the curious.

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{ApplyState, Peer as Replica, Region, RegionId};

use super::Store;
use crate::hooks::Hooks;

/// What a peer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPhase {
    /// Waiting for its first snapshot.
    Uninitialized,
    /// Taking part.
    Normal,
    /// Taking a snapshot in.
    Applying,
    /// Being removed.
    GoingAway,
    /// Out of service after a failed checksum.
    Quarantined,
}

/// One peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Range and members as far as applied.
    pub region: Region,
    /// The peer itself.
    pub peer: Replica,
    /// Number of its raft node, unique in the store until it is restarted.
    pub incarnation: u64,
    /// What it is doing.
    pub phase: PeerPhase,
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it asks for votes.
    pub is_candidate: bool,
    /// Id of the leader it knows; 0 for none.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// raft's commit index.
    pub committed: u64,
    /// What the data contains.
    pub applied: ApplyState,
    /// Last entry, whether durable or not.
    pub last_index: u64,
    /// Last entry of which all before it are durable here.
    pub persisted_index: u64,
    /// Index of the newest hash that was computed here or sent by a leader; 0 for none.
    pub hash_index: u64,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// All peers, by region id.
    #[must_use]
    pub fn inspect(&self) -> Vec<PeerStatus> {
        self.peers.keys().filter_map(|region| self.inspect_region(*region)).collect()
    }

    /// One peer.
    #[must_use]
    pub fn inspect_region(&self, region: RegionId) -> Option<PeerStatus> {
        let peer = self.peers.get(&region)?;
        let storage = peer.group.storage();
        let phase = if peer.going_away {
            PeerPhase::GoingAway
        } else if peer.quarantined {
            PeerPhase::Quarantined
        } else if peer.intake.is_some() {
            PeerPhase::Applying
        } else if peer.is_initialized() {
            PeerPhase::Normal
        } else {
            PeerPhase::Uninitialized
        };
        Some(PeerStatus {
            region: peer.region().clone(),
            peer: peer.replica,
            incarnation: peer.incarnation,
            phase,
            is_leader: peer.is_leader(),
            is_candidate: peer.group.is_candidate(),
            leader: peer.group.leader(),
            term: peer.term(),
            vote: storage.hard_state.vote,
            committed: peer.group.committed(),
            applied: peer.applied,
            last_index: peer.group.last_index(),
            persisted_index: storage.persisted_index,
            hash_index: peer.checked.index(),
        })
    }

    /// The term of an entry of a region's log, if it is there.
    #[must_use]
    pub fn term_of(&self, region: RegionId, index: u64) -> Option<u64> {
        self.peers.get(&region)?.group.term_at(index)
    }

    /// The regions with a peer on this lane.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionId> {
        self.peers.keys().copied().collect()
    }
}
