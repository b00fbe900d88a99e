//! The stream on which a client keeps many requests in flight.
//!
//! Requests come in bundles, each with a number; answers go out in bundles, in whatever order
//! they come. Whatever has been answered while the stream was busy goes out in one message. No
//! more is read than may be in flight, so that a client that does not read its answers stops
//! being heard, and keeps no more than that in memory.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use engine_traits::KvEngine;
use futures_core::Stream;
use parking_lot::Mutex;
use raftstore_grpc::pb::{
    kvrpcpb::RawCoprocessorResponse,
    tikvpb::{
        BatchCommandsEmptyResponse, BatchCommandsRequest,
        BatchCommandsRequest_Request_oneof_cmd as Ask, BatchCommandsResponse,
        BatchCommandsResponse_Response as BatchResponse,
        BatchCommandsResponse_Response_oneof_cmd as Answer,
    },
};
use tonic::{Status, Streaming};

use super::RawService;

/// Requests of one stream that may be without an answer.
const IN_FLIGHT_MAX: usize = 8_192;

/// Requests in one bundle: far more than a client sends.
const BUNDLE_MAX: usize = 4_096;

/// Answers in one message, so that the first of many is not held back for the last.
const ANSWERS_MAX: usize = 1_024;

/// Bytes of answers after which a message is full. Clients take messages up to 4 MiB unless
/// they say otherwise.
const ANSWER_BYTES: usize = 1 << 20;

/// The answers of one stream as they come.
pub(crate) struct BatchAnswers {
    requests: Streaming<BatchCommandsRequest>,
    serve: Serve,
    answers: Arc<Answers>,
    /// The client sends no more.
    is_over: bool,
}

/// Begins a request, whose answer will be added.
type Serve = Box<dyn Fn(u64, Option<Ask>, &Arc<Answers>) + Send>;

/// What has been answered and not yet sent.
struct Answers(Mutex<AnswersState>);

struct AnswersState {
    ready: Vec<(u64, Answer)>,
    /// Requests without an answer.
    in_flight: usize,
    waker: Option<std::task::Waker>,
}

impl Answers {
    fn begin(&self, requests: usize) {
        self.0.lock().in_flight += requests;
    }

