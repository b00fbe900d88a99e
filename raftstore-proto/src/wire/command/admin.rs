//! Admin commands on the wire.

use bytes::Bytes;

use super::{
    Nothing,
    decode::{choice, decode_peer},
};
use crate::{
    AdminCommand, ChangeKind, DecodeError, Peer, PeerChange, PeerId, RegionId, SplitRequest,
    wire::codec::{Encode, Reader, Sink, Source, Value},
};

/// Numbers of `AdminCmdType`.
mod number {
    pub(super) const CHANGE_PEER: i32 = 1;
    pub(super) const SPLIT: i32 = 2;
    pub(super) const COMPACT_LOG: i32 = 3;
    pub(super) const TRANSFER_LEADER: i32 = 4;
    pub(super) const COMPUTE_HASH: i32 = 5;
    pub(super) const VERIFY_HASH: i32 = 6;
    pub(super) const BATCH_SPLIT: i32 = 10;
    pub(super) const CHANGE_PEER_V2: i32 = 11;
}

/// A message `AdminRequest`.
pub(super) struct Admin<'a>(pub(super) &'a AdminCommand);

impl Encode for Admin<'_> {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        match self.0 {
            AdminCommand::ChangePeer(change) => {
                sink.choice(1, number::CHANGE_PEER);
                sink.message(2, change);
            }
            AdminCommand::ChangePeerV2(changes) => {
                sink.choice(1, number::CHANGE_PEER_V2);
                sink.message(11, &Changes(changes));
            }
            AdminCommand::BatchSplit { requests, right_derive } => {
                sink.choice(1, number::BATCH_SPLIT);
                sink.message(10, &Splits(requests, *right_derive));
            }
            AdminCommand::CompactLog { index, term } => {
                sink.choice(1, number::COMPACT_LOG);
                sink.message(4, &TwoNumbers(*index, *term));
            }
            AdminCommand::TransferLeader(peer) => {
                sink.choice(1, number::TRANSFER_LEADER);
                sink.message(5, &Target(peer));
            }
            AdminCommand::ComputeHash => {
                sink.choice(1, number::COMPUTE_HASH);
                sink.message(12, &Nothing);
            }
            AdminCommand::VerifyHash { index, hash } => {
                sink.choice(1, number::VERIFY_HASH);
                sink.message(6, &Verify(*index, hash));
            }
            AdminCommand::Invalid { cmd_type } => sink.choice(1, *cmd_type),
        }
    }
}

impl Encode for PeerChange {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.choice(
            1,
            match self.kind {
                ChangeKind::AddNode => 0,
                ChangeKind::RemoveNode => 1,
                ChangeKind::AddLearner => 2,
            },
        );
        sink.message(2, &self.peer);
    }
}

struct Changes<'a>(&'a [PeerChange]);

impl Encode for Changes<'_> {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        for change in self.0 {
            sink.message(1, change);
        }
    }
}

struct Splits<'a>(&'a [SplitRequest], bool);

impl Encode for Splits<'_> {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        for request in self.0 {
            sink.message(1, request);
        }
        sink.flag(2, self.1);
    }
}

impl Encode for SplitRequest {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.bytes(1, &self.key);
        sink.number(2, self.new_region.get());
        sink.numbers(3, self.new_peers.iter().map(|peer| peer.get()));
    }
}

struct TwoNumbers(u64, u64);

impl Encode for TwoNumbers {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.number(1, self.0);
        sink.number(2, self.1);
    }
}

struct Target<'a>(&'a Peer);

impl Encode for Target<'_> {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.message(1, self.0);
    }
}

struct Verify<'a>(u64, &'a [u8]);

impl Encode for Verify<'_> {
    fn encode_to<S: Sink>(&self, sink: &mut S) {
        sink.number(1, self.0);
        sink.bytes(2, self.1);
    }
}

/// The parts of an `AdminRequest` as they lie in the bytes.
#[derive(Default)]
struct Parts<'m> {
    change_peer: Option<&'m [u8]>,
    split: Option<&'m [u8]>,
    compact_log: Option<&'m [u8]>,
    transfer_leader: Option<&'m [u8]>,
    verify_hash: Option<&'m [u8]>,
    splits: Option<&'m [u8]>,
    change_peer_v2: Option<&'m [u8]>,
}

pub(super) fn decode_admin(
    source: &Source<'_>,
    message: &[u8],
) -> Result<AdminCommand, DecodeError> {
    let mut cmd_type = 0;
    let mut parts = Parts::default();
    source.fields(message, |number, value| {
        match number {
            1 => cmd_type = choice(source.number(value)?),
            2 => parts.change_peer = Some(source.message(value)?),
            3 => parts.split = Some(source.message(value)?),
            4 => parts.compact_log = Some(source.message(value)?),
            5 => parts.transfer_leader = Some(source.message(value)?),
            6 => parts.verify_hash = Some(source.message(value)?),
            10 => parts.splits = Some(source.message(value)?),
            11 => parts.change_peer_v2 = Some(source.message(value)?),
            _ => {}
        }
        Ok(())
    })?;
    match cmd_type {
        number::CHANGE_PEER => {
            let message = present(parts.change_peer, "content of a membership change")?;
            decode_change(source, message).map(AdminCommand::ChangePeer)
        }
        number::SPLIT => {
            let (request, right_derive) =
                decode_split(source, present(parts.split, "content of a split")?)?;
            Ok(AdminCommand::BatchSplit { requests: vec![request], right_derive })
        }
        number::COMPACT_LOG => {
            decode_compact_log(source, present(parts.compact_log, "content of a log cut")?)
        }
        number::TRANSFER_LEADER => {
            let message = present(parts.transfer_leader, "content of a leader transfer")?;
            decode_target(source, message).map(AdminCommand::TransferLeader)
        }
        number::COMPUTE_HASH => Ok(AdminCommand::ComputeHash),
        number::VERIFY_HASH => {
            decode_verify(source, present(parts.verify_hash, "content of a hash check")?)
        }
        number::BATCH_SPLIT => {
            decode_splits(source, present(parts.splits, "content of a batch split")?)
        }
        number::CHANGE_PEER_V2 => {
            let message = present(parts.change_peer_v2, "content of a membership change")?;
            decode_changes(source, message).map(AdminCommand::ChangePeerV2)
        }
        cmd_type => Ok(AdminCommand::Invalid { cmd_type }),
    }
}

