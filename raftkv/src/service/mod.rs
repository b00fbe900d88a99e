//! The service that clients of TiKV's raw interface speak to.
//!
//! A request becomes a command of one region, or a look at one region as of one moment. What
//! the region cannot do is answered in the client's own words, so that it goes to the leader,
//! learns newer routes or waits. Nothing here waits on a thread: answers of the store are
//! one-shot futures, and reads that may take long have threads of their own.

mod batch;
mod codec;
mod commands;
mod context;
mod crc64;
mod scans;
mod splits;
pub(crate) mod stubs;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use engine_traits::KvEngine;
use raftstore_core::runtime::NodeHandle;
use raftstore_grpc::pb::{
    kvrpcpb::{
        RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchGetRequest, RawBatchGetResponse,
        RawBatchPutRequest, RawBatchPutResponse, RawBatchScanRequest, RawBatchScanResponse,
        RawCASRequest, RawCASResponse, RawChecksumRequest, RawChecksumResponse,
        RawDeleteRangeRequest, RawDeleteRangeResponse, RawDeleteRequest, RawDeleteResponse,
        RawGetKeyTTLRequest, RawGetKeyTTLResponse, RawGetRequest, RawGetResponse, RawPutRequest,
        RawPutResponse, RawScanRequest, RawScanResponse, ReadIndexRequest, ReadIndexResponse,
        SplitRegionRequest, SplitRegionResponse,
    },
    tikvpb::BatchCommandsRequest,
};
use raftstore_proto::{Body, Header, RegionError, Response, ResponseBody};
use tokio::sync::Semaphore;
use tonic::{Request, Status, Streaming};

pub(crate) use self::codec::GuardedCodec;
use self::{
    batch::BatchAnswers,
    codec::REQUEST_BYTES_MAX,
    commands::{CommandRequest, Refuse},
    context::Refusal,
    scans::{RowsRequest, lost},
    stubs::tikv_server::{Tikv, TikvServer},
};

/// Reads of many rows at a time; others wait for their turn.
const LONG_READS: usize = 16;

/// The raw interface of one store. Clones serve the same store.
pub(crate) struct RawService<K> {
    node: NodeHandle<K>,
    long_reads: Arc<Semaphore>,
}

impl<K> Clone for RawService<K> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone(), long_reads: Arc::clone(&self.long_reads) }
    }
}

impl<K: KvEngine> RawService<K> {
    pub(crate) fn new(node: NodeHandle<K>) -> Self {
        Self { node, long_reads: Arc::new(Semaphore::new(LONG_READS)) }
    }

    /// As a server of tonic's.
    pub(crate) fn into_server(self) -> TikvServer<Self> {
        TikvServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Whether a request for this replica came to the right store. Commands are checked by
    /// the store itself; other questions are not.
    fn check_store(&self, header: &Header) -> Result<(), RegionError> {
        let (asked, here) = (header.peer.store, self.node.store());
        if asked == here { Ok(()) } else { Err(RegionError::StoreNotMatch { asked, here }) }
    }

    /// Carries out a request that is a command.
    async fn command<R: CommandRequest>(&self, request: R) -> R::Answer {
        match request.command() {
            Ok((command, kept)) if is_nothing(&command.body) => {
                R::answer(kept, Response::ok(0, ResponseBody::Operations(Vec::new())))
            }
            Ok((command, kept)) => R::answer(kept, self.node.command(command).await),
            Err(refusal) => R::Answer::refuse(refusal),
        }
    }

    /// The same, with the answer handed over on whatever thread has it.
    fn command_with<R: CommandRequest>(
        &self,
        request: R,
        answer: impl FnOnce(R::Answer) + Send + 'static,
    ) {
        match request.command() {
            Ok((command, kept)) if is_nothing(&command.body) => {
                answer(R::answer(kept, Response::ok(0, ResponseBody::Operations(Vec::new()))));
            }
            Ok((command, kept)) => self
                .node
                .command_with(command, Box::new(|response| answer(R::answer(kept, response)))),
            Err(refusal) => answer(R::Answer::refuse(refusal)),
        }
    }

    /// Carries out a request for rows, on a thread that may take its time.
    async fn rows<R: RowsRequest>(&self, request: R) -> R::Answer {
        let header = match request.header() {
            Ok(header) => header,
            Err(refusal) => return R::Answer::refuse(refusal),
        };
        if let Err(error) = self.check_store(&header) {
            return R::Answer::refuse(error.into());
        }
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&self.long_reads).acquire_owned().await else { return lost() };
        let snapshot = match self.node.snapshot(header).await {
            Ok(snapshot) => snapshot,
            Err(error) => return R::Answer::refuse(error.into()),
        };
        let read = tokio::task::spawn_blocking(move || {
            let answer = request.read(&snapshot).unwrap_or_else(R::Answer::refuse);
            drop(turn);
            answer
        });
        read.await.unwrap_or_else(|_| lost())
    }

