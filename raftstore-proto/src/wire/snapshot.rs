//! What a raft snapshot carries: the region it was taken of. Its data travels beside it.

use bytes::Bytes;
use protobuf::Message as _;

use crate::{
    DecodeError, Region,
    guard::{self, Limits},
    pb::raft_serverpb,
    wire::{
        parse,
        region::{region_from_pb, region_to_pb},
    },
};

/// The format of region data that a snapshot announces. Smaller numbers are formats of other
/// implementations, which we can neither read nor write.
pub const SNAPSHOT_DATA_VERSION: u64 = 1000;

/// The payload of a raft snapshot of `region`, whose data takes about `size_bytes`.
#[must_use]
pub fn encode_snapshot_data(region: &Region, size_bytes: u64) -> Bytes {
    let mut out = raft_serverpb::RaftSnapshotData::new();
    out.set_region(region_to_pb(region));
    out.file_size = size_bytes;
    out.version = SNAPSHOT_DATA_VERSION;
    out.write_to_bytes().expect("no field is required").into()
}

/// Reads the payload of a raft snapshot: the region, and the size of its data in bytes.
///
/// # Errors
/// - what [`guard::check_snapshot_data`] refuses under the default limits
/// - [`DecodeError::UnknownValue`]: another format than [`SNAPSHOT_DATA_VERSION`]
/// - [`DecodeError::Missing`], [`DecodeError::ZeroId`], [`DecodeError::Malformed`]
pub fn decode_snapshot_data(bytes: &Bytes) -> Result<(Region, u64), DecodeError> {
    const WHAT: &str = "snapshot data";
    guard::check_snapshot_data(bytes, &Limits::default())?;
    let mut data: raft_serverpb::RaftSnapshotData = parse(WHAT, bytes)?;
    if data.version != SNAPSHOT_DATA_VERSION {
        return Err(DecodeError::UnknownValue {
            what: "snapshot data version",
            value: data.version.cast_signed(),
        });
    }
    let region = data.region.take().ok_or(DecodeError::Missing { what: "region of a snapshot" })?;
    Ok((region_from_pb(region)?, data.file_size))
}
