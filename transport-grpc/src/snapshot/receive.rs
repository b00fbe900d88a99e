//! Receiving region snapshots: a bounded number at a time, each within the length it was
//! announced with, kept for a while if its stream is interrupted.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use parking_lot::Mutex;
use raftstore_proto::{MessageKind, RaftMessage, StoreId, wire::SnapshotChunk};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    time::{sleep, timeout},
};
use tonic::{Request, Response, Status, Streaming, server::Grpc};
use transport_traits::{SnapDirection, SnapError, SnapKey, SnapWriter};

use super::{Have, blocking};
use crate::{
    counters::Refusal,
    frame::ReceiveChunks,
    handshake::Hello,
    server::{Receiving, check_ends},
    session::Session,
    transport::Shared,
};

/// What has come of a snapshot.
#[derive(Default)]
struct Partial {
    /// `None` while nothing has come.
    writer: Option<Box<dyn SnapWriter>>,
    written_bytes: u64,
    checksum: u32,
}

/// A snapshot that is being received.
struct Active {
    from: StoreId,
    /// The same store sends it anew.
    replaced: Arc<Notify>,
    /// It is not being received any more.
    ended: Arc<Notify>,
}

/// The rest of an interrupted stream.
struct Parked {
    number: u64,
    partial: Partial,
}

#[derive(Default)]
struct Registry {
    active: BTreeMap<SnapKey, Active>,
    parked: BTreeMap<SnapKey, Parked>,
    /// Counts what was parked.
    next: u64,
}

/// The snapshots that a store receives.
#[derive(Default)]
pub(crate) struct Receives(Mutex<Registry>);

impl Receives {
    /// Lets go of what interrupted streams have brought.
    pub(crate) fn clear(&self) {
        let parked = std::mem::take(&mut self.0.lock().parked);
        drop(parked);
    }
}

/// The right to write one snapshot; given back when dropped.
struct Claim {
    session: Arc<Session>,
    key: SnapKey,
    replaced: Arc<Notify>,
    ended: Arc<Notify>,
    /// Of those that may be received at a time.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.session.receives.0.lock().active.remove(&self.key);
        self.ended.notify_waiters();
    }
}

/// Answers the call that brings a snapshot.
pub(crate) async fn snapshot(
    shared: Arc<Shared>,
    request: http::Request<Body>,
) -> http::Response<tonic::body::Body> {
    let codec = ReceiveChunks(shared.reading());
    let frame_bytes_max = shared.config.frame_bytes_max;
    let service = tower::service_fn(move |request: Request<Streaming<SnapshotChunk>>| {
        let shared = Arc::clone(&shared);
        async move { begin(shared, request).await }
    });
    Grpc::new(codec).max_decoding_message_size(frame_bytes_max).streaming(service, request).await
}

async fn begin(
    shared: Arc<Shared>,
    request: Request<Streaming<SnapshotChunk>>,
) -> Result<Response<Receiving>, Status> {
    let (hello, session) = shared.identify(&request)?;
    // Before anything is read: streams that wait for their first message are bounded, too.
    let permit = Arc::clone(&shared.snapshot_receives).try_acquire_owned();
    let permit = permit.map_err(|_| shared.refused(Refusal::SnapshotBusy))?;
    let mut stream = request.into_inner();
    let first = tokio::select! {
        first = timeout(shared.config.first_message_timeout, stream.message()) => first,
        () = session.ending() => return Err(shared.refused(Refusal::NotServing)),
    };
    let first = first.map_err(|_| shared.refused(Refusal::Slow))?;
    let Some(SnapshotChunk::Head { message, size_bytes }) = first? else {
        return Err(shared.refused(Refusal::SnapshotOrder));
    };
    let key = check(&hello, &message).map_err(|why| shared.refused(why))?;
    if size_bytes > shared.config.snapshot_bytes_max {
        return Err(shared.refused(Refusal::SnapshotSize));
    }
    let claim = claim(&shared, &session, hello.from, key, permit).await?;

    let at_rest = size_at_rest(&shared, &session, key).await?;
    let partial = if at_rest.is_some() { Partial::default() } else { take_parked(&session, key) };
    let have = match at_rest {
        Some(_) => Have::All,
        None => Have::Prefix { bytes: partial.written_bytes, checksum: partial.checksum },
    };
    let receive = Receive {
        shared: Arc::clone(&shared),
        claim,
        message: *message,
        size_bytes,
        partial,
        stream,
    };
    // In a task of its own: when the connection breaks, what has come must still be kept.
    let (sender, outcome) = oneshot::channel();
    session.spawn(&shared.runtime, async move {
        let outcome = receive.run(at_rest).await;
        let _ = sender.send(outcome);
    });
    let mut response = shared.accepted(&hello, async move {
        outcome.await.unwrap_or_else(|_| Err(Status::internal("the receiver is gone")))
    });
    have.write(response.metadata_mut());
    Ok(response)
}

