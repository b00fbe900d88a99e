//! Commands on the wire (package raft_cmdpb). Encoding and decoding are on the way of every
//! write, so both are done here instead of through the generated form.

mod admin;
mod decode;

pub use decode::decode_command;

use self::admin::Admin;
use crate::{
    Body, Cf, Command, CompareAndSwap, Epoch, Header, Operation, Peer, StatusCommand,
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
    pub(super) const COMPARE_AND_SWAP: i32 = 1000;
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
        sink.flag(8, self.replica_read);
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

impl Encode for CompareAndSwap {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        let expected = self.expected.as_deref().unwrap_or_default();
        let new = self.new.as_deref().unwrap_or_default();
        InFamily(self.cf, [&self.key, expected, new]).encode_to(sink);
        sink.flag(5, self.expected.is_none());
        sink.flag(6, self.new.is_none());
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
            Self::CompareAndSwap(swap) => {
                sink.choice(1, cmd::COMPARE_AND_SWAP);
                sink.message(1000, &**swap);
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protobuf::Message as _;

    use super::*;
    use crate::{
        AdminCommand, ChangeKind, PeerChange, PeerId, RegionId, SplitRequest, StoreId,
        pb::raft_cmdpb::RaftCmdRequest,
    };

    fn command(body: Body) -> Command {
        Command {
            header: Header {
                region: RegionId::must(300),
                peer: Peer::learner(PeerId::must(4), StoreId::must(u64::MAX)),
                epoch: Some(Epoch { conf_ver: 1, version: 0 }),
                term: 9,
                read_quorum: true,
                replica_read: true,
            },
            body,
        }
    }

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn swap(expected: Option<Bytes>, new: Option<Bytes>) -> Body {
        let swap = CompareAndSwap { cf: Cf::Lock, key: key("k"), expected, new };
        Body::Operations(vec![Operation::CompareAndSwap(Box::new(swap))])
    }

    fn bodies() -> Vec<Body> {
        let peer = Peer::voter(PeerId::must(5), StoreId::must(6));
        let add = PeerChange { kind: ChangeKind::AddNode, peer };
        let learn = PeerChange { kind: ChangeKind::AddLearner, peer };
        let cut = |text, id| SplitRequest {
            key: key(text),
            new_region: RegionId::must(id),
            new_peers: vec![PeerId::must(id + 1), PeerId::must(id + 1000)],
        };
        vec![
            Body::Operations(vec![
                Operation::Get { cf: Cf::Default, key: key("a") },
                Operation::Get { cf: Cf::Default, key: Bytes::new() },
                Operation::Put { cf: Cf::Lock, key: key("b"), value: vec![7; 300].into() },
                Operation::Delete { cf: Cf::Write, key: key("c") },
                Operation::DeleteRange { cf: Cf::Default, start_key: key("d"), end_key: key("") },
                Operation::Snap,
                Operation::Invalid { cmd_type: 0 },
            ]),
            swap(Some(key("old")), Some(key("new"))),
            swap(None, Some(Bytes::new())),
            swap(Some(Bytes::new()), None),
            Body::Operations(Vec::new()),
            Body::Admin(AdminCommand::ChangePeer(add)),
            Body::Admin(AdminCommand::ChangePeerV2(vec![add, learn])),
            Body::Admin(AdminCommand::BatchSplit {
                requests: vec![cut("k", 10), cut("m", 20)],
                right_derive: true,
            }),
            Body::Admin(AdminCommand::CompactLog { index: 128, term: 127 }),
            Body::Admin(AdminCommand::TransferLeader(peer)),
            Body::Admin(AdminCommand::ComputeHash),
            Body::Admin(AdminCommand::VerifyHash { index: 5, hash: key("hash") }),
            Body::Status(StatusCommand::RegionLeader),
            Body::Status(StatusCommand::RegionDetail),
            Body::Status(StatusCommand::Invalid),
        ]
    }

    #[test]
    fn hand_written_form_is_the_generated_one() {
        for body in bodies() {
            let ours = encode_command(&command(body));
            assert_eq!(ours.capacity(), ours.len());
            let parsed = RaftCmdRequest::parse_from_bytes(&ours).unwrap();
            assert!(parsed.unknown_fields.fields.is_none());
            assert_eq!(parsed.write_to_bytes().unwrap(), ours, "{parsed:?}");
        }
    }

    #[test]
    fn commands_come_back_from_the_generated_form() {
        for body in bodies() {
            let command = command(body);
            let parsed = RaftCmdRequest::parse_from_bytes(&encode_command(&command)).unwrap();
            let bytes = parsed.write_to_bytes().unwrap().into();
            assert_eq!(decode_command(&bytes), Ok(command));
        }
    }
}
