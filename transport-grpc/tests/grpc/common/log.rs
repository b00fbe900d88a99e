//! An inbox that remembers, and messages to put into it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use raftstore_proto::{Epoch, MessageKind, Peer, PeerId, RaftMessage, RegionId, StoreId};
use transport_grpc::{GrpcCounters, GrpcSender};
use transport_traits::{
    Inbox, MemSnapStore, SnapDirection, SnapKey, SnapStore, SnapshotStatus, Transport,
};

use super::{End, wait_until};

/// What a store was told.
#[derive(Debug, Default)]
pub struct Told {
    pub messages: Vec<(RaftMessage, Option<(SnapKey, u64)>)>,
    pub unreachable: Vec<(RegionId, PeerId)>,
    pub statuses: Vec<SnapshotStatus>,
}

#[derive(Debug, Default)]
pub struct Log(Mutex<Told>);

impl Log {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock()
    }
}

impl Inbox for Log {
    fn message(&self, message: RaftMessage, snapshot: Option<(SnapKey, u64)>) {
        self.0.lock().messages.push((message, snapshot));
    }

    fn unreachable(&self, region: RegionId, to: PeerId) {
        self.0.lock().unreachable.push((region, to));
    }

    fn snapshot_status(&self, _: RegionId, _: PeerId, status: SnapshotStatus) {
        self.0.lock().statuses.push(status);
    }
}

/// A store that is nothing but an inbox.
pub struct Node {
    pub end: End,
    pub log: Arc<Log>,
    pub snaps: MemSnapStore,
    pub sender: GrpcSender,
}

impl Node {
    pub fn new(end: End, store: StoreId) -> Self {
        let (log, snaps) = (Arc::new(Log::default()), MemSnapStore::new(1 << 30));
        let inbox = Arc::clone(&log) as Arc<dyn Inbox>;
        let sender = end.transport.attach(store, inbox, Arc::new(snaps.clone()));
        Self { end, log, snaps, sender: sender.expect("it is open") }
    }

    pub fn counters(&self) -> GrpcCounters {
        self.end.transport.counters()
    }

    /// Sends until the other store hears it: connections come about when they are needed, and
    /// a message may be lost.
    #[track_caller]
    pub fn reach(&mut self, other: &Self, from: StoreId, to: StoreId) {
        let before = other.log.told().messages.len();
        let sent = beat(from, to);
        wait_until("delivery", || {
            let _ = self.sender.send(sent.clone());
            self.sender.flush();
            other.log.told().messages.len() > before
        });
        assert_eq!(other.log.told().messages.last(), Some(&(sent, None)));
    }
}

pub const ONE: StoreId = StoreId::must(1);
pub const TWO: StoreId = StoreId::must(2);
pub const KEY: SnapKey = SnapKey { region: RegionId::must(5), term: 3, index: 4 };

pub fn peer(store: StoreId) -> Peer {
    Peer::voter(PeerId::must(store.get() + 100), store)
}

pub fn message(kind: MessageKind, from: StoreId, to: StoreId) -> RaftMessage {
    let epoch = Epoch { conf_ver: 1, version: 1 };
    let mut message = RaftMessage::new(KEY.region, peer(from), peer(to), epoch, Default::default());
    message.raft_mut().msg_type = kind.into();
    message
}

pub fn beat(from: StoreId, to: StoreId) -> RaftMessage {
    message(MessageKind::Heartbeat, from, to)
}

/// The message that announces the snapshot `KEY`.
pub fn announcement(from: StoreId, to: StoreId) -> RaftMessage {
    let mut message = message(MessageKind::Snapshot, from, to);
    let metadata = message.raft_mut().mut_snapshot().mut_metadata();
    metadata.term = KEY.term;
    metadata.index = KEY.index;
    message
}

/// Bytes that differ from place to place and from seed to seed.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40).to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

pub fn put(snaps: &MemSnapStore, bytes: &[u8]) {
    let mut writer = snaps.create(SnapDirection::Generated, KEY).expect("nobody else writes it");
    writer.write(bytes).expect("there is room");
    writer.finish().expect("the medium works");
}

/// The bytes of the received snapshot.
pub fn received(snaps: &MemSnapStore) -> Option<Vec<u8>> {
    let mut reader = snaps.open(SnapDirection::Received, KEY).ok()?;
    Some(reader.read(usize::MAX).expect("the medium works").to_vec())
}
