//! The suite an engine must pass: which cases there are, and how a verdict is reached.
//!
//! Each case is one sentence of the contracts at the traits. An engine's crate writes one
//! fixture, which opens, stops and, if it can, harms the engine, and one line:
//!
//! ```
//! # mod tests {
//! use engine_traits::conformance::MemFixture;
//!
//! // One `#[test]` per case. The expression makes a fresh fixture over an empty store.
//! engine_traits::kv_conformance!(MemFixture::new());
//! # }
//! ```
//!
//! [`run_kv`] and [`run_raft_log`] give the same as a [`Report`], [`run_all`] gives both, and
//! [`capability_matrix`] puts those of several engines side by side. A case that needs
//! something a fixture cannot do is skipped, with the reason; it never passes silently in a
//! report.

mod case;
mod fixture;
mod killed;
mod kv;
mod list;
mod matrix;
mod patient;
mod raft;
mod random;

pub use case::{CaseReport, Outcome, Report};
pub use fixture::{KvFixture, KvLogFixture, MemFixture, MemLogFixture, RaftLogFixture, Support};
pub use kv::{run_kv, run_kv_case};
pub use matrix::{capability_matrix, run_all};
pub use raft::{run_raft_log, run_raft_log_case};
