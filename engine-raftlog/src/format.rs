//! How raft-engine's files look, as far as opening a folder must know: names, headers, and where
//! records end.
//!
//! *Shape* of a file: [`header`], then records. A record: `len << 8 | compression` (big-endian
//! u64), `footer` (big-endian u64: where the items begin), entries and their CRC32 if there are any,
//! items and their CRC32. The CRC32 of the items is XORed with the low half of the file's number,
//! so that a record is one of its own file only.

use std::ops::Range;

/// What every file begins with.
const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const VERSION: u64 = 2;
/// Bytes of a header: magic, version, alignment.
pub(crate) const HEADER_BYTES: u64 = MAGIC.len() as u64 + 16;
const RECORD_HEAD: usize = 16;
const CRC: usize = 4;
const NUMBER_DIGITS: usize = 16;

/// The region whose values are the log's own. Regions have ids from 1 on.
pub(crate) const OWN: u64 = 0;
/// Key of the [`Mark`] of a record, under [`OWN`].
pub(crate) const MARK_KEY: &[u8] = b"m";
/// A mark as the first item of a record: region 0, a value, put, key, length of the mark.
const MARK_ITEM: &[u8] = &[0, 3, 1, 1, b'm', 16];

/// Which of raft-engine's two rows of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Queue {
    /// What was written.
    Append,
    /// What was moved out of old files.
    Rewrite,
}

impl Queue {
    pub(crate) const BOTH: [Self; 2] = [Self::Append, Self::Rewrite];

    /// Its word in the manifest.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Rewrite => "rewrite",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Append => ".raftlog",
            Self::Rewrite => ".rewrite",
        }
    }
}

/// A file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    pub(crate) queue: Queue,
    pub(crate) number: u64,
}

impl FileId {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (digits, suffix) = name.split_at_checked(NUMBER_DIGITS)?;
        let queue = Queue::BOTH.into_iter().find(|queue| queue.suffix() == suffix)?;
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        Some(Self { queue, number: digits.parse().ok()? })
    }

    pub(crate) fn name(self) -> String {
        format!("{:0NUMBER_DIGITS$}{}", self.number, self.queue.suffix())
    }
}

/// What a record says about the write it is: its number, and up to which number all writes were
/// durable when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) durable: u64,
}

impl Mark {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.number.to_be_bytes(), self.durable.to_be_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, durable) = bytes.split_first_chunk::<8>()?;
        let durable = durable.try_into().ok()?;
        Some(Self { number: u64::from_be_bytes(*number), durable: u64::from_be_bytes(durable) })
    }
}

/// What a file without records holds.
pub(crate) fn header() -> Vec<u8> {
    [MAGIC, &VERSION.to_be_bytes(), &0_u64.to_be_bytes()].concat()
}

/// What a file begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Ours.
    Whole,
    /// raft-engine's, but of a version that this one does not write.
    Version(u64),
    /// Nothing of the kind.
    Broken,
}

pub(crate) fn read_header(bytes: &[u8]) -> Header {
    if bytes.starts_with(&header()) {
        return Header::Whole;
    }
    match bytes.strip_prefix(MAGIC).and_then(<[u8]>::first_chunk) {
        Some(version) if u64::from_be_bytes(*version) > VERSION => {
            Header::Version(u64::from_be_bytes(*version))
        }
        _ => Header::Broken,
    }
}

/// What the last file of a row turned out to hold behind its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where the records that can be read from the start on end.
    pub(crate) end: u64,
    /// The mark of the last of them.
    pub(crate) last: Option<Mark>,
    /// The highest `durable` of the records behind the first one that cannot be read.
    pub(crate) durable_behind: Option<u64>,
}

/// Reads the records of a file with a whole header.
pub(crate) fn scan(bytes: &[u8], number: u64) -> Scan {
    let mut end = usize::try_from(HEADER_BYTES).unwrap_or(usize::MAX);
    let mut last = None;
    while let Some((record, items)) = record_at(bytes, end, number)
        && entries_are_whole(&bytes[record.start..items.start])
    {
        last = mark_in(&bytes[items]).or(last);
        end = record.end;
    }
    let mut durable_behind = None;
    let mut at = end + 1;
    while at + RECORD_HEAD < bytes.len() {
        if let Some((record, items)) = record_at(bytes, at, number) {
            let durable = mark_in(&bytes[items]).map(|mark| mark.durable);
            durable_behind = durable_behind.max(durable);
            at = record.end;
        } else {
            at += 1;
        }
    }
    Scan { end: end as u64, last, durable_behind }
}

