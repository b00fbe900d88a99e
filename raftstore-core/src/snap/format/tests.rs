//! What is written is read back; whatever else is read is refused.

use raftstore_proto::{Epoch, Peer, PeerId, PeerRole, RegionId, StoreId};
use transport_traits::{MemSnapStore, SnapDirection, SnapKey, SnapStore};

use super::*;

const KEY: SnapKey = SnapKey { region: RegionId::must(7), term: 3, index: 12 };

fn region() -> Region {
    Region {
        id: KEY.region,
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"m"),
        epoch: Epoch { conf_ver: 4, version: 9 },
        peers: vec![
            Peer::voter(PeerId::must(21), StoreId::must(1)),
            Peer::learner(PeerId::must(22), StoreId::must(2)),
            Peer { id: PeerId::must(23), store: StoreId::must(3), role: PeerRole::DemotingVoter },
        ],
    }
}

fn header() -> SnapHeader {
    SnapHeader { key: KEY, region: region() }
}

type Row = (Cf, Vec<u8>, Vec<u8>);

fn row(cf: Cf, key: &[u8], value: &[u8]) -> Row {
    (cf, keys::data_key(key), value.to_vec())
}

fn rows() -> Vec<Row> {
    vec![
        row(Cf::Default, b"b", b"first"),
        row(Cf::Default, b"c", b""),
        row(Cf::Default, b"d", b"third"),
        row(Cf::Write, b"b", b"again"),
        row(Cf::Write, b"lzz", b"last"),
    ]
}

fn encode(rows: &[Row], chunk_bytes: usize) -> Result<Vec<u8>, FormatError> {
    let snaps = MemSnapStore::new(u64::MAX);
    let writer = snaps.create(SnapDirection::Generated, KEY)?;
    let mut encoder = Encoder::start(writer, &header(), chunk_bytes)?;
    for (cf, key, value) in rows {
        encoder.push(*cf, key, value)?;
    }
    let size = encoder.finish()?;
    let mut bytes = Vec::new();
    let mut reader = snaps.open(SnapDirection::Generated, KEY)?;
    loop {
        let more = reader.read(1 << 16)?;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(&more);
    }
    assert_eq!(bytes.len() as u64, size);
    Ok(bytes)
}

