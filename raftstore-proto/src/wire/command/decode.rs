//! Reading commands. Payloads become slices of the bytes read.

use bytes::Bytes;

use super::{admin::decode_admin, cmd, status};
use crate::{
    Body, Cf, Command, CompareAndSwap, DecodeError, Epoch, Header, Operation, Peer, PeerId,
    RegionId, StatusCommand, StoreId,
    guard::{self, Limits},
    wire::{
        codec::{Source, Value},
        region::role_from_number,
    },
};

/// Longest part of an unknown family's name that an error repeats, in bytes.
const NAME_BYTES: usize = 64;

/// Reads a command. Payloads are slices of `bytes`, and keep that allocation alive.
///
/// Operations and admin commands of a type we do not know become
/// [`Operation::Invalid`] and [`AdminCommand::Invalid`](crate::AdminCommand::Invalid), so
/// that they can be refused by number. A `Split` of one key, as older clients send it, becomes
/// a [`BatchSplit`](crate::AdminCommand::BatchSplit) of one request.
///
/// # Errors
/// - what [`guard::check_command`] refuses under the default limits
/// - [`DecodeError::UnknownColumnFamily`]: a family that is not for clients
/// - [`DecodeError::ZeroId`], [`DecodeError::Missing`], [`DecodeError::Malformed`]
/// - [`DecodeError::UnknownValue`]: a peer role or a kind of content that we do not know
pub fn decode_command(bytes: &Bytes) -> Result<Command, DecodeError> {
    let admitted = guard::check_command(bytes, &Limits::default())?;
    let source = Source { bytes, what: "command" };
    let mut header = None;
    let mut operations = Vec::with_capacity(admitted.items);
    let mut admin = None;
    let mut status = None;
    source.fields(bytes, |number, value| {
        match number {
            1 => header = Some(decode_header(&source, source.message(value)?)?),
            2 => operations.push(decode_operation(&source, source.message(value)?)?),
            3 => admin = Some(decode_admin(&source, source.message(value)?)?),
            4 => status = Some(decode_status(&source, source.message(value)?)?),
            // Passing over what may be the content would turn it into an empty command.
            number => {
                return Err(DecodeError::UnknownValue {
                    what: "command content",
                    value: i64::from(number),
                });
            }
        }
        Ok(())
    })?;
    let header = header.ok_or(DecodeError::Missing { what: "command header" })?;
    let body = match (admin, status) {
        (None, None) => Body::Operations(operations),
        (Some(admin), None) if operations.is_empty() => Body::Admin(admin),
        (None, Some(status)) if operations.is_empty() => Body::Status(status),
        _ => return Err(source.malformed("more than one kind of content")),
    };
    Ok(Command { header, body })
}

