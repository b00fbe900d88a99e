//! Engines and clusters under test, and the data they are tested with. The benchmarks
//! themselves are in `benches/`; those of engines are generic over the two factories here, so that an
//! engine is added in one place.

pub mod cluster;
pub mod figures;
pub mod load;
pub mod machine;
pub mod paper;
pub mod percentiles;
pub mod process;
pub mod sync;
pub mod work;

use std::path::Path;

use bytes::Bytes;
use engine_raftlog::{RaftLog, RaftLogOptions};
use engine_redb::{RedbEngine, RedbOptions, RedbRaftLog, open_raft_log};
#[cfg(feature = "rocksdb")]
use engine_rocks::{RocksEngine, RocksOptions, RocksRaftLog};
use engine_traits::{
    KvEngine, RaftEngine, Result,
    mem::{MemEngine, MemRaftLog},
};
use raftstore_proto::{Entry, EntryFlags, RegionId};
use tempfile::TempDir;

/// What a program with such a load may choose: many small pieces are taken by one thread and
/// given back by another.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes of a value, and of an entry's payload.
pub const VALUE_BYTES: usize = 256;

/// Makes data engines for a benchmark. An engine joins with one of these and one line in each
/// of `benches/data_engines.rs` and `src/main.rs`.
pub trait KvFactory: 'static {
    /// What it makes.
    type Engine: KvEngine;

    /// One word for the tables.
    const NAME: &'static str;

    /// Whether it stores anything in the folder.
    const ON_DISK: bool = true;

    /// Opens the engine in `folder`, or makes it.
    ///
    /// # Errors
    /// If the engine cannot be opened.
    fn open(folder: &Path) -> Result<Self::Engine>;

    /// An empty engine. It lasts as long as the folder returned with it, on the disk of the
    /// system's temporary folder: set TMPDIR to measure another.
    ///
    /// # Errors
    /// If the engine cannot be opened.
    fn make() -> Result<(Self::Engine, TempDir)> {
        let folder = temporary_folder();
        Ok((Self::open(folder.path())?, folder))
    }
}

/// Makes raft logs for a benchmark. A log joins with one of these and one line in each of
/// `benches/raft_logs.rs` and `src/main.rs`.
pub trait LogFactory: 'static {
    /// What it makes.
    type Engine: RaftEngine;

    /// One word for the tables.
    const NAME: &'static str;

    /// Whether it stores anything in the folder.
    const ON_DISK: bool = true;

    /// Opens the log in `folder`, or makes it.
    ///
    /// # Errors
    /// If the log cannot be opened.
    fn open(folder: &Path) -> Result<Self::Engine>;

    /// An empty log. It lasts as long as the folder returned with it, on the disk of the
    /// system's temporary folder: set TMPDIR to measure another.
    ///
    /// # Errors
    /// If the log cannot be opened.
    fn make() -> Result<(Self::Engine, TempDir)> {
        let folder = temporary_folder();
        Ok((Self::open(folder.path())?, folder))
    }
}

/// The engines in memory.
#[derive(Debug)]
pub struct Memory;

impl KvFactory for Memory {
    type Engine = MemEngine;
    const NAME: &'static str = "memory";
    const ON_DISK: bool = false;

    fn open(_: &Path) -> Result<MemEngine> {
        Ok(MemEngine::new())
    }
}

impl LogFactory for Memory {
    type Engine = MemRaftLog;
    const NAME: &'static str = "memory";
    const ON_DISK: bool = false;

    fn open(_: &Path) -> Result<MemRaftLog> {
        Ok(MemRaftLog::new())
    }
}

/// The engines on files of redb.
#[derive(Debug)]
pub struct Redb;

impl KvFactory for Redb {
    type Engine = RedbEngine;
    const NAME: &'static str = "redb";

    fn open(folder: &Path) -> Result<RedbEngine> {
        RedbEngine::open(folder.join("data"), &RedbOptions::default())
    }
}

impl LogFactory for Redb {
    type Engine = RedbRaftLog;
    const NAME: &'static str = "redb";

    fn open(folder: &Path) -> Result<RedbRaftLog> {
        open_raft_log(folder.join("log"), &RedbOptions::default())
    }
}

/// The log on raft-engine.
#[derive(Debug)]
pub struct RaftLogFiles;

impl LogFactory for RaftLogFiles {
    type Engine = RaftLog;
    const NAME: &'static str = "raft-engine";

    fn open(folder: &Path) -> Result<RaftLog> {
        RaftLog::open(folder.join("log"), &RaftLogOptions::default())
    }
}

/// The engines on RocksDB.
#[cfg(feature = "rocksdb")]
#[derive(Debug)]
pub struct Rocks;

#[cfg(feature = "rocksdb")]
impl KvFactory for Rocks {
    type Engine = RocksEngine;
    const NAME: &'static str = "rocksdb";

    fn open(folder: &Path) -> Result<RocksEngine> {
        RocksEngine::open(folder.join("data"), &RocksOptions::default())
    }
}

#[cfg(feature = "rocksdb")]
impl LogFactory for Rocks {
    type Engine = RocksRaftLog;
    const NAME: &'static str = "rocksdb";

    fn open(folder: &Path) -> Result<RocksRaftLog> {
        engine_rocks::open_raft_log(folder.join("log"), &RocksOptions::default())
    }
}

/// The data engine on RocksDB without a write-ahead log of its own.
#[cfg(feature = "rocksdb")]
#[derive(Debug)]
pub struct RocksNoLog;

#[cfg(feature = "rocksdb")]
impl KvFactory for RocksNoLog {
    type Engine = RocksEngine;
    const NAME: &'static str = "rocksdb, log off";

    fn open(folder: &Path) -> Result<RocksEngine> {
        let options = RocksOptions::default().with_write_ahead_log(false);
        RocksEngine::open(folder.join("data"), &options)
    }
}

fn temporary_folder() -> TempDir {
    tempfile::tempdir().expect("a benchmark needs a place for its files")
}

/// Numbers that look random, the same ones in each run.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Those that belong to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next (splitmix64).
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Bytes that do not compress.
    #[must_use]
    pub fn bytes(&mut self, length: usize) -> Bytes {
        let mut out = Vec::with_capacity(length + 8);
        while out.len() < length {
            out.extend_from_slice(&self.draw().to_be_bytes());
        }
        out.truncate(length);
        out.into()
    }
}

/// A key of [`KEY_BYTES`] bytes; keys sort like their numbers.
#[must_use]
pub fn key(number: u64) -> Bytes {
    format!("{number:0KEY_BYTES$}").into()
}

/// An entry as a leader proposes it, checksum included.
#[must_use]
pub fn entry(region: RegionId, index: u64, data: Bytes) -> Entry {
    const TERM: u64 = 5;
    let context = Entry::context_for(region, index, TERM, EntryFlags::default(), &data);
    Entry::from_raft(raft_proto::eraftpb::Entry {
        index,
        term: TERM,
        context: context.into(),
        data,
        ..raft_proto::eraftpb::Entry::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_pass_their_own_check() {
        let region = RegionId::must(3);
        let data = Numbers::new(1).bytes(VALUE_BYTES);
        assert_eq!(entry(region, 7, data).verify(region), Ok(()));
    }

    #[test]
    fn keys_sort_like_numbers() {
        assert_eq!(key(9).len(), KEY_BYTES);
        assert!(key(9) < key(10));
    }
}
