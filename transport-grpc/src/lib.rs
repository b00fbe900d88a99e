//! A transport between stores over gRPC: raft messages in batches, region snapshots in
//! pieces.
//!
//! Stores speak kvproto's calls `tikvpb.Tikv/Raft`, `BatchRaft` and `Snapshot` with each other.
//! Each stream begins with who calls and who is meant, in its headers; nothing is accepted
//! before that has been checked, and nothing sent before the answer has shown who is at the
//! other end. What is received passes the guard of `raftstore-proto` before it is decoded.
//!
//! [`GrpcTransport`] is both ends for one store. Its client side is what a node is given to
//! connect with; its server side is added to a tonic server, beside the service for clients
//! that has the same name: the calls between stores win over that service's.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use raftstore_proto::ClusterId;
//! # use transport_grpc::{GrpcConfig, GrpcTransport, PdResolver};
//! # async fn run(
//! #     pd: Arc<dyn pd_client::PdClient>,
//! #     clients: tonic::service::Routes,
//! #     connect: impl FnOnce(transport_traits::Connect),
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Handle::current();
//! let resolver = Arc::new(PdResolver::new(pd));
//! let cluster = ClusterId::must(7);
//! let transport = GrpcTransport::new(GrpcConfig::default(), cluster, resolver, Some(runtime))?;
//!
//! // The port first: the address is announced to PD when the node starts.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let routes = transport.add_to(clients);
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let server = raftstore_grpc::serve(
//!     listener,
//!     routes,
//!     raftstore_grpc::ServerConfig::default(),
//!     raftstore_grpc::ServerCounters::default(),
//!     async { drop(stopped.await) },
//! );
//! let server = tokio::spawn(server);
//!
//! // Until a node is connected, other stores are told that none is running.
//! connect(transport.connect());
//!
//! // At the end: the node is stopped, then the transport closed, then the server.
//! let closing = transport.clone();
//! tokio::task::spawn_blocking(move || closing.close()).await?;
//! drop(stop);
//! server.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised, and what is not
//!
//! Messages of one region to one store arrive in the order they were sent, on one of a few
//! connections, or not at all: raft repairs what is lost. Queues are bounded; where one is
//! full, or the store cannot be reached, [`send`](transport_traits::Transport::send) says so
//! at once. When a connection breaks, the store is told whom messages were lost for.
//!
//! A region snapshot has a stream of its own. So many are sent and received at a time, so many
//! bytes a second; one that is interrupted goes on where it stopped. The receiver makes its
//! name from numbers, holds it to the length it was announced with, and compares checksums
//! before it is at rest. Every transfer is reported on once, also when the transport is
//! closed; one that is reported as failed may have arrived, if the answer was lost.

mod backoff;
mod config;
mod counters;
mod frame;
mod handshake;
mod lane;
mod queue;
mod resolver;
mod server;
mod session;
mod snapshot;
mod transport;

pub use config::{CONNECTIONS_MAX, ConfigError, GrpcConfig};
pub use counters::{GrpcCounters, Refusal};
pub use resolver::PdResolver;
pub use transport::{GrpcError, GrpcSender, GrpcTransport};
