//! The stream on which leaders' reports go to PD and orders come back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use raftstore_grpc::pb::pdpb;
use raftstore_proto::StoreId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Inner, backoff::Backoff};
use crate::{
    Order,
    grpc::convert::{Told, told_from_pb},
    orders::Orders,
};

/// Reports that may wait for the stream; whoever has more waits, too.
pub(super) const REPORTS_MAX: usize = 64;
/// Reports that may wait for the network.
const SENDING_MAX: usize = 16;
/// How long a stream must have held for the next one to be opened without a longer pause.
const HELD: Duration = Duration::from_secs(10);

/// Orders that came for each store.
#[derive(Default)]
pub(super) struct OrdersOfStores(Mutex<BTreeMap<StoreId, Orders>>);

impl OrdersOfStores {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StoreId, Orders>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, order: Order) {
        let waker = self.lock().entry(order.target.store).or_default().push(order);
        // Outside the lock: a waker may run the task that polls us.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll_pop(&self, store: StoreId, context: &Context<'_>) -> Poll<Order> {
        self.lock().entry(store).or_default().poll_pop(context)
    }
}

/// Keeps a stream open for as long as the client lives, and sends `reports` on it. What was
/// on its way when a stream broke is lost; leaders report again.
pub(super) async fn run(
    inner: Weak<Inner>,
    mut reports: mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
) {
    let mut backoff = Backoff::default();
    // A stream is opened when there is something to say.
    while let Some(first) = reports.recv().await {
        let Some(client) = inner.upgrade() else { return };
        let opened = tokio::time::Instant::now();
        let error = match client.members.leader(client.cluster).await {
            Ok(leader) => {
                let status = hold(&client, leader.stub.clone(), first, &mut reports).await;
                client.members.doubt(&leader);
                status.to_string()
            }
            Err(error) => error.to_string(),
        };
        client.counters.streams_lost.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(error, "no stream to PD for reports");
        drop(client);
        if opened.elapsed() > HELD {
            backoff = Backoff::default();
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Sends reports until the stream ends. Gives why it did.
async fn hold(
    client: &Arc<Inner>,
    mut stub: super::PDClient<tonic::transport::Channel>,
    first: pdpb::RegionHeartbeatRequest,
    reports: &mut mpsc::Receiver<pdpb::RegionHeartbeatRequest>,
) -> Status {
    let (sender, sending) = mpsc::channel(SENDING_MAX);
    // There is room for one.
    let _ = sender.try_send(first);
    // Some servers answer the call with their first order and not before, so reports are sent
    // while it is being made.
    let told = Arc::clone(client);
    let mut listening = tokio::spawn(async move {
        let mut orders = stub.region_heartbeat(ReceiverStream::new(sending)).await?.into_inner();
        while let Some(message) = orders.message().await? {
            told.take_in(message);
        }
        Ok::<_, Status>(())
    });
    let end = loop {
        tokio::select! {
            end = &mut listening => break end,
            report = reports.recv() => {
                let Some(report) = report else {
                    listening.abort();
                    return Status::cancelled("the client is gone");
                };
                tokio::select! {
                    end = &mut listening => break end,
                    sent = sender.send(report) => if sent.is_err() {
                        break listening.await;
                    },
                }
            }
        }
    };
    match end {
        Ok(Ok(())) => Status::cancelled("PD has ended the stream"),
        Ok(Err(status)) => status,
        Err(_) => Status::cancelled("the client is gone"),
    }
}

impl Inner {
    fn take_in(&self, message: pdpb::RegionHeartbeatResponse) {
        let count = |counter: &std::sync::atomic::AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let header = message.get_header();
        if header.cluster_id != self.cluster.get() {
            count(&self.counters.orders_refused);
            return;
        }
        if header.has_error() {
            count(&self.counters.reports_refused);
            tracing::debug!(why = header.get_error().message, "PD refuses a report");
            return;
        }
        let region = message.region_id;
        match told_from_pb(message) {
            Ok(Told::Order(order)) => {
                count(&self.counters.orders);
                self.orders.push(order);
            }
            Ok(Told::Unsupported(what)) => {
                count(&self.counters.orders_unsupported);
                tracing::warn!(region, what, "PD orders what is not supported");
            }
            Ok(Told::Nothing) => {}
            Err(error) => {
                count(&self.counters.orders_refused);
                tracing::warn!(region, %error, "PD sends an order that makes no sense");
            }
        }
    }
}
