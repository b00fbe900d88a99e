//! The reference engines, and the log over the reference data engine, pass the suite.

mod mem_engine {
    use engine_traits::conformance::MemFixture;

    engine_traits::kv_conformance!(MemFixture::new());
}

mod mem_raft_log {
    use engine_traits::conformance::MemLogFixture;

    engine_traits::raft_log_conformance!(MemLogFixture::new());
}

mod kv_raft_log {
    use engine_traits::conformance::{KvLogFixture, MemFixture};

    engine_traits::raft_log_conformance!(KvLogFixture::new(MemFixture::new()));
}
