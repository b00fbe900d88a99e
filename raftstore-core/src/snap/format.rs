//! Decides what the bytes of a region snapshot look like, and which bytes are one.
//!
//! The format names no engine: rows of the data families in key order, cut into chunks. All
//! integers are big-endian and unsigned.
//!
//! ```text
//! file    := header chunk* footer, nothing behind it
//!
//! header   8  magic "RAFTSNAP"
//!          4  version, now 1
//!          4  length n of the body, at most 1 MiB
//!          n  body: region id 8, term 8, index 8, region (kvproto's metapb.Region)
//!          4  checksum
//!
//! chunk    1  family: 1 default, 2 lock, 3 write
//!          4  number of the chunk, from 0
//!          4  record count, at least 1
//!          4  length p of the payload, at most 64 MiB
//!          4  checksum
//!          p  records: key length 4, value length 4, key, value
//!
//! footer   1  255
//!          4  number of chunks
//!          8  number of records
//!          4  checksum
//! ```
//!
//! Keys are data keys (prefix `z`) inside the header's range, strictly ascending within a
//! family; families come in the order above. A family without rows has no chunk.
//!
//! Every checksum is the running CRC32C over all bytes of the file before it and, for a
//! chunk, its payload too, checksum fields themselves left out. It ties each part to
//! everything before it: parts that are swapped, repeated, left out or taken from another
//! snapshot fail at once, and the footer's checksum covers the whole.

use bytes::{Buf, Bytes};
use raftstore_proto::{Cf, DATA_CFS, DecodeError, Region};
use transport_traits::{SnapError, SnapReader, SnapWriter};

use crate::{keys, snap::header};

pub use crate::snap::header::SnapHeader;

const MAGIC: [u8; 8] = *b"RAFTSNAP";
const VERSION: u32 = 1;
/// Magic, version, body length.
const PREAMBLE_LEN: usize = 16;
/// Keys are far shorter and members far fewer; half of it would still do, double it would
/// only let a damaged length take more memory.
const HEADER_BODY_MAX: usize = 1 << 20;
const CHUNK_HEADER_LEN: usize = 13;
const FOOTER_REST_LEN: usize = 12;
const FOOTER_TAG: u8 = u8::MAX;
const RECORD_HEADER_LEN: usize = 8;
/// Largest payload of a chunk. A chunk holds at least one row, so this bounds rows too: half
/// of it must stay above the largest entry a region may propose, double it doubles what a
/// receiver must be able to hold.
pub const CHUNK_PAYLOAD_MAX: usize = 64 << 20;
/// Bytes asked of a [`SnapReader`] at a time.
const READ_BYTES: usize = 1 << 20;

