//! Engines and clusters under test, and the data they are tested with. The benchmarks
//! themselves are in `benches/`; those of engines are generic over the two factories here, so that an
//! engine is added in one place.

pub mod cluster;
pub mod load;
pub mod percentiles;
pub mod process;
pub mod sync;

use bytes::Bytes;
use engine_raftlog::{RaftLog, RaftLogOptions};
use engine_redb::{RedbEngine, RedbOptions, RedbRaftLog, open_raft_log};
use engine_traits::{
    KvEngine, RaftEngine, Result,
    mem::{MemEngine, MemRaftLog},
};
use raftstore_proto::{Entry, EntryFlags, RegionId};
use tempfile::TempDir;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes of a value, and of an entry's payload.
pub const VALUE_BYTES: usize = 256;

/// Makes data engines for a benchmark, each empty.
pub trait KvFactory {
    /// What it makes.
    type Engine: KvEngine;

    /// One word for the tables.
    const NAME: &'static str;

    /// An empty engine. It lasts as long as the folder returned with it.
    ///
    /// # Errors
    /// If the engine cannot be opened.
    fn make() -> Result<(Self::Engine, Option<TempDir>)>;
}

/// Makes raft logs for a benchmark, each empty.
pub trait LogFactory {
    /// What it makes.
    type Engine: RaftEngine;

    /// One word for the tables.
    const NAME: &'static str;

    /// An empty log. It lasts as long as the folder returned with it.
    ///
    /// # Errors
    /// If the log cannot be opened.
    fn make() -> Result<(Self::Engine, Option<TempDir>)>;
}

/// The engines in memory.
#[derive(Debug)]
pub struct Memory;

impl KvFactory for Memory {
    type Engine = MemEngine;
    const NAME: &'static str = "memory";

    fn make() -> Result<(MemEngine, Option<TempDir>)> {
        Ok((MemEngine::new(), None))
    }
}

impl LogFactory for Memory {
    type Engine = MemRaftLog;
    const NAME: &'static str = "memory";

    fn make() -> Result<(MemRaftLog, Option<TempDir>)> {
        Ok((MemRaftLog::new(), None))
    }
}

/// The engines on files of redb, on the disk of the system's temporary folder: set TMPDIR
/// to measure another.
#[derive(Debug)]
pub struct Redb;

impl KvFactory for Redb {
    type Engine = RedbEngine;
    const NAME: &'static str = "redb";

    fn make() -> Result<(RedbEngine, Option<TempDir>)> {
        let folder = temporary_folder();
        let engine = RedbEngine::open(folder.path().join("data"), &RedbOptions::default())?;
        Ok((engine, Some(folder)))
    }
}

impl LogFactory for Redb {
    type Engine = RedbRaftLog;
    const NAME: &'static str = "redb";

    fn make() -> Result<(RedbRaftLog, Option<TempDir>)> {
        let folder = temporary_folder();
        let log = open_raft_log(folder.path().join("log"), &RedbOptions::default())?;
        Ok((log, Some(folder)))
    }
}

/// The log on raft-engine, on the same disk as [`Redb`].
#[derive(Debug)]
pub struct RaftLogFiles;

impl LogFactory for RaftLogFiles {
    type Engine = RaftLog;
    const NAME: &'static str = "raft-engine";

    fn make() -> Result<(RaftLog, Option<TempDir>)> {
        let folder = temporary_folder();
        let log = RaftLog::open(folder.path().join("log"), &RaftLogOptions::default())?;
        Ok((log, Some(folder)))
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
