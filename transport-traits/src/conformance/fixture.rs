//! What the cases need: a way to start stores, an inbox that remembers, messages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use raftstore_proto::{Epoch, MessageKind, Peer, PeerId, RaftMessage, RegionId, StoreId};

use crate::{
    Inbox, MemSnapStore, SnapDirection, SnapError, SnapKey, SnapReader, SnapStore, SnapWriter,
    SnapshotStatus, Transport,
};

/// How long a case waits for something that must happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// A way to start and stop stores on the transport under test.
pub trait Fixture {
    /// What a store sends with.
    type Transport: Transport;

    /// Whether a transfer may have been reported as failed although the receiver has it: its
    /// answer was lost.
    const MAY_LOSE_ANSWERS: bool;

    /// Starts a store. A store that was stopped may be started again under its id.
    fn start(
        &mut self,
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
    ) -> Self::Transport;

    /// Stops a store: nobody listens at its address any more.
    fn stop(&mut self, store: StoreId);

    /// Closes the whole transport. When this returns, no inbox is called any more.
    fn close(&mut self);
}

/// What an inbox was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) messages: Vec<(RaftMessage, Option<(SnapKey, u64)>)>,
    pub(super) unreachable: Vec<(RegionId, PeerId)>,
    pub(super) statuses: Vec<(RegionId, PeerId, SnapshotStatus)>,
    /// Snapshots that were not at rest when their message came.
    pub(super) torn: Vec<SnapKey>,
}

/// An inbox that remembers what it is told, and stalls on command.
#[derive(Debug)]
pub struct Recorder {
    told: Mutex<Told>,
    changed: Condvar,
    gate: Gate,
    snaps: MemSnapStore,
}

impl Recorder {
    pub(super) fn stall(&self) {
        self.gate.shut();
    }

    pub(super) fn go_on(&self) {
        self.gate.open();
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }

    /// Waits until `is_so` holds.
    #[track_caller]
    pub(super) fn wait(&self, what: &str, is_so: impl Fn(&Told) -> bool) {
        let until = Instant::now() + DEADLINE;
        let mut told = self.told.lock();
        while !is_so(&told) {
            let timed_out = self.changed.wait_until(&mut told, until).timed_out();
            assert!(!timed_out || is_so(&told), "{what} did not happen: {told:?}");
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
        self.changed.notify_all();
    }
}

impl Inbox for Recorder {
    fn message(&self, message: RaftMessage, snapshot: Option<(SnapKey, u64)>) {
        self.gate.pass();
        let torn = snapshot.filter(|(key, size_bytes)| {
            let at_rest = self
                .snaps
                .list()
                .is_ok_and(|list| list.contains(&(SnapDirection::Received, *key, *size_bytes)));
            !at_rest
        });
        self.tell(|told| {
            told.torn.extend(torn.map(|(key, _)| key));
            told.messages.push((message, snapshot));
        });
    }

    fn unreachable(&self, region: RegionId, to: PeerId) {
        self.tell(|told| told.unreachable.push((region, to)));
    }

    fn snapshot_status(&self, region: RegionId, to: PeerId, status: SnapshotStatus) {
        self.tell(|told| told.statuses.push((region, to, status)));
    }
}

/// A door that threads wait at while it is shut.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn shut(&self) {
        *self.is_shut.lock() = true;
    }

    pub(super) fn open(&self) {
        *self.is_shut.lock() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut is_shut = self.is_shut.lock();
        while *is_shut {
            self.opened.wait(&mut is_shut);
        }
    }
}

/// A store of snapshots in which writers wait at a gate before they start.
#[derive(Debug)]
pub(super) struct SlowSnaps {
    pub(super) inner: MemSnapStore,
    pub(super) gate: Gate,
}

impl SnapStore for SlowSnaps {
    fn create(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapWriter>, SnapError> {
        self.gate.pass();
        self.inner.create(direction, key)
    }

    fn open(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapReader>, SnapError> {
        self.inner.open(direction, key)
    }

    fn delete(&self, direction: SnapDirection, key: SnapKey) -> Result<(), SnapError> {
        self.inner.delete(direction, key)
    }

    fn list(&self) -> Result<Vec<(SnapDirection, SnapKey, u64)>, SnapError> {
        self.inner.list()
    }
}

/// A started store.
pub(super) struct Node<T> {
    pub(super) inbox: Arc<Recorder>,
    pub(super) snaps: MemSnapStore,
    pub(super) transport: T,
}

const SNAPSHOTS_MAX_BYTES: u64 = 1 << 30;

/// Starts store `store` with an empty store of snapshots.
pub(super) fn node<F: Fixture>(fixture: &mut F, store: u64) -> Node<F::Transport> {
    let snaps = MemSnapStore::new(SNAPSHOTS_MAX_BYTES);
    let medium = Arc::new(snaps.clone());
    node_on(fixture, store, snaps, medium)
}

/// Starts a store whose snapshots rest in `medium`, which must keep them in `snaps`.
pub(super) fn node_on<F: Fixture>(
    fixture: &mut F,
    store: u64,
    snaps: MemSnapStore,
    medium: Arc<dyn SnapStore>,
) -> Node<F::Transport> {
    let inbox = Arc::new(Recorder {
        told: Mutex::default(),
        changed: Condvar::new(),
        gate: Gate::default(),
        snaps: snaps.clone(),
    });
    let for_transport: Arc<dyn Inbox> = Arc::clone(&inbox) as Arc<dyn Inbox>;
    let transport = fixture.start(StoreId::must(store), for_transport, medium);
    Node { inbox, snaps, transport }
}

/// The replica on `store` in every case.
pub(super) fn peer(store: u64) -> Peer {
    Peer::voter(PeerId::must(100 + store), StoreId::must(store))
}

pub(super) fn region(id: u64) -> RegionId {
    RegionId::must(id)
}

/// A message of `region` whose raft index is `index`.
pub(super) fn message(kind: MessageKind, id: u64, from: u64, to: u64, index: u64) -> RaftMessage {
    let epoch = Epoch { conf_ver: 3, version: 2 };
    let mut message = RaftMessage::new(region(id), peer(from), peer(to), epoch, Default::default());
    message.raft_mut().msg_type = kind.into();
    message.raft_mut().index = index;
    message
}

/// A message that announces the snapshot of `key`.
pub(super) fn snapshot_message(key: SnapKey, from: u64, to: u64) -> RaftMessage {
    let mut message = message(MessageKind::Snapshot, key.region.get(), from, to, 0);
    let metadata = message.raft_mut().mut_snapshot().mut_metadata();
    metadata.term = key.term;
    metadata.index = key.index;
    message
}

pub(super) fn key(id: u64, index: u64) -> SnapKey {
    SnapKey { region: region(id), term: 7, index }
}

/// Bytes that differ from place to place and from seed to seed.
pub(super) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(state >> 11).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn put(snaps: &MemSnapStore, direction: SnapDirection, key: SnapKey, bytes: &[u8]) {
    let mut writer = snaps.create(direction, key).expect("nobody else writes it");
    writer.write(bytes).expect("there is room");
    writer.finish().expect("the medium works");
}

/// The bytes of a finished snapshot.
pub(super) fn get(snaps: &MemSnapStore, direction: SnapDirection, key: SnapKey) -> Option<Vec<u8>> {
    let mut reader = snaps.open(direction, key).ok()?;
    let mut all = Vec::new();
    loop {
        let chunk = reader.read(1 << 16).expect("the medium works");
        if chunk.is_empty() {
            return Some(all);
        }
        all.extend_from_slice(&chunk);
    }
}
