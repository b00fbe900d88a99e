//! Comparing replicas: hashing what they hold at the same index, and finding where two of
//! them differ.
//!
//! A leader proposes `ComputeHash`. Every replica takes a snapshot of its engine when it
//! executes that entry; a [`HashWorker`] hashes it in slices beside everything else. The
//! leader then proposes `VerifyHash` with what it found, and each replica compares
//! (`peer/consistency.rs`). Where two replicas differ is found by halving: hashes of ranges
//! are compared, from the snapshots kept for a while ([`HashWorker::ask`]) or from engines
//! at rest ([`ReaderSide`]).

mod bisect;
mod worker;

pub use bisect::{Difference, HashedSide, ReaderSide, first_difference};
pub use worker::{HashJob, HashSlice, HashWorker, RangeHashError, RangeQuestion};

pub use crate::hash::{RangeHash, RegionHash};