fn decode_header(source: &Source<'_>, message: &[u8]) -> Result<Header, DecodeError> {
    let mut region = 0;
    let mut peer = None;
    let mut epoch = None;
    let mut term = 0;
    let mut read_quorum = false;
    let mut replica_read = false;
    source.fields(message, |number, value| {
        match number {
            1 => region = source.number(value)?,
            2 => peer = Some(decode_peer(source, source.message(value)?)?),
            3 => read_quorum = source.number(value)? != 0,
            5 => epoch = Some(decode_epoch(source, source.message(value)?)?),
            6 => term = source.number(value)?,
            8 => replica_read = source.number(value)? != 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Header {
        region: RegionId::try_from(region)?,
        peer: peer.ok_or(DecodeError::Missing { what: "peer of a command" })?,
        epoch,
        term,
        read_quorum,
        replica_read,
    })
}

pub(super) fn decode_peer(source: &Source<'_>, message: &[u8]) -> Result<Peer, DecodeError> {
    let (mut id, mut store, mut role) = (0, 0, 0);
    source.fields(message, |number, value| {
        match number {
            1 => id = source.number(value)?,
            2 => store = source.number(value)?,
            3 => role = source.number(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Peer {
        id: PeerId::try_from(id)?,
        store: StoreId::try_from(store)?,
        role: role_from_number(role)?,
    })
}

fn decode_epoch(source: &Source<'_>, message: &[u8]) -> Result<Epoch, DecodeError> {
    let mut epoch = Epoch::default();
    source.fields(message, |number, value| {
        match number {
            1 => epoch.conf_ver = source.number(value)?,
            2 => epoch.version = source.number(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(epoch)
}

/// An enum's number: the low 32 bits count, as in every implementation.
#[expect(clippy::cast_possible_truncation, reason = "enums are 32 bits on the wire")]
pub(super) const fn choice(number: u64) -> i32 {
    number.cast_signed() as i32
}

fn decode_operation(source: &Source<'_>, message: &[u8]) -> Result<Operation, DecodeError> {
    let mut cmd_type = 0;
    let (mut get, mut put, mut delete, mut delete_range) = (None, None, None, None);
    let mut compare_and_swap = None;
    source.fields(message, |number, value| {
        match number {
            1 => cmd_type = choice(source.number(value)?),
            2 => get = Some(source.message(value)?),
            4 => put = Some(source.message(value)?),
            5 => delete = Some(source.message(value)?),
            8 => delete_range = Some(source.message(value)?),
            1000 => compare_and_swap = Some(source.message(value)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(match cmd_type {
        cmd::GET => {
            let (cf, [key]) = in_family(source, get, "content of a get")?;
            Operation::Get { cf, key }
        }
        cmd::PUT => {
            let (cf, [key, value]) = in_family(source, put, "content of a put")?;
            Operation::Put { cf, key, value }
        }
        cmd::DELETE => {
            let (cf, [key]) = in_family(source, delete, "content of a delete")?;
            Operation::Delete { cf, key }
        }
        cmd::DELETE_RANGE => {
            let (cf, [start_key, end_key]) =
                in_family(source, delete_range, "content of a range deletion")?;
            Operation::DeleteRange { cf, start_key, end_key }
        }
        cmd::COMPARE_AND_SWAP => {
            Operation::CompareAndSwap(Box::new(decode_swap(source, compare_and_swap)?))
        }
        cmd::SNAP => Operation::Snap,
        cmd_type => Operation::Invalid { cmd_type },
    })
}

fn decode_swap(source: &Source<'_>, message: Option<&[u8]>) -> Result<CompareAndSwap, DecodeError> {
    let (cf, [key, expected, new]) = in_family(source, message, "content of a conditional write")?;
    let (mut expects_nothing, mut removes) = (false, false);
    source.fields(message.unwrap_or_default(), |number, value| {
        match number {
            5 => expects_nothing = source.number(value)? != 0,
            6 => removes = source.number(value)? != 0,
            _ => {}
        }
        Ok(())
    })?;
    let expected = (!expects_nothing).then_some(expected);
    Ok(CompareAndSwap { cf, key, expected, new: (!removes).then_some(new) })
}

/// Reads a family's name and the payloads that follow it.
fn in_family<const N: usize>(
    source: &Source<'_>,
    message: Option<&[u8]>,
    what: &'static str,
) -> Result<(Cf, [Bytes; N]), DecodeError> {
    let message = message.ok_or(DecodeError::Missing { what })?;
    let mut name: &[u8] = &[];
    let mut payloads = [const { Bytes::new() }; N];
    source.fields(message, |number, value| {
        match (number, payloads.get_mut((number as usize).wrapping_sub(2))) {
            (1, _) => name = source.message(value)?,
            (_, Some(payload)) => *payload = source.payload(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((family(name)?, payloads))
}

fn family(name: &[u8]) -> Result<Cf, DecodeError> {
    std::str::from_utf8(name).ok().and_then(Cf::from_client_name).ok_or_else(|| {
        let start = &name[..name.len().min(NAME_BYTES)];
        DecodeError::UnknownColumnFamily { name: String::from_utf8_lossy(start).into_owned() }
    })
}

fn decode_status(source: &Source<'_>, message: &[u8]) -> Result<StatusCommand, DecodeError> {
    let mut cmd_type = 0;
    source.fields(message, |number, value: Value<'_>| {
        if number == 1 {
            cmd_type = choice(source.number(value)?);
        }
        Ok(())
    })?;
    Ok(match cmd_type {
        status::REGION_LEADER => StatusCommand::RegionLeader,
        status::REGION_DETAIL => StatusCommand::RegionDetail,
        _ => StatusCommand::Invalid,
    })
}
