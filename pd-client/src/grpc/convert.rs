//! Between the words of this crate and the messages of PD's protocol.

use raftstore_grpc::pb::{eraftpb::ConfChangeType, metapb, pdpb};
use raftstore_proto::{
    ChangeKind, DecodeError, Peer, PeerChange, Region, RegionId, StoreId,
    wire::{epoch_from_pb, epoch_to_pb, peer_from_pb, peer_to_pb, region_from_pb, region_to_pb},
};

use crate::{
    Order, OrderAction, PeerDown, RegionHeartbeat, RegionRoute, SplitPolicy, StoreInfo,
    StoreLifecycle, StoreStats,
};

pub(super) fn store_to_pb(info: &StoreInfo) -> metapb::Store {
    let mut store = metapb::Store::new();
    store.id = info.id.get();
    store.address.clone_from(&info.address);
    store.peer_address.clone_from(&info.address);
    (store.state, store.node_state) = match info.lifecycle {
        StoreLifecycle::Up => (metapb::StoreState::Up, metapb::NodeState::Serving),
        StoreLifecycle::Offline => (metapb::StoreState::Offline, metapb::NodeState::Removing),
        StoreLifecycle::Tombstone => (metapb::StoreState::Tombstone, metapb::NodeState::Removed),
    };
    store.labels = info
        .labels
        .iter()
        .map(|(key, value)| {
            let mut label = metapb::StoreLabel::new();
            label.key.clone_from(key);
            label.value.clone_from(value);
            label
        })
        .collect();
    store
}

pub(super) fn store_from_pb(store: metapb::Store) -> Result<StoreInfo, DecodeError> {
    Ok(StoreInfo {
        id: StoreId::try_from(store.id)?,
        address: store.address,
        labels: store.labels.into_iter().map(|label| (label.key, label.value)).collect(),
        lifecycle: match store.state {
            metapb::StoreState::Up => StoreLifecycle::Up,
            metapb::StoreState::Offline => StoreLifecycle::Offline,
            metapb::StoreState::Tombstone => StoreLifecycle::Tombstone,
        },
    })
}

/// A region and its leader; a region without members stands for none.
pub(super) fn route_from_pb(
    region: Option<metapb::Region>,
    leader: Option<&metapb::Peer>,
) -> Result<Option<RegionRoute>, DecodeError> {
    let Some(region) = region.filter(|region| region.id != 0) else { return Ok(None) };
    let leader = leader.filter(|leader| leader.id != 0).map(peer_from_pb).transpose()?;
    Ok(Some(RegionRoute { region: region_from_pb(region)?, leader }))
}

pub(super) fn regions_from_pb(
    regions: impl IntoIterator<Item = metapb::Region>,
) -> Result<Vec<Region>, DecodeError> {
    regions.into_iter().map(region_from_pb).collect()
}

pub(super) fn down_to_pb(down: &PeerDown) -> pdpb::PeerStats {
    let mut stats = pdpb::PeerStats::new();
    stats.set_peer(peer_to_pb(&down.peer));
    stats.down_seconds = down.down_seconds;
    stats
}

pub(super) fn heartbeat_to_pb(report: RegionHeartbeat) -> pdpb::RegionHeartbeatRequest {
    let mut request = pdpb::RegionHeartbeatRequest::new();
    request.set_region(region_to_pb(&report.region));
    request.set_leader(peer_to_pb(&report.leader));
    request.term = report.term;
    request.down_peers = report.down_peers.iter().map(down_to_pb).collect();
    request.pending_peers = report.pending_peers.iter().map(peer_to_pb).collect();
    request.bytes_written = report.written_bytes;
    request.keys_written = report.written_keys;
    request.approximate_size = report.approximate_size;
    request
}

