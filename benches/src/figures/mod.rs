//! The figures of the report, a group in each file.

mod engines;
#[cfg(feature = "openraft")]
mod peers;
mod reads;
mod restart;
mod snapshot;
mod store;

pub use engines::{Care, Rates, adapter, engines, recoveries, side_by_side};
#[cfg(feature = "openraft")]
pub use peers::{openraft_memory, openraft_rocks};
pub use reads::lease_reads;
pub use restart::restart;
pub use snapshot::snapshot;
pub use store::{StoreFigures, StoreWork, store};
