//! What is asked of every decoder, whatever the bytes: it does not panic, and what it makes
//! of them encodes to bytes that it makes the same of.

pub mod drive;
pub mod seeds;

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use raftstore_proto::{
    RaftMessage, RegionId,
    guard::Limits,
    wire::{
        SnapshotChunk, decode_batch, decode_command, decode_region, decode_response,
        decode_snapshot_chunk, decode_snapshot_data, encode_batch, encode_command, encode_region,
        encode_response, encode_snapshot_chunk, encode_snapshot_data,
        record::{
            decode_apply_state, decode_entry, decode_local_state, decode_region_state,
            decode_store_ident, encode_apply_state, encode_entry, encode_local_state,
            encode_region_state, encode_store_ident,
        },
    },
};

/// Whose records the bytes are taken for.
pub const REGION: RegionId = RegionId::must(1);

/// Looks at bytes, and gives what came of it as a number: equal ones for what went the same
/// way, so that a driver without better eyes can tell new from old.
pub type Target = fn(&[u8]) -> u64;

/// The targets by name.
pub const TARGETS: [(&str, Target); 4] =
    [("raft_message", raft_message), ("command", command), ("record", record), ("stream", stream)];

fn way(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// How an error reads without the numbers in it.
fn kind(error: &dyn std::fmt::Display) -> String {
    error.to_string().chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Messages between stores.
pub fn raft_message(data: &[u8]) -> u64 {
    let limits = Limits::default();
    let message = match RaftMessage::decode(Bytes::copy_from_slice(data), &limits) {
        Ok(message) => message,
        Err(error) => return way(kind(&error)),
    };
    let snapshot = message.snapshot().map(|snapshot| {
        decode_snapshot_data(&snapshot.data)
            .map(|(region, size_bytes)| {
                let again = encode_snapshot_data(&region, size_bytes);
                assert_eq!(decode_snapshot_data(&again), Ok((region, size_bytes)));
            })
            .map_err(|error| kind(&error))
    });
    // A repeated message may take more bytes, and so pass limits the original did not; the
    // other way round cannot be. The generated types tell fields that nobody knows and that
    // were overwritten from none at all, which does not show in what is encoded: so what is
    // read the second time is what has to stay.
    let written = message.encode();
    if let Ok(again) = RaftMessage::decode(written.clone().into(), &limits) {
        let rewritten = again.encode();
        assert_eq!(rewritten.len(), written.len());
        if let Ok(third) = RaftMessage::decode(rewritten.into(), &limits) {
            assert_eq!(third, again);
        }
    }
    way((
        message.raft().msg_type as i32,
        message.entries_len().min(4),
        snapshot,
        (message.region().is_some(), message.from_peer().is_some(), message.to_peer().is_some()),
        (message.epoch().is_some(), message.range().is_some(), message.is_tombstone()),
    ))
}

/// Frames of the streams between stores: batches of messages, and pieces of snapshots.
pub fn stream(data: &[u8]) -> u64 {
    let (bytes, limits) = (Bytes::copy_from_slice(data), Limits::default());
    let batch = decode_batch(&bytes, 1024, &limits).map(|messages| {
        let mut again = Vec::new();
        encode_batch(&messages, &mut again).expect("memory takes everything");
        // Fewer bytes have a smaller budget, which the same messages may exceed.
        if let Ok(back) = decode_batch(&again.into(), 1024, &limits) {
            assert_eq!(back.len(), messages.len());
        }
        (messages.len().min(4), messages.iter().map(RaftMessage::entries_len).sum::<usize>().min(4))
    });
    let chunk = decode_snapshot_chunk(&bytes, &limits).map(|chunk| {
        let (mut again, rest) = encode_snapshot_chunk(&chunk);
        again.extend_from_slice(&rest);
        let back = decode_snapshot_chunk(&again.into(), &limits);
        if !matches!(chunk, SnapshotChunk::Head { .. }) {
            assert_eq!(back.as_ref(), Ok(&chunk));
        }
        std::mem::discriminant(&chunk)
    });
    way((batch.map_err(|error| kind(&error)), chunk.map_err(|error| kind(&error))))
}

/// Commands, answers and regions.
pub fn command(data: &[u8]) -> u64 {
    let bytes = Bytes::copy_from_slice(data);
    let command = decode_command(&bytes).map(|command| {
        let shape = std::mem::discriminant(&command.body);
        assert_eq!(decode_command(&encode_command(&command).into()), Ok(command));
        shape
    });
    let region = decode_region(&bytes).map(|region| {
        let peers = region.peers.len().min(4);
        assert_eq!(decode_region(&encode_region(&region).into()), Ok(region));
        peers
    });
    // An answer may carry an error that a later version added, of which the text alone is kept:
    // what it is read as the second time is what it stays.
    let response = decode_response(&bytes).map(|response| {
        let again = decode_response(&encode_response(&response).into());
        let again = again.expect("what was decoded can be sent on");
        assert_eq!(decode_response(&encode_response(&again).into()), Ok(again.clone()));
        again.body.is_ok()
    });
    way((
        command.map_err(|error| kind(&error)),
        region.map_err(|error| kind(&error)),
        response.map_err(|error| kind(&error)),
    ))
}

/// Records on disk, as they are and with the checksum that each kind would have, since hardly
/// any other bytes would get behind it.
pub fn record(data: &[u8]) -> u64 {
    let as_they_are = one_record(data);
    let sealed: Vec<Vec<String>> = (1..=5)
        .map(|kind: u8| {
            let region = if kind == 1 { 0 } else { REGION.get() };
            let mut head = vec![kind];
            head.extend(region.to_be_bytes());
            let sum = crc32c::crc32c_append(crc32c::crc32c(&head), data);
            one_record(&[data, &sum.to_be_bytes()].concat())
        })
        .collect();
    way((as_they_are, sealed))
}

fn one_record(data: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |result: Result<String, String>| out.push(result.unwrap_or_else(|it| it));
    note(decode_store_ident(data).map_err(|error| kind(&error)).map(|ident| {
        assert_eq!(decode_store_ident(&encode_store_ident(&ident)), Ok(ident));
        String::new()
    }));
    note(decode_local_state(REGION, data).map_err(|error| kind(&error)).map(|state| {
        assert_eq!(decode_local_state(REGION, &encode_local_state(REGION, &state)), Ok(state));
        String::new()
    }));
    note(decode_apply_state(REGION, data).map_err(|error| kind(&error)).map(|state| {
        assert_eq!(decode_apply_state(REGION, &encode_apply_state(REGION, &state)), Ok(state));
        String::new()
    }));
    note(decode_region_state(REGION, data).map_err(|error| kind(&error)).map(|state| {
        let shape = format!("{:?} {}", state.phase, state.region.peers.len().min(4));
        assert_eq!(decode_region_state(REGION, &encode_region_state(REGION, &state)), Ok(state));
        shape
    }));
    let entry = decode_entry(REGION, Bytes::copy_from_slice(data));
    note(entry.map_err(|error| kind(&error)).map(|entry| {
        let shape = format!("{:?}", entry.flags());
        assert_eq!(decode_entry(REGION, encode_entry(REGION, &entry).into()), Ok(entry));
        shape
    }));
    out
}
