//! Decides how a snapshot's header names region, moment, range and members. Its place in
//! the file and its checksum are the business of [`format`](super::format).

use bytes::{Buf, Bytes};
use raftstore_proto::{Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId};
use transport_traits::SnapKey;

use super::format::{FormatError, HEADER_BODY_MAX, length_u32};

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapHeader {
    /// Region, term and index.
    pub key: SnapKey,
    /// Range and members right after that index.
    pub region: Region,
}

pub(super) fn encode(header: &SnapHeader) -> Result<Vec<u8>, FormatError> {
    let SnapHeader { key, region } = header;
    if region.id != key.region || !region.is_initialized() {
        return Err(FormatError::Malformed { detail: "the region is not the snapshot's" });
    }
    let mut body = Vec::new();
    let numbers =
        [key.region.get(), key.term, key.index, region.epoch.conf_ver, region.epoch.version];
    for number in numbers {
        body.extend_from_slice(&number.to_be_bytes());
    }
    for key in [&region.start_key, &region.end_key] {
        let length = length_u32(key.len(), "region key", HEADER_BODY_MAX)?;
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(key);
    }
    let members = length_u32(region.peers.len(), "member list", HEADER_BODY_MAX)?;
    body.extend_from_slice(&members.to_be_bytes());
    for peer in &region.peers {
        body.extend_from_slice(&peer.id.get().to_be_bytes());
        body.extend_from_slice(&peer.store.get().to_be_bytes());
        body.push(role_tag(peer.role));
    }
    Ok(body)
}

const ROLES: [PeerRole; 4] =
    [PeerRole::Voter, PeerRole::Learner, PeerRole::IncomingVoter, PeerRole::DemotingVoter];

const fn role_tag(role: PeerRole) -> u8 {
    match role {
        PeerRole::Voter => 0,
        PeerRole::Learner => 1,
        PeerRole::IncomingVoter => 2,
        PeerRole::DemotingVoter => 3,
    }
}

pub(super) fn decode(mut body: Bytes) -> Result<SnapHeader, FormatError> {
    let bad = |detail| FormatError::Malformed { detail };
    let number = |body: &mut Bytes| body.try_get_u64().map_err(|_| bad("short header"));
    let id = RegionId::new(number(&mut body)?).ok_or_else(|| bad("region id is 0"))?;
    let key = SnapKey { region: id, term: number(&mut body)?, index: number(&mut body)? };
    let epoch = Epoch { conf_ver: number(&mut body)?, version: number(&mut body)? };
    let mut range = [Bytes::new(), Bytes::new()];
    for key in &mut range {
        let length = body.try_get_u32().map_err(|_| bad("short header"))? as usize;
        if body.len() < length {
            return Err(bad("short header"));
        }
        *key = Bytes::copy_from_slice(&body.split_to(length));
    }
    let members = body.try_get_u32().map_err(|_| bad("short header"))?;
    let mut peers = Vec::new();
    for _ in 0..members {
        let id = PeerId::new(number(&mut body)?).ok_or_else(|| bad("peer id is 0"))?;
        let store = StoreId::new(number(&mut body)?).ok_or_else(|| bad("store id is 0"))?;
        let role = body.try_get_u8().map_err(|_| bad("short header"))?;
        let role = ROLES.get(usize::from(role)).ok_or_else(|| bad("unknown role"))?;
        peers.push(Peer { id, store, role: *role });
    }
    if !body.is_empty() || peers.is_empty() {
        return Err(bad("header fields do not add up"));
    }
    let [start_key, end_key] = range;
    Ok(SnapHeader { key, region: Region { id, start_key, end_key, epoch, peers } })
}
