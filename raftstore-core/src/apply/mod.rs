//! Execution of committed entries: a second pure value beside the store.
//!
//! An [`ApplyWorker`] owns the [`Applier`] of every region given to it. It takes a run of
//! tasks, lets the Appliers fill one shared batch (data and apply state together), carries
//! that out with one buffered engine write, numbers it, and then gives the answers and
//! results. It imports neither peer nor store.

mod admin;
mod applier;
mod membership;
mod pending;
mod split;
mod task;
mod truncate;
mod worker;
mod write;

pub use applier::Applier;
pub(crate) use split::kept_part;
pub use task::{
    ApplyEvent, ApplyMetrics, ApplyResult, ApplyTask, ApplyWork, ExecResult, Proposal,
    Registration, SplitPart,
};
pub use worker::{ApplyOutcome, ApplyWorker, SnapBuild};
pub(crate) use write::validate;
