//! The locks and counters of the two files whose values threads share, `meta.rs` and
//! `view.rs`. They are named here alone, so that a test can put those of a model checker in
//! their place (`tests/interleavings.rs`).

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) use parking_lot::{Mutex, RwLock};
