//! Many commands in a message: while one is on its way, the next is gathered.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use raftstore_grpc::{ProtobufCodec, pb::tikvpb};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

/// Most commands of one message.
const BATCH: usize = 256;

pub(crate) type Sent = tikvpb::BatchCommandsRequest_Request;
pub(crate) type Answered = tikvpb::BatchCommandsResponse_Response;
type Ask = (Sent, oneshot::Sender<Answered>);
type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Answered>>>>;

/// One stream of messages. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BatchStream(mpsc::UnboundedSender<Ask>);

impl BatchStream {
    /// Opens it on `channel`. It ends with the last clone, or when the other side ends it.
    pub(crate) fn open(channel: Channel) -> Self {
        let (sender, asks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let waiting = Waiting::default();
            let (messages, outgoing) = mpsc::unbounded_channel();
            // Whoever waits when one of them ends learns it from the closed channel.
            tokio::select! {
                () = gather(asks, &waiting, messages) => {}
                _ = hand_out(channel, &waiting, outgoing) => {}
            }
        });
        Self(sender)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a command and waits for its answer; `None` if the stream has ended.
    pub(crate) async fn call(&self, sent: Sent) -> Option<Answered> {
        let (answer, answered) = oneshot::channel();
        self.0.send((sent, answer)).ok()?;
        answered.await.ok()
    }
}

async fn gather(
    mut asks: mpsc::UnboundedReceiver<Ask>,
    waiting: &Waiting,
    messages: mpsc::UnboundedSender<tikvpb::BatchCommandsRequest>,
) {
    let (mut next, mut some) = (0_u64, Vec::with_capacity(BATCH));
    while asks.recv_many(&mut some, BATCH).await > 0 {
        let mut message = tikvpb::BatchCommandsRequest::default();
        {
            let mut waiting = waiting.lock();
            for (sent, answer) in some.drain(..) {
                next += 1;
                waiting.insert(next, answer);
                message.mut_requests().push(sent);
                message.mut_request_ids().push(next);
            }
        }
        if messages.send(message).is_err() {
            return;
        }
        // Others add to the next message meanwhile.
        tokio::task::yield_now().await;
    }
}

async fn hand_out(
    channel: Channel,
    waiting: &Waiting,
    outgoing: mpsc::UnboundedReceiver<tikvpb::BatchCommandsRequest>,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec =
        ProtobufCodec::<tikvpb::BatchCommandsRequest, tikvpb::BatchCommandsResponse>::default();
    let path = PathAndQuery::from_static("/tikvpb.Tikv/BatchCommands");
    let outgoing = Request::new(UnboundedReceiverStream::new(outgoing));
    let mut answers = grpc.streaming(outgoing, path, codec).await?.into_inner();
    while let Some(mut answer) = answers.message().await? {
        let ids = answer.take_request_ids();
        let mut waiting = waiting.lock();
        for (id, response) in ids.into_iter().zip(answer.take_responses()) {
            if let Some(caller) = waiting.remove(&id) {
                // A caller may have given up.
                let _ = caller.send(response);
            }
        }
    }
    Ok(())
}
