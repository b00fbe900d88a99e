//! What the channel transport adds to the contract: faults on command, restarts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use raftstore_proto::{Epoch, MessageKind, Peer, PeerId, RaftMessage, RegionId, StoreId};
use transport_traits::{
    ChannelConfig, ChannelHub, ChannelTransport, HubError, Inbox, MemSnapStore, SendError,
    SnapDirection, SnapKey, SnapStore, SnapshotStatus, Transport,
};

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Message(u64),
    Unreachable(PeerId),
    Status(SnapshotStatus),
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl Log {
    fn add(&self, event: Event) {
        self.events.lock().push(event);
        self.changed.notify_all();
    }

    fn wait(&self, event: &Event) {
        let until = Instant::now() + Duration::from_secs(60);
        let mut events = self.events.lock();
        while !events.contains(event) {
            assert!(!self.changed.wait_until(&mut events, until).timed_out(), "{event:?}");
        }
    }
}

impl Inbox for Log {
    fn message(&self, message: RaftMessage, _: Option<(SnapKey, u64)>) {
        let number = message.raft().index;
        self.add(Event::Message(number));
        assert!(number != 666, "an inbox that panics");
    }

    fn unreachable(&self, _: RegionId, to: PeerId) {
        self.add(Event::Unreachable(to));
    }

    fn snapshot_status(&self, _: RegionId, _: PeerId, status: SnapshotStatus) {
        self.add(Event::Status(status));
    }
}

const ONE: StoreId = StoreId::must(1);
const TWO: StoreId = StoreId::must(2);
const KEY: SnapKey = SnapKey { region: RegionId::must(1), term: 3, index: 4 };

struct World {
    hub: ChannelHub,
    logs: [Arc<Log>; 2],
    snaps: [MemSnapStore; 2],
    handles: [ChannelTransport; 2],
}

fn world() -> World {
    let hub = ChannelHub::new(ChannelConfig::default()).expect("threads can be had");
    let logs = [Arc::new(Log::default()), Arc::new(Log::default())];
    let snaps = [MemSnapStore::new(1 << 20), MemSnapStore::new(1 << 20)];
    let start = |store, log: &Arc<Log>, snaps: &MemSnapStore| {
        hub.register(store, Arc::clone(log) as Arc<dyn Inbox>, Arc::new(snaps.clone()))
            .expect("the hub is open")
    };
    let handles = [start(ONE, &logs[0], &snaps[0]), start(TWO, &logs[1], &snaps[1])];
    World { hub, logs, snaps, handles }
}

fn message(from: StoreId, to: StoreId, number: u64) -> RaftMessage {
    let peer = |store: StoreId| Peer::voter(PeerId::must(store.get() + 10), store);
    let epoch = Epoch::default();
    let mut message = RaftMessage::new(KEY.region, peer(from), peer(to), epoch, Default::default());
    message.raft_mut().index = number;
    message.raft_mut().msg_type = MessageKind::Append.into();
    message
}

fn snapshot_message(from: StoreId, to: StoreId) -> RaftMessage {
    let mut message = message(from, to, 0);
    message.raft_mut().msg_type = MessageKind::Snapshot.into();
    let metadata = message.raft_mut().mut_snapshot().mut_metadata();
    metadata.term = KEY.term;
    metadata.index = KEY.index;
    message
}

fn make_snapshot(snaps: &MemSnapStore) {
    let mut writer = snaps.create(SnapDirection::Generated, KEY).expect("nobody else writes it");
    writer.write(b"some bytes").expect("there is room");
    writer.finish().expect("the medium works");
}

fn send(handle: &mut ChannelTransport, message: RaftMessage) {
    handle.send(message).expect("the queue is empty");
    handle.flush();
}

#[test]
fn a_cut_is_one_way_and_silent() {
    let mut world = world();
    world.hub.cut(ONE, TWO);
    send(&mut world.handles[0], message(ONE, TWO, 1));
    send(&mut world.handles[1], message(TWO, ONE, 2));
    world.logs[0].wait(&Event::Message(2));
    world.hub.heal(ONE, TWO);
    send(&mut world.handles[0], message(ONE, TWO, 3));
    world.logs[1].wait(&Event::Message(3));
    assert_eq!(*world.logs[1].events.lock(), [Event::Message(3)]);
    assert_eq!(*world.logs[0].events.lock(), [Event::Message(2)]);
    assert_eq!(world.hub.counters().filtered, 1);
}

