//! A deterministic world for raftstore.
pub mod disk;
pub mod network;
pub mod oracle;
pub mod queue;
pub mod rng;
pub mod transcript;