fn present<'m>(part: Option<&'m [u8]>, what: &'static str) -> Result<&'m [u8], DecodeError> {
    part.ok_or(DecodeError::Missing { what })
}

/// How often field 1 occurs, for a vector made to measure.
fn count_first_field(source: &Source<'_>, message: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    source.fields(message, |number, _| {
        count += usize::from(number == 1);
        Ok(())
    })?;
    Ok(count)
}

fn decode_change(source: &Source<'_>, message: &[u8]) -> Result<PeerChange, DecodeError> {
    let mut kind = 0;
    let mut peer = None;
    source.fields(message, |number, value| {
        match number {
            1 => kind = source.number(value)?,
            2 => peer = Some(decode_peer(source, source.message(value)?)?),
            _ => {}
        }
        Ok(())
    })?;
    let kind = match kind {
        0 => ChangeKind::AddNode,
        1 => ChangeKind::RemoveNode,
        2 => ChangeKind::AddLearner,
        other => {
            return Err(DecodeError::UnknownValue {
                what: "membership change type",
                value: other.cast_signed(),
            });
        }
    };
    let peer = peer.ok_or(DecodeError::Missing { what: "peer of a membership change" })?;
    Ok(PeerChange { kind, peer })
}

fn decode_changes(source: &Source<'_>, message: &[u8]) -> Result<Vec<PeerChange>, DecodeError> {
    let mut changes = Vec::with_capacity(count_first_field(source, message)?);
    source.fields(message, |number, value| {
        if number == 1 {
            changes.push(decode_change(source, source.message(value)?)?);
        }
        Ok(())
    })?;
    Ok(changes)
}

fn decode_splits(source: &Source<'_>, message: &[u8]) -> Result<AdminCommand, DecodeError> {
    let mut requests = Vec::with_capacity(count_first_field(source, message)?);
    let mut right_derive = false;
    source.fields(message, |number, value| {
        match number {
            1 => requests.push(decode_split(source, source.message(value)?)?.0),
            2 => right_derive = source.number(value)? != 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok(AdminCommand::BatchSplit { requests, right_derive })
}

/// A request, and its own idea of who keeps the region's id.
fn decode_split(source: &Source<'_>, message: &[u8]) -> Result<(SplitRequest, bool), DecodeError> {
    let mut key = Bytes::new();
    let mut new_region = 0;
    let mut new_peers = Vec::new();
    let mut right_derive = false;
    source.fields(message, |number, value| {
        match number {
            1 => key = source.payload(value)?,
            2 => new_region = source.number(value)?,
            3 => decode_peer_ids(source, value, &mut new_peers)?,
            4 => right_derive = source.number(value)? != 0,
            _ => {}
        }
        Ok(())
    })?;
    let new_region = RegionId::try_from(new_region)?;
    Ok((SplitRequest { key, new_region, new_peers }, right_derive))
}

/// Ids, packed or one by one.
fn decode_peer_ids(
    source: &Source<'_>,
    value: Value<'_>,
    ids: &mut Vec<PeerId>,
) -> Result<(), DecodeError> {
    if let Value::Varint(id) = value {
        ids.push(PeerId::try_from(id)?);
        return Ok(());
    }
    let mut packed = Reader::new(source.message(value)?);
    while !packed.is_empty() {
        let id = packed.varint().map_err(|fault| source.malformed(fault))?;
        ids.push(PeerId::try_from(id)?);
    }
    Ok(())
}

fn decode_compact_log(source: &Source<'_>, message: &[u8]) -> Result<AdminCommand, DecodeError> {
    let (mut index, mut term) = (0, 0);
    source.fields(message, |number, value| {
        match number {
            1 => index = source.number(value)?,
            2 => term = source.number(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(AdminCommand::CompactLog { index, term })
}

fn decode_target(source: &Source<'_>, message: &[u8]) -> Result<Peer, DecodeError> {
    let mut peer = None;
    source.fields(message, |number, value| {
        if number == 1 {
            peer = Some(decode_peer(source, source.message(value)?)?);
        }
        Ok(())
    })?;
    peer.ok_or(DecodeError::Missing { what: "peer of a leader transfer" })
}

fn decode_verify(source: &Source<'_>, message: &[u8]) -> Result<AdminCommand, DecodeError> {
    let mut index = 0;
    let mut hash = Bytes::new();
    source.fields(message, |number, value| {
        match number {
            1 => index = source.number(value)?,
            2 => hash = source.payload(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(AdminCommand::VerifyHash { index, hash })
}