/// Whether a message may bring a snapshot; gives the name of the snapshot, of which nothing
/// but numbers comes from outside.
fn check(hello: &Hello, message: &RaftMessage) -> Result<SnapKey, Refusal> {
    check_ends(hello, message)?;
    if message.kind() != Some(MessageKind::Snapshot) {
        return Err(Refusal::NoSnapshot);
    }
    SnapKey::announced_by(message).ok_or(Refusal::NoSnapshot)
}

/// Makes this stream the only one that writes this snapshot.
async fn claim(
    shared: &Shared,
    session: &Arc<Session>,
    from: StoreId,
    key: SnapKey,
    permit: OwnedSemaphorePermit,
) -> Result<Claim, Status> {
    let free = || -> Option<Arc<Notify>> {
        let registry = session.receives.0.lock();
        registry.active.get(&key).map(|active| {
            if active.from == from {
                // Its earlier stream is dead, whether we have noticed or not.
                active.replaced.notify_one();
            }
            Arc::clone(&active.ended)
        })
    };
    let waiting = async {
        while let Some(ended) = free() {
            let notified = ended.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            // It may have ended before we began to listen.
            if free().is_none() {
                break;
            }
            notified.await;
        }
    };
    let is_others = session.receives.0.lock().active.get(&key).is_some_and(|a| a.from != from);
    let is_free = !is_others && timeout(shared.config.handshake_timeout / 2, waiting).await.is_ok();
    let (replaced, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut registry = session.receives.0.lock();
    if !is_free || registry.active.contains_key(&key) {
        drop(registry);
        return Err(shared.refused(Refusal::SnapshotBusy));
    }
    let active = Active { from, replaced: Arc::clone(&replaced), ended: Arc::clone(&ended) };
    registry.active.insert(key, active);
    Ok(Claim { session: Arc::clone(session), key, replaced, ended, _permit: permit })
}

/// Length of the snapshot, if all of it is here.
async fn size_at_rest(
    shared: &Shared,
    session: &Session,
    key: SnapKey,
) -> Result<Option<u64>, Status> {
    let snaps = Arc::clone(&session.snaps);
    let list = blocking(&shared.runtime, move || snaps.list()).await?;
    let list = list.map_err(|error| refuse_medium(shared, &error))?;
    let wanted = (SnapDirection::Received, key);
    Ok(list.into_iter().find(|(d, k, _)| (*d, *k) == wanted).map(|(.., size)| size))
}

fn take_parked(session: &Session, key: SnapKey) -> Partial {
    session.receives.0.lock().parked.remove(&key).map(|parked| parked.partial).unwrap_or_default()
}

fn refuse_medium(shared: &Shared, error: &SnapError) -> Status {
    tracing::warn!(%error, "a region snapshot cannot be received");
    shared.refused(Refusal::SnapshotMedium)
}

/// Does what the medium is needed for.
async fn medium<T: Send + 'static>(
    shared: Arc<Shared>,
    work: impl FnOnce() -> Result<T, SnapError> + Send + 'static,
) -> Result<T, End> {
    match shared.runtime.spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(End::Refused(refuse_medium(&shared, &error))),
        // A medium that panics fails what was asked of it, no more.
        Err(_) => Err(End::Refused(shared.refused(Refusal::SnapshotMedium))),
    }
}

/// How a stream ended.
enum End {
    /// It may go on later: what has come is kept.
    Interrupted(Status),
    /// What has come is of no use.
    Refused(Status),
}

struct Receive {
    shared: Arc<Shared>,
    claim: Claim,
    message: RaftMessage,
    /// As announced.
    size_bytes: u64,
    partial: Partial,
    stream: Streaming<SnapshotChunk>,
}

impl Receive {
    /// Takes the rest of the snapshot, unless it is at rest, and hands the message over.
    async fn run(mut self, at_rest: Option<u64>) -> Result<(), Status> {
        let session = Arc::clone(&self.claim.session);
        let outcome = match at_rest {
            Some(size_bytes) => self.hand_over(size_bytes).await,
            None => tokio::select! {
                outcome = self.receive() => outcome,
                () = session.ending() => Err(End::Refused(self.shared.refused(Refusal::NotServing))),
            },
        };
        match outcome {
            Ok(()) => {
                self.shared.counters.snapshots_received.add(1);
                Ok(())
            }
            Err(end) => {
                self.shared.counters.snapshots_receive_failed.add(1);
                Err(match end {
                    End::Refused(status) => status,
                    End::Interrupted(status) => {
                        self.park();
                        status
                    }
                })
            }
        }
    }

