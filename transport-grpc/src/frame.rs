//! How messages become frames and frames messages: no copy of a payload but the one into
//! the buffer that goes to the socket.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use raftstore_proto::{
    DecodeError, RaftMessage,
    guard::Limits,
    wire::{
        SnapshotChunk, batch_len_hint, decode_batch, decode_snapshot_chunk, encode_batch,
        encode_snapshot_chunk,
    },
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::counters::{Counters, Refusal};

/// A buffer is begun with so much room, and grows by as much.
const BUFFER_BYTES: usize = 32 << 10;
/// Frames are gathered until there is so much for the socket.
const YIELD_BYTES: usize = 128 << 10;
/// More messages than a well-behaved sender puts in a batch.
const BATCH_MESSAGES_MAX: usize = 4096;

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// What is accepted of others, and who counts what is not.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
}

impl Reading {
    fn read<T>(
        &self,
        buffer: &mut DecodeBuf<'_>,
        decode: impl FnOnce(&Bytes, &Limits) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, Status> {
        // One frame is one item; the bytes are shared, not copied.
        let frame = buffer.copy_to_bytes(buffer.remaining());
        self.counters.received_frames.add(1);
        decode(&frame, &self.limits).map(Some).map_err(|error| {
            self.counters.refuse(Refusal::Malformed);
            Status::invalid_argument(format!("a frame of {} bytes: {error}", frame.len()))
        })
    }
}

/// The end of a stream, as answered: an empty message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done;

/// Reads or writes the empty message.
#[derive(Debug)]
pub(crate) struct DoneCoder;

impl Encoder for DoneCoder {
    type Item = Done;
    type Error = Status;

    fn encode(&mut self, _: Done, _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for DoneCoder {
    type Item = Done;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Done>, Status> {
        // Fields of a later version mean nothing to us.
        buffer.advance(buffer.remaining());
        Ok(Some(Done))
    }
}

/// The sender's side of a stream of batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendBatches;

impl Codec for SendBatches {
    type Encode = Vec<RaftMessage>;
    type Decode = Done;
    type Encoder = BatchEncoder;
    type Decoder = DoneCoder;

    fn encoder(&mut self) -> BatchEncoder {
        BatchEncoder
    }

    fn decoder(&mut self) -> DoneCoder {
        DoneCoder
    }
}

#[derive(Debug)]
pub(crate) struct BatchEncoder;

impl Encoder for BatchEncoder {
    type Item = Vec<RaftMessage>;
    type Error = Status;

    fn encode(
        &mut self,
        messages: Vec<RaftMessage>,
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        buffer.reserve(batch_len_hint(&messages));
        encode_batch(&messages, &mut buffer.writer())
            .map_err(|error| Status::internal(format!("a batch cannot be written: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// The receiver's side of a stream of messages, single ones or batches.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveMessages {
    pub(crate) is_batch: bool,
    pub(crate) reading: Reading,
}

impl Codec for ReceiveMessages {
    type Encode = Done;
    type Decode = Vec<RaftMessage>;
    type Encoder = DoneCoder;
    type Decoder = MessagesDecoder;

    fn encoder(&mut self) -> DoneCoder {
        DoneCoder
    }

    fn decoder(&mut self) -> MessagesDecoder {
        MessagesDecoder(self.clone())
    }
}

#[derive(Debug)]
pub(crate) struct MessagesDecoder(ReceiveMessages);

impl Decoder for MessagesDecoder {
    type Item = Vec<RaftMessage>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<RaftMessage>>, Status> {
        let is_batch = self.0.is_batch;
        self.0.reading.read(buffer, |frame, limits| {
            if is_batch {
                decode_batch(frame, BATCH_MESSAGES_MAX, limits)
            } else {
                Ok(vec![RaftMessage::decode(frame.clone(), limits)?])
            }
        })
    }
}

/// The sender's side of a stream that carries a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendChunks;

impl Codec for SendChunks {
    type Encode = SnapshotChunk;
    type Decode = Done;
    type Encoder = ChunkEncoder;
    type Decoder = DoneCoder;

    fn encoder(&mut self) -> ChunkEncoder {
        ChunkEncoder
    }

    fn decoder(&mut self) -> DoneCoder {
        DoneCoder
    }
}

#[derive(Debug)]
pub(crate) struct ChunkEncoder;

impl Encoder for ChunkEncoder {
    type Item = SnapshotChunk;
    type Error = Status;

    fn encode(&mut self, chunk: SnapshotChunk, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let (head, bytes) = encode_snapshot_chunk(&chunk);
        buffer.reserve(head.len() + bytes.len());
        buffer.put_slice(&head);
        buffer.put_slice(&bytes);
        Ok(())
    }
}

/// The receiver's side of a stream that carries a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveChunks(pub(crate) Reading);

impl Codec for ReceiveChunks {
    type Encode = Done;
    type Decode = SnapshotChunk;
    type Encoder = DoneCoder;
    type Decoder = ChunkDecoder;

    fn encoder(&mut self) -> DoneCoder {
        DoneCoder
    }

    fn decoder(&mut self) -> ChunkDecoder {
        ChunkDecoder(self.0.clone())
    }
}

#[derive(Debug)]
pub(crate) struct ChunkDecoder(Reading);

impl Decoder for ChunkDecoder {
    type Item = SnapshotChunk;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<SnapshotChunk>, Status> {
        self.0.read(buffer, decode_snapshot_chunk)
    }
}
