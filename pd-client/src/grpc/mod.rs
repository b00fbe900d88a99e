//! The placement driver's protocol (kvproto's pdpb over gRPC): a client of any PD that speaks
//! it, and a server of the one in process.
//!
//! [`GrpcPdClient`] is a [`PdClient`](crate::PdClient) and a [`PdCluster`](crate::PdCluster).
//! [`serve`] makes a PD of a directory and a listener.

mod answer;
mod client;
mod convert;
mod server;
mod stubs;

pub use client::{ClientCounters, ClientOptions, GrpcPdClient};
pub use server::{
    Io, PdServer, SecureAccept, Securing, ServeError, ServeOptions, ServerCounters, serve,
};
