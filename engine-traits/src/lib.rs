//! What a store asks of its two engines.
//!
//! A store keeps user data and its own records in a [`KvEngine`], and the raft logs of all
//! its regions in a [`RaftEngine`]. Both may be anything that keeps the contracts below;
//! [`KvRaftLog`] turns any `KvEngine` into a `RaftEngine`.
//!
//! # Contracts
//!
//! 1. Operations of one batch take effect in the order added.
//! 2. A write is all or nothing, across column families and regions.
//! 3. After a crash an engine holds a *prefix* of its writes in the order in which they
//!    returned, at least up to the last [`Durability::Synced`] write or `sync`.
//! 4. A snapshot is one moment: it sees every write that returned before it was taken, and
//!    nothing of any later one.
//! 5. A failed write or sync may have left anything behind; the store stops and never
//!    retries it.
//!
//! Each is a named case of the conformance suite (feature `conformance`), together with the
//! statements at the methods. Feature `mem` brings the reference engine.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod kv;
mod kv_raft_log;
mod log_shape;
#[cfg(feature = "mem")]
pub mod mem;
mod raft_log;

pub use error::{Error, Result};
pub use kv::{
    Cursor, Direction, Durability, EngineStats, KvEngine, Range, Reader, Snapshot, WriteBatch,
};
pub use kv_raft_log::{KvLogBatch, KvRaftLog};
pub use raft_log::{LogStats, RaftEngine, RaftLogBatch};
pub use raftstore_proto::{Cf, DATA_CFS};
