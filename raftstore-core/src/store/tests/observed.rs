//! What observers are asked before a proposal, and told of peers and regions.
#![expect(clippy::disallowed_types, reason = "observers are shared by threads, in tests too")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raftstore_proto::{
    AdminCommand, Body, ChangeKind, Operation, PeerChange, PeerId, Region, RegionError, RegionId,
    SplitRequest,
};

use super::harness::*;
use crate::{
    Event,
    observe::{
        Asked, Observer, Observers, RegionChange, RoleChange, RowSplits, SnapshotApplied,
        encode_bytes,
    },
};

const CHILD: RegionId = RegionId::must(77);

/// Refuses keys that begin with `no`, and stores everything else under longer values.
struct Guard;

impl Observer for Guard {
    fn name(&self) -> &'static str {
        "guard"
    }

    fn pre_query(
        &self,
        asked: &mut Asked<'_>,
        operations: &mut Vec<Operation>,
    ) -> Result<(), RegionError> {
        assert_eq!(asked.region().id, R1);
        for operation in operations.iter_mut() {
            match operation {
                Operation::Put { key, .. } if key.starts_with(b"no") => {
                    let why = "the key begins with no".to_owned();
                    return Err(RegionError::Refused { by: self.name(), why });
                }
                Operation::Put { key, value, .. } if key.starts_with(b"get") => {
                    let (cf, key) = (raftstore_proto::Cf::Default, value.clone());
                    *operation = Operation::Get { cf, key };
                }
                Operation::Put { value, .. } => *value = [&value[..], b"!"].concat().into(),
                _ => {}
            }
        }
        Ok(())
    }

    fn pre_admin(
        &self,
        asked: &mut Asked<'_>,
        command: &mut AdminCommand,
    ) -> Result<(), RegionError> {
        let member = asked.region().peers.len() > 1;
        match command {
            AdminCommand::ChangePeer(change) if change.kind == ChangeKind::RemoveNode && member => {
                let why = "members stay".to_owned();
                Err(RegionError::Refused { by: self.name(), why })
            }
            _ => Ok(()),
        }
    }
}

/// Notes what it is told, in one line per call.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn role_changed(&self, change: &RoleChange<'_>) {
        let RoleChange { region, role, term, leader, .. } = change;
        self.note(format!("{} {role:?} in {term} under {leader}", region.id));
    }

    fn region_changed(&self, change: &RegionChange<'_>) {
        let Region { id, epoch, .. } = change.region;
        let event = change.event;
        self.note(format!("{id} {event:?} {}/{}", epoch.conf_ver, epoch.version));
    }

    fn snapshot_applied(&self, snapshot: &SnapshotApplied<'_>) {
        self.note(format!("{} data at {}", snapshot.region.id, snapshot.state.applied));
    }
}

fn sole(observers: Observers) -> Node {
    let mut node = Node::observed(1, config(), &[region(R1, "", "", &[1])], observers);
    node.settle();
    assert!(node.status(R1).is_leader, "a sole voter leads at once");
    node
}

fn noted(stores: &[u64]) -> (Node, Arc<Notes>, Region) {
    let notes = Arc::<Notes>::default();
    let whole = region(R1, "", "", stores);
    let observers = Observers::default().with(1, Arc::<Notes>::clone(&notes));
    let node = Node::observed(1, config(), std::slice::from_ref(&whole), observers);
    (node, notes, whole)
}

#[test]
fn observers_change_or_refuse_what_is_proposed() {
    let mut node = sole(Observers::default().with(1, Arc::new(Guard)));
    let put = node.put(R1, "k", "v");
    node.settle();
    assert!(node.answer(put).unwrap().is_ok());
    assert_eq!(node.data("k").as_deref(), Some(&b"v!"[..]));
    let before = node.status(R1).last_index;
    let refused = node.put(R1, "no", "v");
    let why = "the key begins with no".to_owned();
    assert_eq!(node.refusal(refused), &RegionError::Refused { by: "guard", why });
    let turned = node.put(R1, "get", "k");
    assert!(matches!(node.refusal(turned), RegionError::InvalidCommand { .. }));
    assert_eq!(node.status(R1).last_index, before, "nothing was proposed");
    // Reads are not proposed, and nobody is asked about them.
    let read = node.ask(R1, get("no"));
    node.settle();
    assert_eq!(node.value(read), None);
}

