//! Sending and receiving raft messages.

use std::sync::Arc;

use raftstore_proto::{PeerId, RaftMessage, RegionId, StoreId};

use crate::{SnapKey, SnapStore};

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The buffer towards that store is full.
    #[error("the queue to store {0} is full")]
    Full(StoreId),
    /// The store's address is not known.
    #[error("store {0} cannot be resolved")]
    Unresolved(StoreId),
    /// There is no connection to the store, and the next attempt waits.
    #[error("store {0} cannot be reached")]
    Unreachable(StoreId),
    /// Longer than the other side would accept.
    #[error("a message of {size_bytes} bytes exceeds {max_bytes}")]
    TooLarge {
        /// Its length, in bytes.
        size_bytes: usize,
        /// What is accepted.
        max_bytes: usize,
    },
    /// The message names no target store.
    #[error("the message names no target store")]
    NoTarget,
    /// A snapshot message that does not say which snapshot.
    #[error("the snapshot message names no region snapshot")]
    NoSnapshot,
    /// The transport has been closed.
    #[error("the transport is closed")]
    Closed,
}

/// How the transfer of a region snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotStatus {
    /// The receiver has it at rest and was given the message.
    Finished,
    /// It was not received whole.
    Failed,
}

/// Sends messages to other stores.
///
/// `send` never blocks and may lose what it took: raft repairs that. A message that
/// carries a raft snapshot is special: the implementation moves the bytes of the region
/// snapshot from the sender's [`SnapStore`] to the receiver's, gives the
/// receiver the message only when they are at rest there, and reports the end of every
/// transfer exactly once through the sender's [`Inbox::snapshot_status`], also when it
/// fails or the transport is closed.
pub trait Transport: Send {
    /// Takes a message, possibly into a buffer.
    ///
    /// # Errors
    /// If it was not taken. A snapshot message that was not taken gets no status report.
    fn send(&mut self, message: RaftMessage) -> Result<(), SendError>;

    /// Pushes out what is buffered.
    fn flush(&mut self);
}

/// What a transport calls on the store it serves. Implementations do not block.
pub trait Inbox: Send + Sync + 'static {
    /// A message has come. A message with a raft snapshot comes after the snapshot's bytes
    /// are at rest in the store's [`SnapStore`], under `snapshot`.
    fn message(&self, message: RaftMessage, snapshot: Option<(SnapKey, u64)>);

    /// Messages from `region` to the peer `to` did not get through.
    fn unreachable(&self, region: RegionId, to: PeerId);

    /// The transfer of a region snapshot to `to` has ended.
    fn snapshot_status(&self, region: RegionId, to: PeerId, status: SnapshotStatus);
}

/// Finds the address of a store.
pub trait StoreResolver: Send + Sync + 'static {
    /// The address, or `None` while it is not known (an implementation may start to look
    /// it up). Never blocks.
    fn resolve(&self, store: StoreId) -> Option<String>;

    /// The store did not answer at the address last given, or another one did: an
    /// implementation that remembers addresses looks it up again. Never blocks.
    fn refresh(&self, store: StoreId) {
        let _ = store;
    }
}

/// Somebody else's error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects the store of this id with the others: calls for it go to the inbox, which may
/// be called at once, and region snapshots are sent from and received into the snapshot
/// store.
pub type Connect = Box<
    dyn FnOnce(StoreId, Arc<dyn Inbox>, Arc<dyn SnapStore>) -> Result<Box<dyn Transport>, BoxError>
        + Send,
>;
