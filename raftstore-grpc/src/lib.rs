//! What the gRPC edges of a store share.
//!
//! [`ProtobufCodec`] lets tonic speak the messages of [`pb`], which are rust-protobuf's: the
//! library that `raft` speaks too, so that a process holds one form of each message.
//! [`GuardedCodec`] is the same for frames from whoever may connect.
//!
//! [`serve()`] takes connections for a tonic server: so many and no more, each of which must
//! speak HTTP/2 within a deadline before the server hears of it. [`connect()`] makes them.
//! With [`Tls`] both ends of each show a certificate, which is read anew when its file changes.

mod codec;
mod connect;
mod connection;
mod guard;
mod name;
mod serve;
mod tls;

pub use codec::{GuardedCodec, GuardedDecoder, ProtobufCodec, ProtobufDecoder, ProtobufEncoder};
pub use connect::{ClientConfig, ConnectError, connect};
pub use connection::PeerInfo;
pub use guard::GuardError;
/// The generated messages.
pub use raftstore_proto::pb;
pub use serve::{ServerConfig, ServerCounters, ServerFigures, serve};
pub use tls::{Tls, TlsError, TlsFiles};
