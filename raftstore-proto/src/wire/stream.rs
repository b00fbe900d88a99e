//! What travels in the streams between stores: batches of messages, and region snapshots in
//! pieces.
//!
//! A frame that is read is guarded as a whole. The messages of a batch share one budget of
//! decoded memory, or many small ones could each use up what a single one may.

use std::io::{self, Write};

use bytes::Bytes;
use protobuf::{CodedOutputStream, wire_format::WireType};

use crate::{
    DecodeError, RaftMessage,
    guard::{self, Limits},
    wire::codec::{Reader, Sink, Source, malformed},
};

const BATCH: &str = "batch of raft messages";
const CHUNK: &str = "snapshot chunk";

/// The field of a batch that holds its messages.
const MESSAGES: u32 = 1;

/// Writes the wire form of a batch. The messages are not changed, their payloads copied
/// once, to where they go.
///
/// # Errors
/// Those of `out`.
pub fn encode_batch(messages: &[RaftMessage], out: &mut dyn Write) -> io::Result<()> {
    let mut stream = CodedOutputStream::new(out);
    for message in messages {
        stream.write_tag(MESSAGES, WireType::WireTypeLengthDelimited)?;
        message.write_sized(&mut stream)?;
    }
    stream.flush()?;
    Ok(())
}

/// Bytes that [`encode_batch`] writes, near enough to make room for them.
#[must_use]
pub fn batch_len_hint(messages: &[RaftMessage]) -> usize {
    // Tag and length of each.
    messages.iter().map(|message| message.encoded_len_hint() + 6).sum()
}

/// Reads the wire form of a batch of at most `messages_max` messages. Payloads are slices of
/// `frame`; all of the messages together stay within the budget that `limits` gives a
/// message of the length of the frame.
///
/// # Errors
/// Says which bound is broken. Nothing of a bad batch is given.
pub fn decode_batch(
    frame: &Bytes,
    messages_max: usize,
    limits: &Limits,
) -> Result<Vec<RaftMessage>, DecodeError> {
    let source = Source { bytes: frame, what: BATCH };
    check_len(BATCH, frame, limits)?;
    let mut count = 0;
    source.fields(frame, |number, value| {
        if number == MESSAGES {
            source.message(value)?;
            count += 1;
        }
        Ok(())
    })?;
    if count > messages_max {
        return Err(DecodeError::TooMany { what: BATCH, max: messages_max as u64 });
    }
    let budget_bytes = guard::budget(frame.len(), limits);
    let over = DecodeError::OverBudget { what: BATCH, budget_bytes: budget_bytes as u64 };
    let mut left = Limits { budget_per_byte: 0, budget_base_bytes: budget_bytes, ..*limits };
    let shells = count * size_of::<RaftMessage>();
    left.budget_base_bytes = left.budget_base_bytes.checked_sub(shells).ok_or(over)?;
    let mut messages = Vec::with_capacity(count);
    source.fields(frame, |number, value| {
        if number != MESSAGES {
            return Ok(());
        }
        let bytes = source.payload(value)?;
        let admitted = guard::check_raft_message(&bytes, &left)?;
        left.budget_base_bytes -= admitted.decoded_bytes;
        left.items -= admitted.items;
        messages.push(RaftMessage::decode_admitted(&bytes, admitted)?);
        Ok(())
    })?;
    Ok(messages)
}

