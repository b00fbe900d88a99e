//! What stores and PD tell each other.

use bytes::Bytes;
use raftstore_proto::{ClusterId, Epoch, Peer, PeerChange, Region, RegionId, StoreId};

/// Whether a store takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreLifecycle {
    /// Serving.
    #[default]
    Up,
    /// To be emptied: nothing new goes there.
    Offline,
    /// Gone for good.
    Tombstone,
}

/// PD's record of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its id.
    pub id: StoreId,
    /// Where its peers reach it.
    pub address: String,
    /// Placement labels, as key and value.
    pub labels: Vec<(String, String)>,
    /// Whether it takes part.
    pub lifecycle: StoreLifecycle,
}

/// A region and who leads it, as far as PD knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRoute {
    /// The region.
    pub region: Region,
    /// Its leader.
    pub leader: Option<Peer>,
}

/// A replica its leader has not heard from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerDown {
    /// The replica.
    pub peer: Peer,
    /// For how long, in seconds.
    pub down_seconds: u64,
}

/// A leader's report on its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionHeartbeat {
    /// The region.
    pub region: Region,
    /// The reporting leader.
    pub leader: Peer,
    /// Its term; an older term never overrides a newer one.
    pub term: u64,
    /// Replicas not heard from for too long.
    pub down_peers: Vec<PeerDown>,
    /// Replicas that need a snapshot or are installing one.
    pub pending_peers: Vec<Peer>,
    /// Bytes written since the last report.
    pub written_bytes: u64,
    /// Keys written since the last report.
    pub written_keys: u64,
    /// Rough size in bytes; 0 for unknown.
    pub approximate_size: u64,
}

/// A store's report on itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// The store.
    pub store: StoreId,
    /// Bytes it may use.
    pub capacity_bytes: u64,
    /// Bytes it may still take.
    pub available_bytes: u64,
    /// Bytes it uses.
    pub used_bytes: u64,
    /// Replicas on it.
    pub region_count: u64,
    /// Snapshots being built or sent.
    pub sending_snapshots: u64,
    /// Snapshots being received.
    pub receiving_snapshots: u64,
    /// Snapshots being installed.
    pub applying_snapshots: u64,
    /// When it started, in seconds since the Unix epoch.
    pub start_time_seconds: u64,
    /// Whether a round took too long lately.
    pub is_busy: bool,
    /// Bytes written since the last report.
    pub written_bytes: u64,
    /// Keys written since the last report.
    pub written_keys: u64,
    /// Replicas that a failed checksum took out of service.
    pub damaged_regions: Vec<RegionId>,
}

/// Something PD wants done to a region. Repeated until PD sees the effect, so it must be
/// harmless when it comes late or twice: the epoch and the target peer see to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The region.
    pub region: RegionId,
    /// Its epoch when the order was made; any other makes the order void.
    pub epoch: Epoch,
    /// The leader the order is for.
    pub target: Peer,
    /// What to do.
    pub action: OrderAction,
}

/// What an [`Order`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderAction {
    /// One membership change.
    ChangePeer(PeerChange),
    /// Several membership changes in one step, through a joint configuration; none to leave
    /// one that nobody else left.
    ChangePeerV2(Vec<PeerChange>),
    /// Hand leadership to this peer.
    TransferLeader(Peer),
    /// Split the region.
    SplitRegion {
        /// Where, with [`SplitPolicy::Keys`]; empty otherwise.
        keys: Vec<Bytes>,
        /// How the keys are found.
        policy: SplitPolicy,
    },
}

/// How a region that PD wants split finds its split keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SplitPolicy {
    /// The key in the middle of the data, found by reading it.
    Scan,
    /// A key near the middle, as the engine estimates it.
    Approximate,
    /// The keys of the order.
    Keys,
}

/// What PD aims for in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Voters each region shall have.
    pub max_replicas: usize,
}

/// How far a change that PD makes has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperatorState {
    /// Under way.
    Running,
    /// All its effects were seen.
    Finished,
    /// Given up, because the region changed otherwise or something else was more urgent.
    Cancelled,
    /// Given up, because a step took too long.
    TimedOut,
    /// Another took its place.
    Replaced,
}

/// The last change that PD made, or makes, of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorStatus {
    /// Why, in words.
    pub reason: String,
    /// How far it has come.
    pub state: OperatorState,
}
