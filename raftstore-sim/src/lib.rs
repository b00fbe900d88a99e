//! A deterministic world for raftstore: one seed drives clock, network, disks, crashes,
//! placement driver and clients; everything that must always be true is checked after
//! every event.
//!
//! ```text
//!   seed --> Plan --> World: queue of steps in simulated time
//!                       |      stores (the real core), network, disks, PD, clients, faults
//!                       |--> invariants after every step
//!                       |--> oracle: answers once, histories linearizable
//!                       `--> transcript: one line per event, hashed
//! ```
//!
//! A run has two phases. In the first, faults happen and nothing wrong may; in the second
//! no faults happen and everything must come right: every region serves, all replicas
//! become equal, every caller has been answered. The same seed gives the same transcript,
//! byte for byte.

mod churn;
pub mod client;
pub mod cluster;
pub mod conformance;
pub mod counters;
pub mod disk;
pub mod engine;
pub mod faults;
pub mod invariants;
pub mod network;
pub mod oracle;
pub mod pd;
pub mod plan;
pub mod planted;
pub mod queue;
pub mod rng;
pub mod run;
pub mod seed;
pub mod splits;
pub mod transcript;
pub mod world;
