//! Moving region snapshots from store to store, beside the caller's thread.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use parking_lot::{Condvar, Mutex};
use raftstore_proto::{Peer, RaftMessage};

use super::{
    Shared,
    endpoint::{Endpoint, Refused, contained},
};
use crate::{SnapDirection, SnapError, SnapKey, SnapshotStatus};

/// Bytes copied in one piece: between two of them a transfer sees that it was cancelled.
const CHUNK_BYTES: usize = 1 << 20;

/// A snapshot message on its way.
///
/// Invariant: every transfer that entered the queue leaves through [`Transfer::finish`].
pub(super) struct Transfer {
    pub(super) from: Arc<Endpoint>,
    pub(super) to: Peer,
    pub(super) key: SnapKey,
    pub(super) message: RaftMessage,
}

/// Why a transfer stopped.
enum Stop {
    /// Closed, cut, or filtered out.
    Cancelled,
    /// The receiving store is not there.
    Unreachable,
    /// Bytes could not be read or kept; the stores' own records tell more.
    Medium,
}

impl From<SnapError> for Stop {
    fn from(_: SnapError) -> Self {
        Self::Medium
    }
}

impl Transfer {
    /// Copies, delivers, and reports the end.
    fn run(mut self, shared: &Shared) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.copy_and_deliver(shared)));
        match outcome {
            Ok(Ok(())) => self.finish(shared, SnapshotStatus::Finished),
            Ok(Err(Stop::Unreachable)) => {
                self.from.push_unreachable(self.key.region, self.to.id);
                self.from.wake();
                self.finish(shared, SnapshotStatus::Failed);
            }
            // A panicking medium fails its transfer, not the ones that wait behind it.
            Ok(Err(Stop::Cancelled | Stop::Medium)) | Err(_) => {
                self.finish(shared, SnapshotStatus::Failed);
            }
        }
    }

    fn finish(self, shared: &Shared, status: SnapshotStatus) {
        let counter = match status {
            SnapshotStatus::Finished => &shared.counters.snapshots_finished,
            SnapshotStatus::Failed => &shared.counters.snapshots_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        contained(|| self.from.inbox.snapshot_status(self.key.region, self.to.id, status));
    }

    fn copy_and_deliver(&mut self, shared: &Shared) -> Result<(), Stop> {
        let to = shared.endpoint(self.to.store).ok_or(Stop::Unreachable)?;
        if !shared.faults.passes(self.from.store, self.to.store, &self.message) {
            return Err(Stop::Cancelled);
        }
        let size_bytes = match received_size(&to, self.key)? {
            Some(size_bytes) => size_bytes,
            None => self.copy(shared, &to)?,
        };
        self.check(shared, &to)?;
        to.inbox.message(std::mem::take(&mut self.message), Some((self.key, size_bytes)));
        Ok(())
    }

    fn copy(&self, shared: &Shared, to: &Endpoint) -> Result<u64, Stop> {
        let mut reader = self.from.snaps.open(SnapDirection::Generated, self.key)?;
        let mut writer = to.snaps.create(SnapDirection::Received, self.key)?;
        loop {
            self.check(shared, to)?;
            let chunk = reader.read(CHUNK_BYTES)?;
            if chunk.is_empty() {
                return Ok(writer.finish()?);
            }
            writer.write(&chunk)?;
            shared.counters.snapshot_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    }

    /// Whether both ends and the way between them are still there.
    fn check(&self, shared: &Shared, to: &Endpoint) -> Result<(), Stop> {
        if to.is_closed() {
            return Err(Stop::Unreachable);
        }
        let is_cut = shared.faults.is_cut(self.from.store, self.to.store);
        if is_cut || self.from.is_closed() || shared.transfers.is_closed() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }
}

/// Size of the received snapshot, if it is complete at the receiver already.
fn received_size(to: &Endpoint, key: SnapKey) -> Result<Option<u64>, SnapError> {
    let wanted = (SnapDirection::Received, key);
    let list = to.snaps.list()?;
    Ok(list.into_iter().find(|(d, k, _)| (*d, *k) == wanted).map(|(_, _, size)| size))
}

#[derive(Default)]
struct Waiting {
    transfers: VecDeque<Transfer>,
    is_closed: bool,
}

/// Transfers that wait for a thread of the pool.
#[derive(Default)]
pub(super) struct TransferQueue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl TransferQueue {
    /// Takes a transfer; a refused one is never reported.
    pub(super) fn push(&self, transfer: Transfer, max: usize) -> Result<(), Refused> {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return Err(Refused::Closed);
        }
        if waiting.transfers.len() >= max {
            return Err(Refused::Full);
        }
        waiting.transfers.push_back(transfer);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting.lock().is_closed
    }

    /// Lets the threads end. What waits is reported as failed by them.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.wake.notify_all();
    }

    /// One thread of the pool: runs transfers until the queue is closed and empty.
    pub(super) fn run(&self, shared: &Shared) {
        loop {
            let (transfer, is_closed) = {
                let mut waiting = self.waiting.lock();
                while waiting.transfers.is_empty() && !waiting.is_closed {
                    self.wake.wait(&mut waiting);
                }
                let Some(transfer) = waiting.transfers.pop_front() else { return };
                (transfer, waiting.is_closed)
            };
            if is_closed {
                transfer.finish(shared, SnapshotStatus::Failed);
            } else {
                transfer.run(shared);
            }
        }
    }
}
