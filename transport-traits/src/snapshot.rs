//! Region snapshots at rest: named bytes, whole or absent.

use std::fmt;

use bytes::Bytes;
use raftstore_proto::{RaftMessage, RegionId};

/// Which region snapshot: the state of `region` right after the entry (`term`, `index`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapKey {
    /// The region.
    pub region: RegionId,
    /// Term of the last entry covered.
    pub term: u64,
    /// Index of the last entry covered.
    pub index: u64,
}

impl SnapKey {
    /// The snapshot that a message announces, if it announces one.
    #[must_use]
    pub fn announced_by(message: &RaftMessage) -> Option<Self> {
        let metadata = message.snapshot()?.get_metadata();
        Some(Self { region: message.region()?, term: metadata.term, index: metadata.index })
    }
}

impl fmt::Display for SnapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.region, self.term, self.index)
    }
}

/// Made here, or received. The same key may exist in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapDirection {
    /// Built from this store's data, to be sent.
    Generated,
    /// Received from another store, to be installed.
    Received,
}

/// Why a snapshot's bytes cannot be had or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapError {
    /// There is none of that name.
    #[error("snapshot {0} does not exist")]
    NotFound(SnapKey),
    /// Somebody else is writing it.
    #[error("snapshot {0} is being written")]
    Busy(SnapKey),
    /// Over the limit on bytes at rest.
    #[error("snapshot {key} exceeds the {limit_bytes} bytes left for snapshots")]
    NoSpace {
        /// Which.
        key: SnapKey,
        /// What is left.
        limit_bytes: u64,
    },
    /// The bytes are not what was written.
    #[error("snapshot {key} is corrupt: {detail}")]
    Corrupt {
        /// Which.
        key: SnapKey,
        /// What does not fit.
        detail: &'static str,
    },
    /// The medium failed.
    #[error("snapshot {key}: {op} failed")]
    Io {
        /// Which.
        key: SnapKey,
        /// What was being done.
        op: &'static str,
        /// What the medium said.
        #[source]
        source: std::io::Error,
    },
}

/// Bytes of a snapshot being written. Dropped unfinished, it leaves nothing behind.
pub trait SnapWriter: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// The writer is of no use afterwards.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapError>;

    /// Makes the snapshot durable and visible, replacing an older one of the same name.
    /// Gives its size in bytes.
    ///
    /// # Errors
    /// Nothing is visible then.
    fn finish(self: Box<Self>) -> Result<u64, SnapError>;
}

/// Bytes of a snapshot being read, from the start.
pub trait SnapReader: Send {
    /// The next bytes, at most `max_bytes`; empty at the end.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&mut self, max_bytes: usize) -> Result<Bytes, SnapError>;
}

/// Where the bytes of region snapshots rest.
///
/// A snapshot is whole or absent, also after a crash. Names are built from the numbers of
/// the key alone. One being written is invisible; a second writer of the same name is
/// refused. A reader goes on to the end even if the snapshot is deleted meanwhile.
pub trait SnapStore: Send + Sync + 'static {
    /// Starts to write one.
    ///
    /// # Errors
    /// `Busy` while another writer of the same name lives; `NoSpace`; `Io`.
    fn create(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapWriter>, SnapError>;

    /// Starts to read one.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn open(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapReader>, SnapError>;

    /// Removes one; an absent one is no error.
    ///
    /// # Errors
    /// `Io`.
    fn delete(&self, direction: SnapDirection, key: SnapKey) -> Result<(), SnapError>;

    /// All finished ones with their sizes in bytes, in order.
    ///
    /// # Errors
    /// `Io`.
    fn list(&self) -> Result<Vec<(SnapDirection, SnapKey, u64)>, SnapError>;
}
