//! The records a store keeps about itself and its regions.

use crate::{ClusterId, PeerId, Region, StoreId};

/// Who a store is. Written once, before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdent {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its id there.
    pub store: StoreId,
}

/// What raft must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Newest term seen.
    pub term: u64,
    /// The peer voted for in that term; 0 for none.
    pub vote: u64,
    /// Largest index known to be committed when this was written.
    pub commit: u64,
}

/// State of one replica's raft log, kept beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalState {
    /// The incarnation the record belongs to. A record of an older one is not obeyed.
    pub peer: PeerId,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// Index of the last entry; entries above it are leftovers.
    pub last_index: u64,
}

/// The position up to which a log was cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Truncated {
    /// Last index that is gone.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// How far a region's data has come. Written in the same batch as the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyState {
    /// Last entry whose effects are in the data.
    ///
    /// Invariant: `truncated.index <= applied`.
    pub applied: u64,
    /// Term of that entry.
    pub applied_term: u64,
    /// Start of the log.
    pub truncated: Truncated,
}

/// What a store holds of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionPhase {
    /// Serving, or ready to.
    Normal,
    /// A snapshot was accepted and is being installed.
    Applying,
    /// The replica was removed; the record prevents its return.
    Tombstone,
    /// Reserved: about to be merged into a neighbour.
    Merging,
    /// Not obeyed nor served: a record of it failed its checksum. Reserved for
    /// replacement under a new peer id.
    Quarantined,
}

/// A region's lifecycle record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionState {
    /// Where it is in its life.
    pub phase: RegionPhase,
    /// Range and members; for a tombstone as known at the end, own peer included.
    pub region: Region,
}
