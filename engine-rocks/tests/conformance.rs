//! The contract suite on RocksDB, with a write-ahead log and without.

mod common;

use common::InFolder;
use engine_rocks::RocksOptions;

/// Blocks as they are, so that a value can be found in a file and harmed.
fn logged() -> InFolder {
    InFolder::new(RocksOptions::default().with_compressed(false))
}

fn unlogged() -> InFolder {
    InFolder::new(RocksOptions::default().with_compressed(false).with_write_ahead_log(false))
}

mod kv_with_log {
    engine_traits::kv_conformance!(super::logged());
}

mod kv_without_log {
    engine_traits::kv_conformance!(super::unlogged());
}

mod raft_log {
    use engine_traits::conformance::KvLogFixture;
    engine_traits::raft_log_conformance!(KvLogFixture::new(super::logged()));
}

mod raft_log_without_log {
    use engine_traits::conformance::KvLogFixture;
    engine_traits::raft_log_conformance!(KvLogFixture::new(super::unlogged()));
}
