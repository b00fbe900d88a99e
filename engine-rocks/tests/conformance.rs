//! The contract suite on RocksDB, and what the suite cannot ask for.

use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::Result;
use engine_traits::conformance::KvFixture;
use tempfile::TempDir;

/// In a folder. RocksDB offers no way to lose what was not synced within one process.
struct InFolder {
    dir: TempDir,
}

impl InFolder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("the system has a folder for temporary files") }
    }
}

impl KvFixture for InFolder {
    type Engine = RocksEngine;

    fn open(&mut self) -> Result<RocksEngine> {
        RocksEngine::open(self.dir.path(), &RocksOptions::default())
    }

    fn model_seeds(&self) -> u64 {
        5
    }
}

mod kv {
    engine_traits::kv_conformance!(super::InFolder::new());
}

mod log {
    use engine_traits::conformance::KvLogFixture;
    engine_traits::raft_log_conformance!(KvLogFixture::new(super::InFolder::new()));
}

mod errors {
    use engine_rocks::{RocksEngine, RocksOptions};
    use engine_traits::Error;

    #[test]
    fn a_second_open_is_locked_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = RocksEngine::open(dir.path(), &RocksOptions::default()).unwrap();
        let second = RocksEngine::open(dir.path(), &RocksOptions::default());
        assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
        drop(first);
        RocksEngine::open(dir.path(), &RocksOptions::default()).unwrap();
    }
}
