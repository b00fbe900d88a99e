//! CRC-64 as clients of TiKV compute it: reflected ECMA-182, also known as CRC-64/XZ.

/// The polynomial, its bits in reverse order.
const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

/// What each byte does to the sum.
const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

/// The sum of the parts as if they were one.
pub(super) fn of(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(!0, |sum: u64, byte| {
        let at = usize::from(*byte) ^ usize::try_from(sum & 0xFF).unwrap_or_default();
        TABLE[at] ^ (sum >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_check_value_is_that_of_the_standard() {
        assert_eq!(of(&[b"123456789"]), 0x995D_C9BB_DF19_39FA);
        assert_eq!(of(&[b"1234", b"", b"56789"]), 0x995D_C9BB_DF19_39FA);
        assert_eq!(of(&[]), 0);
    }
}
