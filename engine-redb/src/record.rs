//! How a row is stored: the value, followed by a CRC32C over family, key and value.
//!
//! The checksum binds a value to its place: bytes that are intact but reached through a
//! damaged page pointer, under another key or in another family, do not pass.

use engine_traits::{Cf, Error, Result};

use crate::error::{NAME, escape};

/// Bytes that the checksum adds to a value.
pub(crate) const SUM_LEN: usize = 4;

/// The checksum of a row.
pub(crate) fn sum(cf: Cf, key: &[u8], value: &[u8]) -> u32 {
    // The length of the key is part of the sum: without it the border between key and value
    // could move. A family is one of four, so both fit one word.
    let head = ((key.len() as u64) << 8) | cf.index() as u64;
    let sum = crc32c::crc32c(&head.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, key);
    crc32c::crc32c_append(sum, value)
}

/// The value inside a stored row.
///
/// # Errors
/// `Corrupt` if the bytes are not what was stored under `key` in `cf`.
pub(crate) fn open<'a>(cf: Cf, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8]> {
    match stored.split_last_chunk::<SUM_LEN>() {
        Some((value, tail)) if u32::from_le_bytes(*tail) == sum(cf, key, value) => Ok(value),
        Some(_) => Err(damaged(cf, key, "its checksum does not match")),
        None => Err(damaged(cf, key, "it is shorter than its checksum")),
    }
}

#[cold]
fn damaged(cf: Cf, key: &[u8], detail: &str) -> Error {
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

    #[test]
    fn a_row_opens_only_where_it_was_stored() {
        let bytes = stored(Cf::Default, b"key", b"value");
        assert_eq!(open(Cf::Default, b"key", &bytes).unwrap(), b"value");
        assert!(open(Cf::Write, b"key", &bytes).is_err(), "another family");
        assert!(open(Cf::Default, b"kez", &bytes).is_err(), "another key");
        assert!(open(Cf::Default, b"ke", &stored(Cf::Default, b"key", b"value")).is_err());
    }

    #[test]
    fn every_single_bit_flip_is_seen() {
        let bytes = stored(Cf::Lock, b"k", b"some value");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Cf::Lock, b"k", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_row_shorter_than_its_checksum_is_damage() {
        assert!(open(Cf::Default, b"k", b"abc").is_err());
        assert!(open(Cf::Default, b"k", b"").is_err());
    }
}
