//! The placement driver's protocol (kvproto's pdpb over gRPC): a client of any PD that speaks
//! it, and a server of the one in process.
//!
//! [`GrpcPdClient`] is a [`PdClient`](crate::PdClient) and a [`PdCluster`](crate::PdCluster).
//! [`serve`] makes a PD of a directory and a listener.
//!
//! # What a server keeps
//!
//! Two files, each replaced as a whole: `state` (stores, regions, the highest id) and
//! `promises` (timestamps, safe points, the number of replicas). Ids and timestamps are
//! promised in windows, so most of them cost no write; whatever else an answer promises is on
//! disk before it is sent. Killed at any moment, a server never gives out an id or a
//! timestamp twice, forgets no store and bootstraps once. Regions are saved now and then;
//! what is missing is reported again by their leaders. A damaged file is told and left alone.
//!
//! A store's address may change with the store: the newest one counts. An address that
//! belongs to another living store is refused, so of two processes with a copied directory
//! but addresses of their own the one that spoke last is found; on one machine the lock of
//! the directory tells them apart.
//!
//! # Leaders' reports
//!
//! They go on one stream, opened again when it breaks, and orders come back on it. Another
//! PD ties a stream to the store of the reports it sees first, so stores that ask it do not
//! share a client. PD is told no answer to an order; an order that no store here can carry
//! out (to merge regions, to switch a replica's data off) is counted
//! ([`ClientCounters::orders_unsupported`]), logged and dropped, and PD gives it up when its
//! time is over.
//!
//! # Damaged replicas
//!
//! A store that took a replica out of service because a checksum failed names its region in
//! every report on itself (`damaged_regions_id`); the leader of the region reports the
//! replica among its `down_peers` once it has been silent for long enough.
//!
//! The server here counts such a replica as of no use: it brings another one first and
//! removes it then, or removes it at once if the others are a quorum and there is no store
//! for another one.
//!
//! Other PDs that know the field act on `damaged_regions_id` at once: each report on itself
//! of the store makes an operator that removes the replica from the region,
//! before there is another one; only when it is gone does a rule of theirs miss a replica and
//! bring one, on whatever store is best. Until then the region has one replica less. The
//! operator is not made, and the next report tries again, while one that is as urgent is
//! under way for the region, when PD does not know the region, or if it would leave nobody to
//! lead: the last voter of a region stays, whatever its state. `down_peers` count there only after the
//! time a store may be down (half an hour unless configured), and replace then what is still
//! a member. So it is harmless that both are reported.

mod answer;
mod client;
mod convert;
mod secure;
mod server;
mod stubs;

/// PD's protocol as calls, for tools that ask what [`GrpcPdClient`] does not.
pub use stubs::p_d_client::PDClient as PdStub;

pub use client::{ClientCounters, ClientOptions, GrpcPdClient};
pub use secure::{Io, SecureAccept, SecureConnect, Securing, tls_accept, tls_connect};
pub use server::{PdServer, ServeError, ServeOptions, ServerCounters, serve};
