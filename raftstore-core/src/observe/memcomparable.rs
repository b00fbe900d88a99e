//! Byte strings whose encoded forms are in the same order, whatever follows them.
//!
//! Groups of eight bytes, the last filled up with zeros, each with a ninth byte behind it:
//! 255 less the number of bytes filled up, so that only the last group's is below 255. A string
//! whose length is a multiple of eight ends with a group that is all filling.

/// Bytes of content in a group.
const GROUP: usize = 8;
/// The ninth byte of a group that is full.
const FULL: u8 = 0xFF;

/// The encoded form of `bytes`.
#[must_use]
pub fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((bytes.len() / GROUP + 1) * (GROUP + 1));
    let mut groups = bytes.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(FULL);
    }
    let last = groups.remainder();
    let mut filled = [0; GROUP];
    filled[..last.len()].copy_from_slice(last);
    out.extend_from_slice(&filled);
    let filling = u8::try_from(GROUP - last.len()).expect("a group is short");
    out.push(FULL - filling);
    out
}

/// The bytes whose encoded form `encoded` begins with, and what follows it. `None` if it
/// begins with no such form.
#[must_use]
pub fn decode_bytes(encoded: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::with_capacity(encoded.len() / (GROUP + 1) * GROUP);
    let mut rest = encoded;
    loop {
        let (group, behind) = rest.split_first_chunk::<{ GROUP + 1 }>()?;
        let [content @ .., marker] = group;
        rest = behind;
        let filling = usize::from(FULL - marker);
        let length = GROUP.checked_sub(filling)?;
        let (content, filled) = content.split_at(length);
        out.extend_from_slice(content);
        if filled.iter().any(|byte| *byte != 0) {
            return None;
        }
        if filling > 0 {
            return Some((out, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_are_the_known_ones() {
        assert_eq!(encode_bytes(b""), [0, 0, 0, 0, 0, 0, 0, 0, 247]);
        assert_eq!(encode_bytes(b"abc"), *b"abc\0\0\0\0\0\xfa");
        assert_eq!(encode_bytes(b"abcdefgh"), *b"abcdefgh\xff\0\0\0\0\0\0\0\0\xf7");
        assert_eq!(encode_bytes(b"abcdefghi"), *b"abcdefgh\xffi\0\0\0\0\0\0\0\xf8");
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for bad in [
            &b""[..],
            b"abc",
            b"abcdefgh",
            // Full, and nothing behind it.
            b"abcdefgh\xff",
            // More filling than a group has room for.
            b"abcdefgh\xf6",
            // Filled up with something.
            b"abc\0\0\0\0\x01\xfa",
        ] {
            assert_eq!(decode_bytes(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes: Vec<u8>, behind: Vec<u8>) {
            let encoded = [encode_bytes(&bytes), behind.clone()].concat();
            prop_assert_eq!(decode_bytes(&encoded), Some((bytes, behind.as_slice())));
        }

        #[test]
        fn order_is_kept_whatever_follows(
            a in proptest::collection::vec(0_u8..3, 0..20),
            b in proptest::collection::vec(0_u8..3, 0..20),
            behind_a: Vec<u8>,
            behind_b: Vec<u8>,
        ) {
            prop_assume!(a != b);
            let with = |bytes: &[u8], behind: Vec<u8>| [encode_bytes(bytes), behind].concat();
            prop_assert_eq!(with(&a, behind_a).cmp(&with(&b, behind_b)), a.cmp(&b));
        }

        #[test]
        fn whatever_decodes_is_a_form(bytes: Vec<u8>) {
            if let Some((content, rest)) = decode_bytes(&bytes) {
                prop_assert_eq!([encode_bytes(&content), rest.to_vec()].concat(), bytes);
            }
        }
    }
}
