//! What a committed entry does to a region and its data: the rules of execution, written
//! down once more and apart from the core, so that the two can be compared.
//!
//! An entry takes effect as a whole or not at all, and which of the two follows from the
//! entry and the region alone (behaviour 7.4 to 7.7): every replica decides alike.

use std::collections::BTreeMap;

use bytes::Bytes;
use protobuf::Message;
use raft_proto::eraftpb::{ConfChange, ConfChangeV2};
use raftstore_proto::{
    AdminCommand, Body, Cf, ChangeKind, Command, CompareAndSwap, Entry, EntryKind, Operation, Peer,
    PeerChange, PeerRole, Region, SplitRequest, wire,
};

/// Rows of a region in key order.
pub(super) type Rows = BTreeMap<(Cf, Bytes), Bytes>;

/// A change of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put(Cf, Bytes, Bytes),
    Delete(Cf, Bytes),
    DeleteRange(Cf, Bytes, Bytes),
    Swap(Box<CompareAndSwap>),
    /// What lies outside of the range belongs to others from now on.
    Keep(Bytes, Bytes),
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing, be it refused or empty.
    Nothing,
    /// It changes data.
    Data(Vec<Change>),
    /// It changes the members; the region afterwards.
    Members(Region),
    /// It cuts the region: what keeps its id, and the others in key order.
    Split(Region, Vec<Region>),
    /// These rules do not cover it.
    Unknown,
}

impl Change {
    pub(super) fn apply(&self, rows: &mut Rows) {
        match self {
            Self::Put(cf, key, value) => {
                rows.insert((*cf, key.clone()), value.clone());
            }
            Self::Delete(cf, key) => {
                rows.remove(&(*cf, key.clone()));
            }
            Self::DeleteRange(cf, start, end) => {
                rows.retain(|(family, key), _| family != cf || !is_within(key, start, end));
            }
            Self::Swap(swap) => {
                let place = (swap.cf, swap.key.clone());
                if rows.get(&place) == swap.expected.as_ref() {
                    match &swap.new {
                        Some(value) => rows.insert(place, value.clone()),
                        None => rows.remove(&place),
                    };
                }
            }
            Self::Keep(start, end) => rows.retain(|(_, key), _| is_within(key, start, end)),
        }
    }
}

/// Whether `key` lies in `[start, end)`; an empty end is after every key.
pub(super) fn is_within(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    key >= start && (end.is_empty() || key < end)
}

/// What `entry` does to `region`. Where the region is not known, data is taken to change
/// as the entry says.
pub(super) fn effect(region: Option<&Region>, entry: &Entry) -> Effect {
    if entry.data().is_empty() {
        return Effect::Nothing;
    }
    let command = match entry.kind() {
        EntryKind::Normal => wire::decode_command(entry.data()).ok(),
        EntryKind::ConfChange => ConfChange::parse_from_carllerche_bytes(entry.data())
            .ok()
            .and_then(|change| wire::decode_command(&change.context).ok()),
        EntryKind::ConfChangeV2 => ConfChangeV2::parse_from_carllerche_bytes(entry.data())
            .ok()
            .and_then(|change| wire::decode_command(&change.context).ok()),
    };
    let Some(Command { header, body }) = command else {
        // raft leaves a joint membership with a change that says nothing.
        let is_change = entry.kind() != EntryKind::Normal;
        return if is_change { Effect::Unknown } else { Effect::Nothing };
    };
    let Some(region) = region else {
        return match body {
            Body::Operations(operations) => Effect::Data(data_changes(operations)),
            Body::Admin(AdminCommand::CompactLog { .. }) | Body::Status(_) => Effect::Nothing,
            Body::Admin(_) => Effect::Unknown,
        };
    };
    let (version, conf_ver) = match header.epoch {
        Some(epoch) => {
            (epoch.version == region.epoch.version, epoch.conf_ver == region.epoch.conf_ver)
        }
        None => (false, false),
    };
    match body {
        Body::Operations(operations) => {
            let conditions = operations.iter().filter(|it| it.is_conditional()).count();
            let stand_alone =
                conditions == 0 || (operations.len() == 1 && entry.flags().conditional);
            if version && stand_alone && operations.iter().all(|it| fits(it, region)) {
                Effect::Data(data_changes(operations))
            } else {
                Effect::Nothing
            }
        }
        Body::Admin(AdminCommand::BatchSplit { requests, right_derive }) => {
            if version && conf_ver && entry.flags().split && can_split(&requests, region) {
                split(region, &requests, right_derive)
            } else {
                Effect::Nothing
            }
        }
        Body::Admin(AdminCommand::ChangePeer(change)) if conf_ver => {
            changed(region, &[change]).map_or(Effect::Nothing, Effect::Members)
        }
        Body::Admin(AdminCommand::ChangePeerV2(changes)) if conf_ver => {
            changed(region, &changes).map_or(Effect::Nothing, Effect::Members)
        }
        Body::Admin(_) | Body::Status(_) => Effect::Nothing,
    }
}