    async fn read_index_of(&self, request: ReadIndexRequest) -> Result<u64, Refusal> {
        let mut header = context::header(request.get_context())?;
        self.check_store(&header)?;
        // What the caller compares with must come from a quorum, not from a lease.
        header.read_quorum = true;
        let snapshot = self.node.snapshot(header).await?;
        Ok(snapshot.applied_index()?)
    }
}

/// Whether a command has nothing to do. Proposing it would change nothing.
fn is_nothing(body: &Body) -> bool {
    matches!(body, Body::Operations(operations) if operations.is_empty())
}

/// One method per request that is a command or a request for rows.
macro_rules! answers {
    ($($method:ident: $request:ty => $answer:ty, by $how:ident;)*) => {
        #[tonic::async_trait]
        impl<K: KvEngine> Tikv for RawService<K> {
            type BatchCommandsStream = BatchAnswers;

            async fn batch_commands(
                &self,
                request: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<tonic::Response<BatchAnswers>, Status> {
                Ok(tonic::Response::new(self.batch(request.into_inner())))
            }

            async fn split_region(
                &self,
                request: Request<SplitRegionRequest>,
            ) -> Result<tonic::Response<SplitRegionResponse>, Status> {
                Ok(tonic::Response::new(self.split(request.into_inner()).await))
            }

            async fn read_index(
                &self,
                request: Request<ReadIndexRequest>,
            ) -> Result<tonic::Response<ReadIndexResponse>, Status> {
                let mut answer = ReadIndexResponse::default();
                match self.read_index_of(request.into_inner()).await {
                    Ok(index) => answer.read_index = index,
                    Err(Refusal::Region(error)) => answer.region_error = commands::some(error),
                    Err(Refusal::Request(why)) => return Err(Status::invalid_argument(why)),
                }
                Ok(tonic::Response::new(answer))
            }

            $(async fn $method(
                &self,
                request: Request<$request>,
            ) -> Result<tonic::Response<$answer>, Status> {
                Ok(tonic::Response::new(self.$how(request.into_inner()).await))
            })*
        }
    };
}

answers! {
    raw_get: RawGetRequest => RawGetResponse, by command;
    raw_batch_get: RawBatchGetRequest => RawBatchGetResponse, by command;
    raw_put: RawPutRequest => RawPutResponse, by command;
    raw_batch_put: RawBatchPutRequest => RawBatchPutResponse, by command;
    raw_delete: RawDeleteRequest => RawDeleteResponse, by command;
    raw_batch_delete: RawBatchDeleteRequest => RawBatchDeleteResponse, by command;
    raw_delete_range: RawDeleteRangeRequest => RawDeleteRangeResponse, by command;
    raw_compare_and_swap: RawCASRequest => RawCASResponse, by command;
    raw_get_key_ttl: RawGetKeyTTLRequest => RawGetKeyTTLResponse, by command;
    raw_scan: RawScanRequest => RawScanResponse, by rows;
    raw_batch_scan: RawBatchScanRequest => RawBatchScanResponse, by rows;
    raw_checksum: RawChecksumRequest => RawChecksumResponse, by rows;
}
