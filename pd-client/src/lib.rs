//! What a store needs of the placement driver (PD), and a small PD of our own.
//!
//! PD hands out ids, knows which store is where and which region holds a key, and orders
//! membership changes, leader transfers and splits. A store tells it about itself and the
//! regions it leads; PD answers with [`Order`]s. Nothing on the data path waits for PD.
//!
//! [`PdClient`] is what a store needs and no more. [`PdCluster`] is what routers and tools
//! ask besides.

mod client;
mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "mock")]
pub mod mock;
#[cfg(any(feature = "mock", feature = "grpc"))]
mod orders;
mod types;

pub use client::PdClient;
pub use cluster::PdCluster;
pub use error::{Error, Result};
pub use types::{
    ClusterConfig, OperatorState, OperatorStatus, Order, OrderAction, PeerDown, RegionHeartbeat,
    RegionRoute, SplitPolicy, StoreInfo, StoreLifecycle, StoreStats,
};