fn data_changes(operations: Vec<Operation>) -> Vec<Change> {
    operations
        .into_iter()
        .filter_map(|operation| match operation {
            Operation::Put { cf, key, value } => Some(Change::Put(cf, key, value)),
            Operation::Delete { cf, key } => Some(Change::Delete(cf, key)),
            Operation::DeleteRange { cf, start_key, end_key } => {
                Some(Change::DeleteRange(cf, start_key, end_key))
            }
            Operation::CompareAndSwap(swap) => Some(Change::Swap(swap)),
            Operation::Get { .. } | Operation::Snap | Operation::Invalid { .. } => None,
        })
        .collect()
}

/// Whether a region can carry out an operation.
fn fits(operation: &Operation, region: &Region) -> bool {
    match operation {
        Operation::Put { cf, key, .. } | Operation::Delete { cf, key } => {
            cf.is_data() && region.contains(key)
        }
        Operation::DeleteRange { cf, start_key, end_key } => {
            let is_range = end_key.is_empty() || start_key < end_key;
            let ends_inside =
                region.end_key.is_empty() || (!end_key.is_empty() && *end_key <= region.end_key);
            cf.is_data() && is_range && region.contains(start_key) && ends_inside
        }
        Operation::CompareAndSwap(swap) => swap.cf.is_data() && region.contains(&swap.key),
        Operation::Get { .. } | Operation::Snap => true,
        Operation::Invalid { .. } => false,
    }
}

/// Whether the cuts ascend inside the region, and every new region has an id of its own and
/// a peer for each member.
fn can_split(requests: &[SplitRequest], region: &Region) -> bool {
    let mut before = &region.start_key;
    let mut ids = vec![region.id];
    let mut peers: Vec<_> = region.peers.iter().map(|peer| peer.id).collect();
    for request in requests {
        if request.key <= *before
            || !region.contains(&request.key)
            || ids.contains(&request.new_region)
            || request.new_peers.len() != region.peers.len()
        {
            return false;
        }
        before = &request.key;
        ids.push(request.new_region);
        for peer in &request.new_peers {
            if peers.contains(peer) {
                return false;
            }
            peers.push(*peer);
        }
    }
    let joint = |role| matches!(role, PeerRole::IncomingVoter | PeerRole::DemotingVoter);
    !requests.is_empty() && !region.peers.iter().any(|peer| joint(peer.role))
}

fn split(region: &Region, requests: &[SplitRequest], right_derive: bool) -> Effect {
    let mut epoch = region.epoch;
    epoch.version += requests.len() as u64;
    let mut borders = vec![region.start_key.clone()];
    borders.extend(requests.iter().map(|request| request.key.clone()));
    borders.push(region.end_key.clone());
    let mut parts: Vec<Region> = borders
        .windows(2)
        .map(|ends| Region {
            start_key: ends[0].clone(),
            end_key: ends[1].clone(),
            epoch,
            ..region.clone()
        })
        .collect();
    let derived = parts.remove(if right_derive { parts.len() - 1 } else { 0 });
    for (part, request) in parts.iter_mut().zip(requests) {
        part.id = request.new_region;
        for (peer, id) in part.peers.iter_mut().zip(&request.new_peers) {
            peer.id = *id;
        }
    }
    Effect::Split(derived, parts)
}

