//! Whole clusters on every engine that can be cut off in one process, and on several at once.

use engine_raftlog::{LogSwitch, Loss as LogLoss, RaftLog, RaftLogOptions};
use engine_redb::{Loss, MemDisk, RedbEngine, RedbOptions};
use engine_traits::{
    Result,
    conformance::{KvFixture, KvLogFixture, MemFixture, MemLogFixture, RaftLogFixture, Support},
};
use raftstore_sim::{
    conformance::{run, run_mixed},
    counters::Sometimes,
    engine::{SimKv, SimLog},
};
use tempfile::TempDir;

/// redb on a disk in memory.
#[derive(Default)]
struct Redb {
    disk: MemDisk,
}

impl KvFixture for Redb {
    type Engine = RedbEngine;

    fn open(&mut self) -> Result<RedbEngine> {
        let options = RedbOptions::default().with_cache_bytes(1 << 20);
        RedbEngine::open_with_backend(self.disk.backend(), &options)
    }

    fn power_cut(&mut self, engine: RedbEngine, keep: usize) -> Support {
        self.disk.cut(match keep {
            0 => Loss::Everything,
            _ => Loss::Scattered { seed: keep as u64 },
        });
        drop(engine);
        Support::Done
    }
}

/// A raft log on raft-engine.
struct Log {
    folder: TempDir,
    switch: Option<LogSwitch>,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        Self { folder, switch: None }
    }
}

impl RaftLogFixture for Log {
    type Engine = RaftLog;

    fn open(&mut self) -> Result<RaftLog> {
        let options = RaftLogOptions::default().with_file_bytes(64 << 10).with_purge_bytes(1 << 20);
        let (log, switch) = RaftLog::open_with_switch(self.folder.path().join("log"), &options)?;
        self.switch = Some(switch);
        Ok(log)
    }

    fn power_cut(&mut self, engine: RaftLog, keep: usize) -> Support {
        if let Some(switch) = &self.switch {
            switch.cut(LogLoss::Suffix { seed: keep as u64 });
        }
        drop(engine);
        Support::Done
    }
}

mod mem {
    use engine_traits::conformance::{MemFixture, MemLogFixture};
    raftstore_sim::cluster_conformance!(MemFixture::new(), MemLogFixture::new(), 0..8);
}

mod redb {
    use engine_traits::conformance::KvLogFixture;
    raftstore_sim::cluster_conformance!(
        super::Redb::default(),
        KvLogFixture::new(super::Redb::default()),
        8..12
    );
}

mod raft_engine {
    raftstore_sim::cluster_conformance!(super::Redb::default(), super::Log::new(), 12..14);
}

/// Stores of one cluster on engines of three kinds, in another order for each seed.
#[test]
fn raft_18_stores_of_one_cluster_run_on_different_engines() {
    let counters = run_mixed(
        |seed, store| {
            Ok(match (seed + store) % 3 {
                0 => (SimKv::default(), SimLog::default()),
                1 => (SimKv::of(Redb::default())?, SimLog::of(KvLogFixture::new(Redb::default()))?),
                _ => (SimKv::of(Redb::default())?, SimLog::of(Log::new())?),
            })
        },
        20..26,
    );
    let counters = counters.unwrap_or_else(|broken| std::panic::resume_unwind(Box::new(broken)));
    assert!(counters.get(Sometimes::GroupCommits) > 0);
}

/// The worlds do look: an engine that loses what was synced does not get through.
#[test]
fn an_engine_that_loses_what_was_synced_is_found() {
    struct Losing(MemFixture);
    impl KvFixture for Losing {
        type Engine = engine_traits::mem::MemEngine;

        fn open(&mut self) -> Result<Self::Engine> {
            self.0.open()
        }

        fn power_cut(&mut self, engine: Self::Engine, _keep: usize) -> Support {
            drop(engine);
            self.0 = MemFixture::new();
            Support::Done
        }
    }
    let found = run(|| Losing(MemFixture::new()), MemLogFixture::new, 0..20);
    assert!(found.is_err(), "nobody missed what was lost");
}
