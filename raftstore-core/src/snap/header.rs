//! Decides how a snapshot's header names region, moment, range and members. Its place in
//! the file and its checksum are the business of [`format`](super::format).

use bytes::{Buf, Bytes};
use raftstore_proto::{
    Region, RegionId,
    wire::{decode_region, encode_region},
};
use transport_traits::SnapKey;

use super::format::FormatError;

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapHeader {
    /// Region, term and index.
    pub key: SnapKey,
    /// Range and members right after that index.
    pub region: Region,
}

pub(super) fn encode(header: &SnapHeader) -> Result<Vec<u8>, FormatError> {
    let SnapHeader { key, region } = header;
    if region.id != key.region || !region.is_initialized() {
        return Err(FormatError::Malformed { detail: "the region is not the snapshot's" });
    }
    let mut body = Vec::new();
    for number in [key.region.get(), key.term, key.index] {
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(&encode_region(region));
    Ok(body)
}

pub(super) fn decode(mut body: Bytes) -> Result<SnapHeader, FormatError> {
    let short = |_| FormatError::Malformed { detail: "short header" };
    let id = RegionId::try_from(body.try_get_u64().map_err(short)?)?;
    let term = body.try_get_u64().map_err(short)?;
    let index = body.try_get_u64().map_err(short)?;
    let region = decode_region(&body)?;
    if region.id != id || !region.is_initialized() {
        return Err(FormatError::Malformed { detail: "the region is not the snapshot's" });
    }
    Ok(SnapHeader { key: SnapKey { region: id, term, index }, region })
}