/// The region after these changes of its members, if they fit them: one takes effect at
/// once, several enter a joint membership, none leave it.
fn changed(region: &Region, changes: &[PeerChange]) -> Option<Region> {
    let mut after = region.clone();
    let marked = |role| matches!(role, PeerRole::IncomingVoter | PeerRole::DemotingVoter);
    let is_joint = |region: &Region| region.peers.iter().any(|peer| marked(peer.role));
    if changes.is_empty() {
        for peer in after.peers.iter_mut().filter(|peer| marked(peer.role)) {
            let stays = peer.role == PeerRole::IncomingVoter;
            peer.role = if stays { PeerRole::Voter } else { PeerRole::Learner };
            after.epoch.conf_ver += 1;
        }
        return is_joint(region).then_some(after);
    }
    let jointly = changes.len() > 1;
    for (at, change) in changes.iter().enumerate() {
        let Peer { id, store, .. } = change.peer;
        let mut earlier = changes[..at].iter().map(|change| change.peer);
        if earlier.any(|peer| peer.id == id || peer.store == store) {
            return None;
        }
        member_changed(&mut after, change, jointly)?;
        after.epoch.conf_ver += 1;
    }
    let votes = |role| matches!(role, PeerRole::Voter | PeerRole::IncomingVoter);
    let has_voter = after.peers.iter().any(|peer| votes(peer.role));
    (has_voter && !is_joint(region) && is_joint(&after) == jointly).then_some(after)
}