    fn add(&self, id: u64, answer: Answer) {
        let waker = {
            let mut state = self.0.lock();
            state.in_flight -= 1;
            state.ready.push((id, answer));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<K: KvEngine> RawService<K> {
    pub(super) fn batch(&self, requests: Streaming<BatchCommandsRequest>) -> BatchAnswers {
        let state = AnswersState { ready: Vec::new(), in_flight: 0, waker: None };
        let service = self.clone();
        BatchAnswers {
            requests,
            serve: Box::new(move |id, ask, answers| service.serve_one(id, ask, answers)),
            answers: Arc::new(Answers(Mutex::new(state))),
            is_over: false,
        }
    }

    fn serve_one(&self, id: u64, ask: Option<Ask>, answers: &Arc<Answers>) {
        let to = Arc::clone(answers);
        macro_rules! command {
            ($request:expr, $wrap:path) => {
                self.command_with($request, move |answer| to.add(id, $wrap(answer)))
            };
        }
        macro_rules! rows {
            ($request:expr, $wrap:path) => {{
                let (service, request) = (self.clone(), $request);
                tokio::spawn(async move { to.add(id, $wrap(service.rows(request).await)) });
            }};
        }
        match ask {
            Some(Ask::RawGet(request)) => command!(request, Answer::RawGet),
            Some(Ask::RawBatchGet(request)) => command!(request, Answer::RawBatchGet),
            Some(Ask::RawPut(request)) => command!(request, Answer::RawPut),
            Some(Ask::RawBatchPut(request)) => command!(request, Answer::RawBatchPut),
            Some(Ask::RawDelete(request)) => command!(request, Answer::RawDelete),
            Some(Ask::RawBatchDelete(request)) => command!(request, Answer::RawBatchDelete),
            Some(Ask::RawDeleteRange(request)) => command!(request, Answer::RawDeleteRange),
            Some(Ask::RawScan(request)) => rows!(request, Answer::RawScan),
            Some(Ask::RawBatchScan(request)) => rows!(request, Answer::RawBatchScan),
            Some(Ask::RawCoprocessor(_)) => {
                let mut answer = RawCoprocessorResponse::default();
                "there are no coprocessors".clone_into(&mut answer.error);
                to.add(id, Answer::RawCoprocessor(answer));
            }
            Some(Ask::Empty(request)) => {
                let test_id = request.test_id;
                let answer = BatchCommandsEmptyResponse { test_id, ..Default::default() };
                to.add(id, Answer::Empty(answer));
            }
            // Of a kind that is not known here: the client must not wait for it.
            None => to.add(id, Answer::Empty(BatchCommandsEmptyResponse::default())),
        }
    }
}

impl BatchAnswers {
    /// Takes requests in until none is there, enough are in flight, or a message of answers
    /// is waiting to go out.
    fn take_in(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        while !self.is_over {
            {
                let state = self.answers.0.lock();
                if state.in_flight >= IN_FLIGHT_MAX || state.ready.len() >= ANSWERS_MAX {
                    return Ok(());
                }
            }
            let Poll::Ready(received) = Pin::new(&mut self.requests).poll_next(context) else {
                return Ok(());
            };
            let Some(received) = received else {
                self.is_over = true;
                return Ok(());
            };
            let bundle = received?;
            let (requests, ids) = (bundle.requests.into_vec(), bundle.request_ids);
            if requests.len() != ids.len() || requests.len() > BUNDLE_MAX {
                return Err(Status::invalid_argument(format!(
                    "a bundle of {} requests with {} numbers; there may be {BUNDLE_MAX}, each \
                     with its own",
                    requests.len(),
                    ids.len(),
                )));
            }
            self.answers.begin(requests.len());
            for (request, id) in requests.into_iter().zip(ids) {
                (self.serve)(id, request.cmd, &self.answers);
            }
        }
        Ok(())
    }

    /// What may go out in one message.
    fn bundle(&self, context: &Context<'_>) -> Poll<Option<BatchCommandsResponse>> {
        let ready = {
            let mut state = self.answers.0.lock();
            if state.ready.is_empty() {
                if self.is_over && state.in_flight == 0 {
                    return Poll::Ready(None);
                }
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            if state.ready.len() <= ANSWERS_MAX && bytes_of(&state.ready) <= ANSWER_BYTES {
                mem::take(&mut state.ready)
            } else {
                let mut bytes = 0;
                let fits = state.ready.iter().take(ANSWERS_MAX).take_while(|(_, answer)| {
                    bytes += size_of_answer(answer);
                    bytes <= ANSWER_BYTES
                });
                // One always goes, however large.
                let count = fits.count().max(1);
                state.ready.drain(..count).collect()
            }
        };
        let mut message = BatchCommandsResponse::default();
        message.request_ids.reserve_exact(ready.len());
        let mut responses = Vec::with_capacity(ready.len());
        for (id, answer) in ready {
            message.request_ids.push(id);
            responses.push(BatchResponse { cmd: Some(answer), ..Default::default() });
        }
        message.responses = responses.into();
        Poll::Ready(Some(message))
    }
}

impl Stream for BatchAnswers {
    type Item = Result<BatchCommandsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(status) = self.take_in(context) {
            // What is in flight goes on; nobody is told of it any more.
            self.is_over = true;
            return Poll::Ready(Some(Err(status)));
        }
        let message = ready!(self.bundle(context));
        Poll::Ready(message.map(Ok))
    }
}

fn bytes_of(answers: &[(u64, Answer)]) -> usize {
    answers.iter().map(|(_, answer)| size_of_answer(answer)).sum()
}

/// Roughly: the payloads, with room for what is around them.
fn size_of_answer(answer: &Answer) -> usize {
    let pairs = |pairs: &[raftstore_grpc::pb::kvrpcpb::KvPair]| -> usize {
        pairs.iter().map(|pair| 16 + pair.key.len() + pair.value.len()).sum()
    };
    32 + match answer {
        Answer::RawGet(answer) => answer.value.len(),
        Answer::RawBatchGet(answer) => pairs(&answer.pairs),
        Answer::RawScan(answer) => pairs(&answer.kvs),
        Answer::RawBatchScan(answer) => pairs(&answer.kvs),
        _ => 0,
    }
}
