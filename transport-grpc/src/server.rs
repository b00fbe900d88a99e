//! The calls of other stores: who may, and what becomes of what they bring.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::post};
use raftstore_grpc::PeerInfo;
use raftstore_proto::{MessageKind, RaftMessage};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming, server::Grpc};

use crate::{
    counters::Refusal,
    frame::{Done, ReceiveMessages},
    handshake::{self, Hello, refusal},
    lane::BATCH_RAFT,
    session::{Inbound, Session},
    snapshot::{SNAPSHOT, snapshot},
    transport::Shared,
};

const RAFT: &str = "/tikvpb.Tikv/Raft";

/// The routes of the calls between stores.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let messages = |is_batch: bool| {
        let shared = Arc::clone(shared);
        post(move |request: http::Request<Body>| messages(Arc::clone(&shared), is_batch, request))
    };
    let snapshots = {
        let shared = Arc::clone(shared);
        post(move |request: http::Request<Body>| snapshot(Arc::clone(&shared), request))
    };
    Router::new()
        .route(RAFT, messages(false))
        .route(BATCH_RAFT, messages(true))
        .route(SNAPSHOT, snapshots)
}

async fn messages(
    shared: Arc<Shared>,
    is_batch: bool,
    request: http::Request<Body>,
) -> http::Response<tonic::body::Body> {
    let codec = ReceiveMessages { is_batch, reading: shared.reading() };
    let frame_bytes_max = shared.config.frame_bytes_max;
    let kind = if is_batch { BATCH_RAFT } else { RAFT };
    let service = tower::service_fn(move |request: Request<Streaming<Vec<RaftMessage>>>| {
        let shared = Arc::clone(&shared);
        async move {
            let (hello, inbound) = shared.admit(&request, kind)?;
            let stream = request.into_inner();
            let receiving = receive(Arc::clone(&shared), hello, inbound, stream);
            Ok::<_, Status>(shared.accepted(&hello, receiving))
        }
    });
    Grpc::new(codec).max_decoding_message_size(frame_bytes_max).streaming(service, request).await
}

impl Shared {
    /// Checks who calls.
    pub(crate) fn identify<T>(
        &self,
        request: &Request<T>,
    ) -> Result<(Hello, Arc<Session>), Status> {
        let identified = self.check_name(request).and_then(|()| {
            let hello = Hello::read(request.metadata())?;
            if hello.cluster != self.cluster {
                return Err(Refusal::Cluster);
            }
            let session = self.session().ok_or(Refusal::NotServing)?;
            if hello.to != session.store {
                return Err(Refusal::Store);
            }
            Ok((hello, session))
        });
        identified.map_err(|why| {
            tracing::warn!(reason = why.name(), "a stream of another store is refused");
            self.refused(why)
        })
    }

    /// Checks that the certificate is one of a store.
    fn check_name<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        let allowed = &self.config.store_names;
        let shown = request.extensions().get::<PeerInfo>().and_then(|peer| peer.name.as_deref());
        let is_allowed = allowed.is_empty() || allowed.iter().any(|name| Some(&**name) == shown);
        if is_allowed { Ok(()) } else { Err(Refusal::Certificate) }
    }

    /// Checks who calls, and enters the stream of messages.
    fn admit<T>(
        &self,
        request: &Request<T>,
        kind: &'static str,
    ) -> Result<(Hello, Inbound), Status> {
        let (hello, session) = self.identify(request)?;
        let streams_max = self.config.streams_max;
        let inbound = session.enter(hello.from, hello.connection, kind, streams_max);
        let inbound = inbound.map_err(|why| self.refused(why))?;
        let peer = inbound.session.peers.read().get(&hello.from).cloned();
        if let Some(peer) = peer {
            peer.on_sign_of_life();
        }
        Ok((hello, inbound))
    }

    pub(crate) fn refused(&self, why: Refusal) -> Status {
        self.counters.refuse(why);
        refusal(why)
    }

    /// The answer to a stream that has been accepted: who we are, at once, and the end when
    /// `receiving` is over.
    pub(crate) fn accepted(
        &self,
        hello: &Hello,
        receiving: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Response<Receiving> {
        let mut response = Response::new(Receiving(Some(Box::pin(receiving))));
        handshake::answer(response.metadata_mut(), self.cluster, hello.to);
        response
    }
}

/// Does the work of a stream, and gives one item at its end.
pub(crate) struct Receiving(Option<Work>);

type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

impl Stream for Receiving {
    type Item = Result<Done, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(work) = &mut self.0 else { return Poll::Ready(None) };
        let outcome = std::task::ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(Some(outcome.map(|()| Done)))
    }
}

/// Hands over what a stream brings, until it ends.
async fn receive(
    shared: Arc<Shared>,
    hello: Hello,
    inbound: Inbound,
    mut stream: Streaming<Vec<RaftMessage>>,
) -> Result<(), Status> {
    let mut is_first = true;
    let mut limit = shared.config.first_message_timeout;
    loop {
        let next = tokio::select! {
            next = timeout(limit, stream.message()) => next,
            () = inbound.replaced() => return Err(Status::aborted("opened anew")),
            () = inbound.session.ending() => return Ok(()),
        };
        match next {
            Ok(Ok(Some(messages))) => deliver(&shared, &hello, &inbound, messages)?,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(status)) => {
                if status.code() == Code::OutOfRange {
                    shared.counters.refuse(Refusal::TooLarge);
                }
                return Err(status);
            }
            Err(_) if is_first => return Err(shared.refused(Refusal::Slow)),
            Err(_) => {
                shared.counters.idle_streams.add(1);
                return Ok(());
            }
        }
        is_first = false;
        limit = shared.config.idle_timeout;
    }
}

fn deliver(
    shared: &Shared,
    hello: &Hello,
    inbound: &Inbound,
    messages: Vec<RaftMessage>,
) -> Result<(), Status> {
    let mut received = 0;
    for message in messages {
        match check(hello, &message) {
            Ok(()) => {}
            // Whoever sends these does not speak for the store it says it is.
            Err(why @ (Refusal::ForgedSender | Refusal::Misdirected)) => {
                return Err(shared.refused(why));
            }
            Err(why) => {
                shared.counters.refuse(why);
                continue;
            }
        }
        inbound.session.with_inbox(|inbox| inbox.message(message, None));
        received += 1;
    }
    shared.counters.received_messages.add(received);
    Ok(())
}

/// Whether a message may come over this stream.
fn check(hello: &Hello, message: &RaftMessage) -> Result<(), Refusal> {
    check_ends(hello, message)?;
    match message.kind() {
        Some(kind) if kind.is_local() => Err(Refusal::Local),
        // Its bytes would have to be at rest before.
        Some(MessageKind::Snapshot) => Err(Refusal::NoSnapshot),
        _ => Ok(()),
    }
}

/// Whether a message is from the store that sends it, and for this one.
pub(crate) fn check_ends(hello: &Hello, message: &RaftMessage) -> Result<(), Refusal> {
    if message.from_peer().map(|peer| peer.store) != Some(hello.from) {
        return Err(Refusal::ForgedSender);
    }
    if message.to_peer().map(|peer| peer.store) != Some(hello.to) {
        return Err(Refusal::Misdirected);
    }
    Ok(())
}