/// One of several changes, or the only one.
fn member_changed(region: &mut Region, change: &PeerChange, jointly: bool) -> Option<()> {
    let Peer { id, store, .. } = change.peer;
    let gains = if jointly { PeerRole::IncomingVoter } else { PeerRole::Voter };
    let loses = if jointly { PeerRole::DemotingVoter } else { PeerRole::Learner };
    let is_known = region.peers.iter().any(|peer| peer.id == id);
    let there = region.peers.iter_mut().find(|peer| peer.store == store);
    match (change.kind, there) {
        (ChangeKind::RemoveNode, Some(peer)) => {
            let may_go = peer.role == PeerRole::Learner || !jointly;
            if peer.id != id || !may_go {
                return None;
            }
            region.peers.retain(|peer| peer.id != id);
        }
        (ChangeKind::RemoveNode, None) => return None,
        (kind, Some(peer)) => {
            let role = match (kind, peer.role) {
                (ChangeKind::AddNode, PeerRole::Learner) => gains,
                (ChangeKind::AddLearner, PeerRole::Voter) => loses,
                _ => return None,
            };
            if peer.id != id {
                return None;
            }
            peer.role = role;
        }
        (kind, None) => {
            if is_known {
                return None;
            }
            let role = if kind == ChangeKind::AddNode { gains } else { PeerRole::Learner };
            region.peers.push(Peer { id, store, role });
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use raftstore_proto::{EntryFlags, Epoch, Header, PeerId, RegionId, StoreId};

    use super::*;

    fn region() -> Region {
        Region {
            id: RegionId::must(1),
            start_key: Bytes::from_static(b"a"),
            end_key: Bytes::from_static(b"m"),
            epoch: Epoch { conf_ver: 2, version: 3 },
            peers: (1..=3).map(|at| Peer::voter(PeerId::must(at), StoreId::must(at))).collect(),
        }
    }

    fn entry(version: u64, conf_ver: u64, body: Body, split: bool) -> Entry {
        let region = region();
        let header = Header {
            region: region.id,
            peer: region.peers[0],
            epoch: Some(Epoch { conf_ver, version }),
            term: 0,
            read_quorum: false,
            replica_read: false,
        };
        let data = wire::encode_command(&Command { header, body });
        let flags = EntryFlags { split, ..EntryFlags::NONE };
        let raw = raft_proto::eraftpb::Entry {
            context: Bytes::from(Entry::context_for(region.id, 7, 6, flags, &data)),
            index: 7,
            term: 6,
            data: Bytes::from(data),
            ..Default::default()
        };
        Entry::from_raft(raw)
    }

    fn put(key: &'static [u8]) -> Body {
        let key = Bytes::from_static(key);
        Body::Operations(vec![Operation::Put { cf: Cf::Default, key, value: Bytes::new() }])
    }

    fn cut(keys: &[&'static [u8]], right_derive: bool) -> Body {
        let requests = (10..)
            .zip(keys)
            .map(|(id, key)| SplitRequest {
                key: Bytes::from_static(key),
                new_region: RegionId::must(id),
                new_peers: (1..=3).map(|at| PeerId::must(id * 10 + at)).collect(),
            })
            .collect();
        Body::Admin(AdminCommand::BatchSplit { requests, right_derive })
    }

    #[test]
    fn a_write_takes_effect_in_its_version_and_range_only() {
        let region = region();
        let done = effect(Some(&region), &entry(3, 9, put(b"b"), false));
        assert!(matches!(done, Effect::Data(changes) if changes.len() == 1));
        assert_eq!(effect(Some(&region), &entry(2, 2, put(b"b"), false)), Effect::Nothing);
        assert_eq!(effect(Some(&region), &entry(3, 2, put(b"m"), false)), Effect::Nothing);
    }

    #[test]
    fn a_split_cuts_where_it_says() {
        let region = region();
        let range = |part: &Region| (part.start_key.clone(), part.end_key.clone());
        let both = entry(3, 2, cut(&[b"c", b"f"], true), true);
        let Effect::Split(derived, parts) = effect(Some(&region), &both) else {
            panic!("it fits");
        };
        assert_eq!(range(&derived), ("f".into(), "m".into()));
        assert_eq!(derived.epoch, Epoch { conf_ver: 2, version: 5 });
        assert_eq!(range(&parts[0]), ("a".into(), "c".into()));
        assert_eq!(range(&parts[1]), ("c".into(), "f".into()));
        assert_eq!((parts[1].id.get(), parts[1].peers[2].id.get()), (11, 113));
        let left = entry(3, 2, cut(&[b"c"], false), true);
        let Effect::Split(derived, parts) = effect(Some(&region), &left) else {
            panic!("it fits");
        };
        assert_eq!((range(&derived).1, range(&parts[0]).0), ("c".into(), "c".into()));
    }

    #[test]
    fn a_split_that_does_not_fit_does_nothing() {
        let region = region();
        let refused = |entry: Entry| effect(Some(&region), &entry) == Effect::Nothing;
        assert!(refused(entry(3, 1, cut(&[b"c"], true), true)), "members have changed");
        assert!(refused(entry(2, 2, cut(&[b"c"], true), true)), "the range has changed");
        assert!(refused(entry(3, 2, cut(&[b"c"], true), false)), "not marked");
        assert!(refused(entry(3, 2, cut(&[b"a"], true), true)), "at the start");
        assert!(refused(entry(3, 2, cut(&[b"m"], true), true)), "at the end");
        assert!(refused(entry(3, 2, cut(&[b"f", b"c"], true), true)), "descending");
    }

    #[test]
    fn members_change_alone_or_together() {
        let region = region();
        let change =
            |kind, at| PeerChange { kind, peer: Peer::voter(PeerId::must(at), StoreId::must(at)) };
        let several = |region: &Region, changes: Vec<PeerChange>| {
            let conf_ver = region.epoch.conf_ver;
            let body = Body::Admin(AdminCommand::ChangePeerV2(changes));
            match effect(Some(region), &entry(3, conf_ver, body, false)) {
                Effect::Members(after) => Some(after),
                Effect::Nothing => None,
                other => panic!("{other:?}"),
            }
        };
        use ChangeKind::{AddLearner, AddNode, RemoveNode};
        use PeerRole::{Learner, Voter};
        let roles = |region: &Region| region.peers.iter().map(|peer| peer.role).collect::<Vec<_>>();
        let demoted = several(&region, vec![change(AddLearner, 2)]).expect("it fits");
        assert_eq!(roles(&demoted), [Voter, Learner, Voter]);
        let enter = vec![change(AddLearner, 2), change(AddNode, 4), change(AddLearner, 5)];
        let joint = several(&region, enter.clone()).expect("it fits");
        assert_eq!(joint.epoch.conf_ver, 5);
        assert_eq!(several(&joint, enter), None, "joint already");
        let left = several(&joint, Vec::new()).expect("joint");
        assert_eq!(left.epoch.conf_ver, 7);
        assert_eq!(roles(&left), [Voter, Learner, Voter, Voter, Learner]);
        assert_eq!(several(&left, Vec::new()), None, "nothing to leave");
        assert_eq!(several(&region, vec![change(AddNode, 4), change(RemoveNode, 2)]), None);
        assert_eq!(several(&left, vec![change(RemoveNode, 2), change(AddLearner, 7)]), None);
        assert_eq!(several(&left, vec![change(AddNode, 2), change(RemoveNode, 2)]), None);
        let all = (1..=3).map(|at| change(AddLearner, at)).collect();
        assert_eq!(several(&region, all), None, "nobody would vote");
    }
}