#[test]
fn observers_have_a_say_in_membership_changes() {
    let whole = region(R1, "", "", &[1]);
    let mut with_two = whole.clone();
    with_two.peers.push(raftstore_proto::Peer::learner(PeerId::must(102), voter(R1, 2).store));
    let observers = Observers::default().with(1, Arc::new(Guard));
    let mut node = Node::observed(1, config(), &[with_two.clone()], observers);
    node.settle();
    let before = node.status(R1).last_index;
    let reply = node.change(R1, removing(with_two.peers[1]));
    let why = "members stay".to_owned();
    assert_eq!(node.refusal(reply), &RegionError::Refused { by: "guard", why });
    assert_eq!(node.status(R1).last_index, before);
}

fn split_at(key: Vec<u8>, peers: usize) -> Body {
    let new_peers = (0..peers as u64).map(|at| PeerId::must(770 + at)).collect();
    let request = SplitRequest { key: key.into(), new_region: CHILD, new_peers };
    Body::Admin(AdminCommand::BatchSplit { requests: vec![request], right_derive: true })
}

/// A cut in the middle of a row is moved before it is proposed, or refused if nothing is
/// left to cut.
#[test]
fn a_row_is_never_cut_with_the_observer_of_rows() {
    let row = |handle: u64, rest: &[u8]| {
        [b"t", &7_u64.to_be_bytes()[..], b"_r", &handle.to_be_bytes(), rest].concat()
    };
    let mut node = sole(Observers::default().with(RowSplits::PRIORITY, Arc::new(RowSplits)));
    let inside = [encode_bytes(&row(3, b"column")), b"12345678".to_vec()].concat();
    let reply = node.ask(R1, split_at(inside.clone(), 1));
    node.settle();
    assert!(node.answer(reply).unwrap().is_ok());
    let start = Bytes::from(encode_bytes(&row(3, b"")));
    assert_eq!(node.status(R1).region.start_key, start);
    assert_eq!(node.status(CHILD).region.end_key, start);
    let again = node.ask(R1, split_at(inside, 1));
    let refused = node.refusal(again);
    assert!(matches!(refused, RegionError::InvalidCommand { .. }), "{refused:?}");
}

#[test]
fn roles_are_told_from_the_beginning_with_term_and_leader() {
    let (mut node, notes, whole) = noted(&[1, 2, 3]);
    assert_eq!(notes.take(), ["1 Created(Opened) 3/1", "1 Follower in 5 under 0"]);
    node.settle();
    node.pass_start();
    node.tick(25);
    let asks = notes.take();
    assert_eq!(asks.first().map(String::as_str), Some("1 PreCandidate in 5 under 0"));
    let ends = (voter(R1, 2), voter(R1, 1));
    node.receive(append(&whole, ends, 9, (SEEDED, SEEDED), 6, SEEDED));
    assert_eq!(notes.take(), ["1 Follower in 9 under 102"]);
    node.receive(append(&whole, ends, 9, (6, 9), 7, SEEDED));
    assert_eq!(notes.take(), Vec::<String>::new(), "nothing is new");
}

#[test]
fn a_sole_voter_is_told_to_lead() {
    let (mut node, notes, _) = noted(&[1]);
    node.settle();
    let told = notes.take();
    assert_eq!(told.last().map(String::as_str), Some("1 Leader in 6 under 101"), "{told:?}");
}

#[test]
fn a_split_is_told_of_the_parent_and_then_of_the_child() {
    let (mut node, notes, _) = noted(&[1]);
    node.settle();
    notes.take();
    let reply = node.ask(R1, split_at(b"m".to_vec(), 1));
    node.settle();
    assert!(node.answer(reply).unwrap().is_ok());
    let regions: Vec<String> = notes.take().into_iter().filter(|line| line.contains('(')).collect();
    assert_eq!(regions, ["1 Updated(Split) 1/2", "77 Created(Split) 1/2"]);
}

