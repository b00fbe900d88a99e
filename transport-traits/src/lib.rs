//! How stores reach each other: messages that may be lost, snapshots that may not be torn.

#[cfg(feature = "channel")]
mod channel;
#[cfg(feature = "conformance")]
pub mod conformance;
mod mem_snap;
mod snapshot;
mod transport;

#[cfg(feature = "channel")]
pub use channel::{
    ChannelConfig, ChannelCounters, ChannelHub, ChannelTransport, HubError, MessageFilter,
};
pub use mem_snap::{MemSnapStore, SnapOp};
pub use snapshot::{SnapDirection, SnapError, SnapKey, SnapReader, SnapStore, SnapWriter};
pub use transport::{
    BoxError, Connect, Inbox, SendError, SnapshotStatus, StoreResolver, Transport,
};