/// A piece of the stream that carries a region snapshot.
#[derive(Clone, Debug, PartialEq)]
pub enum SnapshotChunk {
    /// The first: the message that announces the snapshot, and how long it is.
    Head {
        /// The message.
        message: Box<RaftMessage>,
        /// Bytes of the whole snapshot.
        size_bytes: u64,
    },
    /// Bytes of the snapshot.
    Data {
        /// Where in the snapshot they belong.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The last: everything has been sent.
    End {
        /// Bytes of the whole snapshot.
        size_bytes: u64,
        /// CRC32C of all of them.
        checksum: u32,
    },
}

/// Fields of a chunk. Other implementations know the first two.
const MESSAGE: u32 = 1;
const DATA: u32 = 2;
const SIZE: u32 = 1000;
const OFFSET: u32 = 1001;
const CHECKSUM: u32 = 1002;

/// The wire form of a chunk, but for its bytes, which follow it: they are the last field, and
/// need not be copied to be put there.
#[must_use]
pub fn encode_snapshot_chunk(chunk: &SnapshotChunk) -> (Vec<u8>, Bytes) {
    let mut out = Vec::new();
    match chunk {
        SnapshotChunk::Head { message, size_bytes } => {
            out.number(SIZE, *size_bytes);
            out.bytes(MESSAGE, &message.encode());
            (out, Bytes::new())
        }
        SnapshotChunk::Data { offset, bytes } => {
            out.number(OFFSET, *offset);
            out.tag(DATA, 2);
            out.varint(bytes.len() as u64);
            (out, bytes.clone())
        }
        SnapshotChunk::End { size_bytes, checksum } => {
            out.number(SIZE, *size_bytes);
            out.tag(CHECKSUM, 0);
            out.varint(u64::from(*checksum));
            (out, Bytes::new())
        }
    }
}

/// Reads the wire form of a chunk. Its bytes are a slice of `frame`.
///
/// # Errors
/// What the guard refuses in the message, and [`DecodeError::Malformed`] also for fields that
/// do not belong together.
pub fn decode_snapshot_chunk(frame: &Bytes, limits: &Limits) -> Result<SnapshotChunk, DecodeError> {
    check_len(CHUNK, frame, limits)?;
    let source = Source { bytes: frame, what: CHUNK };
    let (mut message, mut data, mut size, mut offset, mut checksum) =
        (None, None, None, None, None);
    let mut reader = Reader::new(frame);
    while let Some((number, value)) = reader.field().map_err(|fault| malformed(CHUNK, fault))? {
        let is_repeated = match number {
            MESSAGE => message.replace(source.payload(value)?).is_some(),
            DATA => data.replace(source.payload(value)?).is_some(),
            SIZE => size.replace(source.number(value)?).is_some(),
            OFFSET => offset.replace(source.number(value)?).is_some(),
            CHECKSUM => checksum.replace(source.number(value)?).is_some(),
            _ => false,
        };
        if is_repeated {
            return Err(malformed(CHUNK, "a field is there twice"));
        }
    }
    match (message, data, size, offset, checksum) {
        (Some(message), None, size, None, None) => Ok(SnapshotChunk::Head {
            message: Box::new(RaftMessage::decode(message, limits)?),
            size_bytes: size.unwrap_or(0),
        }),
        (None, Some(bytes), None, offset, None) => {
            Ok(SnapshotChunk::Data { offset: offset.unwrap_or(0), bytes })
        }
        (None, None, size, None, Some(checksum)) => {
            let checksum =
                u32::try_from(checksum).map_err(|_| malformed(CHUNK, "a checksum has 32 bits"))?;
            Ok(SnapshotChunk::End { size_bytes: size.unwrap_or(0), checksum })
        }
        _ => Err(malformed(CHUNK, "neither head nor data nor end")),
    }
}

fn check_len(what: &'static str, frame: &Bytes, limits: &Limits) -> Result<(), DecodeError> {
    if frame.len() > limits.message_bytes {
        return Err(DecodeError::TooLarge {
            what,
            size_bytes: frame.len() as u64,
            max_bytes: limits.message_bytes as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use raft_proto::eraftpb;

    use super::*;
    use crate::{Epoch, Peer, PeerId, RegionId, StoreId};

    fn message(payload: usize) -> RaftMessage {
        let peer = |id| Peer::voter(PeerId::must(id), StoreId::must(id));
        let mut raft = eraftpb::Message::new();
        raft.set_msg_type(eraftpb::MessageType::MsgAppend);
        let mut entry = eraftpb::Entry::new();
        entry.data = vec![7; payload].into();
        raft.entries.push(entry);
        RaftMessage::new(RegionId::must(9), peer(1), peer(2), Epoch::default(), raft)
    }

    fn encoded(messages: &[RaftMessage]) -> Bytes {
        let mut out = Vec::new();
        encode_batch(messages, &mut out).unwrap();
        assert!(out.len() <= batch_len_hint(messages), "room was made for too little");
        out.into()
    }

    #[test]
    fn a_batch_comes_back_with_payloads_in_its_frame() {
        let messages = [message(0), message(100), message(20_000)];
        let frame = encoded(&messages);
        let back = decode_batch(&frame, 3, &Limits::default()).unwrap();
        assert_eq!(back, messages);
        let place = &back[2].raft().entries[0].data;
        assert!(frame.as_ptr_range().contains(&place.as_ptr()), "the payload was copied");
        assert_eq!(decode_batch(&Bytes::new(), 3, &Limits::default()), Ok(Vec::new()));
    }

    #[test]
    fn a_batch_at_its_limits_passes_and_one_over_them_does_not() {
        let messages = [message(10), message(10)];
        let frame = encoded(&messages);
        assert!(decode_batch(&frame, 2, &Limits::default()).is_ok());
        let too_many = DecodeError::TooMany { what: BATCH, max: 1 };
        assert_eq!(decode_batch(&frame, 1, &Limits::default()), Err(too_many));
        let limits = |message_bytes| Limits { message_bytes, ..Limits::default() };
        assert!(decode_batch(&frame, 2, &limits(frame.len())).is_ok());
        let refused = decode_batch(&frame, 2, &limits(frame.len() - 1));
        assert!(matches!(refused, Err(DecodeError::TooLarge { .. })), "{refused:?}");
        let limits = |items| Limits { items, ..Limits::default() };
        assert!(decode_batch(&frame, 2, &limits(2)).is_ok());
        let refused = decode_batch(&frame, 2, &limits(1));
        assert!(matches!(refused, Err(DecodeError::TooMany { .. })), "{refused:?}");
    }

    /// Each of the messages would pass by itself.
    #[test]
    fn messages_of_a_batch_share_one_budget() {
        let mut dear = message(0);
        for _ in 0..5000 {
            dear.raft_mut().entries.push(eraftpb::Entry::new());
        }
        let limits = Limits::default();
        assert!(RaftMessage::decode(dear.encode().into(), &limits).is_ok());
        let refused = decode_batch(&encoded(&vec![dear; 10]), 10, &limits);
        assert!(matches!(refused, Err(DecodeError::OverBudget { .. })), "{refused:?}");
    }

    #[test]
    fn a_batch_cut_short_is_never_another_batch_with_all_of_it() {
        let frame = encoded(&[message(30), message(30)]);
        for end in 1..frame.len() {
            if let Ok(messages) = decode_batch(&frame.slice(..end), 2, &Limits::default()) {
                assert_eq!(messages.len(), 1, "cut at {end}");
            }
        }
    }

    fn wire(chunk: &SnapshotChunk) -> Bytes {
        let (mut head, rest) = encode_snapshot_chunk(chunk);
        head.extend_from_slice(&rest);
        head.into()
    }

    #[test]
    fn chunks_come_back() {
        let chunks = [
            SnapshotChunk::Head { message: Box::new(message(3)), size_bytes: 1 << 40 },
            SnapshotChunk::Head { message: Box::new(message(3)), size_bytes: 0 },
            SnapshotChunk::Data { offset: 0, bytes: Bytes::from_static(b"bytes") },
            SnapshotChunk::Data { offset: 7 << 33, bytes: Bytes::new() },
            SnapshotChunk::End { size_bytes: 0, checksum: 0 },
            SnapshotChunk::End { size_bytes: 12, checksum: u32::MAX },
        ];
        for chunk in &chunks {
            assert_eq!(decode_snapshot_chunk(&wire(chunk), &Limits::default()).as_ref(), Ok(chunk));
        }
    }

    #[test]
    fn fields_that_do_not_belong_together_are_refused() {
        let data = wire(&SnapshotChunk::Data { offset: 1, bytes: Bytes::from_static(b"x") });
        let end = wire(&SnapshotChunk::End { size_bytes: 1, checksum: 5 });
        let head = wire(&SnapshotChunk::Head { message: Box::new(message(3)), size_bytes: 1 });
        for parts in [[&data, &end], [&data, &data], [&head, &data], [&head, &end]] {
            let joined: Bytes = parts.map(|part| part.to_vec()).concat().into();
            assert!(decode_snapshot_chunk(&joined, &Limits::default()).is_err(), "{joined:?}");
        }
        assert!(decode_snapshot_chunk(&Bytes::new(), &Limits::default()).is_err());
    }
}
