//! The two kinds of failure that are no answer to a client: a message that is dropped and
//! counted, and a store that must stop.

use raftstore_proto::{DecodeError, RegionId};

use crate::hash::RegionHash;

/// Why a message was not acted on. Counted by reason, never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// Meant for another store.
    WrongStore,
    /// Region, sender or target id is missing or 0.
    BadIds,
    /// No epoch.
    NoEpoch,
    /// From a member of the past.
    StaleEpoch,
    /// For an incarnation that is gone.
    StalePeer,
    /// For a peer that was removed here.
    TombstonePeer,
    /// For a region that is on disk but not yet built.
    RegionNonexistent,
    /// Would not create a peer, and there is none.
    UnknownRegion,
    /// Its range is still held by another region.
    RegionOverlap,
    /// Its snapshot does not list the target.
    RegionNoPeer,
    /// Its snapshot cannot be decoded, or its bytes are not here.
    BadSnapshot,
    /// The peer is being removed.
    GoingAway,
    /// The old incarnation installs a snapshot and cannot be replaced yet.
    ApplyingSnapshot,
    /// A vote asked too soon after a start.
    UnsafeVote,
    /// A claim of removal that proves nothing here.
    StaleGc,
    /// Entries for a peer that cannot take them now.
    Backpressure,
    /// raft refused it.
    RaftRefused,
    /// Of a kind that no store sends, or without what its kind must carry.
    Forged,
    /// A replica's question for a read while a split is committed and not applied.
    ReadTooEarly,
    /// Entries that fail their checksum.
    Damaged,
    /// For a store that is too full for it.
    DiskFull,
}

/// This store must stop: nothing it says may be believed any more.
#[derive(Debug, thiserror::Error)]
#[error("store must stop: {doing}{}", region.map(|r| format!(" (region {r})")).unwrap_or_default())]
pub struct FatalError {
    /// What was being done.
    pub doing: &'static str,
    /// For which region.
    pub region: Option<RegionId>,
    /// What went wrong.
    #[source]
    pub source: FatalSource,
}

/// What stopped a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatalSource {
    /// An engine failed.
    #[error("engine failure")]
    Engine(#[from] engine_traits::Error),
    /// A record of the store's own cannot be understood.
    #[error("bad record")]
    Record(#[from] DecodeError),
    /// Records that contradict each other.
    #[error("inconsistent state: {0}")]
    Inconsistent(String),
    /// A worker panicked.
    #[error("worker {worker} panicked: {message}")]
    Panic {
        /// Which.
        worker: &'static str,
        /// What it said.
        message: String,
    },
    /// Another replica of a region holds other data at the same index.
    #[error("replicas differ at index {index}: {here} here, {there} on the leader")]
    ReplicasDiffer {
        /// The index.
        index: u64,
        /// This store's hash.
        here: RegionHash,
        /// The leader's.
        there: RegionHash,
    },
    /// raft itself failed.
    #[error("raft failure")]
    Raft(#[from] raft::Error),
}

impl FatalError {
    /// An engine failure.
    pub(crate) fn engine(
        doing: &'static str,
        region: Option<RegionId>,
    ) -> impl FnOnce(engine_traits::Error) -> Self {
        move |source| Self { doing, region, source: source.into() }
    }

    /// A record that cannot be understood.
    pub(crate) fn record(
        doing: &'static str,
        region: Option<RegionId>,
    ) -> impl FnOnce(DecodeError) -> Self {
        move |source| Self { doing, region, source: source.into() }
    }

    /// Records that contradict each other.
    pub(crate) fn inconsistent(
        doing: &'static str,
        region: Option<RegionId>,
        detail: String,
    ) -> Self {
        Self { doing, region, source: FatalSource::Inconsistent(detail) }
    }
}
