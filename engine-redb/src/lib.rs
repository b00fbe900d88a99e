//! [redb](https://docs.rs/redb) as a raftstore engine: pure Rust, one file, the embedded default.
//!
//! [`RedbEngine`] is a `KvEngine`. One redb table per column family; a batch is one redb write
//! transaction; `Buffered` is redb's `Durability::None`, `Synced` its `Durability::Immediate`,
//! which makes all earlier commits durable with it.
//!
//! redb verifies its own checksums only in recovery or when asked, and would otherwise serve
//! damaged pages as they are. Here nothing damaged is served:
//!
//! - Every record carries a checksum over family, key and value, verified by each read.
//! - Every page of the file has a checksum, verified when it is read from the device; this
//!   also finds damage that would hide a key, and intact but outdated pages.
//! - After an unclean stop redb's integrity check runs at open.
//! - [`RedbEngine::sweep`] reads through the whole file in slices, for a slow background check.
//! - A panic of redb on bytes it cannot have written comes out as an error.
//!
//! [`RedbRaftLog`] is a `RaftEngine`: the general raft log on a redb file of its own.
//!
//! Two backends lose what was not synced, on command: [`CutSwitch`] for a file, [`MemDisk`]
//! for a disk in memory with seeded torn writes and failures.

mod batch;
mod contain;
mod cursor;
mod cut_file;
mod engine;
mod error;
mod guard;
mod mem_disk;
mod options;
mod raft_log;
mod record;
mod sums;
mod sweep;
mod view;

pub use batch::RedbWriteBatch;
pub use cut_file::CutSwitch;
pub use engine::RedbEngine;
pub use mem_disk::{Loss, MemBackend, MemDisk};
pub use options::RedbOptions;
pub use raft_log::{
    RedbRaftLog, open_raft_log, open_raft_log_with_backend, open_raft_log_with_cut,
};
pub use sweep::SweepProgress;
pub use view::RedbSnapshot;
