//! The two streams of PD's protocol: timestamps, and leaders' reports with orders in return.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use raftstore_grpc::pb::{pdpb, pdpb::ErrorType};
use raftstore_proto::StoreId;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{
    service::{Refusal, Service},
    tso::COUNT_MAX,
};
use crate::{
    Order,
    grpc::convert::{heartbeat_from_pb, order_to_pb},
};

/// Answers that may wait for a client that does not read them. Orders beyond are dropped:
/// the next report makes them again.
const ANSWERS_MAX: usize = 256;

type Told<T> = mpsc::Sender<Result<T, Status>>;
type ToldOrders = Told<pdpb::RegionHeartbeatResponse>;

/// On which stream each store is told its orders: the one it reported on last.
#[derive(Default)]
pub(super) struct Streams {
    last: AtomicU64,
    by_store: Mutex<BTreeMap<StoreId, (u64, ToldOrders)>>,
}

impl Streams {
    fn by_store(&self) -> MutexGuard<'_, BTreeMap<StoreId, (u64, ToldOrders)>> {
        self.by_store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self, store: StoreId, number: u64, told: &ToldOrders) {
        let mut streams = self.by_store();
        if streams.get(&store).is_none_or(|(bound, _)| *bound != number) {
            streams.insert(store, (number, told.clone()));
        }
    }

    fn unbind(&self, number: u64) {
        self.by_store().retain(|_, (bound, _)| *bound != number);
    }

    fn of(&self, store: StoreId) -> Option<ToldOrders> {
        self.by_store().get(&store).map(|(_, told)| told.clone())
    }
}

impl Service {
    /// The next message of a stream; `None` once either side has had enough.
    async fn next<T>(&mut self, messages: &mut Streaming<T>) -> Option<T> {
        tokio::select! {
            message = messages.next() => message?.ok(),
            () = super::stopped(&mut self.stopping) => None,
        }
    }

    pub(super) fn serve_tso(
        mut self,
        mut questions: Streaming<pdpb::TsoRequest>,
    ) -> ReceiverStream<Result<pdpb::TsoResponse, Status>> {
        let (told, answers) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            while let Some(question) = self.next(&mut questions).await {
                let answer = self.timestamps(&question).await;
                let is_last = answer.is_err();
                if told.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        });
        ReceiverStream::new(answers)
    }

    async fn timestamps(&self, question: &pdpb::TsoRequest) -> Result<pdpb::TsoResponse, Status> {
        self.check(question.get_header())?;
        if question.count == 0 || question.count > COUNT_MAX {
            return Err(Status::invalid_argument(format!(
                "between 1 and {COUNT_MAX} timestamps can be asked for, not {}",
                question.count
            )));
        }
        let last = self.state.timestamps(question.count).await?;
        let mut timestamp = pdpb::Timestamp::new();
        timestamp.physical = last.physical_ms.cast_signed();
        timestamp.logical = last.logical.cast_signed();
        let mut answer = pdpb::TsoResponse::new();
        answer.set_header(self.header());
        answer.count = question.count;
        answer.set_timestamp(timestamp);
        Ok(answer)
    }

    pub(super) fn serve_heartbeats(
        mut self,
        mut reports: Streaming<pdpb::RegionHeartbeatRequest>,
    ) -> ReceiverStream<Result<pdpb::RegionHeartbeatResponse, Status>> {
        let (told, answers) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            let number = self.streams.last.fetch_add(1, Ordering::Relaxed);
            while let Some(report) = self.next(&mut reports).await {
                if let Err(status) = self.check(report.get_header()) {
                    // Who means another cluster is told so and has to go.
                    let _ = told.send(Err(status)).await;
                    break;
                }
                self.take_report(report, number, &told).await;
            }
            self.streams.unbind(number);
        });
        ReceiverStream::new(answers)
    }

    async fn take_report(
        &self,
        report: pdpb::RegionHeartbeatRequest,
        number: u64,
        told: &ToldOrders,
    ) {
        let target = report.get_leader().clone();
        let refusal = match self.order(report, number, told).await {
            Ok(order) => {
                if let Some(order) = order {
                    self.tell(order);
                }
                return;
            }
            Err(Refusal::Told(kind, message)) => (kind, message),
            Err(Refusal::Failed(status)) => (ErrorType::UNKNOWN, status.message().to_owned()),
        };
        let mut answer = pdpb::RegionHeartbeatResponse::new();
        answer.set_header(self.refusal(refusal.0, refusal.1));
        answer.set_target_peer(target);
        // A client that does not read has no use for it.
        let _ = told.try_send(Ok(answer));
    }

    async fn order(
        &self,
        report: pdpb::RegionHeartbeatRequest,
        number: u64,
        told: &ToldOrders,
    ) -> Result<Option<Order>, Refusal> {
        let report = heartbeat_from_pb(report)?;
        let store = report.leader.store;
        let order =
            self.state.change(|core, now_ms| core.region_heartbeat(now_ms, report)).await??;
        self.streams.bind(store, number, told);
        Ok(order)
    }

    /// Sends an order to the store it is for, which is the one that reported.
    fn tell(&self, order: Order) {
        let Some(told) = self.streams.of(order.target.store) else { return };
        let mut message = order_to_pb(order);
        message.set_header(self.header());
        if told.try_send(Ok(message)).is_err() {
            self.counters.orders_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
