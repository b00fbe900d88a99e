//! What clients and PD ask of a region, and what they are told.

use bytes::Bytes;

use crate::{Cf, Epoch, Peer, Region, RegionError, RegionId};

/// To whom a command is addressed, and what the sender believes about the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The region.
    pub region: RegionId,
    /// The replica asked; its store must be the one that receives the command.
    pub peer: Peer,
    /// The sender's view of the region. Needed for everything but log upkeep.
    pub epoch: Option<Epoch>,
    /// The term in which the sender believes the peer leads; 0 for no opinion.
    pub term: u64,
    /// Ask a quorum even if the lease would allow a local read.
    pub read_quorum: bool,
    /// Any replica may serve this read, after it has asked the leader how far the data must
    /// have come (follower read).
    pub replica_read: bool,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Address and expectations.
    pub header: Header,
    /// What to do.
    pub body: Body,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Reads or writes of data, never mixed. All of them succeed, or none.
    Operations(Vec<Operation>),
    /// A change of the region itself.
    Admin(AdminCommand),
    /// A question about the region, answered by any replica.
    Status(StatusCommand),
}

/// One read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The value under a key.
    Get {
        /// Column family.
        cf: Cf,
        /// User key.
        key: Bytes,
    },
    /// Store a value.
    Put {
        /// Column family.
        cf: Cf,
        /// User key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Remove a key; an absent one is no error.
    Delete {
        /// Column family.
        cf: Cf,
        /// User key.
        key: Bytes,
    },
    /// Remove `[start_key, end_key)`; an empty end is after every key, and refused by a
    /// region that ends before.
    DeleteRange {
        /// Column family.
        cf: Cf,
        /// First user key, inclusive.
        start_key: Bytes,
        /// End, exclusive.
        end_key: Bytes,
    },
    /// Store or remove a value if the key holds what the caller expects. Alone in its command.
    CompareAndSwap(Box<CompareAndSwap>),
    /// The region as of now, and with it the right to take an engine snapshot.
    Snap,
    /// Not valid here, or not understood. Kept so that it can be refused by name.
    Invalid {
        /// Its number on the wire.
        cmd_type: i32,
    },
}

impl Operation {
    /// Whether this asks without changing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Snap)
    }

    /// Whether this changes data.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Put { .. }
                | Self::Delete { .. }
                | Self::DeleteRange { .. }
                | Self::CompareAndSwap(_)
        )
    }

    /// Whether what it does depends on the data it finds.
    #[must_use]
    pub const fn is_conditional(&self) -> bool {
        matches!(self, Self::CompareAndSwap(_))
    }
}

/// A write that happens only if the key holds what is expected when its turn comes in the
/// region's log. Nothing comes between the look and the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareAndSwap {
    /// Column family.
    pub cf: Cf,
    /// User key.
    pub key: Bytes,
    /// What the key must hold; `None` for nothing at all, which an empty value is not.
    pub expected: Option<Bytes>,
    /// What to store; `None` to remove the key.
    pub new: Option<Bytes>,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Add a voter, or promote a learner.
    AddNode,
    /// Remove a member.
    RemoveNode,
    /// Add a learner, or demote a voter.
    AddLearner,
}

/// One change of membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerChange {
    /// What to do.
    pub kind: ChangeKind,
    /// With whom.
    pub peer: Peer,
}

/// A change of the region itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// One change of membership.
    ChangePeer(PeerChange),
    /// Several in one step, through a joint configuration; empty leaves it.
    ChangePeerV2(Vec<PeerChange>),
    /// Cut the region at user keys. One new region per key.
    BatchSplit {
        /// The cuts, with the ids for the new regions.
        requests: Vec<SplitRequest>,
        /// Whether the last part keeps the region's id (else the first does).
        right_derive: bool,
    },
    /// Drop the log's entries up to and including `index`, whose term is `term`.
    CompactLog {
        /// Index of the last entry to drop.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// Advice to hand leadership over. Never in the log.
    TransferLeader(Peer),
    /// Hash the region's data as of this entry.
    ComputeHash,
    /// Compare with a hash computed at `index`.
    VerifyHash {
        /// Index of the `ComputeHash` entry.
        index: u64,
        /// What the leader found.
        hash: Bytes,
    },
    /// Not understood. Kept so that it can be refused.
    Invalid {
        /// Its number on the wire.
        cmd_type: i32,
    },
}

impl AdminCommand {
    /// Whether it prepares, carries out or takes back the merge of two regions. Their numbers
    /// are kept for it; this version refuses them.
    #[must_use]
    pub const fn is_merge(&self) -> bool {
        matches!(self, Self::Invalid { cmd_type: 7..=9 })
    }
}

/// One cut of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitRequest {
    /// User key that starts the right part.
    pub key: Bytes,
    /// Id of the new region: the part that does not keep the old one's.
    pub new_region: RegionId,
    /// Ids of its replicas, in the order of the region's peers.
    pub new_peers: Vec<crate::PeerId>,
}

/// A question that needs no leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusCommand {
    /// Who leads, as far as this replica knows.
    RegionLeader,
    /// The region and its leader.
    RegionDetail,
    /// Not understood.
    Invalid,
}

/// Answer to a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Term of the answering peer; 0 when none was found.
    pub term: u64,
    /// What came of it.
    pub body: Result<ResponseBody, RegionError>,
}

impl Response {
    /// A refusal.
    #[must_use]
    pub const fn error(term: u64, error: RegionError) -> Self {
        Self { term, body: Err(error) }
    }

    /// A success.
    #[must_use]
    pub const fn ok(term: u64, body: ResponseBody) -> Self {
        Self { term, body: Ok(body) }
    }
}

/// What a successful command gives.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseBody {
    /// One answer per operation, in order.
    Operations(Vec<OperationResponse>),
    /// To an admin command.
    Admin(AdminResponse),
    /// To a question.
    Status(StatusResponse),
}

/// Answer to an [`Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResponse {
    /// The value, if the key is there.
    Get(Option<Bytes>),
    /// Stored.
    Put,
    /// Removed.
    Delete,
    /// Removed.
    DeleteRange,
    /// Looked at, and changed if it held what was expected.
    CompareAndSwap {
        /// Whether it was changed.
        swapped: bool,
        /// What the key held before.
        previous: Option<Bytes>,
    },
    /// The region as of the moment the read was allowed.
    Snap(Region),
}

/// Answer to an [`AdminCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminResponse {
    /// The region after the change.
    ChangePeer(Region),
    /// The regions in key order.
    Split(Vec<Region>),
    /// Cut, or nothing to cut.
    CompactLog,
    /// Taken as advice.
    TransferLeader,
    /// Under way.
    ComputeHash,
    /// Noted.
    VerifyHash,
}

/// Answer to a [`StatusCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusResponse {
    /// The leader, if known.
    RegionLeader(Option<Peer>),
    /// The region and its leader, if known.
    RegionDetail(Region, Option<Peer>),
}
