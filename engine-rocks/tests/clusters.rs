//! Whole clusters on RocksDB in the simulator, alone and beside engines in memory.

mod common;

use common::InFolder;
use engine_rocks::RocksOptions;
use engine_traits::conformance::KvLogFixture;
use raftstore_sim::conformance::run_mixed;
use raftstore_sim::engine::{SimKv, SimLog};

fn place() -> InFolder {
    InFolder::new(RocksOptions::default().with_compressed(false))
}

raftstore_sim::cluster_conformance!(place(), KvLogFixture::new(place()), 30..32);

#[test]
fn raft_18_rocksdb_and_memory_are_one_cluster() {
    let ran = run_mixed(
        |seed, store| match (seed + store) % 2 {
            0 => Ok((SimKv::default(), SimLog::of(KvLogFixture::new(place()))?)),
            _ => Ok((SimKv::of(place())?, SimLog::default())),
        },
        32..34,
    );
    if let Err(broken) = ran {
        std::panic::resume_unwind(Box::new(broken));
    }
}