/// Gives at most `step` bytes per call, whatever is asked.
struct Slow {
    rest: Bytes,
    step: usize,
    /// The most that was asked for at once.
    asked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl SnapReader for Slow {
    fn read(&mut self, max_bytes: usize) -> Result<Bytes, SnapError> {
        self.asked.fetch_max(max_bytes, std::sync::atomic::Ordering::Relaxed);
        let length = self.rest.len().min(max_bytes).min(self.step);
        Ok(self.rest.split_to(length))
    }
}

fn decode_in_steps(bytes: &[u8], step: usize) -> Result<(SnapHeader, Vec<Row>), FormatError> {
    let asked = std::sync::Arc::default();
    let reader = Slow { rest: Bytes::copy_from_slice(bytes), step, asked };
    let mut decoder = Decoder::open(Box::new(reader))?;
    let mut rows = Vec::new();
    while let Some(chunk) = decoder.next_chunk()? {
        assert_eq!(chunk.rows().count(), chunk.records());
        rows.extend(chunk.rows().map(|(key, value)| (chunk.cf(), key.to_vec(), value.to_vec())));
    }
    assert!(decoder.next_chunk()?.is_none(), "the end stays the end");
    Ok((decoder.header().clone(), rows))
}

fn decode(bytes: &[u8]) -> Result<(SnapHeader, Vec<Row>), FormatError> {
    decode_in_steps(bytes, usize::MAX)
}

#[test]
fn rows_and_header_come_back_whatever_the_chunk_size() {
    for chunk_bytes in [0, 1, 30, 60, 1 << 20, usize::MAX] {
        let bytes = encode(&rows(), chunk_bytes).unwrap();
        for step in [1, 7, usize::MAX] {
            let (found, found_rows) = decode_in_steps(&bytes, step).unwrap();
            assert_eq!(found, header());
            assert_eq!(found_rows, rows());
        }
    }
}

#[test]
fn a_region_without_rows_is_header_and_footer() {
    let bytes = encode(&[], 100).unwrap();
    assert_eq!(decode(&bytes).unwrap(), (header(), Vec::new()));
    assert_eq!(bytes[bytes.len() - 17], FOOTER_TAG);
}

/// The bytes of the format are a promise to other releases.
#[test]
fn the_layout_is_the_documented_one() {
    let bytes = encode(&[row(Cf::Lock, b"k", b"v")], 100).unwrap();
    let mut expected = b"RAFTSNAP\0\0\0\x01".to_vec();
    let mut body = Vec::new();
    for number in [7_u64, 3, 12] {
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(b"\x08\x07\x12\x01b\x1a\x01m\x22\x04\x08\x04\x10\x09");
    body.extend_from_slice(b"\x2a\x04\x08\x15\x10\x01");
    body.extend_from_slice(b"\x2a\x06\x08\x16\x10\x02\x18\x01");
    body.extend_from_slice(b"\x2a\x06\x08\x17\x10\x03\x18\x03");
    expected.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    expected.extend_from_slice(&body);
    let mut summed = expected.clone();
    expected.extend_from_slice(&crc32c::crc32c(&summed).to_be_bytes());

    let chunk_header = b"\x02\0\0\0\0\0\0\0\x01\0\0\0\x0b";
    let payload = b"\0\0\0\x02\0\0\0\x01zkv";
    summed.extend_from_slice(chunk_header);
    summed.extend_from_slice(payload);
    expected.extend_from_slice(chunk_header);
    expected.extend_from_slice(&crc32c::crc32c(&summed).to_be_bytes());
    expected.extend_from_slice(payload);

    let footer = b"\xff\0\0\0\x01\0\0\0\0\0\0\0\x01";
    summed.extend_from_slice(footer);
    expected.extend_from_slice(footer);
    expected.extend_from_slice(&crc32c::crc32c(&summed).to_be_bytes());
    assert_eq!(bytes, expected);
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = encode(&rows(), 40).unwrap();
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << bit;
            assert!(decode(&damaged).is_err(), "bit {bit} of byte {position}");
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let bytes = encode(&rows(), 40).unwrap();
    for length in 0..bytes.len() {
        let error = decode(&bytes[..length]).unwrap_err();
        assert!(matches!(error, FormatError::Truncated { .. }), "{length}: {error}");
    }
    for extra in [0, 1, FOOTER_TAG] {
        let mut longer = bytes.clone();
        longer.push(extra);
        assert!(matches!(decode(&longer), Err(FormatError::Trailing)));
    }
    for position in 0..bytes.len() {
        let mut longer = bytes.clone();
        longer.insert(position, 0);
        assert!(decode(&longer).is_err(), "a byte more at {position}");
        let mut shorter = bytes.clone();
        shorter.remove(position);
        assert!(decode(&shorter).is_err(), "a byte less at {position}");
    }
}

/// Start and end of every part of a snapshot: header, chunks, footer.
fn parts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let length_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut start = PREAMBLE_LEN + length_at(12) + 4;
    let mut parts = vec![bytes[..start].to_vec()];
    while bytes[start] != FOOTER_TAG {
        let end = start + CHUNK_HEADER_LEN + 4 + length_at(start + 9);
        parts.push(bytes[start..end].to_vec());
        start = end;
    }
    parts.push(bytes[start..].to_vec());
    parts
}

#[test]
fn parts_that_are_swapped_repeated_or_left_out_are_found() {
    let bytes = encode(&rows(), 1).unwrap();
    let parts = parts(&bytes);
    assert_eq!(parts.len(), 7);
    assert_eq!(parts.concat(), bytes);
    for first in 0..parts.len() {
        for second in 0..parts.len() {
            let mut moved = parts.clone();
            let part = moved.remove(first);
            moved.insert(second, part);
            assert_eq!(decode(&moved.concat()).is_ok(), first == second, "{first} to {second}");
            let mut repeated = parts.clone();
            repeated.insert(second, parts[first].clone());
            assert!(decode(&repeated.concat()).is_err(), "{first} again at {second}");
        }
        let mut missing = parts.clone();
        missing.remove(first);
        assert!(decode(&missing.concat()).is_err(), "without {first}");
    }
}

#[test]
fn a_part_of_another_snapshot_is_found() {
    let ours = parts(&encode(&rows(), 1).unwrap());
    let mut others = rows();
    others[2].2 = b"other".to_vec();
    let theirs = parts(&encode(&others, 1).unwrap());
    for part in 0..ours.len() {
        let mut mixed = ours.clone();
        mixed[part] = theirs[part].clone();
        assert_eq!(decode(&mixed.concat()).is_ok(), ours[part] == theirs[part], "{part}");
    }
}

#[test]
fn a_length_over_the_limit_takes_no_memory() {
    let bytes = encode(&rows(), 1 << 20).unwrap();
    for (at, part) in [(12, "header"), (parts(&bytes)[0].len() + 9, "chunk")] {
        let mut huge = bytes.clone();
        huge[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let asked = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let reader = Slow {
            rest: Bytes::from(huge),
            step: usize::MAX,
            asked: std::sync::Arc::clone(&asked),
        };
        let error = match Decoder::open(Box::new(reader)) {
            Ok(mut decoder) => decoder.next_chunk().unwrap_err(),
            Err(error) => error,
        };
        assert!(
            matches!(error, FormatError::TooLarge { part: found, .. } if found == part),
            "{error}"
        );
        assert!(asked.load(std::sync::atomic::Ordering::Relaxed) <= READ_BYTES);
    }
}

#[test]
fn h56_rows_outside_the_region_are_refused_on_both_sides() {
    for outside in [&b"a"[..], b"m", b"mm"] {
        let error = encode(&[row(Cf::Default, outside, b"")], 100).unwrap_err();
        assert!(matches!(error, FormatError::OutsideRegion { cf: Cf::Default, chunk: 0 }));
    }
    // The same rows under a header of a narrower region, with checksums that fit.
    let wide = encode(&rows(), 1 << 20).unwrap();
    let narrow =
        SnapHeader { key: KEY, region: Region { end_key: Bytes::from_static(b"d"), ..region() } };
    let body = header::encode(&narrow).unwrap();
    let mut forged = wide[..12].to_vec();
    forged.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    forged.extend_from_slice(&body);
    let mut crc = crc32c::crc32c(&forged);
    forged.extend_from_slice(&crc.to_be_bytes());
    for part in &parts(&wide)[1..] {
        let header = if part[0] == FOOTER_TAG { 1 + FOOTER_REST_LEN } else { CHUNK_HEADER_LEN };
        crc = crc32c::crc32c_append(crc, &part[..header]);
        crc = crc32c::crc32c_append(crc, &part[header + 4..]);
        forged.extend_from_slice(&part[..header]);
        forged.extend_from_slice(&crc.to_be_bytes());
        forged.extend_from_slice(&part[header + 4..]);
    }
    let error = decode(&forged).unwrap_err();
    assert!(matches!(error, FormatError::OutsideRegion { cf: Cf::Default, chunk: 0 }), "{error}");
}

#[test]
fn rows_out_of_order_are_refused() {
    let same = [row(Cf::Default, b"c", b"1"), row(Cf::Default, b"c", b"2")];
    let back = [row(Cf::Default, b"d", b""), row(Cf::Default, b"c", b"")];
    let families = [row(Cf::Write, b"c", b""), row(Cf::Default, b"d", b"")];
    for rows in [same, back, families] {
        assert!(matches!(encode(&rows, 100), Err(FormatError::Order { .. })));
    }
}

#[test]
fn a_family_without_data_is_refused() {
    let error = encode(&[row(Cf::Raft, b"c", b"")], 100).unwrap_err();
    assert!(matches!(error, FormatError::Malformed { .. }));
}

#[test]
fn a_foreign_file_and_a_newer_version_have_names_of_their_own() {
    assert!(matches!(decode(&[0; 64]), Err(FormatError::Magic)));
    let mut newer = encode(&rows(), 100).unwrap();
    newer[11] = 2;
    assert!(matches!(decode(&newer), Err(FormatError::Version { found: 2 })));
}

#[test]
fn a_failing_medium_is_told_from_bad_bytes() {
    let snaps = MemSnapStore::new(u64::MAX);
    let writer = snaps.create(SnapDirection::Received, KEY).unwrap();
    Encoder::start(writer, &header(), 100).unwrap().finish().unwrap();
    snaps.fail_next(transport_traits::SnapOp::Read, 1);
    let reader = snaps.open(SnapDirection::Received, KEY).unwrap();
    assert!(matches!(Decoder::open(reader), Err(FormatError::Medium(_))));
}
