//! The engines of a node, opened where its layout says.

use std::{fs, path::Path, sync::Arc};

use engine_raftlog::{RaftLog, RaftLogOptions};
use engine_redb::{RedbEngine, RedbOptions, open_raft_log};
use engine_traits::{
    KvEngine, RaftEngine,
    mem::{MemEngine, MemRaftLog},
};
use raftstore_core::runtime::FileSnapStore;
use transport_traits::{MemSnapStore, SnapStore};

use super::{
    Served,
    options::{DataEngine, LogEngine, Options},
};
use crate::machine::MachineError;

/// Bytes that region snapshots may take.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// What is done with a store's engines, whichever they are.
pub(super) trait WithEngines {
    fn run<K: KvEngine, R: RaftEngine>(self, kv: K, raft: R, snaps: Arc<dyn SnapStore>) -> Served;
}

/// Opens the engines and hands them over.
pub(super) fn with_engines(options: &Options, then: impl WithEngines) -> Served {
    let dir = &options.dir;
    let snaps = || -> Result<Arc<dyn SnapStore>, MachineError> {
        let path = dir.join("snapshots");
        match FileSnapStore::open(&path, SNAPSHOT_BYTES_MAX) {
            Ok(snaps) => Ok(Arc::new(snaps)),
            Err(source) => Err(MachineError::Folder { path, source }),
        }
    };
    if options.engine != DataEngine::Mem {
        fs::create_dir_all(dir)
            .map_err(|source| MachineError::Folder { path: dir.clone(), source })?;
    }
    match (options.engine, options.raft_log) {
        (DataEngine::Redb, LogEngine::Redb) => {
            let log = open_raft_log(dir.join("log.redb"), &redb_options(options));
            then.run(redb(options)?, log.map_err(MachineError::from)?, snaps()?)
        }
        (DataEngine::Redb, _) => then.run(redb(options)?, raft_engine(dir)?, snaps()?),
        (DataEngine::Rocksdb, log) => rocks(options, log, snaps()?, then),
        (DataEngine::Mem, _) => {
            let snaps = Arc::new(MemSnapStore::new(SNAPSHOT_BYTES_MAX));
            then.run(MemEngine::new(), MemRaftLog::new(), snaps)
        }
    }
}

fn redb_options(options: &Options) -> RedbOptions {
    let bytes = options.cache_bytes.unwrap_or(RedbOptions::DEFAULT_CACHE_BYTES);
    RedbOptions::default().with_cache_bytes(bytes)
}

fn redb(options: &Options) -> Result<RedbEngine, MachineError> {
    Ok(RedbEngine::open(options.dir.join("data.redb"), &redb_options(options))?)
}

fn raft_engine(dir: &Path) -> Result<RaftLog, MachineError> {
    Ok(RaftLog::open(dir.join("log"), &RaftLogOptions::default())?)
}

#[cfg(feature = "rocksdb")]
fn rocks(
    options: &Options,
    log: LogEngine,
    snaps: Arc<dyn SnapStore>,
    then: impl WithEngines,
) -> Served {
    use engine_rocks::{RocksEngine, RocksOptions};

    let mut rocks = RocksOptions::default();
    if let Some(bytes) = options.cache_bytes {
        rocks.cache_bytes = bytes;
    }
    let kv = RocksEngine::open(options.dir.join("data"), &rocks).map_err(MachineError::from)?;
    if log == LogEngine::Rocksdb {
        let log = engine_rocks::open_raft_log(options.dir.join("log"), &rocks);
        then.run(kv, log.map_err(MachineError::from)?, snaps)
    } else {
        then.run(kv, raft_engine(&options.dir)?, snaps)
    }
}

#[cfg(not(feature = "rocksdb"))]
fn rocks(_: &Options, _: LogEngine, _: Arc<dyn SnapStore>, _: impl WithEngines) -> Served {
    Err(super::options::OptionsError::NotBuilt.into())
}
