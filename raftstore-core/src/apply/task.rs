//! What goes into an apply worker and what comes back.

use bytes::Bytes;
use raftstore_proto::{
    ApplyState, Entry, Peer, PeerChange, Region, RegionId, Response, StoreId, Truncated,
};

use crate::event::{GivenUp, ReplyId};

/// Work for the Applier of one region.
#[derive(Debug)]
pub struct ApplyTask {
    /// The region.
    pub region: RegionId,
    /// The incarnation that sends it. An Applier registered under another one ignores it
    /// (and answers its proposals `RegionNotFound`).
    pub incarnation: u64,
    /// What to do.
    pub work: ApplyWork,
}

/// What an Applier is to do.
#[derive(Debug)]
pub enum ApplyWork {
    /// Start, or start over after an installed snapshot. What a replaced Applier held is
    /// answered `StaleCommand`.
    Register(Box<Registration>),
    /// Execute committed entries. `proposals` are those of this peer whose entries may be
    /// among these or later ones, ascending by index; they join the ones still waiting.
    Entries {
        /// The peer's current term, bound to the answers.
        term: u64,
        /// Consecutive; the first follows the last one given before.
        entries: Vec<Entry>,
        /// Who waits for which entry.
        proposals: Vec<Proposal>,
    },
    /// Take an engine snapshot behind everything before it, for a region snapshot (H46).
    Snapshot {
        /// The least index the snapshot must cover.
        request_index: u64,
        /// Goes with it to whoever builds it (H53).
        given_up: GivenUp,
    },
    /// Stop, answer what waits with `RegionNotFound`, and say so. Silent if there is no
    /// Applier of this incarnation.
    Destroy,
}

/// The state an Applier starts from.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The local replica.
    pub peer: Peer,
    /// This store.
    pub store: StoreId,
    /// The peer's term.
    pub term: u64,
    /// Range and members.
    pub region: Region,
    /// Where the data stands.
    pub state: ApplyState,
}

/// A caller waiting for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Index the entry was given.
    pub index: u64,
    /// Term it was proposed in.
    pub term: u64,
    /// Who waits.
    pub reply: ReplyId,
}

/// What an apply worker tells the store.
#[derive(Debug)]
pub enum ApplyEvent {
    /// Entries were executed and written.
    Applied(Box<ApplyResult>),
    /// The Applier is gone.
    Destroyed {
        /// The region.
        region: RegionId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// A log entry failed its checksum: the replica must be quarantined (D15).
    Damaged {
        /// The region.
        region: RegionId,
        /// Its incarnation.
        incarnation: u64,
        /// Index of the entry.
        index: u64,
    },
}

/// Progress of one region.
#[derive(Debug)]
pub struct ApplyResult {
    /// The region.
    pub region: RegionId,
    /// The incarnation.
    pub incarnation: u64,
    /// Where the data stands now.
    pub state: ApplyState,
    /// Number of the KV write that holds it. Durable once the engine is durable so far.
    pub kv_number: u64,
    /// What admin entries did, in log order.
    pub exec: Vec<ExecResult>,
    /// Answers to admin commands, given once the store has taken in `exec` (H58).
    pub answers: Vec<(ReplyId, Response)>,
    /// What was written.
    pub metrics: ApplyMetrics,
}

/// Volume of what was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyMetrics {
    /// Entries executed.
    pub entries: u64,
    /// Bytes of keys and values put.
    pub written_bytes: u64,
    /// Keys put or deleted.
    pub written_keys: u64,
    /// Change of the region's approximate size, in bytes.
    pub size_diff: i64,
    /// Keys deleted outside the lock family.
    pub deleted_keys: u64,
    /// Bytes written to the lock family.
    pub lock_cf_bytes: u64,
}

/// A region that a split has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPart {
    /// Range and members.
    pub region: Region,
    /// Whether it was recorded on this store. If not, the store knows something newer of
    /// it, and the range's data belongs to nobody here (H12).
    pub born: bool,
}

/// What an admin entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecResult {
    /// A membership change entry was executed, or refused.
    ChangePeer {
        /// Index of the entry.
        index: u64,
        /// The changes and the region after them; `None` if they were refused, in which case
        /// raft must not be told. No changes at all have left a joint configuration.
        applied: Option<(Vec<PeerChange>, Region)>,
    },
    /// The region was cut.
    Split {
        /// Index of the entry.
        index: u64,
        /// The part that keeps the region's id.
        derived: Region,
        /// The others, in key order.
        parts: Vec<SplitPart>,
        /// Whether the last part is the derived one (else the first).
        right_derive: bool,
    },
    /// The log may be cut.
    Truncate {
        /// New start of the log.
        truncated: Truncated,
        /// First index before.
        first_index_before: u64,
    },
    /// The engine as of this entry is being hashed.
    ComputeHash {
        /// Index of the entry.
        index: u64,
    },
    /// A hash of another replica is to be compared with the own one.
    VerifyHash {
        /// Index of the entry at which it was computed.
        index: u64,
        /// As it was sent.
        hash: Bytes,
    },
}
