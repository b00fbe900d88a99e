//! Multi-raft storage as a deterministic value.
//!
//! A [`Store`] holds one replica (a *peer*) of each of its regions. It takes in one
//! [`Event`] at a time and the current time, and gives back what shall happen: writes
//! that must be carried out together, effects that may happen beside them, and effects
//! that may happen only with the proof ([`Persisted`]) that the writes are durable. It
//! reads engines; it writes, sends, waits and measures nothing. The [`runtime`] drives
//! it with threads; a simulator drives the same code with a seed.
//!
//! ```text
//!   events --> handle --> ready --> early effects   messages of leaders, apply tasks, answers
//!                           |
//!                           +-----> writes --> commit_group --> proof --> on_persisted
//!                                                                            |
//!                                                   late effects: votes, acknowledgements
//! ```
//!
//! Committed entries are executed by an [`ApplyWorker`](apply::ApplyWorker), a second pure value,
//! whose results come back as events. Region snapshots are built and installed by a third,
//! [`RegionWorker`](snap::RegionWorker).
#![forbid(unsafe_code)]

pub mod apply;
mod command;
mod config;
pub mod consistency;
mod context;
mod error;
mod event;
mod hash;
mod hooks;
pub mod keys;
mod meta;
pub mod metrics;
pub mod observe;
mod peer;
pub mod read;
mod ready;
pub mod runtime;
pub mod snap;
pub mod split_check;
mod store;
mod store_report;
mod sync;
mod time;
mod view;

pub use config::{Config, ConfigError, OnMismatch};
pub use error::{Dropped, FatalError, FatalSource};
pub use event::{
    BuiltSnapshot, CheckGoal, Effects, Event, GivenUp, InstallOutcome, Moment, PdAnswer, PdRequest,
    ReplyId, SplitBorn, Task, TaskDone,
};
pub use hooks::{Bug, Hooks, NoHooks, Point};
pub use meta::{KvNumbers, LaneId, StoreMeta};
pub use metrics::StoreMetrics;
pub use ready::{Persisted, Ready, Writes};
#[cfg(feature = "test-support")]
pub use store::seed;
pub use store::{PeerPhase, PeerStatus, Store, StoreOptions, bootstrap, debug};
pub use store_report::StoreReport;
pub use time::MonoTime;
