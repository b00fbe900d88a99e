//! Durations and sizes as people write them, both ways.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Decimal spellings mean the same as binary ones, as in the files of TiKV.
const SIZE_UNITS: [(&str, u32); 12] = [
    ("", 0),
    ("B", 0),
    ("KiB", 10),
    ("MiB", 20),
    ("GiB", 30),
    ("TiB", 40),
    ("PiB", 50),
    ("KB", 10),
    ("MB", 20),
    ("GB", 30),
    ("TB", 40),
    ("PB", 50),
];

pub(super) const DURATION_SHAPE: &str = "a duration like \"100ms\", \"10s\", \"5m\" or \"1h30m\"";
pub(super) const SIZE_SHAPE: &str = "a size like \"96MiB\" or a number of bytes";

/// Reads one or more numbers, each with its unit; a bare `0` is zero.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_u64;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, scale) = DURATION_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        nanos = nanos.checked_add(number.checked_mul(*scale)?)?;
        rest = after;
    }
    Some(Duration::from_nanos(nanos))
}

/// Reads a number with an optional unit.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let (_, shift) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.checked_mul(1 << shift)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// In the largest unit that leaves a whole number.
pub(super) fn show_duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let fits =
        DURATION_UNITS.iter().rev().find(|(_, scale)| nanos.is_multiple_of(u128::from(*scale)));
    let (unit, scale) = fits.expect("every duration is a whole number of nanoseconds");
    format!("{}{unit}", nanos / u128::from(*scale))
}

/// In the largest unit that leaves a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let binary = &SIZE_UNITS[1..7];
    let fits =
        binary.iter().rev().find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    let (unit, shift) = fits.unwrap_or(&binary[0]);
    format!("{}{unit}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("10s", 10_000),
            ("100ms", 100),
            ("2h", 7_200_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("0", 0),
            ("0s", 0),
            (" 3 s ", 3_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "10", "s", "10x", "1.5s", "-1s", "10s5", "99999999999999999999s", "9999999d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("96MiB", 96 << 20),
            ("8MB", 8 << 20),
            ("8mb", 8 << 20),
            ("1 KiB", 1 << 10),
            ("17", 17),
            ("17B", 17),
            ("3TiB", 3 << 40),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "1XB", "99999999PiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for nanos in [0, 1, 1_500, 1_000_000, 90_000_000_000, 86_400_000_000_000] {
            let value = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(&show_duration(value)), Some(value));
        }
        for bytes in [0, 1, 1023, 1024, 96 << 20, u64::MAX] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_size(144 << 20), "144MiB");
    }
}
