//! The raft log on redb: the general log over a redb file of its own.
//!
//! A file apart from the data's, because redb has one writer at a time and a sync covers the
//! whole file: in one file each round of the log would wait for the data, and pay for it.

use std::path::Path;

use engine_traits::{KvRaftLog, Result};
use redb::StorageBackend;

use crate::cut_file::CutSwitch;
use crate::engine::{Kind, RedbEngine};
use crate::options::RedbOptions;

/// The raft logs of a store in one redb file.
pub type RedbRaftLog = KvRaftLog<RedbEngine>;

/// Opens the raft log at `path`, or makes one.
///
/// # Errors
/// As [`RedbEngine::open`]; `Format` too if the file holds data and no log.
pub fn open_raft_log(path: impl AsRef<Path>, options: &RedbOptions) -> Result<RedbRaftLog> {
    Ok(KvRaftLog::new(RedbEngine::open_kind(path.as_ref(), Kind::RaftLog, options)?))
}

/// As [`open_raft_log`], with a switch that cuts the power, see [`RedbEngine::open_with_cut`].
///
/// # Errors
/// As [`open_raft_log`].
pub fn open_raft_log_with_cut(
    path: impl AsRef<Path>,
    options: &RedbOptions,
) -> Result<(RedbRaftLog, CutSwitch)> {
    let opened = RedbEngine::open_kind_with_cut(path.as_ref(), Kind::RaftLog, options)?;
    Ok((KvRaftLog::new(opened.0), opened.1))
}

/// Opens the raft log that `backend` stores, see [`RedbEngine::open_with_backend`].
///
/// # Errors
/// As [`open_raft_log`].
pub fn open_raft_log_with_backend(
    backend: impl StorageBackend,
    options: &RedbOptions,
) -> Result<RedbRaftLog> {
    let backend = Box::new(backend);
    Ok(KvRaftLog::new(RedbEngine::open_kind_with_backend(backend, Kind::RaftLog, options)?))
}