/// The record at an offset and its items without their checksum, if head and items are whole.
fn record_at(bytes: &[u8], at: usize, number: u64) -> Option<(Range<usize>, Range<usize>)> {
    let head = bytes.get(at..at + RECORD_HEAD)?;
    let (len, footer) = head.split_first_chunk::<8>()?;
    let len = u64::from_be_bytes(*len);
    let (len, compression) = (usize::try_from(len >> 8).ok()?, len & 0xFF);
    let footer = usize::try_from(u64::from_be_bytes(footer.try_into().ok()?)).ok()?;
    if compression > 1 || footer < RECORD_HEAD || footer.checked_add(CRC)? >= len {
        return None;
    }
    let end = at.checked_add(len).filter(|end| *end <= bytes.len())?;
    let (items, crc) = bytes[at + footer..end].split_last_chunk::<CRC>()?;
    let signature = u64::from(u32::MAX) & number;
    (u64::from(crc32fast::hash(items)) == u64::from(u32::from_le_bytes(*crc)) ^ signature)
        .then_some((at..end, at + footer..end - CRC))
}

/// Whether the entries of a record, from its head to its items, are whole.
fn entries_are_whole(bytes: &[u8]) -> bool {
    match bytes[RECORD_HEAD..].split_last_chunk::<CRC>() {
        Some((entries, crc)) => crc32fast::hash(entries) == u32::from_le_bytes(*crc),
        None => bytes.len() == RECORD_HEAD,
    }
}

/// The mark with which the items of a record begin.
fn mark_in(items: &[u8]) -> Option<Mark> {
    let count_bytes = 1 + items.iter().position(|byte| byte & 0x80 == 0)?;
    let mark = items[count_bytes..].strip_prefix(MARK_ITEM)?;
    Mark::decode(mark.get(..16)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for queue in Queue::BOTH {
            let id = FileId { queue, number: 12_345_678_901_234 };
            assert_eq!(FileId::parse(&id.name()), Some(id));
        }
        for name in ["", "LOCK", "0000000000000001.raftlog.reserved", "+000000000000001.raftlog"] {
            assert_eq!(FileId::parse(name), None, "{name}");
        }
    }

    /// A record with one mark and no entries, as raft-engine writes it.
    fn record(mark: Mark, file: u32) -> Vec<u8> {
        let items = [&[1], MARK_ITEM, &mark.encode()].concat();
        let len = (RECORD_HEAD + items.len() + CRC) as u64;
        let crc = crc32fast::hash(&items) ^ file;
        let head = [(len << 8).to_be_bytes(), (RECORD_HEAD as u64).to_be_bytes()].concat();
        [head, items, crc.to_le_bytes().to_vec()].concat()
    }

    fn file(marks: &[(u64, u64)]) -> Vec<u8> {
        let records = marks
            .iter()
            .flat_map(|(number, durable)| record(Mark { number: *number, durable: *durable }, 7));
        header().into_iter().chain(records).collect()
    }

    #[test]
    fn a_whole_file_is_read_to_its_end() {
        let bytes = file(&[(1, 0), (2, 0), (3, 2)]);
        let last = Some(Mark { number: 3, durable: 2 });
        let end = bytes.len() as u64;
        assert_eq!(scan(&bytes, 7), Scan { end, last, durable_behind: None });
        // Of another file: nothing in it counts.
        assert_eq!(scan(&bytes, 8), Scan { end: HEADER_BYTES, last: None, durable_behind: None });
    }

    #[test]
    fn records_behind_damage_are_found() {
        let whole = file(&[(1, 0), (2, 0), (3, 2), (4, 1)]);
        let size = (whole.len() - header().len()) / 4;
        let second = header().len() + size;
        // No checksum covers how entries are compressed; it shows when they are read.
        for at in (second..second + size).filter(|at| *at != second + 7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let scan = scan(&bytes, 7);
            assert_eq!(scan.end, second as u64, "damage at {at}");
            assert_eq!(scan.durable_behind, Some(2), "damage at {at}");
        }
    }

    #[test]
    fn zeros_and_torn_ends_are_no_records() {
        let whole = file(&[(1, 0), (2, 0)]);
        for len in header().len()..whole.len() {
            let mut bytes = whole[..len].to_vec();
            bytes.resize(whole.len() + 100, 0);
            assert_eq!(scan(&bytes, 7).durable_behind, None, "torn at {len}");
        }
    }

    #[test]
    fn newer_headers_are_told_from_broken_ones() {
        let mut bytes = header();
        assert_eq!(read_header(&bytes), Header::Whole);
        bytes[MAGIC.len() + 7] = 9;
        assert_eq!(read_header(&bytes), Header::Version(9));
        bytes[3] ^= 1;
        assert_eq!(read_header(&bytes), Header::Broken);
        assert_eq!(read_header(b""), Header::Broken);
    }
}
