//! Regions: a key range, its replicas, and the version that orders changes of both.

use bytes::Bytes;

use crate::{PeerId, RegionId, StoreId};

/// The version of a region's range and membership.
///
/// Not a total order: each of two epochs can be stale against the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Raised by every applied membership change.
    pub conf_ver: u64,
    /// Raised by every change of the range.
    pub version: u64,
}

impl Epoch {
    /// Whether either component is behind `other`'s.
    #[must_use]
    pub const fn is_stale_against(&self, other: &Self) -> bool {
        self.version < other.version || self.conf_ver < other.conf_ver
    }
}

/// What a replica may do in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerRole {
    /// Votes and counts.
    #[default]
    Voter,
    /// Receives the log, neither votes nor counts.
    Learner,
    /// Becomes a voter when the joint change is left.
    IncomingVoter,
    /// Becomes a learner when the joint change is left.
    DemotingVoter,
}

impl PeerRole {
    /// Whether the region of such a replica is in a joint membership.
    #[must_use]
    pub const fn is_joint(self) -> bool {
        matches!(self, Self::IncomingVoter | Self::DemotingVoter)
    }

    /// Whether it votes in the configuration that holds once a joint change is left. Without
    /// such a change that is the only one.
    #[must_use]
    pub const fn votes_after(self) -> bool {
        matches!(self, Self::Voter | Self::IncomingVoter)
    }

    /// Whether it voted in the configuration before a joint change that is not left yet.
    #[must_use]
    pub const fn voted_before(self) -> bool {
        matches!(self, Self::Voter | Self::DemotingVoter)
    }
}

/// One replica of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its identity.
    pub id: PeerId,
    /// The store it lives on.
    pub store: StoreId,
    /// What it may do.
    pub role: PeerRole,
}

impl Peer {
    /// A voting replica.
    #[must_use]
    pub const fn voter(id: PeerId, store: StoreId) -> Self {
        Self { id, store, role: PeerRole::Voter }
    }

    /// A replica that only receives.
    #[must_use]
    pub const fn learner(id: PeerId, store: StoreId) -> Self {
        Self { id, store, role: PeerRole::Learner }
    }

    /// Whether this and `other` are the same replica, whatever their roles.
    #[must_use]
    pub fn is_same_replica(&self, other: &Self) -> bool {
        self.id == other.id && self.store == other.store
    }
}

/// A replicated key range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its identity.
    pub id: RegionId,
    /// First key, inclusive; empty is before every key.
    pub start_key: Bytes,
    /// End of the range, exclusive; empty is after every key.
    pub end_key: Bytes,
    /// Version of range and membership.
    pub epoch: Epoch,
    /// The replicas. Empty only while a replica waits for its first snapshot.
    ///
    /// Invariant: at most one per store, ids pairwise different.
    pub peers: Vec<Peer>,
}

impl Region {
    /// A region of which nothing but the id is known yet.
    #[must_use]
    pub const fn uninitialized(id: RegionId) -> Self {
        Self {
            id,
            start_key: Bytes::new(),
            end_key: Bytes::new(),
            epoch: Epoch { conf_ver: 0, version: 0 },
            peers: Vec::new(),
        }
    }

    /// Whether range and members are known.
    #[must_use]
    pub const fn is_initialized(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Whether a joint change was entered and not left yet: until then both the voters of
    /// before and those of after must agree. Roles alone tell, which is why a change that
    /// would leave no such role is not made jointly.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.peers.iter().any(|peer| peer.role.is_joint())
    }

    /// The replica on `store`.
    #[must_use]
    pub fn peer_on(&self, store: StoreId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.store == store)
    }

    /// The replica with this id.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// Whether `key` lies in `[start_key, end_key)`.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start_key.as_ref() && (self.end_key.is_empty() || key < self.end_key.as_ref())
    }

    /// Whether the two ranges share a key.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.end_key.is_empty() || other.start_key < self.end_key)
            && (other.end_key.is_empty() || self.start_key < other.end_key)
    }
}
