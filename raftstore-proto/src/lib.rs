//! The words of a multi-raft store, and the wire form of each.
//!
//! Everything that crosses a crate border of this workspace is spoken in the types of this
//! crate: ids that cannot be mixed up ([`RegionId`], [`PeerId`], [`StoreId`]), the key range
//! and membership of a [`Region`], log [`Entry`]s, the records a store keeps about itself
//! ([`LocalState`], [`ApplyState`], [`RegionState`]), the [`Command`]s of clients with
//! their answers, and the errors a client can act on ([`RegionError`]).
//!
//! The wire form is that of kvproto, so that clients and a placement driver written for
//! it understand us; see [`wire`]. Types on the hot path ([`Entry`], [`RaftMessage`]) wrap
//! the generated form and are never rebuilt; all others convert at the edge, and payloads
//! move as [`bytes::Bytes`] without a copy. Bytes from outside pass [`guard`] first.

mod cf;
mod command;
mod entry;
mod error;
pub mod guard;
mod id;
mod message;
#[cfg(not(feature = "rpc"))]
mod pb;
#[cfg(feature = "rpc")]
pub mod pb;
mod region;
mod state;
mod usage;
pub mod wire;

pub use cf::{Cf, DATA_CFS};
pub use command::{
    AdminCommand, AdminResponse, Body, ChangeKind, Command, CompareAndSwap, Header, Operation,
    OperationResponse, PeerChange, Response, ResponseBody, SplitRequest, StatusCommand,
    StatusResponse,
};
pub use entry::{ENTRY_CONTEXT_LEN, Entry, EntryFlags, EntryKind};
pub use error::{BusyReason, DecodeError, RegionError};
pub use id::{ClusterId, PeerId, RegionId, StoreId};
pub use message::{MessageKind, RaftMessage};
pub use region::{Epoch, Peer, PeerRole, Region};
pub use state::{
    ApplyState, HardState, LocalState, RegionPhase, RegionState, StoreIdent, Truncated,
};
pub use usage::DiskUsage;
