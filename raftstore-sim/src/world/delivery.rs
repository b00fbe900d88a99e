//! Messages on their way: out of a store, through the network, into another.

use bytes::Bytes;
use raftstore_core::{Event, PeerPhase};
use raftstore_proto::{MessageKind, PeerId, RaftMessage, RegionId, guard::Limits};
use transport_traits::{SnapDirection, SnapKey, SnapStore, SnapshotStatus};

use super::{NodeStep, Step, World};
use crate::{
    counters::Sometimes,
    invariants::{Violation, check_ack, check_snapshot_ack},
    network::{Envelope, Fate},
    queue::{MICRO, Nanos},
};

/// Part of the undeliverable messages that the sender is told of, in thousandths.
const UNREACHABLE_TOLD: u32 = 300;

/// One of this many messages is encoded and decoded on its way.
const CODEC_EVERY: u64 = 4;

/// A region snapshot on its way.
#[derive(Debug)]
pub(crate) struct Transfer {
    envelope: Envelope,
    sender_life: u64,
    key: SnapKey,
    /// The bytes; `None` if they will not arrive whole.
    bytes: Option<Vec<u8>>,
}

impl World {
    /// A store sends a message.
    pub(super) fn send(&mut self, store: u64, message: RaftMessage) {
        self.watch_message(store, &message);
        let Some(to) = message.to_peer() else { return };
        if message.is_tombstone() {
            self.counters.hit(Sometimes::RemovalClaims);
        }
        if message.kind() == Some(MessageKind::TimeoutNow) {
            self.counters.hit(Sometimes::LeaderTransfers);
        }
        let envelope = Envelope { from: store, to: to.store.get(), message };
        self.send_envelope(envelope);
    }

    /// Puts a message into the network.
    pub(crate) fn send_envelope(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        let (region, peer) = (envelope.message.region(), envelope.message.to_peer());
        let snapshot = snapshot_key(&envelope.message);
        let held_before = self.network.held();
        let fate = self.network.send(self.now, envelope);
        match (fate, snapshot) {
            (Fate::Arrives(envelope, arrivals), None) => {
                for at in &arrivals[1..] {
                    self.queue.schedule(*at, Step::Arrive(Box::new(envelope.clone())));
                }
                self.queue.schedule(arrivals[0], Step::Arrive(Box::new(envelope)));
            }
            (Fate::Arrives(envelope, _), Some(key)) => self.start_transfer(envelope, key),
            (Fate::Lost, None) => {
                if self.pace_rng.chance(UNREACHABLE_TOLD)
                    && let (Some(region), Some(peer)) = (region, peer)
                {
                    let event = Event::Unreachable { region, to: peer.id };
                    self.node_after(2_000 * MICRO, from, NodeStep::Event(event));
                }
            }
            (Fate::Lost, Some(_)) => {
                // A snapshot held by a filter is reported when it is let go.
                if self.network.held() == held_before
                    && let (Some(region), Some(peer)) = (region, peer)
                {
                    self.transcript.event(
                        self.now,
                        from,
                        region.get(),
                        format_args!("snapshot to s{to} lost"),
                    );
                    self.report_snapshot(
                        from,
                        region,
                        peer.id,
                        SnapshotStatus::Failed,
                        MICRO * 500,
                    );
                }
            }
        }
    }

    /// R39: every snapshot message that was sent is reported on, once.
    fn report_snapshot(
        &mut self,
        store: u64,
        region: RegionId,
        to: PeerId,
        status: SnapshotStatus,
        delay: Nanos,
    ) {
        if status == SnapshotStatus::Failed {
            self.counters.hit(Sometimes::SnapshotsLost);
        }
        let event = Event::SnapshotStatus { region, to, status };
        self.node_after(delay, store, NodeStep::Event(event));
    }

    fn start_transfer(&mut self, envelope: Envelope, key: SnapKey) {
        let Some(node) = self.nodes.get(&envelope.from) else { return };
        let sender_life = node.life;
        let bytes = read_all(&node.disk.snaps, key);
        let size = bytes.as_ref().map_or(0, Vec::len) as u64;
        let (whole, at) = self.network.send_snapshot(self.now, size);
        let mut bytes = bytes.filter(|_| whole);
        if let Some(bytes) = &mut bytes
            && self.network.damage_snapshot(bytes)
        {
            self.counters.hit(Sometimes::SnapshotsDamaged);
        }
        let transfer = Transfer { envelope, sender_life, key, bytes };
        self.queue.schedule(at, Step::SnapshotArrives(Box::new(transfer)));
    }

