//! The wire form of the vocabulary, compatible with kvproto.
//!
//! Field numbers are kvproto's; what it has no field for has one of our own from number 1000
//! on, which others skip. Payloads (keys, values, hashes) become slices of the bytes
//! decoded. All decoding functions here guard themselves, see [`guard`](crate::guard).
//!
//! [`record`] holds the forms that go to disk, each with a checksum.

pub(crate) mod codec;
mod command;
mod error;
pub mod record;
pub(crate) mod region;
mod response;
mod snapshot;
mod stream;

use bytes::Bytes;

use crate::DecodeError;

pub use command::{decode_command, encode_command};
#[cfg(feature = "rpc")]
pub use error::{error_from_pb, error_to_pb};
pub use region::{decode_region, encode_region};
#[cfg(feature = "rpc")]
pub use region::{
    epoch_from_pb, epoch_to_pb, peer_from_pb, peer_to_pb, region_from_pb, region_to_pb,
};
pub use response::{decode_response, encode_response};
pub use snapshot::{SNAPSHOT_DATA_VERSION, decode_snapshot_data, encode_snapshot_data};
pub use stream::{
    SnapshotChunk, batch_len_hint, decode_batch, decode_snapshot_chunk, encode_batch,
    encode_snapshot_chunk,
};

/// Parses a generated message whose payloads stay slices of `bytes`.
fn parse<M: protobuf::Message>(what: &'static str, bytes: &Bytes) -> Result<M, DecodeError> {
    M::parse_from_carllerche_bytes(bytes)
        .map_err(|e| DecodeError::Malformed { what, detail: e.to_string() })
}
