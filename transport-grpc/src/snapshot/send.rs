//! Sending a region snapshot: tried again where it stopped, a few times, and reported on once.

use std::{sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use raftstore_grpc::connect;
use raftstore_proto::{Peer, RaftMessage, wire::SnapshotChunk};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, client::Grpc};
use transport_traits::{SnapDirection, SnapKey, SnapReader};

use super::{Have, SNAPSHOT, blocking};
use crate::{
    backoff::pause,
    counters::Refusal,
    frame::{Done, SendChunks},
    handshake::{self, Hello},
    session::{Report, Session},
    transport::Shared,
};

/// A region snapshot on its way to another store.
pub(crate) struct Transfer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    pub(crate) report: Report,
    pub(crate) to: Peer,
    pub(crate) key: SnapKey,
    pub(crate) message: RaftMessage,
}

/// Why an attempt did not deliver.
enum Failure {
    /// Another attempt may.
    Passing(String),
    /// The store is not there; another attempt may find it.
    Unreachable(String),
    /// No other attempt would.
    Final(String),
}

impl Transfer {
    /// Sends it. Dropping the report on any way out but the good one reports a failure.
    pub(crate) async fn run(self) {
        let is_delivered = tokio::select! {
            is_delivered = self.deliver() => is_delivered,
            () = self.session.ending() => false,
        };
        if is_delivered {
            self.report.finished();
        }
    }

    async fn deliver(&self) -> bool {
        let Ok(_permit) = self.shared.snapshot_sends.acquire().await else { return false };
        let tries = self.shared.config.snapshot_tries;
        for attempt in 1..=tries {
            let (why, is_final) = match self.attempt().await {
                Ok(()) => return true,
                Err(Failure::Passing(why)) => (why, false),
                Err(Failure::Unreachable(why)) => {
                    self.session.report_lost([(self.key.region, self.to.id)].into());
                    (why, false)
                }
                Err(Failure::Final(why)) => (why, true),
            };
            let (key, store) = (self.key, self.to.store);
            tracing::warn!(%key, %store, attempt, why, "a region snapshot was not delivered");
            if is_final || attempt == tries {
                break;
            }
            sleep(pause(attempt, &self.shared.config)).await;
        }
        false
    }

    async fn attempt(&self) -> Result<(), Failure> {
        let size_bytes = self.size().await?;
        let to = self.to.store;
        let unreachable = |why: String| {
            self.shared.resolver.refresh(to);
            Failure::Unreachable(why)
        };
        let address = self.shared.locate(to).await;
        let address = address.ok_or_else(|| unreachable("its address is not known".to_owned()))?;
        let channel = connect(&address, &self.shared.config.client).await;
        let channel = channel.map_err(|error| unreachable(error.to_string()))?;

        let (chunks, stream) = mpsc::channel(1);
        let message = Box::new(self.message.clone());
        let head = SnapshotChunk::Head { message, size_bytes };
        // There is room for one.
        let _ = chunks.try_send(head);
        let hello =
            Hello { cluster: self.shared.cluster, from: self.session.store, to, connection: 0 };
        let mut request = Request::new(ReceiverStream::new(stream));
        hello.write(request.metadata_mut());
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| Failure::Passing(error.to_string()))?;
        let call = client.streaming(request, PathAndQuery::from_static(SNAPSHOT), SendChunks);
        let response = timeout(self.shared.config.handshake_timeout, call).await;
        let response = response.map_err(|_| Failure::Passing("no answer in time".to_owned()))?;
        let response = response.map_err(|status| failure(&status))?;
        if !handshake::is_answered_by(response.metadata(), &hello) {
            return Err(unreachable("another store answers at its address".to_owned()));
        }
        let have = Have::read(response.metadata())
            .map_err(|_| Failure::Passing("its answer is not understood".to_owned()))?;
        let mut answer = response.into_inner();
        if let Have::Prefix { bytes, checksum } = have {
            let sending = self.send_bytes(&chunks, bytes, checksum);
            tokio::select! {
                sent = sending => sent?,
                // It has seen enough, and says why.
                answered = answer.message() => return ended(answered),
            }
        }
        drop(chunks);
        let limit = self.shared.config.snapshot_stall_timeout;
        match timeout(limit, answer.message()).await {
            Ok(answered) => ended(answered),
            Err(_) => Err(Failure::Passing("no word of the end in time".to_owned())),
        }
    }

    /// Length of the snapshot.
    async fn size(&self) -> Result<u64, Failure> {
        let (snaps, key) = (Arc::clone(&self.session.snaps), self.key);
        let wanted = (SnapDirection::Generated, key);
        let list = blocking(&self.shared.runtime, move || snaps.list()).await.map_err(medium)?;
        let list = list.map_err(medium)?;
        let found = list.into_iter().find(|(direction, key, _)| (*direction, *key) == wanted);
        found.map(|(.., size)| size).ok_or_else(|| Failure::Final("it does not exist".to_owned()))
    }

    /// Sends what the receiver does not have.
    async fn send_bytes(
        &self,
        chunks: &mpsc::Sender<SnapshotChunk>,
        have_bytes: u64,
        have_checksum: u32,
    ) -> Result<(), Failure> {
        let mut reading = Reading::start(self).await?;
        if have_bytes > 0 {
            while reading.offset < have_bytes {
                let more = usize::try_from(have_bytes - reading.offset).unwrap_or(usize::MAX);
                if reading.next(self, more).await?.is_empty() {
                    break;
                }
            }
            if (reading.offset, reading.checksum) == (have_bytes, have_checksum) {
                self.shared.counters.snapshots_resumed.add(1);
            } else {
                // It has something else under this name.
                reading = Reading::start(self).await?;
            }
        }
        loop {
            let offset = reading.offset;
            let bytes = reading.next(self, usize::MAX).await?;
            if bytes.is_empty() {
                break;
            }
            self.shared.snapshot_send_rate.pass(bytes.len()).await;
            self.shared.counters.snapshot_sent_bytes.add(bytes.len() as u64);
            self.send(chunks, SnapshotChunk::Data { offset, bytes }).await?;
        }
        let end = SnapshotChunk::End { size_bytes: reading.offset, checksum: reading.checksum };
        self.send(chunks, end).await
    }

    async fn send(
        &self,
        chunks: &mpsc::Sender<SnapshotChunk>,
        chunk: SnapshotChunk,
    ) -> Result<(), Failure> {
        let limit: Duration = self.shared.config.snapshot_stall_timeout;
        match timeout(limit, chunks.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::Passing("the stream broke".to_owned())),
            Err(_) => Err(Failure::Passing("nothing was taken for too long".to_owned())),
        }
    }
}