/// Why bytes are no region snapshot, or could not be made one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The medium failed; says nothing about the bytes.
    #[error("snapshot bytes cannot be moved")]
    Medium(#[from] SnapError),
    /// Does not start as a region snapshot does.
    #[error("not a region snapshot")]
    Magic,
    /// Written by a newer release.
    #[error("snapshot format version {found} is not known")]
    Version {
        /// What the header says.
        found: u32,
    },
    /// The bytes end too early.
    #[error("snapshot ends inside its {part}")]
    Truncated {
        /// Inside what.
        part: &'static str,
    },
    /// A part longer than any we write; found before memory was taken for it.
    #[error("snapshot {part} of {size_bytes} bytes exceeds {max_bytes}")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its length.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A checksum does not fit.
    #[error("snapshot {part} fails its checksum")]
    Checksum {
        /// Which part.
        part: &'static str,
    },
    /// Lengths, counts or ids inside a part contradict each other.
    #[error("malformed snapshot: {detail}")]
    Malformed {
        /// What does not fit.
        detail: &'static str,
    },
    /// A chunk or row that is not behind the one before it.
    #[error("{cf} rows of chunk {chunk} are out of order")]
    Order {
        /// Family of the row.
        cf: Cf,
        /// Number of its chunk.
        chunk: u32,
    },
    /// A row outside the region (H56).
    #[error("a {cf} row of chunk {chunk} is outside the region")]
    OutsideRegion {
        /// Family of the row.
        cf: Cf,
        /// Number of its chunk.
        chunk: u32,
    },
    /// The header's region cannot be understood.
    #[error("malformed region in the snapshot's header")]
    Region(#[from] DecodeError),
    /// Bytes behind the footer.
    #[error("bytes behind the end of the snapshot")]
    Trailing,
}

/// Data keys `[start, end)` of a region.
#[derive(Clone, Debug)]
struct Bounds {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Bounds {
    fn of(region: &Region) -> Self {
        let (start, end) = keys::region_data_range(region);
        Self { start, end }
    }

    fn contain(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && key < self.end.as_slice()
    }
}

/// The last row seen; the next one must be behind it.
#[derive(Debug, Default)]
struct Position {
    family: usize,
    key: Option<Vec<u8>>,
}

impl Position {
    /// Moves to a row, unless it is not behind the last one.
    fn advance(&mut self, family: usize, key: &[u8]) -> bool {
        let behind = match &self.key {
            None => true,
            Some(_) if family > self.family => true,
            Some(last) => family == self.family && key > last.as_slice(),
        };
        if behind {
            self.family = family;
            let last = self.key.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        behind
    }
}

fn family_of(cf: Cf) -> Option<usize> {
    DATA_CFS.iter().position(|known| *known == cf)
}

fn tag_of(family: usize) -> u8 {
    u8::try_from(family + 1).expect("three families")
}

fn family_of_tag(tag: u8) -> Option<usize> {
    let family = usize::from(tag).checked_sub(1)?;
    (family < DATA_CFS.len()).then_some(family)
}

fn length_u32(length: usize, part: &'static str, max_bytes: usize) -> Result<u32, FormatError> {
    u32::try_from(length).ok().filter(|_| length <= max_bytes).ok_or(FormatError::TooLarge {
        part,
        size_bytes: length as u64,
        max_bytes: max_bytes as u64,
    })
}

/// Writes a region snapshot, row by row, in bounded memory.
pub struct Encoder {
    writer: Box<dyn SnapWriter>,
    bounds: Bounds,
    chunk_bytes: usize,
    crc: u32,
    position: Position,
    payload: Vec<u8>,
    family: usize,
    records_in_chunk: u32,
    chunks: u32,
    records: u64,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("chunks", &self.chunks)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Writes the header. Chunks are closed before they would exceed `chunk_bytes` of
    /// payload, unless a single row is larger.
    ///
    /// # Errors
    /// If the medium fails, or the region's keys are absurdly long.
    pub fn start(
        mut writer: Box<dyn SnapWriter>,
        header: &SnapHeader,
        chunk_bytes: usize,
    ) -> Result<Self, FormatError> {
        let body = header::encode(header)?;
        let mut bytes = Vec::with_capacity(PREAMBLE_LEN + body.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        let length = length_u32(body.len(), "header", HEADER_BODY_MAX)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        writer.write(&bytes)?;
        Ok(Self {
            writer,
            bounds: Bounds::of(&header.region),
            chunk_bytes: chunk_bytes.min(CHUNK_PAYLOAD_MAX),
            crc,
            position: Position::default(),
            payload: Vec::new(),
            family: 0,
            records_in_chunk: 0,
            chunks: 0,
            records: 0,
        })
    }

    /// Adds a row. `key` is a data key.
    ///
    /// # Errors
    /// If the row is not behind the last one, not in the region or too large, or the medium
    /// fails. The encoder is of no use afterwards.
    pub fn push(&mut self, cf: Cf, key: &[u8], value: &[u8]) -> Result<(), FormatError> {
        let Some(family) = family_of(cf) else {
            return Err(FormatError::Malformed { detail: "a row of a family without data" });
        };
        if !self.bounds.contain(key) {
            return Err(FormatError::OutsideRegion { cf, chunk: self.chunks });
        }
        if !self.position.advance(family, key) {
            return Err(FormatError::Order { cf, chunk: self.chunks });
        }
        let size = RECORD_HEADER_LEN + key.len() + value.len();
        length_u32(size, "row", CHUNK_PAYLOAD_MAX)?;
        if family != self.family || self.payload.len() + size > self.chunk_bytes {
            self.close_chunk()?;
            self.family = family;
        }
        let lengths = [key.len(), value.len()];
        for length in lengths {
            let length = length_u32(length, "row", CHUNK_PAYLOAD_MAX)?;
            self.payload.extend_from_slice(&length.to_be_bytes());
        }
        self.payload.extend_from_slice(key);
        self.payload.extend_from_slice(value);
        self.records_in_chunk += 1;
        self.records += 1;
        Ok(())
    }

    fn close_chunk(&mut self) -> Result<(), FormatError> {
        if self.records_in_chunk == 0 {
            return Ok(());
        }
        let length = length_u32(self.payload.len(), "chunk", CHUNK_PAYLOAD_MAX)?;
        let mut header = Vec::with_capacity(CHUNK_HEADER_LEN + 4);
        header.push(tag_of(self.family));
        header.extend_from_slice(&self.chunks.to_be_bytes());
        header.extend_from_slice(&self.records_in_chunk.to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &header);
        self.crc = crc32c::crc32c_append(self.crc, &self.payload);
        header.extend_from_slice(&self.crc.to_be_bytes());
        self.writer.write(&header)?;
        self.writer.write(&self.payload)?;
        self.payload.clear();
        self.records_in_chunk = 0;
        self.chunks = self
            .chunks
            .checked_add(1)
            .ok_or(FormatError::Malformed { detail: "more chunks than can be counted" })?;
        Ok(())
    }

    /// Writes the footer and makes the snapshot visible. Gives its size in bytes.
    ///
    /// # Errors
    /// If the medium fails; nothing is visible then.
    pub fn finish(mut self) -> Result<u64, FormatError> {
        self.close_chunk()?;
        let mut footer = Vec::with_capacity(1 + FOOTER_REST_LEN + 4);
        footer.push(FOOTER_TAG);
        footer.extend_from_slice(&self.chunks.to_be_bytes());
        footer.extend_from_slice(&self.records.to_be_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &footer);
        footer.extend_from_slice(&self.crc.to_be_bytes());
        self.writer.write(&footer)?;
        Ok(self.writer.finish()?)
    }
}

/// Checked rows of one family, in order.
#[derive(Clone, Debug)]
pub struct Chunk {
    cf: Cf,
    payload: Bytes,
    records: usize,
}

impl Chunk {
    /// The family.
    #[must_use]
    pub const fn cf(&self) -> Cf {
        self.cf
    }

    /// Number of rows, at least 1.
    #[must_use]
    pub const fn records(&self) -> usize {
        self.records
    }

    /// Bytes held, keys, values and framing.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Data keys and values in key order.
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        Rows { rest: &self.payload }
    }
}

/// See [`Chunk::rows`].
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, rest) = self.rest.split_at_checked(RECORD_HEADER_LEN)?;
        let (mut keys, mut values) = lengths.split_at(4);
        let (key, rest) = rest.split_at_checked(keys.get_u32() as usize)?;
        let (value, rest) = rest.split_at_checked(values.get_u32() as usize)?;
        self.rest = rest;
        Some((key, value))
    }
}

