//! How a row is stored: the value, followed by a CRC32C over family, key and value.
//!
//! The checksum binds a value to its place: bytes that are intact but reached through a
//! damaged page pointer, under another key or in another family, do not pass.

use bytes::{Buf, Bytes};
use engine_traits::{Cf, Error, Result};

use crate::error::{NAME, escape};

/// Bytes that the checksum adds to a value.
pub(crate) const SUM_LEN: usize = 4;

/// Up to this many bytes of key and value are joined before they are summed: each call of the
/// checksum costs as much as some hundred bytes of it. Far above, the copy costs more.
const JOIN_MAX: usize = 1024;

/// Where the sum of a row starts: the family, and the border between key and value, which
/// could otherwise move.
fn seed(cf: Cf, key: &[u8]) -> u32 {
    // Keys are far shorter than 16 MiB; of longer ones the upper bits do not count.
    let len = u32::try_from(key.len() & 0x00ff_ffff).unwrap_or_default();
    (len << 8) | u32::try_from(cf.index()).unwrap_or_default()
}

/// The checksum of a row of which key and value lie together in `row`.
pub(crate) fn sum_joined(cf: Cf, key: &[u8], row: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(cf, key), row)
}

/// The same checksum of a row in two parts.
fn sum(cf: Cf, key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed(cf, key), key), value)
}

fn split(stored: &[u8]) -> Option<(&[u8], u32)> {
    let (value, tail) = stored.split_last_chunk::<SUM_LEN>()?;
    Some((value, u32::from_le_bytes(*tail)))
}

/// The value inside a stored row. `scratch` is memory to work in.
///
/// # Errors
/// `Corrupt` if the bytes are not what was stored under `key` in `cf`.
pub(crate) fn open<'a>(
    cf: Cf,
    key: &[u8],
    stored: &'a [u8],
    scratch: &mut Vec<u8>,
) -> Result<&'a [u8]> {
    let Some((value, stored_sum)) = split(stored) else { return Err(too_short(cf, key)) };
    let found = if key.len() + value.len() <= JOIN_MAX {
        scratch.clear();
        scratch.extend_from_slice(key);
        scratch.extend_from_slice(value);
        sum_joined(cf, key, scratch)
    } else {
        sum(cf, key, value)
    };
    if found == stored_sum { Ok(value) } else { Err(damaged(cf, key)) }
}

/// A copy of the value inside a stored row.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_copy(cf: Cf, key: &[u8], stored: &[u8]) -> Result<Bytes> {
    let Some((value, stored_sum)) = split(stored) else { return Err(too_short(cf, key)) };
    if key.len() + value.len() > JOIN_MAX {
        if sum(cf, key, value) != stored_sum {
            return Err(damaged(cf, key));
        }
        return Ok(Bytes::copy_from_slice(value));
    }
    // The copy that is handed out is joined with its key, which then lies hidden before it.
    let mut row = Vec::with_capacity(key.len() + value.len());
    row.extend_from_slice(key);
    row.extend_from_slice(value);
    if sum_joined(cf, key, &row) != stored_sum {
        return Err(damaged(cf, key));
    }
    let mut row = Bytes::from(row);
    row.advance(key.len());
    Ok(row)
}

#[cold]
fn too_short(cf: Cf, key: &[u8]) -> Error {
    describe(cf, key, "it is shorter than its checksum")
}

#[cold]
fn damaged(cf: Cf, key: &[u8]) -> Error {
    describe(cf, key, "its checksum does not match")
}

fn describe(cf: Cf, key: &[u8], detail: &str) -> Error {
    Error::Corrupt {
        engine: NAME,
        place: format!("row {} of family {}", escape(key), cf.name()),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(cf: Cf, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = value.to_vec();
        bytes.extend_from_slice(&sum(cf, key, value).to_le_bytes());
        bytes
    }

    /// Both ways to open must agree.
    fn opens(cf: Cf, key: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let copied = open_copy(cf, key, stored).ok().map(|value| value.to_vec());
        let in_place = open(cf, key, stored, &mut Vec::new()).ok().map(<[u8]>::to_vec);
        assert_eq!(copied, in_place);
        copied
    }

    #[test]
    fn a_row_opens_only_where_it_was_stored() {
        for value in [&b"value"[..], b"", &[7; 5000]] {
            let bytes = stored(Cf::Default, b"key", value);
            assert_eq!(opens(Cf::Default, b"key", &bytes).as_deref(), Some(value));
            assert_eq!(opens(Cf::Write, b"key", &bytes), None, "another family");
            assert_eq!(opens(Cf::Default, b"kez", &bytes), None, "another key");
            let joined = [b"y", value].concat();
            let moved = stored(Cf::Default, b"ke", &joined);
            assert_ne!(moved[joined.len()..], bytes[value.len()..], "the border moved");
        }
    }

    #[test]
    fn every_single_bit_flip_is_seen() {
        for len in [0, 1, 10, 1100] {
            let bytes = stored(Cf::Lock, b"k", &vec![b'v'; len]);
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opens(Cf::Lock, b"k", &flipped), None, "bit {bit} of {len}");
            }
        }
    }

    #[test]
    fn a_row_shorter_than_its_checksum_is_damage() {
        assert_eq!(opens(Cf::Default, b"k", b"abc"), None);
        assert_eq!(opens(Cf::Default, b"k", b""), None);
    }
}
