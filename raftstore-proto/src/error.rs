//! What can be wrong: with a request ([`RegionError`]), and with bytes ([`DecodeError`]).

use bytes::Bytes;

use crate::{Peer, PeerId, Region, RegionId, StoreId};

/// Why a store cannot take more work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BusyReason {
    /// The store's event queue is full.
    Queue,
    /// Too much of the region's log is not yet committed.
    Uncommitted,
    /// Too many writes wait for the disk.
    Writes,
    /// Too many committed entries wait to be applied.
    Apply,
}

impl BusyReason {
    /// One word per reason, as sent to clients.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "raftstore is busy",
            Self::Uncommitted => "too much uncommitted log",
            Self::Writes => "too many writes in flight",
            Self::Apply => "apply is behind",
        }
    }

    /// The reason of which this is the text; [`Queue`](Self::Queue), the most general one, for
    /// texts that are not ours.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        [Self::Uncommitted, Self::Writes, Self::Apply]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .unwrap_or(Self::Queue)
    }
}

/// An answer to a client that says what to do: ask another store, refresh routing, retry,
/// or give up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// Ask the named leader, or refresh if none is named.
    #[error("region {region} is not led by this peer")]
    NotLeader {
        /// The region.
        region: RegionId,
        /// Its leader, as far as known here.
        leader: Option<Peer>,
    },
    /// Refresh routing.
    #[error("region {region} is not on this store")]
    RegionNotFound {
        /// The region asked for.
        region: RegionId,
    },
    /// Refresh routing with the regions given, the command's own first.
    #[error("the region's epoch differs from the command's")]
    EpochNotMatch {
        /// Current regions, the one asked for first.
        current: Vec<Region>,
    },
    /// Refresh routing.
    #[error("key is not in region {}", region.id)]
    KeyNotInRegion {
        /// The key.
        key: Bytes,
        /// The region asked.
        region: Region,
    },
    /// Fix the address.
    #[error("command for store {asked} came to store {here}")]
    StoreNotMatch {
        /// In the header.
        asked: StoreId,
        /// This store.
        here: StoreId,
    },
    /// Retry. The outcome of the command is unknown: it may still take effect, unless
    /// it is known to have been overwritten.
    #[error("stale command")]
    StaleCommand,
    /// Back off and retry.
    #[error("store is busy: {}", reason.as_str())]
    ServerIsBusy {
        /// Why.
        reason: BusyReason,
        /// How long to wait, in milliseconds.
        backoff_ms: u64,
    },
    /// Write elsewhere, free space, or wait: too few replicas have room for this.
    #[error("{} of the region's stores are short of space", stores.len())]
    DiskFull {
        /// The stores that are short of room.
        stores: Vec<StoreId>,
    },
    /// Do not retry: cut the command into smaller ones.
    #[error("entry of {size_bytes} bytes exceeds the limit of {max_bytes} in region {region}")]
    EntryTooLarge {
        /// The region.
        region: RegionId,
        /// Size of the command.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Refresh routing: the store's peer is another incarnation.
    #[error("command for peer {asked} came to peer {here}")]
    PeerNotMatch {
        /// In the header.
        asked: PeerId,
        /// The local peer.
        here: PeerId,
    },
    /// Retry later: the replica waits for its first snapshot or installs one.
    #[error("region {region} is not initialized here")]
    RegionNotInitialized {
        /// The region.
        region: RegionId,
    },
    /// Fix the command: it must name an epoch.
    #[error("command names no epoch")]
    MissingEpoch,
    /// Fix the command.
    #[error("invalid command: {why}")]
    InvalidCommand {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Retry after the pending membership change is applied.
    #[error("a membership change is pending")]
    ConfChangePending,
    /// Do not retry before the reason has gone.
    #[error("unsafe membership change: {why}")]
    ConfChangeUnsafe {
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Do not retry: the change does not fit the current members.
    #[error("membership change does not fit: {why}")]
    ConfChangeRejected {
        /// Why.
        why: &'static str,
    },
    /// Retry after the leader has applied an entry of its own term.
    #[error("the leader has not yet applied an entry of its term")]
    NotReady,
    /// Ask another replica: this store has stopped.
    #[error("the store is stopping")]
    Stopping,
    /// Retry: a read could not be served for the moment.
    #[error("read cannot be served now")]
    ReadNotReady,
    /// Retry later: the placement driver has given no ids.
    #[error("the placement driver gives no ids")]
    PlacementUnavailable,
    /// Ask whoever runs the store: something that it was given to watch over commands has
    /// refused this one.
    #[error("refused by {by}: {why}")]
    Refused {
        /// Who refused.
        by: &'static str,
        /// Why.
        why: String,
    },
    /// Do not retry: this version of the store cannot do it.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The answer to a command sent elsewhere, in words this store has no variant for.
    #[error("remote error: {message}")]
    Remote {
        /// What the other side said.
        message: String,
    },
}

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// An id that names something is 0.
    #[error("{what} is 0")]
    ZeroId {
        /// Which id.
        what: &'static str,
    },
    /// A field that must be there is not.
    #[error("{what} is missing")]
    Missing {
        /// Which field.
        what: &'static str,
    },
    /// Bytes that are no protobuf message of the expected type.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the codec said.
        detail: String,
    },
    /// Longer than allowed.
    #[error("{what} of {size_bytes} bytes exceeds {max_bytes}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Decoding would take more memory than the budget allows.
    #[error("{what} would take more than {budget_bytes} bytes when decoded")]
    OverBudget {
        /// What it is.
        what: &'static str,
        /// The budget.
        budget_bytes: u64,
    },
    /// More parts than allowed.
    #[error("{what} has more than {max} parts")]
    TooMany {
        /// What it is.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Nested deeper than any message of ours.
    #[error("{what} nests deeper than {limit} levels")]
    TooDeep {
        /// What it is.
        what: &'static str,
        /// The limit.
        limit: u32,
    },
    /// A checksum does not fit.
    #[error("{what} fails its checksum")]
    Checksum {
        /// What it is.
        what: &'static str,
    },
    /// A column family that clients have no business in, or that does not exist.
    #[error("no column family {name:?} for clients")]
    UnknownColumnFamily {
        /// Its name, or the start of it.
        name: String,
    },
    /// A value outside the values known.
    #[error("{what} has the unknown value {value}")]
    UnknownValue {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
}
