//! Regions, replicas and epochs on the wire (package metapb).

#![cfg_attr(
    not(feature = "rpc"),
    expect(unreachable_pub, reason = "those who serve or call remote procedures convert, too")
)]

use bytes::Bytes;
use protobuf::{Message as _, UnknownFields};

use crate::{
    DecodeError, Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId,
    guard::{self, Limits},
    pb::metapb,
    wire::parse,
};

/// The wire form of a region.
#[must_use]
pub fn encode_region(region: &Region) -> Vec<u8> {
    region_to_pb(region).write_to_bytes().expect("no field is required")
}

/// Reads a region. The keys are slices of `bytes`.
///
/// # Errors
/// - what [`guard::check_region`] refuses under the default limits
/// - [`DecodeError::ZeroId`]: of the region, a peer or a store
/// - [`DecodeError::Malformed`]
pub fn decode_region(bytes: &Bytes) -> Result<Region, DecodeError> {
    guard::check_region(bytes, &Limits::default())?;
    region_from_pb(parse("region", bytes)?)
}

pub(crate) const fn role_to_number(role: PeerRole) -> i32 {
    match role {
        PeerRole::Voter => 0,
        PeerRole::Learner => 1,
        PeerRole::IncomingVoter => 2,
        PeerRole::DemotingVoter => 3,
    }
}

pub(crate) const fn role_from_number(number: u64) -> Result<PeerRole, DecodeError> {
    Ok(match number {
        0 => PeerRole::Voter,
        1 => PeerRole::Learner,
        2 => PeerRole::IncomingVoter,
        3 => PeerRole::DemotingVoter,
        other => {
            return Err(DecodeError::UnknownValue {
                what: "peer role",
                value: other.cast_signed(),
            });
        }
    })
}

/// Refuses an enum field whose number the generated code did not know: it sets such a number
/// aside and leaves the field at 0, which means something else.
pub(crate) fn refuse_unknown(
    fields: &UnknownFields,
    number: u32,
    what: &'static str,
) -> Result<(), DecodeError> {
    let Some(values) = fields.get(number) else {
        return Ok(());
    };
    let value = values.varint.last().copied().unwrap_or(0).cast_signed();
    Err(DecodeError::UnknownValue { what, value })
}

/// The generated form of an epoch.
#[must_use]
pub fn epoch_to_pb(epoch: Epoch) -> metapb::RegionEpoch {
    let mut out = metapb::RegionEpoch::new();
    out.conf_ver = epoch.conf_ver;
    out.version = epoch.version;
    out
}

/// The epoch of a generated form.
#[must_use]
pub const fn epoch_from_pb(epoch: &metapb::RegionEpoch) -> Epoch {
    Epoch { conf_ver: epoch.conf_ver, version: epoch.version }
}

/// The generated form of a peer.
#[must_use]
pub fn peer_to_pb(peer: &Peer) -> metapb::Peer {
    let mut out = metapb::Peer::new();
    out.id = peer.id.get();
    out.store_id = peer.store.get();
    out.role = match peer.role {
        PeerRole::Voter => metapb::PeerRole::Voter,
        PeerRole::Learner => metapb::PeerRole::Learner,
        PeerRole::IncomingVoter => metapb::PeerRole::IncomingVoter,
        PeerRole::DemotingVoter => metapb::PeerRole::DemotingVoter,
    };
    out
}

/// The peer of a generated form.
///
/// # Errors
/// [`DecodeError::ZeroId`], [`DecodeError::UnknownValue`] for a role nobody knows.
pub fn peer_from_pb(peer: &metapb::Peer) -> Result<Peer, DecodeError> {
    refuse_unknown(&peer.unknown_fields, 3, "peer role")?;
    let role = match peer.role {
        metapb::PeerRole::Voter => PeerRole::Voter,
        metapb::PeerRole::Learner => PeerRole::Learner,
        metapb::PeerRole::IncomingVoter => PeerRole::IncomingVoter,
        metapb::PeerRole::DemotingVoter => PeerRole::DemotingVoter,
    };
    Ok(Peer { id: PeerId::try_from(peer.id)?, store: StoreId::try_from(peer.store_id)?, role })
}

/// The generated form of a region.
#[must_use]
pub fn region_to_pb(region: &Region) -> metapb::Region {
    let mut out = metapb::Region::new();
    out.id = region.id.get();
    out.start_key = region.start_key.clone();
    out.end_key = region.end_key.clone();
    out.set_region_epoch(epoch_to_pb(region.epoch));
    out.peers = region.peers.iter().map(peer_to_pb).collect();
    out
}

/// The region of a generated form; nothing is copied.
///
/// # Errors
/// [`DecodeError::ZeroId`], [`DecodeError::UnknownValue`] for a role nobody knows.
pub fn region_from_pb(region: metapb::Region) -> Result<Region, DecodeError> {
    let mut peers = Vec::with_capacity(region.peers.len());
    for peer in &region.peers {
        peers.push(peer_from_pb(peer)?);
    }
    Ok(Region {
        id: RegionId::try_from(region.id)?,
        epoch: epoch_from_pb(region.get_region_epoch()),
        start_key: region.start_key,
        end_key: region.end_key,
        peers,
    })
}

pub(crate) fn regions_from_pb(
    regions: impl IntoIterator<Item = metapb::Region, IntoIter: ExactSizeIterator>,
) -> Result<Vec<Region>, DecodeError> {
    let regions = regions.into_iter();
    let mut out = Vec::with_capacity(regions.len());
    for region in regions {
        out.push(region_from_pb(region)?);
    }
    Ok(out)
}