pub(super) fn heartbeat_from_pb(
    mut request: pdpb::RegionHeartbeatRequest,
) -> Result<RegionHeartbeat, DecodeError> {
    let mut down_peers = Vec::with_capacity(request.down_peers.len());
    for down in &request.down_peers {
        let peer = peer_from_pb(down.get_peer())?;
        down_peers.push(PeerDown { peer, down_seconds: down.down_seconds });
    }
    Ok(RegionHeartbeat {
        leader: peer_from_pb(request.get_leader())?,
        region: region_from_pb(request.take_region())?,
        term: request.term,
        down_peers,
        pending_peers: request.pending_peers.iter().map(peer_from_pb).collect::<Result<_, _>>()?,
        written_bytes: request.bytes_written,
        written_keys: request.keys_written,
        approximate_size: request.approximate_size,
    })
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn stats_to_pb(stats: &StoreStats) -> pdpb::StoreStats {
    let mut out = pdpb::StoreStats::new();
    out.store_id = stats.store.get();
    out.capacity = stats.capacity_bytes;
    out.available = stats.available_bytes;
    out.used_size = stats.used_bytes;
    out.region_count = narrow(stats.region_count);
    out.sending_snap_count = narrow(stats.sending_snapshots);
    out.receiving_snap_count = narrow(stats.receiving_snapshots);
    out.applying_snap_count = narrow(stats.applying_snapshots);
    out.start_time = narrow(stats.start_time_seconds);
    out.is_busy = stats.is_busy;
    out.bytes_written = stats.written_bytes;
    out.keys_written = stats.written_keys;
    out.damaged_regions_id = stats.damaged_regions.iter().map(|region| region.get()).collect();
    out
}

pub(super) fn stats_from_pb(stats: &pdpb::StoreStats) -> Result<StoreStats, DecodeError> {
    Ok(StoreStats {
        store: StoreId::try_from(stats.store_id)?,
        capacity_bytes: stats.capacity,
        available_bytes: stats.available,
        used_bytes: stats.used_size,
        region_count: stats.region_count.into(),
        sending_snapshots: stats.sending_snap_count.into(),
        receiving_snapshots: stats.receiving_snap_count.into(),
        applying_snapshots: stats.applying_snap_count.into(),
        start_time_seconds: stats.start_time.into(),
        is_busy: stats.is_busy,
        written_bytes: stats.bytes_written,
        written_keys: stats.keys_written,
        damaged_regions: stats
            .damaged_regions_id
            .iter()
            .map(|id| RegionId::try_from(*id))
            .collect::<Result<_, _>>()?,
    })
}

fn change_to_pb(change: &PeerChange) -> pdpb::ChangePeer {
    let mut out = pdpb::ChangePeer::new();
    out.set_peer(peer_to_pb(&change.peer));
    out.change_type = match change.kind {
        ChangeKind::AddNode => ConfChangeType::AddNode,
        ChangeKind::RemoveNode => ConfChangeType::RemoveNode,
        ChangeKind::AddLearner => ConfChangeType::AddLearnerNode,
    };
    out
}

fn change_from_pb(change: &pdpb::ChangePeer) -> Result<PeerChange, DecodeError> {
    let kind = match change.change_type {
        ConfChangeType::AddNode => ChangeKind::AddNode,
        ConfChangeType::RemoveNode => ChangeKind::RemoveNode,
        ConfChangeType::AddLearnerNode => ChangeKind::AddLearner,
    };
    Ok(PeerChange { kind, peer: peer_from_pb(change.get_peer())? })
}

pub(super) fn order_to_pb(order: Order) -> pdpb::RegionHeartbeatResponse {
    let mut out = pdpb::RegionHeartbeatResponse::new();
    out.region_id = order.region.get();
    out.set_region_epoch(epoch_to_pb(order.epoch));
    out.set_target_peer(peer_to_pb(&order.target));
    match order.action {
        OrderAction::ChangePeer(change) => out.set_change_peer(change_to_pb(&change)),
        OrderAction::ChangePeerV2(changes) => {
            let mut v2 = pdpb::ChangePeerV2::new();
            v2.changes = changes.iter().map(change_to_pb).collect();
            out.set_change_peer_v2(v2);
        }
        OrderAction::TransferLeader(peer) => {
            let mut transfer = pdpb::TransferLeader::new();
            transfer.set_peer(peer_to_pb(&peer));
            out.set_transfer_leader(transfer);
        }
        OrderAction::SplitRegion { keys, policy } => {
            let mut split = pdpb::SplitRegion::new();
            split.keys = keys;
            split.policy = match policy {
                SplitPolicy::Scan => pdpb::CheckPolicy::SCAN,
                SplitPolicy::Approximate => pdpb::CheckPolicy::APPROXIMATE,
                SplitPolicy::Keys => pdpb::CheckPolicy::USEKEY,
            };
            out.set_split_region(split);
        }
    }
    out
}

/// What came on the stream of orders.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Order(Order),
    /// An order that no store of ours can carry out.
    Unsupported(&'static str),
    /// Nothing: such a message keeps the stream alive.
    Nothing,
}

pub(super) fn told_from_pb(
    mut message: pdpb::RegionHeartbeatResponse,
) -> Result<Told, DecodeError> {
    let action = if message.has_change_peer() {
        OrderAction::ChangePeer(change_from_pb(message.get_change_peer())?)
    } else if message.has_change_peer_v2() {
        let changes = &message.get_change_peer_v2().changes;
        OrderAction::ChangePeerV2(changes.iter().map(change_from_pb).collect::<Result<_, _>>()?)
    } else if message.has_transfer_leader() {
        OrderAction::TransferLeader(transfer_from_pb(message.get_transfer_leader())?)
    } else if message.has_split_region() {
        let split = message.take_split_region();
        let policy = match split.policy {
            pdpb::CheckPolicy::SCAN => SplitPolicy::Scan,
            pdpb::CheckPolicy::APPROXIMATE => SplitPolicy::Approximate,
            pdpb::CheckPolicy::USEKEY => SplitPolicy::Keys,
        };
        OrderAction::SplitRegion { keys: split.keys, policy }
    } else if message.has_merge() {
        return Ok(Told::Unsupported("merging regions"));
    } else if message.has_switch_witnesses() {
        return Ok(Told::Unsupported("replicas without data"));
    } else {
        return Ok(Told::Nothing);
    };
    Ok(Told::Order(Order {
        region: RegionId::try_from(message.region_id)?,
        epoch: epoch_from_pb(message.get_region_epoch()),
        target: peer_from_pb(message.get_target_peer())?,
        action,
    }))
}

/// A PD may name several peers that would do; the first of them is taken.
fn transfer_from_pb(transfer: &pdpb::TransferLeader) -> Result<Peer, DecodeError> {
    let peer = if transfer.get_peer().id == 0 {
        transfer.peers.first().unwrap_or_else(|| transfer.get_peer())
    } else {
        transfer.get_peer()
    };
    peer_from_pb(peer)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raftstore_proto::{Epoch, PeerId};

    use super::*;

    const LEADER: Peer = Peer::voter(PeerId::must(11), StoreId::must(1));
    const OTHER: Peer = Peer::learner(PeerId::must(12), StoreId::must(2));

    fn order(action: OrderAction) -> Order {
        let epoch = Epoch { conf_ver: 3, version: 5 };
        Order { region: RegionId::must(10), epoch, target: LEADER, action }
    }

    #[test]
    fn every_order_comes_back() {
        let change = |kind| PeerChange { kind, peer: OTHER };
        let split = |policy| OrderAction::SplitRegion {
            keys: vec![Bytes::from_static(b"d"), Bytes::from_static(b"m")],
            policy,
        };
        for action in [
            OrderAction::ChangePeer(change(ChangeKind::AddNode)),
            OrderAction::ChangePeer(change(ChangeKind::RemoveNode)),
            OrderAction::ChangePeer(change(ChangeKind::AddLearner)),
            OrderAction::ChangePeerV2(vec![
                change(ChangeKind::AddNode),
                change(ChangeKind::AddLearner),
            ]),
            // To leave a joint membership.
            OrderAction::ChangePeerV2(Vec::new()),
            OrderAction::TransferLeader(OTHER),
            split(SplitPolicy::Scan),
            split(SplitPolicy::Approximate),
            split(SplitPolicy::Keys),
        ] {
            let order = order(action);
            assert_eq!(told_from_pb(order_to_pb(order.clone())), Ok(Told::Order(order)));
        }
    }

    /// Another PD may want what no store of ours can do, name several peers to lead, and send
    /// messages that only keep the stream alive.
    #[test]
    fn what_other_pds_say_is_understood_or_named() {
        let mut merge = pdpb::RegionHeartbeatResponse::new();
        merge.set_merge(pdpb::Merge::new());
        assert_eq!(told_from_pb(merge), Ok(Told::Unsupported("merging regions")));
        let mut witness = pdpb::RegionHeartbeatResponse::new();
        witness.set_switch_witnesses(pdpb::BatchSwitchWitness::new());
        assert_eq!(told_from_pb(witness), Ok(Told::Unsupported("replicas without data")));
        assert_eq!(told_from_pb(pdpb::RegionHeartbeatResponse::new()), Ok(Told::Nothing));
        let expected = order(OrderAction::TransferLeader(OTHER));
        let mut several = order_to_pb(expected.clone());
        several.mut_transfer_leader().clear_peer();
        several.mut_transfer_leader().peers.push(peer_to_pb(&OTHER));
        several.mut_transfer_leader().peers.push(peer_to_pb(&LEADER));
        assert_eq!(told_from_pb(several), Ok(Told::Order(expected)));
    }

    /// H67: what a leader and a store report arrives, each number in its own field.
    #[test]
    fn h67_reports_come_back() {
        let report = RegionHeartbeat {
            region: Region {
                id: RegionId::must(10),
                start_key: Bytes::from_static(b"a"),
                end_key: Bytes::from_static(b"m"),
                epoch: Epoch { conf_ver: 3, version: 5 },
                peers: vec![LEADER, OTHER],
            },
            leader: LEADER,
            term: 9,
            down_peers: vec![PeerDown { peer: OTHER, down_seconds: 77 }],
            pending_peers: vec![OTHER],
            written_bytes: 101,
            written_keys: 102,
            approximate_size: 103,
        };
        assert_eq!(heartbeat_from_pb(heartbeat_to_pb(report.clone())), Ok(report));
        let stats = StoreStats {
            store: StoreId::must(2),
            capacity_bytes: 1,
            available_bytes: 2,
            used_bytes: 3,
            region_count: 4,
            sending_snapshots: 5,
            receiving_snapshots: 6,
            applying_snapshots: 7,
            start_time_seconds: 8,
            is_busy: true,
            written_bytes: 9,
            written_keys: 10,
            damaged_regions: vec![RegionId::must(10), RegionId::must(20)],
        };
        assert_eq!(stats_from_pb(&stats_to_pb(&stats)), Ok(stats));
    }

    #[test]
    fn stores_come_back_and_nobody_is_store_zero() {
        for lifecycle in [StoreLifecycle::Up, StoreLifecycle::Offline, StoreLifecycle::Tombstone] {
            let labels = vec![("zone".to_owned(), "z".to_owned())];
            let info =
                StoreInfo { id: StoreId::must(2), address: "a:1".to_owned(), labels, lifecycle };
            assert_eq!(store_from_pb(store_to_pb(&info)), Ok(info));
        }
        assert!(store_from_pb(metapb::Store::new()).is_err());
        assert!(stats_from_pb(&pdpb::StoreStats::new()).is_err());
        assert_eq!(route_from_pb(Some(metapb::Region::new()), None), Ok(None));
    }
}