#[test]
fn a_filter_picks_messages() {
    let mut world = world();
    world.hub.set_filter(Some(Arc::new(|from, message: &RaftMessage| {
        from != ONE || message.raft().index % 2 == 1
    })));
    for number in 1..=4 {
        world.handles[0].send(message(ONE, TWO, number)).unwrap();
    }
    world.hub.heal_all();
    send(&mut world.handles[0], message(ONE, TWO, 6));
    world.logs[1].wait(&Event::Message(6));
    assert_eq!(*world.logs[1].events.lock(), [1, 3, 6].map(Event::Message));
}

#[test]
fn a_cut_fails_a_snapshot_and_healing_lets_it_pass() {
    let mut world = world();
    make_snapshot(&world.snaps[0]);
    world.hub.cut(ONE, TWO);
    send(&mut world.handles[0], snapshot_message(ONE, TWO));
    world.logs[0].wait(&Event::Status(SnapshotStatus::Failed));
    world.hub.heal_all();
    send(&mut world.handles[0], snapshot_message(ONE, TWO));
    world.logs[0].wait(&Event::Status(SnapshotStatus::Finished));
    world.hub.close();
    assert_eq!(*world.logs[1].events.lock(), [Event::Message(0)]);
    let counters = world.hub.counters();
    assert_eq!((counters.snapshots_finished, counters.snapshots_failed), (1, 1));
    assert_eq!(counters.snapshot_bytes, 10);
}

#[test]
fn a_snapshot_message_without_snapshot_is_refused() {
    let mut world = world();
    let mut nameless = message(ONE, TWO, 0);
    nameless.raft_mut().msg_type = MessageKind::Snapshot.into();
    assert_eq!(world.handles[0].send(nameless), Err(SendError::NoSnapshot));
}

#[test]
fn registering_again_closes_the_older_handle() {
    let mut world = world();
    let log = Arc::new(Log::default());
    let snaps = Arc::new(MemSnapStore::new(1));
    let mut newer = world.hub.register(TWO, Arc::clone(&log) as Arc<dyn Inbox>, snaps).unwrap();
    assert_eq!(world.handles[1].send(message(TWO, ONE, 1)), Err(SendError::Closed));
    send(&mut newer, message(TWO, ONE, 2));
    world.logs[0].wait(&Event::Message(2));
    send(&mut world.handles[0], message(ONE, TWO, 3));
    log.wait(&Event::Message(3));
    assert!(world.logs[1].events.lock().is_empty());
}

#[test]
fn what_waits_for_a_store_that_goes_is_unreachable() {
    let mut world = world();
    // Not flushed: the message is still in the queue, or on its way out of it.
    world.handles[0].send(message(ONE, TWO, 1)).unwrap();
    world.hub.unregister(TWO);
    if !world.logs[1].events.lock().contains(&Event::Message(1)) {
        send(&mut world.handles[0], message(ONE, TWO, 2));
        world.logs[0].wait(&Event::Unreachable(PeerId::must(12)));
    }
}

#[test]
fn a_snapshot_of_a_sender_that_goes_is_still_reported() {
    let mut world = world();
    make_snapshot(&world.snaps[0]);
    world.handles[0].send(snapshot_message(ONE, TWO)).unwrap();
    world.hub.unregister(ONE);
    world.hub.close();
    let events = world.logs[0].events.lock();
    let statuses = events.iter().filter(|event| matches!(event, Event::Status(_))).count();
    assert_eq!(statuses, 1);
}

#[test]
fn an_inbox_that_panics_hears_the_next_message() {
    let mut world = world();
    send(&mut world.handles[0], message(ONE, TWO, 666));
    send(&mut world.handles[0], message(ONE, TWO, 1));
    world.logs[1].wait(&Event::Message(1));
}