/// Reads a region snapshot chunk by chunk. Holds one chunk at most.
pub struct Decoder {
    reader: Box<dyn SnapReader>,
    /// Read and not yet consumed.
    buffered: Bytes,
    header: SnapHeader,
    bounds: Bounds,
    crc: u32,
    position: Position,
    chunks: u32,
    records: u64,
    ended: bool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("header", &self.header)
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// If it is not the header of a region snapshot, or cannot be read.
    pub fn open(mut reader: Box<dyn SnapReader>) -> Result<Self, FormatError> {
        let mut buffered = Bytes::new();
        let preamble = take(&mut *reader, &mut buffered, PREAMBLE_LEN, "header")?;
        let mut fields = preamble.clone();
        if fields.split_to(MAGIC.len()) != MAGIC.as_slice() {
            return Err(FormatError::Magic);
        }
        let version = fields.get_u32();
        if version != VERSION {
            return Err(FormatError::Version { found: version });
        }
        let length = fields.get_u32() as usize;
        length_u32(length, "header", HEADER_BODY_MAX)?;
        let body = take(&mut *reader, &mut buffered, length, "header")?;
        let stored = take(&mut *reader, &mut buffered, 4, "header")?.get_u32();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&preamble), &body);
        if crc != stored {
            return Err(FormatError::Checksum { part: "header" });
        }
        let header = header::decode(body)?;
        let bounds = Bounds::of(&header.region);
        Ok(Self {
            reader,
            buffered,
            header,
            bounds,
            crc,
            position: Position::default(),
            chunks: 0,
            records: 0,
            ended: false,
        })
    }

    /// What the snapshot says about itself.
    #[must_use]
    pub const fn header(&self) -> &SnapHeader {
        &self.header
    }

    /// The next chunk, all of it checked; `None` once the footer is checked and nothing is
    /// behind it.
    ///
    /// # Errors
    /// If the bytes are not what was written, or cannot be read. No use afterwards.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, FormatError> {
        if self.ended {
            return Ok(None);
        }
        let tag = self.take(1, "chunk")?;
        if tag[0] == FOOTER_TAG {
            self.check_footer(&tag)?;
            self.ended = true;
            return Ok(None);
        }
        let rest = self.take(CHUNK_HEADER_LEN - 1, "chunk")?;
        let mut fields = rest.clone();
        let number = fields.get_u32();
        let records = fields.get_u32();
        let length = fields.get_u32() as usize;
        // Before memory is taken: the checksum comes too late for that.
        length_u32(length, "chunk", CHUNK_PAYLOAD_MAX)?;
        let stored = self.take(4, "chunk")?.get_u32();
        let payload = self.take(length, "chunk")?;
        for part in [&tag, &rest, &payload] {
            self.crc = crc32c::crc32c_append(self.crc, part);
        }
        if self.crc != stored {
            return Err(FormatError::Checksum { part: "chunk" });
        }
        let Some(family) = family_of_tag(tag[0]) else {
            return Err(FormatError::Malformed { detail: "unknown family" });
        };
        if number != self.chunks {
            return Err(FormatError::Malformed { detail: "chunk out of sequence" });
        }
        let chunk = Chunk { cf: DATA_CFS[family], payload, records: records as usize };
        self.check_rows(&chunk, family)?;
        self.chunks += 1;
        self.records += u64::from(records);
        Ok(Some(chunk))
    }

    fn check_rows(&mut self, chunk: &Chunk, family: usize) -> Result<(), FormatError> {
        let (cf, number) = (chunk.cf, self.chunks);
        let mut rows = chunk.rows();
        let mut count = 0;
        for (key, _) in rows.by_ref() {
            if !self.bounds.contain(key) {
                return Err(FormatError::OutsideRegion { cf, chunk: number });
            }
            if !self.position.advance(family, key) {
                return Err(FormatError::Order { cf, chunk: number });
            }
            count += 1;
        }
        if !rows.rest.is_empty() {
            return Err(FormatError::Malformed { detail: "row lengths do not add up" });
        }
        if count == 0 || count != chunk.records {
            return Err(FormatError::Malformed { detail: "wrong number of rows in a chunk" });
        }
        Ok(())
    }

    fn check_footer(&mut self, tag: &Bytes) -> Result<(), FormatError> {
        let rest = self.take(FOOTER_REST_LEN, "footer")?;
        let stored = self.take(4, "footer")?.get_u32();
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, tag), &rest);
        if self.crc != stored {
            return Err(FormatError::Checksum { part: "footer" });
        }
        let mut fields = rest;
        if fields.get_u32() != self.chunks || fields.get_u64() != self.records {
            return Err(FormatError::Malformed { detail: "wrong totals in the footer" });
        }
        if self.buffered.is_empty() && self.reader.read(1)?.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Trailing)
        }
    }

    fn take(&mut self, length: usize, part: &'static str) -> Result<Bytes, FormatError> {
        take(&mut *self.reader, &mut self.buffered, length, part)
    }
}

/// The next `length` bytes. Memory is taken as bytes arrive, never ahead of them.
fn take(
    reader: &mut dyn SnapReader,
    buffered: &mut Bytes,
    length: usize,
    part: &'static str,
) -> Result<Bytes, FormatError> {
    if buffered.is_empty() && length > 0 {
        *buffered = reader.read(READ_BYTES)?;
    }
    if buffered.len() >= length {
        return Ok(buffered.split_to(length));
    }
    let mut bytes = Vec::from(std::mem::take(buffered));
    while bytes.len() < length {
        let mut more = reader.read(READ_BYTES)?;
        if more.is_empty() {
            return Err(FormatError::Truncated { part });
        }
        let used = more.split_to(more.len().min(length - bytes.len()));
        bytes.extend_from_slice(&used);
        *buffered = more;
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
