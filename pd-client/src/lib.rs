//! What a store needs of the placement driver (PD), and a small PD of our own.
//!
//! PD hands out ids, knows which store is where and which region holds a key, and orders
//! membership changes and leader transfers. A store tells it about itself and the regions
//! it leads; PD answers with [`Order`]s. Nothing on the data path waits for PD.

mod client;
mod error;
#[cfg(feature = "mock")]
pub mod mock;
mod types;

pub use client::PdClient;
pub use error::{Error, Result};
pub use types::{
    Order, OrderAction, PeerDown, RegionHeartbeat, RegionRoute, StoreInfo, StoreLifecycle,
    StoreStats,
};
