//! Requests are checked before they are decoded.

use std::{fmt, marker::PhantomData};

use bytes::Buf as _;
use protobuf::Message;
use raftstore_grpc::ProtobufEncoder;
use raftstore_proto::guard::{ClientRequest, Limits, check_request};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};

/// Largest request, in bytes. Above the limit of an entry, so that the refusal of a large
/// write is one that clients understand.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What the decoded form of one request may take. Small requests in a bundle take some
/// twenty times their bytes, which a bundle as clients send it does not exhaust by far.
fn limits() -> Limits {
    Limits {
        message_bytes: REQUEST_BYTES_MAX,
        // The requests of a bundle.
        items: 4_096,
        budget_base_bytes: 32 << 20,
        ..Limits::default()
    }
}

/// A tonic codec for servers, that sends `T` and receives `U`.
pub(crate) struct GuardedCodec<T, U>(PhantomData<(T, U)>);

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

impl<T: Message, U: ClientRequest> Codec for GuardedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProtobufEncoder<T>;
    type Decoder = GuardedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        raftstore_grpc::ProtobufCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        GuardedDecoder(PhantomData)
    }
}

/// Reads requests.
#[derive(Debug)]
pub(crate) struct GuardedDecoder<U>(PhantomData<U>);

impl<U: ClientRequest> Decoder for GuardedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // One frame is one message, and an empty frame an empty message.
        let frame = buffer.copy_to_bytes(buffer.remaining());
        let refused = |what: String| Status::invalid_argument(format!("request refused: {what}"));
        check_request::<U>(&frame, &limits()).map_err(|error| refused(error.to_string()))?;
        U::parse_from_carllerche_bytes(&frame).map(Some).map_err(|error| refused(error.to_string()))
    }
}