#[test]
fn a_closed_hub_takes_no_store() {
    let world = world();
    world.hub.close();
    let snaps = Arc::new(MemSnapStore::new(1));
    let late = world.hub.register(TWO, Arc::clone(&world.logs[1]) as Arc<dyn Inbox>, snaps);
    assert!(matches!(late, Err(HubError::Closed)));
}

#[test]
fn dropping_every_handle_ends_the_threads() {
    let World { hub, logs, handles, snaps: _ } = world();
    drop(hub);
    drop(handles);
    // The threads held the inboxes.
    assert!(logs.iter().all(|log| Arc::strong_count(log) == 1));
}

/// SNAP-24: where the receiver cannot be found the snapshot has failed, and that is told; the
/// next attempt is one like the first.
#[test]
fn snap_24_a_store_that_is_not_found_fails_a_snapshot() {
    let mut world = world();
    make_snapshot(&world.snaps[0]);
    world.hub.unregister(TWO);
    send(&mut world.handles[0], snapshot_message(ONE, TWO));
    world.logs[0].wait(&Event::Status(SnapshotStatus::Failed));
    let snaps = Arc::new(MemSnapStore::new(1 << 20));
    let inbox = Arc::clone(&world.logs[1]) as Arc<dyn Inbox>;
    let _again = world.hub.register(TWO, inbox, snaps).expect("the hub is open");
    send(&mut world.handles[0], snapshot_message(ONE, TWO));
    world.logs[0].wait(&Event::Status(SnapshotStatus::Finished));
    world.logs[1].wait(&Event::Message(0));
}

/// Takes messages while its gate is open.
#[derive(Default)]
struct Gate {
    log: Log,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Inbox for Gate {
    fn message(&self, message: RaftMessage, snapshot: Option<(SnapKey, u64)>) {
        let mut is_open = self.is_open.lock();
        while !*is_open {
            self.opened.wait(&mut is_open);
        }
        drop(is_open);
        self.log.message(message, snapshot);
    }

    fn unreachable(&self, _: RegionId, _: PeerId) {}

    fn snapshot_status(&self, _: RegionId, _: PeerId, _: SnapshotStatus) {}
}

/// RAFT-22: a full queue costs messages, each of which its sender hears of at once. Neither
/// handle nor queue need anything to go on.
#[test]
fn raft_22_a_full_queue_drops_messages_and_not_the_connection() {
    let config = ChannelConfig { queue_messages_max: 4, ..ChannelConfig::default() };
    let hub = ChannelHub::new(config).expect("threads can be had");
    let (log, gate) = (Arc::new(Log::default()), Arc::new(Gate::default()));
    let snaps = || Arc::new(MemSnapStore::new(1));
    let mut sender = hub.register(ONE, Arc::clone(&log) as Arc<dyn Inbox>, snaps()).unwrap();
    let mut receiver = hub.register(TWO, Arc::clone(&gate) as Arc<dyn Inbox>, snaps()).unwrap();
    // At most one queue is with the inbox while another fills.
    let first_lost = (1..100).find(|number| {
        let sent = sender.send(message(ONE, TWO, *number));
        sender.flush();
        assert!(matches!(sent, Ok(()) | Err(SendError::Full(TWO))), "{sent:?}");
        sent.is_err()
    });
    let first_lost = first_lost.expect("a bounded queue is full some time");
    assert_eq!(sender.send(message(ONE, TWO, 100)), Err(SendError::Full(TWO)));
    // The other direction does not care.
    send(&mut receiver, message(TWO, ONE, 7));
    log.wait(&Event::Message(7));

    *gate.is_open.lock() = true;
    gate.opened.notify_all();
    gate.log.wait(&Event::Message(first_lost - 1));
    send(&mut sender, message(ONE, TWO, 200));
    gate.log.wait(&Event::Message(200));
    let came: Vec<Event> = gate.log.events.lock().clone();
    let expected: Vec<Event> = (1..first_lost).chain([200]).map(Event::Message).collect();
    assert_eq!(came, expected);
    assert_eq!(hub.counters().refused, 2);
}
