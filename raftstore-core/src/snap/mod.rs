//! Region snapshots: their engine-neutral format, building, installing, range deletion.
//!
//! A region snapshot is the logical content of a region right after one log entry: its
//! rows in all data families, cut into chunks that carry a checksum each. Sender and
//! receiver may run different engines. Bytes at rest are kept by a
//! [`SnapStore`](transport_traits::SnapStore). [`RegionWorker`] installs and deletes
//! ranges in one queue (H52), one slice per step, so that a driver can interleave anything
//! between two slices.

pub mod build;
pub mod format;
mod header;
mod worker;

pub use worker::{RegionWorker, SliceOutcome};
