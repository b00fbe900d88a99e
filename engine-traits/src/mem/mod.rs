//! The reference engines: in memory, deterministic, with crashes and failures on command.
//!
//! [`MemEngine`] and [`MemRaftLog`] model a device. A write is visible at once and
//! *unsynced* until a synced write or a `sync`; [`MemEngine::crash`] cuts the power and
//! keeps as many of the unsynced writes as it is told, always the first ones. Handles and
//! snapshots from before a crash answer every call with an error; [`MemEngine::reopen`]
//! gives a handle to what survived. [`Faults`] makes chosen calls fail. There is no clock,
//! no thread and no randomness in here: the same calls give the same answers.

mod cursor;
mod device;
mod kv;
mod raft_log;

pub use device::{FaultCause, Faults, Leaves};
pub use kv::{MemBatch, MemEngine, MemSnapshot, Op};
pub use raft_log::{LogOp, MemLogBatch, MemRaftLog};
