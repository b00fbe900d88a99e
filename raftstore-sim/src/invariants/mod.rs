//! What must be true after every event, one file per sentence, each with its source.
//!
//! The checks are incremental: each looks only at what the event can have changed. They
//! see stores from outside, through their status, their messages, what they hand to be
//! applied, and their disks.

mod acks;
mod apply_state;
mod chain;
mod chronicle;
mod durable_quorum;
mod effects;
mod election_safety;
mod epochs;
mod leader_completeness;
mod leader_votes;
mod log_matching;
mod monotonic;
mod ranges;
mod silence;
mod state_machine;
mod votes;

use std::fmt;

pub use acks::{check_ack, check_snapshot_ack};
pub use apply_state::{all_rows, check_disk, logical_content};
pub use chain::check_chain;
pub use chronicle::{Chronicle, Line};
pub use durable_quorum::{Members, check_durable};
pub use election_safety::ElectionSafety;
pub use epochs::Epochs;
pub use leader_completeness::check_new_leader;
pub use leader_votes::check_leader_votes;
pub use log_matching::{Ledger, Recorded};
pub use monotonic::Monotonic;
pub use ranges::check_ranges;
pub use silence::Silence;
pub use state_machine::StateMachine;
pub use votes::Votes;

/// A sentence that turned out to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its short name.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A violation of `invariant`.
    #[must_use]
    pub const fn new(invariant: &'static str, detail: String) -> Self {
        Self { invariant, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// One peer as it looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its store.
    pub store: u64,
    /// Its region.
    pub region: u64,
    /// Its id.
    pub peer: u64,
    /// Whether it leads.
    pub leads: bool,
    /// The leader it knows; 0 for none.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// Its commit index.
    pub commit: u64,
    /// Its applied index.
    pub applied: u64,
    /// Last index of its log.
    pub last_index: u64,
    /// Where its log was cut.
    pub truncated: u64,
    /// Whether range and members are known.
    pub initialized: bool,
    /// Whether it accepts a snapshot or installs one, during which its records are in
    /// several places.
    pub installing: bool,
}
