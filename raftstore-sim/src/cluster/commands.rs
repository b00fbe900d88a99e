//! Commands as scenarios put them.

use bytes::Bytes;
use raftstore_proto::{
    AdminCommand, Body, Cf, Command, Header, Operation, OperationResponse, Peer, Region,
};

/// Header of a command to `peer` with the region as it is.
#[must_use]
pub fn header(region: &Region, peer: Peer) -> Header {
    Header {
        region: region.id,
        peer,
        epoch: Some(region.epoch),
        term: 0,
        read_quorum: false,
        replica_read: false,
    }
}

/// An admin command to `peer`.
#[must_use]
pub fn admin_command(region: &Region, peer: Peer, admin: AdminCommand) -> Command {
    Command { header: header(region, peer), body: Body::Admin(admin) }
}

/// Store a value.
#[must_use]
pub fn put(key: &str, value: &str) -> Operation {
    Operation::Put {
        cf: Cf::Default,
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
    }
}

/// Read a value.
#[must_use]
pub fn get(key: &str) -> Operation {
    Operation::Get { cf: Cf::Default, key: Bytes::from(key.to_owned()) }
}

/// The value in the first answer.
#[must_use]
pub fn value_in(results: &[OperationResponse]) -> Option<String> {
    match results.first() {
        Some(OperationResponse::Get(Some(value))) => {
            Some(String::from_utf8_lossy(value).into_owned())
        }
        _ => None,
    }
}
