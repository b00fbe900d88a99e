//! How stores reach each other: messages that may be lost, snapshots that may not be torn.

mod mem_snap;
mod snapshot;
mod transport;

pub use mem_snap::{MemSnapStore, SnapOp};
pub use snapshot::{SnapDirection, SnapError, SnapKey, SnapReader, SnapStore, SnapWriter};
pub use transport::{Inbox, SendError, SnapshotStatus, StoreResolver, Transport};
