//! Decides when a region snapshot is scanned out of an engine snapshot, and when one that
//! rests already is taken instead.

use engine_traits::{DATA_CFS, Direction, Range, Reader};
use raftstore_proto::Region;
use transport_traits::{SnapDirection, SnapError, SnapKey, SnapStore};

use super::format::{Decoder, Encoder, FormatError, SnapHeader};
use crate::{
    event::{BuiltSnapshot, GivenUp},
    keys,
};

/// Why there is no region snapshot. The attempt has failed; the replica goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A row could not be read: better no snapshot than one with rows missing (H47).
    #[error("region snapshot {key}: cannot read the rows")]
    Scan {
        /// Which.
        key: SnapKey,
        /// What the engine said.
        #[source]
        source: engine_traits::Error,
    },
    /// The rows do not fit the format, or what was written reads differently.
    #[error("region snapshot {key}: cannot be written")]
    Format {
        /// Which.
        key: SnapKey,
        /// What does not fit.
        #[source]
        source: FormatError,
    },
    /// The snapshot store refused.
    #[error("region snapshot {key}: no place to rest")]
    Store {
        /// Which.
        key: SnapKey,
        /// What it said.
        #[source]
        source: SnapError,
    },
    /// Nobody wants it any more (H53). No failure.
    #[error("region snapshot {key}: given up")]
    GivenUp {
        /// Which.
        key: SnapKey,
    },
}

/// Makes the snapshot `key` of `region` from `rows`, the engine as of right after the entry
/// that `key` names, with `chunk_bytes` of payload per chunk. A valid one of the same name
/// is taken as it is; a damaged one is replaced. What is written is read back and checked.
/// The scan ends early once it is given up.
///
/// # Errors
/// Nothing is left at rest then.
pub fn build<S: Reader>(
    region: &Region,
    key: SnapKey,
    rows: &S,
    given_up: &GivenUp,
    snaps: &dyn SnapStore,
    chunk_bytes: usize,
) -> Result<BuiltSnapshot, BuildError> {
    let in_store = |source| BuildError::Store { key, source };
    let in_format = |source| BuildError::Format { key, source };
    let header = SnapHeader { key, region: region.clone() };
    let built = |size_bytes| BuiltSnapshot { key, region: region.clone(), size_bytes };

    if let Some(size_bytes) = size_at_rest(snaps, key).map_err(in_store)? {
        match verify(snaps, &header) {
            Ok(()) => return Ok(built(size_bytes)),
            Err(damage) => {
                tracing::warn!(%key, error = %damage, "replacing a damaged region snapshot");
                snaps.delete(SnapDirection::Generated, key).map_err(in_store)?;
            }
        }
    }
    let writer = snaps.create(SnapDirection::Generated, key).map_err(in_store)?;
    let mut encoder = Encoder::start(writer, &header, chunk_bytes).map_err(in_format)?;
    scan(&header, rows, given_up, &mut encoder)?;
    let size_bytes = encoder.finish().map_err(in_format)?;
    if let Err(source) = verify(snaps, &header) {
        // The medium does not give back what it took: never send that.
        snaps.delete(SnapDirection::Generated, key).map_err(in_store)?;
        return Err(in_format(source));
    }
    Ok(built(size_bytes))
}

fn scan<S: Reader>(
    header: &SnapHeader,
    rows: &S,
    given_up: &GivenUp,
    encoder: &mut Encoder,
) -> Result<(), BuildError> {
    let key = header.key;
    let (start, end) = keys::region_data_range(&header.region);
    for cf in DATA_CFS {
        let failed = |source| BuildError::Scan { key, source };
        let mut cursor =
            rows.cursor(cf, Range::new(&start, &end), Direction::Forward).map_err(failed)?;
        while let Some((row_key, value)) = cursor.next().map_err(failed)? {
            if given_up.is_given_up() {
                return Err(BuildError::GivenUp { key });
            }
            encoder
                .push(cf, row_key, value)
                .map_err(|source| BuildError::Format { key, source })?;
        }
    }
    Ok(())
}

fn size_at_rest(snaps: &dyn SnapStore, key: SnapKey) -> Result<Option<u64>, SnapError> {
    let name = (SnapDirection::Generated, key);
    let found = snaps.list()?.into_iter().find(|(direction, key, _)| (*direction, *key) == name);
    Ok(found.map(|(_, _, size_bytes)| size_bytes))
}

fn verify(snaps: &dyn SnapStore, expected: &SnapHeader) -> Result<(), FormatError> {
    let mut decoder = Decoder::open(snaps.open(SnapDirection::Generated, expected.key)?)?;
    if decoder.header() != expected {
        return Err(FormatError::Malformed { detail: "the header is of another snapshot" });
    }
    while decoder.next_chunk()?.is_some() {}
    Ok(())
}

/// Whether a received snapshot is what its sender made, every checksum of it. To be asked
/// before the store is told of it: a copy that was damaged on the way is then dropped, and
/// the leader sends another (H45), while a peer that has begun to take it in could only go.
///
/// # Errors
/// What does not fit, or what the store of snapshots said.
pub fn check_received(snaps: &dyn SnapStore, key: SnapKey) -> Result<(), FormatError> {
    let mut decoder = Decoder::open(snaps.open(SnapDirection::Received, key)?)?;
    if decoder.header().key != key {
        return Err(FormatError::Malformed { detail: "the header is of another snapshot" });
    }
    while decoder.next_chunk()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests;
