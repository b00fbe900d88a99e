//! The placement driver in process: a real, small scheduler, stepped or served.
//!
//! [`PdCore`] is PD as a value: a simulator calls it with its own time. [`MockPd`] puts a
//! lock and a clock around one and serves it as a [`PdClient`](crate::PdClient), under any
//! executor. With [`PdConfig::manual`] it gives out no orders of its own.

mod client;
mod config;
mod core;
mod directory;
mod operator;
mod scheduler;

pub use self::{
    client::{MockPd, PdClock},
    config::PdConfig,
    core::{PdCore, PdCounters, StoreRecord},
    directory::{RegionRecord, StoreLoad},
    operator::OperatorReason,
};