    async fn receive(&mut self) -> Result<(), End> {
        let limit = self.shared.config.snapshot_stall_timeout;
        loop {
            let next = tokio::select! {
                next = timeout(limit, self.stream.message()) => next,
                () = self.claim.replaced.notified() => {
                    return Err(End::Interrupted(Status::aborted("opened anew")));
                }
            };
            match next {
                Ok(Ok(Some(SnapshotChunk::Data { offset, bytes }))) => {
                    self.take(offset, bytes).await?;
                }
                Ok(Ok(Some(SnapshotChunk::End { size_bytes, checksum }))) => {
                    let size_bytes = self.put_to_rest(size_bytes, checksum).await?;
                    return self.hand_over(size_bytes).await;
                }
                Ok(Ok(Some(SnapshotChunk::Head { .. }))) => {
                    return Err(self.refuse(Refusal::SnapshotOrder));
                }
                Ok(Ok(None)) => {
                    return Err(End::Interrupted(Status::cancelled("the snapshot is not whole")));
                }
                Ok(Err(status)) => return Err(End::Interrupted(status)),
                Err(_) => return Err(End::Interrupted(self.shared.refused(Refusal::Slow))),
            }
        }
    }

    fn refuse(&self, why: Refusal) -> End {
        End::Refused(self.shared.refused(why))
    }

    /// Writes a piece.
    async fn take(&mut self, offset: u64, bytes: Bytes) -> Result<(), End> {
        if offset == 0 && self.partial.written_bytes > 0 {
            // The sender has other bytes than those that came before.
            self.partial = Partial::default();
        }
        if offset != self.partial.written_bytes {
            return Err(self.refuse(Refusal::SnapshotOrder));
        }
        let length = bytes.len() as u64;
        if length > self.size_bytes - self.partial.written_bytes {
            return Err(self.refuse(Refusal::SnapshotSize));
        }
        self.shared.snapshot_receive_rate.pass(bytes.len()).await;
        let mut writer = self.writer().await?;
        let before = self.partial.checksum;
        let work = move || {
            writer.write(&bytes)?;
            let checksum = crc32c::crc32c_append(before, &bytes);
            Ok::<_, SnapError>((writer, checksum))
        };
        let (writer, checksum) = medium(Arc::clone(&self.shared), work).await?;
        self.partial.writer = Some(writer);
        self.partial.checksum = checksum;
        self.partial.written_bytes += length;
        self.shared.counters.snapshot_received_bytes.add(length);
        Ok(())
    }

    /// The writer, made when there is something to write.
    async fn writer(&mut self) -> Result<Box<dyn SnapWriter>, End> {
        if let Some(writer) = self.partial.writer.take() {
            return Ok(writer);
        }
        let (snaps, key) = (Arc::clone(&self.claim.session.snaps), self.claim.key);
        let work = move || snaps.create(SnapDirection::Received, key);
        medium(Arc::clone(&self.shared), work).await
    }

    /// Checks that everything has come, and makes it durable.
    async fn put_to_rest(&mut self, size_bytes: u64, checksum: u32) -> Result<u64, End> {
        if size_bytes != self.size_bytes || size_bytes != self.partial.written_bytes {
            return Err(self.refuse(Refusal::SnapshotSize));
        }
        if checksum != self.partial.checksum {
            return Err(self.refuse(Refusal::SnapshotChecksum));
        }
        let writer = self.writer().await?;
        medium(Arc::clone(&self.shared), move || writer.finish()).await
    }

    /// Gives the store the message; its snapshot is at rest.
    async fn hand_over(&mut self, size_bytes: u64) -> Result<(), End> {
        let message = std::mem::take(&mut self.message);
        let (session, key) = (Arc::clone(&self.claim.session), self.claim.key);
        // The store looks at the snapshot before it returns.
        let work =
            move || session.with_inbox(|inbox| inbox.message(message, Some((key, size_bytes))));
        match blocking(&self.shared.runtime, work).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(self.refuse(Refusal::NotServing)),
            Err(status) => Err(End::Refused(status)),
        }
    }

    /// Keeps what has come for another stream, for a while.
    fn park(&mut self) {
        let partial = std::mem::take(&mut self.partial);
        if partial.writer.is_none() || partial.written_bytes == 0 {
            return;
        }
        let (session, key) = (Arc::clone(&self.claim.session), self.claim.key);
        let number = {
            let mut registry = session.receives.0.lock();
            registry.next += 1;
            let number = registry.next;
            registry.parked.insert(key, Parked { number, partial });
            if registry.parked.len() > self.shared.config.snapshot_receives_max {
                let oldest = registry.parked.iter().min_by_key(|(_, parked)| parked.number);
                if let Some(oldest) = oldest.map(|(key, _)| *key) {
                    registry.parked.remove(&oldest);
                }
            }
            number
        };
        let keep = self.shared.config.snapshot_keep;
        session.clone().spawn(&self.shared.runtime, async move {
            tokio::select! {
                () = sleep(keep) => {}
                () = session.ending() => {}
            }
            let mut registry = session.receives.0.lock();
            if registry.parked.get(&key).is_some_and(|parked| parked.number == number) {
                registry.parked.remove(&key);
            }
        });
    }
}
