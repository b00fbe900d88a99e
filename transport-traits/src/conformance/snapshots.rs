//! Cases about messages with snapshots.

use std::{collections::BTreeMap, sync::Arc};

use raftstore_proto::MessageKind;

use super::fixture::{
    Fixture, Gate, Node, SlowSnaps, content, get, key, message, node, node_on, peer, put, region,
    snapshot_message,
};
use crate::{
    MemSnapStore, SnapDirection::Generated, SnapDirection::Received, SnapKey, SnapOp,
    SnapshotStatus, Transport,
};

/// Two and a half chunks of one MiB, and a byte.
const LARGE: usize = (5 << 19) + 1;

fn send<T: Transport>(from: &mut Node<T>, key: SnapKey, to: u64) {
    from.transport.send(snapshot_message(key, 1, to)).expect("an idle transport takes messages");
    from.transport.flush();
}

/// Waits for one report, closes, and checks that there is no second one.
fn expect_one_status<F: Fixture>(
    mut fixture: F,
    sender: &Node<F::Transport>,
    id: u64,
    to: u64,
    status: SnapshotStatus,
) {
    sender.inbox.wait("a status report", |told| !told.statuses.is_empty());
    fixture.close();
    assert_eq!(sender.inbox.told().statuses, [(region(id), peer(to).id, status)]);
}

/// The receiver has the bytes when it gets the message, then the sender is told, once.
pub fn a_snapshot_comes_after_its_bytes_and_is_reported_once<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    let bytes = content(1, LARGE);
    put(&one.snaps, Generated, key(5, 10), &bytes);
    send(&mut one, key(5, 10), 2);
    one.inbox.wait("a status report", |told| !told.statuses.is_empty());
    assert_eq!(
        two.inbox.told().messages,
        [(snapshot_message(key(5, 10), 1, 2), Some((key(5, 10), LARGE as u64)))],
        "the message comes before the report"
    );
    assert!(two.inbox.told().torn.is_empty(), "the bytes come before the message");
    assert_eq!(get(&two.snaps, Received, key(5, 10)), Some(bytes));
    assert!(get(&one.snaps, Generated, key(5, 10)).is_some(), "the sender keeps its own");
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Finished);
}

/// A snapshot without bytes is delivered like any other.
pub fn an_empty_snapshot_is_a_snapshot<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    put(&one.snaps, Generated, key(5, 10), b"");
    send(&mut one, key(5, 10), 2);
    two.inbox.wait("delivery", |told| told.messages.len() == 1);
    assert_eq!(two.inbox.told().messages[0].1, Some((key(5, 10), 0)));
    assert!(two.inbox.told().torn.is_empty());
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Finished);
}

/// More snapshots than are moved at a time all arrive.
pub fn many_snapshots_arrive_each_reported_once<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    for id in 1..=12 {
        put(&one.snaps, Generated, key(id, 10), &content(id, 10_000));
        send(&mut one, key(id, 10), 2);
    }
    one.inbox.wait("all reports", |told| told.statuses.len() >= 12);
    fixture.close();
    assert!(two.inbox.told().torn.is_empty());
    let mut reports = BTreeMap::new();
    for (region, _, status) in &one.inbox.told().statuses {
        assert_eq!(*status, SnapshotStatus::Finished);
        *reports.entry(*region).or_insert(0) += 1;
    }
    for id in 1..=12 {
        assert_eq!(reports.get(&region(id)), Some(&1));
        assert_eq!(get(&two.snaps, Received, key(id, 10)), Some(content(id, 10_000)));
    }
}

/// What the receiver has complete is not written again; the message is delivered.
pub fn a_snapshot_already_received_is_not_copied_again<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    put(&one.snaps, Generated, key(5, 10), &content(1, 1000));
    put(&two.snaps, Received, key(5, 10), b"was here first");
    send(&mut one, key(5, 10), 2);
    two.inbox.wait("delivery", |told| told.messages.len() == 1);
    assert_eq!(two.inbox.told().messages[0].1, Some((key(5, 10), 14)));
    assert_eq!(get(&two.snaps, Received, key(5, 10)).as_deref(), Some(&b"was here first"[..]));
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Finished);
}

