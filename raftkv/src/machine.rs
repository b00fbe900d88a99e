//! The disks of one store, and how to cut their power.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine_raftlog::{LogSwitch, RaftLog, RaftLogOptions};
use engine_redb::{CutSwitch, Loss, RedbEngine, RedbOptions, RedbRaftLog, open_raft_log_with_cut};
use engine_traits::{
    KvEngine, RaftEngine,
    mem::{MemEngine, MemRaftLog},
};
use raftstore_core::runtime::FileSnapStore;
use transport_traits::{MemSnapStore, SnapStore};

use crate::sweep::{RedbFile, Sweep};

/// Bytes that region snapshots of one store may take.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// Memory for pages of one redb file. Up to six of them are open in a demo of three stores.
const CACHE_BYTES: usize = 8 << 20;

/// Why the disks of a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// An engine refuses.
    #[error("{}: {}", .0, advice(.0))]
    Engine(#[from] engine_traits::Error),
    /// The folder cannot be used.
    #[error("{}: {source}: check the disk's space and permissions", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What to do about an engine's error.
fn advice(error: &engine_traits::Error) -> String {
    use engine_traits::Error;
    match error {
        Error::Locked { .. } => "wait for the other process or name another --dir".to_owned(),
        Error::Full { .. } => "free some space or name another --dir".to_owned(),
        Error::Corrupt { .. } | Error::CorruptLog { .. } | Error::Format { .. } => {
            "restore the file or name another --dir; it was left as it is".to_owned()
        }
        other => {
            let mut words = String::new();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                words += &format!("{error}: ");
                cause = error.source();
            }
            words + "check the disk or name another --dir"
        }
    }
}

/// Everything a store keeps, open.
pub(crate) struct Disks<K, R> {
    /// The data.
    pub(crate) kv: K,
    /// The raft logs.
    pub(crate) log: R,
    /// Region snapshots at rest.
    pub(crate) snaps: Arc<dyn SnapStore>,
    /// Files to be swept while the store runs.
    pub(crate) files: Vec<Box<dyn Sweep>>,
    /// Files that were checked as a whole when they were opened, after an unclean stop.
    pub(crate) checked_files: u64,
}

/// The disks of one store.
pub(crate) trait Machine: Send + 'static {
    /// Its data engine.
    type Kv: KvEngine;
    /// Its raft logs.
    type Log: RaftEngine;

    /// Opens what is on the disks; at first nothing.
    fn power_on(&mut self) -> Result<Disks<Self::Kv, Self::Log>, MachineError>;

    /// Loses what was not synced and lets every later call on the open engines fail.
    fn cut_power(&mut self);
}

/// Files of redb in one folder.
pub(crate) struct RedbMachine {
    folder: PathBuf,
    switches: Vec<CutSwitch>,
    /// Decides what of the unsynced bytes happens to survive a cut.
    seed: u64,
}

impl RedbMachine {
    /// The store in `folder`, which need not exist.
    pub(crate) fn new(folder: PathBuf, seed: u64) -> Self {
        Self { folder, switches: Vec::new(), seed }
    }
}

fn redb_options() -> RedbOptions {
    RedbOptions::default().with_cache_bytes(CACHE_BYTES)
}

/// Opens what a store on files has besides its raft log, or makes it.
fn open_data(folder: &Path) -> Result<(RedbEngine, CutSwitch, FileSnapStore), MachineError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MachineError::Folder { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let (kv, data) = RedbEngine::open_with_cut(folder.join("data.redb"), &redb_options())?;
    let path = folder.join("snapshots");
    let snaps = FileSnapStore::open(&path, SNAPSHOT_BYTES_MAX).map_err(failed(&path))?;
    Ok((kv, data, snaps))
}

impl Machine for RedbMachine {
    type Kv = RedbEngine;
    type Log = RedbRaftLog;

    fn power_on(&mut self) -> Result<Disks<RedbEngine, RedbRaftLog>, MachineError> {
        let (kv, data, snaps) = open_data(&self.folder)?;
        let (log, logs) = open_raft_log_with_cut(self.folder.join("log.redb"), &redb_options())?;
        self.switches = vec![data, logs];
        let files = [("data.redb", kv.clone()), ("log.redb", log.engine().clone())];
        let checked = files.iter().filter(|(_, engine)| engine.was_checked_at_open()).count();
        let files = files.map(|(name, engine)| Box::new(RedbFile { name, engine }) as _);
        Ok(Disks {
            kv,
            log,
            snaps: Arc::new(snaps),
            files: files.into(),
            checked_files: checked as u64,
        })
    }

    fn cut_power(&mut self) {
        for switch in self.switches.drain(..) {
            self.seed = self.seed.wrapping_add(1);
            switch.cut(Loss::Suffix { seed: self.seed });
        }
    }
}

/// Data in a file of redb, raft logs in files of raft-engine, in one folder.
pub(crate) struct LogFilesMachine {
    folder: PathBuf,
    switches: Option<(CutSwitch, LogSwitch)>,
    /// Decides what of the unsynced bytes happens to survive a cut.
    seed: u64,
}

impl LogFilesMachine {
    /// The store in `folder`, which need not exist.
    pub(crate) fn new(folder: PathBuf, seed: u64) -> Self {
        Self { folder, switches: None, seed }
    }
}

impl Machine for LogFilesMachine {
    type Kv = RedbEngine;
    type Log = RaftLog;

    fn power_on(&mut self) -> Result<Disks<RedbEngine, RaftLog>, MachineError> {
        let (kv, data, snaps) = open_data(&self.folder)?;
        let options = RaftLogOptions::default();
        let (log, logs) = RaftLog::open_with_switch(self.folder.join("log"), &options)?;
        self.switches = Some((data, logs));
        let file = RedbFile { name: "data.redb", engine: kv.clone() };
        let checked_files =
            u64::from(kv.was_checked_at_open()) + u64::from(log.was_checked_at_open());
        let files: Vec<Box<dyn Sweep>> = vec![Box::new(file)];
        Ok(Disks { kv, log, snaps: Arc::new(snaps), files, checked_files })
    }

    fn cut_power(&mut self) {
        if let Some((data, logs)) = self.switches.take() {
            self.seed = self.seed.wrapping_add(2);
            data.cut(Loss::Suffix { seed: self.seed });
            logs.cut(engine_raftlog::Loss::Suffix { seed: self.seed + 1 });
        }
    }
}

/// Engines in memory, which last as long as this value.
#[derive(Default)]
pub(crate) struct MemMachine {
    parts: Option<(MemEngine, MemRaftLog, MemSnapStore)>,
}

impl Machine for MemMachine {
    type Kv = MemEngine;
    type Log = MemRaftLog;

    fn power_on(&mut self) -> Result<Disks<MemEngine, MemRaftLog>, MachineError> {
        let (kv, log, snaps) = match self.parts.take() {
            Some((kv, log, snaps)) => (kv.reopen(), log.reopen(), snaps),
            None => (MemEngine::new(), MemRaftLog::new(), MemSnapStore::new(SNAPSHOT_BYTES_MAX)),
        };
        self.parts = Some((kv.clone(), log.clone(), snaps.clone()));
        Ok(Disks { kv, log, snaps: Arc::new(snaps), files: Vec::new(), checked_files: 0 })
    }

    fn cut_power(&mut self) {
        if let Some((kv, log, snaps)) = &self.parts {
            kv.crash(0);
            log.crash(0);
            snaps.crash();
        }
    }
}
