//! Raft logs on [raft-engine](https://docs.rs/raft-engine): append-only files for the logs of all
//! regions, with an index in memory.
//!
//! [`RaftLog`] is a `RaftEngine`. One batch is one record of one file, so a round of a store costs
//! one write and one sync however many regions it touches.
//!
//! raft-engine by itself forgives too much for the contract of a log engine, so this crate stands
//! around it:
//!
//! - Opening checks the folder against a manifest before raft-engine sees it. A file that is
//!   missing, shorter than it was when last made durable, or damaged below that is `Corrupt`;
//!   raft-engine would skip the files before a gap, or cut the log off at the damage.
//! - A torn end of the last file is what a power cut leaves, and is cut off. Every record tells
//!   up to which write the log was durable when it was made, so that damage which took a synced
//!   write is told from a torn end by what follows it. Only damage that hits the very last synced
//!   writes of a store that was not closed looks like a torn end, and cannot be told apart.
//! - A batch is judged before raft-engine gets it, since raft-engine panics at a hole. Its other
//!   panics, as after a failed sync, come out as errors, and no write follows one that failed.
//! - raft-engine does nothing for a sync without a record, so a sync here writes a small one.
//! - raft-engine keeps the block read last per thread, under a file number and an offset, and never
//!   asks whose. Folders start at numbers of their own, and no place of a file is written twice.
//! - Truncations outlive the files they were written to: raft-engine may bring removed entries
//!   back when it has moved them, so the first index is kept beside the log as well.
//!
//! Space comes back when whole files hold nothing that counts. A thread of the log sees to it
//! whenever a file is full: what little old files hold is moved on, and regions with much in them
//! are named by `regions_pinning_space`, to have their logs cut.
//!
//! [`RaftLog::open_with_switch`] gives a switch that cuts the power, fills the device and fails its
//! syncs.

mod batch;
mod check;
mod contain;
mod disk;
mod engine;
mod error;
mod format;
mod manifest;
mod options;
mod shape;
mod switch;

pub use batch::RaftLogWrites;
pub use engine::RaftLog;
pub use options::RaftLogOptions;
pub use switch::{LogSwitch, Loss};
