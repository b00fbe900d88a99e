//! rust-protobuf under tonic.

use std::{fmt, marker::PhantomData};

use bytes::{Buf, BufMut};
use protobuf::{CodedInputStream, CodedOutputStream, Message, ProtobufError};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::guard::Guard;

/// A tonic codec that sends `T` and receives `U`.
///
/// A message is written straight into tonic's buffer. One that is read shares the bytes it
/// came in: its `bytes` fields are slices of the frame, not copies of it. tonic bounds the
/// frame (4 MiB unless a service says otherwise) before it is decoded, and nothing else is:
/// whoever accepts frames from everybody uses [`GuardedCodec`], or passes them through
/// `raftstore_proto::guard` first.
pub struct ProtobufCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ProtobufCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> fmt::Debug for ProtobufCodec<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProtobufCodec")
    }
}

impl<T: Message, U: Message> Codec for ProtobufCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProtobufEncoder<T>;
    type Decoder = ProtobufDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProtobufEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProtobufDecoder(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct ProtobufEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ProtobufEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let size = message.compute_size();
        buffer.reserve(size as usize);
        let mut writer = buffer.writer();
        let mut output = CodedOutputStream::new(&mut writer);
        message
            .write_to_with_cached_sizes(&mut output)
            .and_then(|()| output.flush())
            .map_err(|error| Status::internal(format!("a message cannot be written: {error}")))
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct ProtobufDecoder<U>(PhantomData<U>);

impl<U: Message> Decoder for ProtobufDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // One frame is one message, and an empty frame an empty message.
        let frame = buffer.copy_to_bytes(buffer.remaining());
        parse(&frame).map(Some).map_err(|error| {
            Status::invalid_argument(format!(
                "a frame of {} bytes is no message: {error}",
                frame.len()
            ))
        })
    }
}

fn parse<U: Message>(frame: &bytes::Bytes) -> Result<U, ProtobufError> {
    let mut input = CodedInputStream::from_carllerche_bytes(frame);
    let mut message = U::new();
    message.merge_from(&mut input)?;
    input.check_eof()?;
    message.check_initialized()?;
    Ok(message)
}

/// A codec like [`ProtobufCodec`] that reads each frame once before it is decoded, and refuses
/// what would take much more memory than it should, nests deep, or has groups: for frames
/// from whoever may connect.
pub struct GuardedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for GuardedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> fmt::Debug for GuardedCodec<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardedCodec")
    }
}

impl<T: Message, U: Message> Codec for GuardedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProtobufEncoder<T>;
    type Decoder = GuardedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProtobufEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        GuardedDecoder { guard: Guard::of::<U>(), decoder: ProtobufDecoder(PhantomData) }
    }
}

/// Reads messages that have been looked at.
#[derive(Debug)]
pub struct GuardedDecoder<U> {
    guard: Guard,
    decoder: ProtobufDecoder<U>,
}

impl<U: Message> Decoder for GuardedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A frame lies in one piece.
        let frame = buffer.chunk();
        if frame.len() != buffer.remaining() {
            return Err(Status::internal("a frame is in pieces"));
        }
        self.guard.check(frame).map_err(|error| {
            Status::invalid_argument(format!(
                "a frame of {} bytes is refused: {error}",
                frame.len()
            ))
        })?;
        self.decoder.decode(buffer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protobuf::Message;

    use super::parse;
    use crate::pb::kvrpcpb::RawPutRequest;

    #[test]
    fn a_value_is_a_slice_of_its_frame() {
        let mut request = RawPutRequest::default();
        request.set_key(Bytes::from_static(b"key"));
        request.set_value(Bytes::from(vec![7; 1000]));
        let frame = Bytes::from(request.write_to_bytes().unwrap());

        let read: RawPutRequest = parse(&frame).unwrap();

        assert_eq!(read, request);
        assert!(frame.as_ptr_range().contains(&read.value.as_ptr()), "the value was copied");
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let mut request = RawPutRequest::default();
        request.set_key(Bytes::from_static(b"key"));
        let frame = Bytes::from(request.write_to_bytes().unwrap());

        for length in 1..frame.len() {
            assert!(parse::<RawPutRequest>(&frame.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
