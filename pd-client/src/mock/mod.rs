//! The placement driver in process: a real, small scheduler, stepped or served.
//!
//! [`PdCore`] is PD as a value: a simulator calls it with its own time. [`MockPd`] puts a
//! lock and a clock around one and serves it as a [`PdClient`](crate::PdClient), under any
//! executor. With [`PdConfig::manual`] it gives out no orders of its own.
//!
//! [`PdCore::save`] and [`PdCore::load`] carry what PD must not forget over a restart.

mod check;
mod client;
mod config;
mod core;
mod directory;
mod flow;
mod operator;
mod operators;
mod save;
mod scheduler;
mod stores;

pub use self::{
    client::{MockPd, PdClock},
    config::PdConfig,
    core::{PdCore, PdCounters},
    directory::{RegionRecord, StoreLoad},
    flow::Flow,
    operator::OperatorReason,
    operators::OperatorRecord,
    save::LoadError,
    stores::StoreRecord,
};
