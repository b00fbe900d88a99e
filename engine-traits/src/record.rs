//! The bytes of a log record: a CRC32C over region, index and body in front of the body.

use bytes::Bytes;
use raftstore_proto::{Entry, HardState, LocalState, PeerId, RegionId};

fn seal(region: RegionId, index: u64, body: &[u8]) -> Vec<u8> {
    let mut out = checksum(region, index, body).to_be_bytes().to_vec();
    out.extend_from_slice(body);
    out
}

fn open(region: RegionId, index: u64, record: &[u8]) -> Result<&[u8], String> {
    let (crc, body) = record.split_first_chunk::<4>().ok_or("record is too short")?;
    if checksum(region, index, body) == u32::from_be_bytes(*crc) {
        Ok(body)
    } else {
        Err("checksum mismatch".to_owned())
    }
}

fn checksum(region: RegionId, index: u64, body: &[u8]) -> u32 {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&region.get().to_be_bytes());
    head[8..].copy_from_slice(&index.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

fn number(body: &[u8], at: usize) -> Result<u64, String> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(|| "body is too short".to_owned())
}

pub(crate) fn encode_entry(region: RegionId, entry: &Entry) -> Vec<u8> {
    let raw = entry.as_raft();
    let mut body = Vec::with_capacity(24 + entry.payload_len());
    body.extend_from_slice(&entry.index().to_be_bytes());
    body.extend_from_slice(&entry.term().to_be_bytes());
    body.extend_from_slice(&(raw.context.len() as u64).to_be_bytes());
    body.extend_from_slice(&raw.context);
    body.extend_from_slice(&raw.data);
    seal(region, entry.index(), &body)
}

pub(crate) fn decode_entry(region: RegionId, index: u64, record: &Bytes) -> Result<Entry, String> {
    let body = open(region, index, record)?;
    let mut raw = Entry::default().into_raft();
    raw.index = number(body, 0)?;
    raw.term = number(body, 8)?;
    let context = usize::try_from(number(body, 16)?).map_err(|error| error.to_string())?;
    let payload = body.get(24..).filter(|rest| rest.len() >= context).ok_or("too short")?;
    raw.context = payload[..context].to_vec().into();
    raw.data = record.slice_ref(&payload[context..]);
    Ok(Entry::from_raft(raw))
}

pub(crate) fn encode_local_state(region: RegionId, state: &LocalState) -> Vec<u8> {
    let hard = state.hard_state;
    let numbers = [state.peer.get(), hard.term, hard.vote, hard.commit, state.last_index];
    seal(region, 0, &numbers.map(u64::to_be_bytes).concat())
}

pub(crate) fn decode_local_state(region: RegionId, record: &Bytes) -> Result<LocalState, String> {
    let body = open(region, 0, record)?;
    Ok(LocalState {
        peer: PeerId::new(number(body, 0)?).ok_or("peer id is 0")?,
        hard_state: HardState {
            term: number(body, 8)?,
            vote: number(body, 16)?,
            commit: number(body, 24)?,
        },
        last_index: number(body, 32)?,
    })
}
