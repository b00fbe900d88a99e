//! One connection to another store, as long as there is something to send: looked up, made,
//! checked, and made again when it breaks.

use std::{sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use raftstore_grpc::connect;
use raftstore_proto::{RegionId, StoreId};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Request, Status, client::Grpc};

use crate::{
    backoff::pause,
    frame::SendBatches,
    handshake::{self, Hello},
    queue::Queue,
    session::Session,
    transport::Shared,
};

pub(crate) const BATCH_RAFT: &str = "/tikvpb.Tikv/BatchRaft";

/// A stream that lived so long was a good one: the next pause is the shortest again.
const GOOD_LIFE: Duration = Duration::from_secs(2);

/// Another store, with the connections to it.
pub(crate) struct Peer {
    lanes: Vec<Arc<Lane>>,
}

/// One of the connections.
struct Lane {
    queue: Arc<Queue>,
    /// The other store has shown that it lives.
    sign_of_life: Notify,
}

impl Peer {
    /// Another store; its connections come about when they are needed.
    pub(crate) fn start(store: StoreId, shared: &Arc<Shared>, session: &Arc<Session>) -> Self {
        let start = |connection| {
            let queue = Arc::new(Queue::new(&shared.config, Arc::clone(&shared.counters)));
            let lane = Arc::new(Lane { queue, sign_of_life: Notify::new() });
            let hello =
                Hello { cluster: shared.cluster, from: session.store, to: store, connection };
            let keeper = Keeper {
                lane: Arc::clone(&lane),
                hello,
                shared: Arc::clone(shared),
                session: Arc::clone(session),
            };
            session.spawn(&shared.runtime, keeper.run());
            lane
        };
        Self { lanes: (0..shared.config.connections_per_store).map(start).collect() }
    }

    /// The queue that messages of a region wait in, always the same.
    pub(crate) fn queue(&self, region: Option<RegionId>) -> &Arc<Queue> {
        let number = region.map_or(0, RegionId::get) % self.lanes.len() as u64;
        &self.lanes[usize::try_from(number).expect("less than the number of lanes")].queue
    }

    /// The other store has opened a stream here, so it is worth trying again now.
    pub(crate) fn on_sign_of_life(&self) {
        for lane in &self.lanes {
            lane.sign_of_life.notify_waiters();
        }
    }
}

/// How a stream ended.
enum End {
    /// In order; what waits may go over another one.
    Finished,
    /// The session is ending.
    Closing,
    Failed(Failure),
}

/// Why there is no stream, or no more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("its address is not known")]
    Unresolved,
    #[error(transparent)]
    Connect(#[from] raftstore_grpc::ConnectError),
    #[error("it did not answer in time")]
    Silent,
    #[error("another store answers at its address")]
    Impostor,
    #[error("{0}")]
    Refused(Status),
    #[error("{0}")]
    Broken(Status),
}

/// The task that keeps a connection.
struct Keeper {
    lane: Arc<Lane>,
    hello: Hello,
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Keeper {
    async fn run(self) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = self.lane.queue.wait() => {}
                () = self.session.ending() => return,
            }
            let begun = Instant::now();
            let end = tokio::select! {
                end = self.stream() => end,
                () = self.session.over() => End::Closing,
            };
            let failure = match end {
                End::Finished => {
                    failures = 0;
                    self.lane.queue.end();
                    continue;
                }
                End::Closing => return self.lane.queue.end(),
                End::Failed(failure) => failure,
            };
            if begun.elapsed() >= GOOD_LIFE {
                failures = 0;
            }
            failures += 1;
            self.on_failure(&failure);
            tokio::select! {
                () = sleep(pause(failures, &self.shared.config)) => {}
                () = self.lane.sign_of_life.notified() => {}
                () = self.session.ending() => return,
            }
            self.lane.queue.try_again();
        }
    }

    fn on_failure(&self, failure: &Failure) {
        let counters = &self.shared.counters;
        match failure {
            Failure::Broken(_) => counters.broken_streams.add(1),
            Failure::Refused(_) | Failure::Impostor => {
                counters.failed_connects.add(1);
                counters.refused_connects.add(1);
            }
            Failure::Unresolved | Failure::Connect(_) | Failure::Silent => {
                counters.failed_connects.add(1);
            }
        }
        let Hello { to, connection, .. } = self.hello;
        if matches!(failure, Failure::Refused(_) | Failure::Impostor) {
            tracing::warn!(store = %to, connection, %failure, "a store refuses messages");
        } else {
            tracing::info!(store = %to, connection, %failure, "no connection to a store");
        }
        if !matches!(failure, Failure::Unresolved) {
            self.shared.resolver.refresh(to);
        }
        self.session.report_lost(self.lane.queue.fail());
    }

    /// One stream, from looking up the address to the end.
    async fn stream(&self) -> End {
        match self.try_stream().await {
            Ok(end) => end,
            Err(failure) => End::Failed(failure),
        }
    }

    async fn try_stream(&self) -> Result<End, Failure> {
        let address = self.shared.locate(self.hello.to).await.ok_or(Failure::Unresolved)?;
        let config = &self.shared.config;
        let channel = connect(&address, &config.client).await?;
        let mut request = Request::new(self.lane.queue.begin());
        self.hello.write(request.metadata_mut());
        let mut client = Grpc::new(channel);
        let broken = |error: tonic::transport::Error| {
            Failure::Broken(Status::unavailable(error.to_string()))
        };
        client.ready().await.map_err(broken)?;
        let call = client.streaming(request, PathAndQuery::from_static(BATCH_RAFT), SendBatches);
        let response = timeout(config.handshake_timeout, call).await;
        let response = response.map_err(|_| Failure::Silent)?.map_err(failure)?;
        if !handshake::is_answered_by(response.metadata(), &self.hello) {
            return Err(Failure::Impostor);
        }
        self.shared.counters.opened_streams.add(1);
        self.lane.queue.open();
        let mut answer = response.into_inner();
        tokio::select! {
            answered = answer.message() => match answered {
                Ok(_) => return Ok(End::Finished),
                Err(status) => return Err(failure(status)),
            },
            () = self.session.ending() => {}
        }
        // What has been taken leaves; the answer says that it has been read.
        self.lane.queue.drain();
        let _ = answer.message().await;
        Ok(End::Closing)
    }
}

fn failure(status: Status) -> Failure {
    let is_refused = handshake::refused_for(&status).is_some()
        || matches!(status.code(), Code::Unimplemented | Code::PermissionDenied);
    if is_refused { Failure::Refused(status) } else { Failure::Broken(status) }
}
