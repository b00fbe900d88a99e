//! What the gRPC edges of a store share.
//!
//! [`ProtobufCodec`] lets tonic speak the messages of [`pb`], which are rust-protobuf's: the
//! library that `raft` speaks too, so that a process holds one form of each message.

mod codec;

pub use codec::{ProtobufCodec, ProtobufDecoder, ProtobufEncoder};
/// The generated messages.
pub use raftstore_proto::pb;
