//! Threads around the pure machines: the driver of a store for real use.
//!
//! ```text
//!   clients, transport --> lane 0..n   Store: handle, ready, on_persisted
//!                            |  ^
//!        rounds of all lanes |  | proofs         one writer: a group of rounds, one sync
//!                            +--+
//!                            |  ^
//!           committed tasks  |  | results        apply threads, a region always on one
//!                            +--+
//!                            |  ^
//!     installs, syncs, PD    |  | outcomes       region, sync, build and PD threads
//!                            +--+
//! ```
//!
//! Threads own what they work with and speak through channels. Into a lane lead two: a
//! bounded one for what may be refused (messages, commands) and an unbounded one for what
//! must not be lost, whose content is bounded by what the lane has asked for. A thread ends
//! when the channel it reads from does, so the stop of the lanes ends all others, in order
//! and with their queues done.
//!
//! The first engine failure or panic of any thread stops all of them at once: nothing is
//! sent or acknowledged any more, every caller is answered, the embedder gets the error.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one place of the crate that has threads, files, clocks and waiting"
)]

mod apply_pool;
pub mod client;
mod clock;
mod company;
mod counters;
mod executor;
mod exposition;
mod fail_points;
mod failure;
mod figures;
mod handle;
mod hash;
mod node;
mod observing;
mod pd;
mod router;
mod shared;
mod snap_files;
mod start;
mod store_loop;
mod timings;
mod workers;
mod writer;

pub use clock::MonoClock;
pub use counters::NodeCounters;
pub use failure::OnFatal;
pub use figures::{DiskProbe, DiskSpace};
pub use handle::NodeHandle;
pub use hash::RangeHashResult;
pub use node::Node;
pub use router::{BatchResult, Callback, Reply, SnapshotResult};
pub use snap_files::FileSnapStore;
pub use start::{NodeOptions, PdRetry, StartError};
