//! [RocksDB](https://rocksdb.org) as a raftstore engine.
//!
//! [`RocksEngine`] is a `KvEngine`: one RocksDB column family per family, batches are RocksDB's
//! own with its range deletion. [`RocksRaftLog`] is a `RaftEngine`: the general raft log on a
//! database of its own.
//!
//! There are two modes, [`RocksOptions::write_ahead_log`]:
//!
//! - With a log, `Buffered` writes go to it without a sync and `Synced` ones with it; a `sync` is
//!   one sync of the log.
//! - Without, writes are in memory until a flush. Flushes take all families as one, so that what a
//!   crash leaves is a prefix here too; a `sync` is such a flush.
//!
//! Whatever RocksDB can be told beyond [`RocksOptions`] goes in [`RocksOptions::native`]. Beside
//! the traits' methods there are [`RocksEngine::checkpoint`] and [`RocksEngine::split_keys`].
//!
//! Building it compiles RocksDB, which needs a C++ compiler and libclang.

mod batch;
mod cursor;
mod engine;
mod error;
mod folder;
mod options;
mod snapshot;
mod upkeep;

use std::path::Path;

pub use batch::RocksWriteBatch;
pub use engine::RocksEngine;
use engine_traits::{KvRaftLog, Result};
use folder::Kind;
pub use options::RocksOptions;
pub use snapshot::RocksSnapshot;

/// The raft logs of a store in one RocksDB database.
pub type RocksRaftLog = KvRaftLog<RocksEngine>;

/// Opens the raft log in the folder `path`, or makes one.
///
/// # Errors
/// As [`RocksEngine::open`].
pub fn open_raft_log(path: impl AsRef<Path>, options: &RocksOptions) -> Result<RocksRaftLog> {
    Ok(KvRaftLog::new(RocksEngine::open_kind(path.as_ref(), Kind::RaftLog, options)?))
}
