//! Commands on the wire (package raft_cmdpb). Encoding and decoding are on the way of every
//! write, so both are done here instead of through the generated form.

mod admin;
mod decode;

pub use decode::decode_command;

use self::admin::Admin;
use crate::{
    Body, Cf, Command, Epoch, Header, Operation, Peer, StatusCommand,
    wire::codec::{self, Encode, Sink},
    wire::region::role_to_number,
};

/// Numbers of `CmdType`.
mod cmd {
    pub(super) const GET: i32 = 1;
    pub(super) const PUT: i32 = 3;
    pub(super) const DELETE: i32 = 4;
    pub(super) const SNAP: i32 = 5;
    pub(super) const DELETE_RANGE: i32 = 7;
}

/// Numbers of `StatusCmdType`.
mod status {
    pub(super) const INVALID: i32 = 0;
    pub(super) const REGION_LEADER: i32 = 1;
    pub(super) const REGION_DETAIL: i32 = 2;
}

/// The wire form of a command, in one allocation of exactly its size.
///
/// A [`BatchSplit`](crate::AdminCommand::BatchSplit) is always written as such, also with
/// one request. The family `default` is written as the empty name that also means it.
#[must_use]
pub fn encode_command(command: &Command) -> Vec<u8> {
    codec::encode(command)
}

impl Encode for Command {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.message(1, &self.header);
        match &self.body {
            Body::Operations(operations) => {
                for operation in operations {
                    sink.message(2, operation);
                }
            }
            Body::Admin(admin) => sink.message(3, &Admin(admin)),
            Body::Status(status) => sink.message(4, status),
        }
    }
}

impl Encode for Header {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.number(1, self.region.get());
        sink.message(2, &self.peer);
        sink.flag(3, self.read_quorum);
        if let Some(epoch) = &self.epoch {
            sink.message(5, epoch);
        }
        sink.number(6, self.term);
    }
}

impl Encode for Peer {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.number(1, self.id.get());
        sink.number(2, self.store.get());
        sink.choice(3, role_to_number(self.role));
    }
}

impl Encode for Epoch {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.number(1, self.conf_ver);
        sink.number(2, self.version);
    }
}

/// A message whose fields are a family's name and some bytes, in this order from 1 on.
struct InFamily<'a, const N: usize>(Cf, [&'a [u8]; N]);

impl<const N: usize> Encode for InFamily<'_, N> {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        if self.0 != Cf::Default {
            sink.bytes(1, self.0.name().as_bytes());
        }
        for (field, bytes) in (2..).zip(self.1) {
            sink.bytes(field, bytes);
        }
    }
}

struct Nothing;

impl Encode for Nothing {
    fn encode_to<S: Sink>(&self, _: &mut S) {}
}

impl Encode for Operation {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::Get { cf, key } => {
                sink.choice(1, cmd::GET);
                sink.message(2, &InFamily(*cf, [key]));
            }
            Self::Put { cf, key, value } => {
                sink.choice(1, cmd::PUT);
                sink.message(4, &InFamily(*cf, [key, value]));
            }
            Self::Delete { cf, key } => {
                sink.choice(1, cmd::DELETE);
                sink.message(5, &InFamily(*cf, [key]));
            }
            Self::DeleteRange { cf, start_key, end_key } => {
                sink.choice(1, cmd::DELETE_RANGE);
                sink.message(8, &InFamily(*cf, [start_key, end_key]));
            }
            Self::Snap => {
                sink.choice(1, cmd::SNAP);
                sink.message(6, &Nothing);
            }
            Self::Invalid { cmd_type } => sink.choice(1, *cmd_type),
        }
    }
}

impl Encode for StatusCommand {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        match self {
            Self::RegionLeader => {
                sink.choice(1, status::REGION_LEADER);
                sink.message(2, &Nothing);
            }
            Self::RegionDetail => {
                sink.choice(1, status::REGION_DETAIL);
                sink.message(3, &Nothing);
            }
            Self::Invalid => sink.choice(1, status::INVALID),
        }
    }
}
