//! [redb](https://docs.rs/redb) as a raftstore engine: pure Rust, one file, the embedded default.
//!
//! [`RedbEngine`] is a `KvEngine`. One redb table per column family; a batch is one redb write
//! transaction; `Buffered` is redb's `Durability::None`, `Synced` its `Durability::Immediate`,
//! which makes all earlier commits durable with it.
//!
//! redb verifies its own checksums only in recovery or when asked, and would otherwise serve
//! damaged pages as they are. Every record therefore carries a checksum of ours over family,
//! key and value, verified by each read.

mod batch;
mod contain;
mod cursor;
mod engine;
mod error;
mod options;
mod record;
mod view;

pub use batch::RedbWriteBatch;
pub use engine::RedbEngine;
pub use options::RedbOptions;
pub use view::RedbSnapshot;