/// Bytes of the snapshot, from the start.
struct Reading {
    reader: Option<Box<dyn SnapReader>>,
    offset: u64,
    checksum: u32,
}

impl Reading {
    async fn start(transfer: &Transfer) -> Result<Self, Failure> {
        let (snaps, key) = (Arc::clone(&transfer.session.snaps), transfer.key);
        let open = move || snaps.open(SnapDirection::Generated, key);
        let reader = blocking(&transfer.shared.runtime, open).await.map_err(medium)?;
        Ok(Self { reader: Some(reader.map_err(medium)?), offset: 0, checksum: 0 })
    }

    /// The next bytes, empty at the end.
    async fn next(&mut self, transfer: &Transfer, max: usize) -> Result<bytes::Bytes, Failure> {
        let gone = || Failure::Final("its reader is gone".to_owned());
        let mut reader = self.reader.take().ok_or_else(gone)?;
        let max = max.min(transfer.shared.config.snapshot_chunk_bytes);
        let before = self.checksum;
        let work = move || {
            let bytes = reader.read(max)?;
            let checksum = crc32c::crc32c_append(before, &bytes);
            Ok((reader, bytes, checksum))
        };
        let read: Result<_, transport_traits::SnapError> =
            blocking(&transfer.shared.runtime, work).await.map_err(medium)?;
        let (reader, bytes, checksum) = read.map_err(medium)?;
        self.reader = Some(reader);
        self.offset += bytes.len() as u64;
        self.checksum = checksum;
        Ok(bytes)
    }
}

/// The sender's own medium does not give the bytes: raft will have another snapshot made.
fn medium(error: impl ToString) -> Failure {
    Failure::Final(error.to_string())
}

fn ended(answered: Result<Option<Done>, Status>) -> Result<(), Failure> {
    match answered {
        Ok(Some(Done)) => Ok(()),
        Ok(None) => Err(Failure::Passing("the stream ended".to_owned())),
        Err(status) => Err(failure(&status)),
    }
}

fn failure(status: &Status) -> Failure {
    let why = status.message().to_owned();
    let is = |refusal: Refusal| handshake::refused_for(status) == Some(refusal.name());
    let may_pass = [
        Refusal::NotServing,
        Refusal::SnapshotBusy,
        Refusal::SnapshotOrder,
        Refusal::SnapshotChecksum,
        Refusal::Slow,
    ];
    let is_refused = handshake::refused_for(status).is_some();
    if status.code() == Code::Unimplemented || (is_refused && !may_pass.into_iter().any(is)) {
        Failure::Final(why)
    } else {
        Failure::Passing(why)
    }
}