    pub(super) fn snapshot_arrives(&mut self, transfer: Transfer) {
        let Transfer { envelope, sender_life, key, bytes } = transfer;
        let (from, to) = (envelope.from, envelope.to);
        let open = self.network.is_open(from, to) && self.network.is_open(to, from);
        let size = match (&bytes, self.nodes.get(&to)) {
            (Some(bytes), Some(node)) if open && node.is_up() => {
                let size = write_all(&node.disk.snaps, key, bytes);
                let intact = raftstore_core::snap::build::check_received(&node.disk.snaps, key);
                if intact.is_err() {
                    // Deleting what is damaged cannot do harm, and need not succeed.
                    let _ = node.disk.snaps.delete(SnapDirection::Received, key);
                }
                size.filter(|_| intact.is_ok())
            }
            _ => None,
        };
        let status = if size.is_some() { SnapshotStatus::Finished } else { SnapshotStatus::Failed };
        self.transcript.event(
            self.now,
            to,
            key.region.get(),
            format_args!("snapshot {key} from s{from}: {status:?}"),
        );
        if self.nodes.get(&from).is_some_and(|node| node.life == sender_life && node.is_up())
            && let Some(peer) = envelope.message.to_peer()
        {
            self.report_snapshot(from, key.region, peer.id, status, 300 * MICRO);
        }
        if let Some(size) = size {
            self.counters.hit(Sometimes::SnapshotsReceived);
            let message = Box::new(envelope.message);
            self.event_arrives(to, Event::Message { message, snapshot: Some((key, size)) });
        }
    }

    /// A message arrives at a store, if that is up and can be reached.
    pub(super) fn arrive(&mut self, envelope: Envelope) {
        let Envelope { from, to, mut message } = envelope;
        if !self.network.is_open(from, to) || !self.nodes.get(&to).is_some_and(|node| node.is_up())
        {
            return;
        }
        if self.network.damage_entries(&mut message) {
            self.counters.hit(Sometimes::EntriesDamaged);
        }
        // What arrives has been bytes in between; for some messages that is carried out.
        if self.steps.is_multiple_of(CODEC_EVERY) {
            let bytes = Bytes::from(message.encode());
            match RaftMessage::decode(bytes, &Limits::default()) {
                Ok(decoded) if decoded == message => {}
                other => {
                    return self.fail(Violation::new(
                        "a message is the same after its way over the wire",
                        format!("store {from} sent {message:?}, store {to} got {other:?}"),
                    ));
                }
            }
        }
        let raft = message.raft();
        self.transcript.event(
            self.now,
            to,
            message.region().map_or(0, |region| region.get()),
            format_args!(
                "<- s{from} {} {}->{} t{} i{} c{} n{}{}",
                message.kind().map_or("gc", MessageKind::name),
                raft.from,
                raft.to,
                raft.term,
                raft.index,
                raft.commit,
                raft.entries.len(),
                if raft.reject { " reject" } else { "" }
            ),
        );
        self.event_arrives(to, Event::Message { message: Box::new(message), snapshot: None });
    }

    fn watch_message(&mut self, store: u64, message: &RaftMessage) {
        let region = message.region().map_or(0, |region| region.get());
        let sender = message.from_peer().map_or(0, |peer| peer.id.get());
        if message.kind().is_some() && !message.is_tombstone() {
            let checked = self.checks.silence.check_sender(store, region, sender);
            self.require(checked);
        }
        let voted = self.checks.votes.check(message);
        self.require(voted);
        let Some(node) = self.nodes.get(&store) else { return };
        let truncated = node.running.as_ref().map_or(0, |running| {
            let lane = &running.lanes[running.lane_of(message.region())];
            let mut seen = lane.seen.iter().flatten();
            seen.find(|peer| peer.region == region).map_or(0, |peer| peer.truncated)
        });
        let acked = check_ack(store, message, truncated, &node.disk.log);
        self.require(acked);
        if message.kind() == Some(MessageKind::AppendResponse)
            && let Some(status) = self.peer_status(store, region)
            && status.phase == PeerPhase::Applying
        {
            let index = status.applied.truncated.index;
            self.require(check_snapshot_ack(store, message, index));
        }
    }
}

/// The name of the region snapshot that a message announces.
fn snapshot_key(message: &RaftMessage) -> Option<SnapKey> {
    if message.kind() != Some(MessageKind::Snapshot) {
        return None;
    }
    let metadata = message.snapshot()?.get_metadata();
    Some(SnapKey { region: message.region()?, term: metadata.term, index: metadata.index })
}

fn read_all(snaps: &dyn SnapStore, key: SnapKey) -> Option<Vec<u8>> {
    let mut reader = snaps.open(SnapDirection::Generated, key).ok()?;
    let mut bytes = Vec::new();
    loop {
        let part = reader.read(1 << 16).ok()?;
        if part.is_empty() {
            return Some(bytes);
        }
        bytes.extend_from_slice(&part);
    }
}

/// Puts the bytes at rest, unless a snapshot of that name rests there already. Gives its size.
fn write_all(snaps: &dyn SnapStore, key: SnapKey, bytes: &[u8]) -> Option<u64> {
    let name = (SnapDirection::Received, key);
    let there = snaps.list().ok()?.into_iter().find(|(at, key, _)| (*at, *key) == name);
    if let Some((_, _, size)) = there {
        return Some(size);
    }
    let mut writer = snaps.create(SnapDirection::Received, key).ok()?;
    for part in bytes.chunks(1 << 16) {
        writer.write(part).ok()?;
    }
    writer.finish().ok()
}
