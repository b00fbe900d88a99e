//! Regions, replicas and epochs on the wire (package metapb).

use crate::{DecodeError, Epoch, Peer, PeerId, PeerRole, StoreId, pb::metapb};

pub(crate) fn epoch_to_pb(epoch: Epoch) -> metapb::RegionEpoch {
    let mut out = metapb::RegionEpoch::new();
    out.conf_ver = epoch.conf_ver;
    out.version = epoch.version;
    out
}

pub(crate) fn epoch_from_pb(epoch: &metapb::RegionEpoch) -> Epoch {
    Epoch {
        conf_ver: epoch.conf_ver,
        version: epoch.version,
    }
}

pub(crate) fn peer_to_pb(peer: &Peer) -> metapb::Peer {
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

pub(crate) fn peer_from_pb(peer: &metapb::Peer) -> Result<Peer, DecodeError> {
    let role = match peer.role {
        metapb::PeerRole::Voter => PeerRole::Voter,
        metapb::PeerRole::Learner => PeerRole::Learner,
        metapb::PeerRole::IncomingVoter => PeerRole::IncomingVoter,
        metapb::PeerRole::DemotingVoter => PeerRole::DemotingVoter,
    };
    Ok(Peer {
        id: PeerId::try_from(peer.id)?,
        store: StoreId::try_from(peer.store_id)?,
        role,
    })
}