/// Members come and go; the peer's own removal is an update and an end.
#[test]
fn membership_is_told_and_so_is_ones_own_end() {
    let notes = Arc::<Notes>::default();
    let observers = Observers::default().with(1, Arc::<Notes>::clone(&notes));
    let whole = region(R1, "", "", &[1, 2, 3]);
    let mut cluster = Cluster::new(3, std::slice::from_ref(&whole));
    let mut own = Node::observed(2, config(), std::slice::from_ref(&whole), observers);
    own.pass_start();
    *cluster.on(2) = own;
    cluster.elect(1, R1);
    notes.take();
    cluster.on(1).change(R1, removing(voter(R1, 3)));
    cluster.settle();
    cluster.on(1).tick(3);
    cluster.settle();
    assert_eq!(notes.take(), ["1 Updated(Membership) 4/1"]);
    cluster.on(1).change(R1, removing(voter(R1, 2)));
    cluster.settle();
    cluster.on(1).tick(3);
    cluster.settle();
    let told = notes.take();
    // Whether it hears of the commit of its own removal is a matter of luck.
    let end = told.last().unwrap().as_str();
    let as_told = match told.as_slice() {
        [update, _] => update == "1 Updated(Membership) 5/1" && end == "1 Destroyed(Removed) 5/1",
        [_] => end == "1 Destroyed(NotListed) 4/1",
        _ => false,
    };
    assert!(as_told, "{told:?}");
}

/// A region comes with its first snapshot, whose data follows; a later one of the same
/// shape is no change of the region.
#[test]
fn snapshots_are_told_as_shape_and_as_data() {
    let notes = Arc::<Notes>::default();
    let observers = Observers::default().with(1, Arc::<Notes>::clone(&notes));
    let mut node = Node::observed(1, config(), &[], observers);
    let whole = region(R1, "", "", &[1, 2, 3]);
    node.meet(&whole, 2);
    let ends = (voter(R1, 2), voter(R1, 1));
    assert_eq!(notes.take(), ["1 Follower in 6 under 102"], "no range, no region");
    node.receive_snapshot(&whole, ends, 6, 20, &[("k", "v")]);
    node.settle();
    assert_eq!(notes.take(), ["1 Created(Snapshot) 3/1", "1 data at 20"]);
    node.receive_snapshot(&whole, ends, 6, 30, &[("k", "w")]);
    node.settle();
    assert_eq!(notes.take(), ["1 data at 30"]);
    let mut smaller = region(R1, "", "m", &[1, 2, 3]);
    smaller.epoch.version += 1;
    node.receive_snapshot(&smaller, ends, 6, 40, &[("k", "x")]);
    node.settle();
    assert_eq!(notes.take(), ["1 Updated(Snapshot) 3/2", "1 data at 40"]);
    let newer = raftstore_proto::Epoch { conf_ver: 4, version: 2 };
    let told_to_go = raftstore_proto::RaftMessage::tombstone(R1, ends.0, ends.1, newer);
    node.receive(told_to_go);
    node.settle();
    assert_eq!(notes.take(), ["1 Destroyed(NotListed) 3/2"]);
}

/// An end before the data of a first snapshot is accepted is nobody's end.
#[test]
fn what_was_never_told_to_come_is_not_told_to_go() {
    let notes = Arc::<Notes>::default();
    let observers = Observers::default().with(1, Arc::<Notes>::clone(&notes));
    let mut node = Node::observed(1, config(), &[], observers);
    let whole = region(R1, "", "", &[1, 2, 3]);
    node.meet(&whole, 2);
    let newer = raftstore_proto::Epoch { conf_ver: 9, version: 9 };
    node.receive(raftstore_proto::RaftMessage::tombstone(R1, voter(R1, 2), voter(R1, 1), newer));
    node.settle();
    assert!(node.store.inspect_region(R1).is_none());
    let told = notes.take();
    assert!(told.iter().all(|line| !line.contains("Destroyed")), "{told:?}");
}

/// The transfer of leadership is advice and not proposed: nobody is asked.
#[test]
fn transfers_are_nobodys_business() {
    struct Never;
    impl Observer for Never {
        fn name(&self) -> &'static str {
            "never"
        }
        fn pre_admin(&self, _: &mut Asked<'_>, _: &mut AdminCommand) -> Result<(), RegionError> {
            Err(RegionError::Refused { by: self.name(), why: String::new() })
        }
    }
    let mut node = sole(Observers::default().with(1, Arc::new(Never)));
    let to = node.ask(R1, Body::Admin(AdminCommand::TransferLeader(voter(R1, 1))));
    assert!(node.answer(to).unwrap().is_ok());
    let add = PeerChange { kind: ChangeKind::AddNode, peer: voter(R1, 2) };
    let change = node.change(R1, add);
    assert!(matches!(node.refusal(change), RegionError::Refused { by: "never", .. }));
    node.take(Event::Tick);
}
