//! [RocksDB](https://rocksdb.org) as a raftstore engine.
//!
//! [`RocksEngine`] is a `KvEngine`: one RocksDB column family per family, batches are
//! RocksDB's own with its range deletion, `Buffered` writes go to the write-ahead log without
//! a sync and `Synced` ones with it. [`RocksRaftLog`] is a `RaftEngine`: the general raft log
//! on a database of its own.
//!
//! Building it compiles RocksDB, which needs a C++ compiler and libclang.

mod batch;
mod cursor;
mod engine;
mod error;
mod snapshot;

use std::path::Path;

pub use batch::RocksWriteBatch;
pub use engine::{RocksEngine, RocksOptions};
use engine_traits::{KvRaftLog, Result};
pub use snapshot::RocksSnapshot;

/// The raft logs of a store in one RocksDB database.
pub type RocksRaftLog = KvRaftLog<RocksEngine>;

/// Opens the raft log in the folder `path`, or makes one.
///
/// # Errors
/// As [`RocksEngine::open`].
pub fn open_raft_log(path: impl AsRef<Path>, options: &RocksOptions) -> Result<RocksRaftLog> {
    Ok(KvRaftLog::new(RocksEngine::open(path, options)?))
}
