//! What PD believes at all: regions and reports that can be.

use std::collections::BTreeSet;

use raftstore_proto::{Peer, PeerRole, Region};

use super::directory::RegionRecord;
use crate::{Error, RegionHeartbeat, Result};

/// Ids above are no ids of PD's: it counts from one. Half of all numbers are left to count
/// on in, whatever a store claims.
const ID_MAX: u64 = i64::MAX as u64;

/// Whether there can be such an id.
pub(super) const fn id(id: u64) -> Result<()> {
    if id <= ID_MAX { Ok(()) } else { Err(Error::Invalid("an id that PD cannot have given")) }
}

/// Whether there can be such a region.
pub(super) fn region(region: &Region) -> Result<()> {
    if region.peers.is_empty() {
        return Err(Error::Invalid("the region has no members"));
    }
    id(region.id.get())?;
    for peer in &region.peers {
        id(peer.id.get())?;
        id(peer.store.get())?;
    }
    let ids: BTreeSet<_> = region.peers.iter().map(|peer| peer.id).collect();
    let stores: BTreeSet<_> = region.peers.iter().map(|peer| peer.store).collect();
    if ids.len() != region.peers.len() || stores.len() != region.peers.len() {
        return Err(Error::Invalid("two members share an id or a store"));
    }
    let votes = |peer: &Peer| matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter);
    if !region.peers.iter().any(votes) {
        return Err(Error::Invalid("the region has no voter"));
    }
    if !region.end_key.is_empty() && region.start_key >= region.end_key {
        return Err(Error::Invalid("the region's range is empty"));
    }
    if region.epoch.conf_ver == 0 || region.epoch.version == 0 {
        return Err(Error::Invalid("the region's epoch is zero"));
    }
    Ok(())
}

/// Whether the regions are neighbours, in key order.
pub(super) fn chain(regions: &[Region]) -> Result<()> {
    let follows =
        |pair: &[Region]| !pair[0].end_key.is_empty() && pair[0].end_key == pair[1].start_key;
    if regions.windows(2).all(follows) {
        Ok(())
    } else {
        Err(Error::Invalid("the parts of a split are not neighbours"))
    }
}

/// What a leader's report says, flow left out: only what is about members of the region.
pub(super) fn heartbeat(now_ms: u64, heartbeat: RegionHeartbeat) -> Result<RegionRecord> {
    region(&heartbeat.region)?;
    if heartbeat.term == 0 {
        return Err(Error::Invalid("nobody leads in term 0"));
    }
    let member = |peer: &Peer| {
        heartbeat.region.peer(peer.id).filter(|member| member.is_same_replica(peer)).copied()
    };
    let leader =
        member(&heartbeat.leader).ok_or(Error::Invalid("the leader is no member of the region"))?;
    if leader.role == PeerRole::Learner {
        return Err(Error::Invalid("a learner does not lead"));
    }
    let down_peers =
        heartbeat.down_peers.iter().copied().filter(|down| member(&down.peer).is_some()).collect();
    let pending_peers = heartbeat.pending_peers.iter().filter_map(member).collect();
    Ok(RegionRecord {
        leader: Some(leader),
        term: heartbeat.term,
        heard_ms: now_ms,
        down_peers,
        pending_peers,
        approximate_size: heartbeat.approximate_size,
        ..RegionRecord::unled(heartbeat.region)
    })
}