/// A snapshot the sender does not have fails, once, and is not delivered.
pub fn a_missing_snapshot_fails_once<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    put(&one.snaps, Generated, key(5, 9), b"another one");
    send(&mut one, key(5, 10), 2);
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Failed);
    assert!(two.inbox.told().messages.is_empty());
}

/// If the sender's medium breaks, the receiver keeps nothing and hears nothing.
pub fn a_reader_that_breaks_fails_once<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    put(&one.snaps, Generated, key(5, 10), &content(1, LARGE));
    one.snaps.fail_next(SnapOp::Read, 1);
    send(&mut one, key(5, 10), 2);
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Failed);
    assert!(two.inbox.told().messages.is_empty());
    assert_eq!(two.snaps.used_bytes(), 0);
}

/// If the receiver has no room, it keeps nothing and hears nothing.
pub fn a_receiver_without_space_fails_once_and_keeps_nothing<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    put(&one.snaps, Generated, key(5, 10), &content(1, LARGE));
    two.snaps.set_limit_bytes(LARGE as u64 - 1);
    send(&mut one, key(5, 10), 2);
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Failed);
    assert!(two.inbox.told().messages.is_empty());
    assert_eq!(two.snaps.used_bytes(), 0);
}

/// To a store that is not there a snapshot is refused without report, or fails once.
pub fn a_snapshot_to_an_unknown_store_fails_once<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    put(&one.snaps, Generated, key(5, 10), b"bytes");
    let is_taken = one.transport.send(snapshot_message(key(5, 10), 1, 9)).is_ok();
    one.transport.flush();
    if is_taken {
        expect_one_status(fixture, &one, 5, 9, SnapshotStatus::Failed);
    } else {
        fixture.close();
        assert!(one.inbox.told().statuses.is_empty());
    }
}

/// While a receiver is slow to take a snapshot, `send` returns and messages pass.
pub fn a_slow_snapshot_holds_up_no_other_message<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let (two, slow) = slow_node(&mut fixture, 2);
    slow.gate.shut();
    put(&one.snaps, Generated, key(5, 10), &content(1, LARGE));
    send(&mut one, key(5, 10), 2);
    for index in 0..10 {
        one.transport
            .send(message(MessageKind::Heartbeat, 5, 1, 2, index))
            .expect("an idle transport takes messages");
    }
    one.transport.flush();
    two.inbox.wait("heartbeats", |told| told.messages.len() == 10);
    assert!(one.inbox.told().statuses.is_empty(), "the transfer has not ended");
    slow.gate.open();
    two.inbox.wait("the snapshot", |told| told.messages.len() == 11);
    expect_one_status(fixture, &one, 5, 2, SnapshotStatus::Finished);
}

/// Every transfer that was taken is reported once, whenever the transport is closed.
pub fn closing_ends_every_transfer_with_one_report<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let (two, slow) = slow_node(&mut fixture, 2);
    slow.gate.shut();
    let mut taken = Vec::new();
    for id in 1..=20 {
        put(&one.snaps, Generated, key(id, 10), &content(id, 1000));
        if one.transport.send(snapshot_message(key(id, 10), 1, 2)).is_ok() {
            taken.push(region(id));
        }
    }
    one.transport.flush();
    assert!(!taken.is_empty());
    std::thread::scope(|scope| {
        // Whether the close or the gate comes first is left to chance: both must do.
        scope.spawn(|| slow.gate.open());
        fixture.close();
    });
    let told = one.inbox.told();
    let mut reported: Vec<_> = told.statuses.iter().map(|(region, ..)| *region).collect();
    reported.sort_unstable();
    assert_eq!(reported, taken);
    let finished =
        told.statuses.iter().filter(|(.., status)| *status == SnapshotStatus::Finished).count();
    let delivered = two.inbox.told().messages.len();
    assert!(delivered == finished || (F::MAY_LOSE_ANSWERS && delivered > finished));
    assert!(two.inbox.told().torn.is_empty());
}

/// A node whose store of snapshots can be made to wait.
fn slow_node<F: Fixture>(fixture: &mut F, store: u64) -> (Node<F::Transport>, Arc<SlowSnaps>) {
    let snaps = MemSnapStore::new(1 << 30);
    let slow = Arc::new(SlowSnaps { inner: snaps.clone(), gate: Gate::default() });
    let medium = Arc::clone(&slow);
    (node_on(fixture, store, snaps, medium), slow)
}
