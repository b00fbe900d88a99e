//! Requests that are one command of a region: what they ask, and how its answer is told.

use bytes::Bytes;
use protobuf::{Message, SingularPtrField};
use raftstore_grpc::pb::{
    errorpb,
    kvrpcpb::{
        KvPair, RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchGetRequest,
        RawBatchGetResponse, RawBatchPutRequest, RawBatchPutResponse, RawCASRequest,
        RawCASResponse, RawDeleteRangeRequest, RawDeleteRangeResponse, RawDeleteRequest,
        RawDeleteResponse, RawGetKeyTTLRequest, RawGetKeyTTLResponse, RawGetRequest,
        RawGetResponse, RawPutRequest, RawPutResponse,
    },
};
use raftstore_proto::{
    Body, Command, CompareAndSwap, Header, Operation, OperationResponse, RegionError, Response,
    ResponseBody,
};

use super::context::{Refusal, family, header, no_ttl};

/// A request that becomes a command.
pub(super) trait CommandRequest: Message {
    /// Its answer.
    type Answer: Refuse + Send;
    /// What of the request is needed for the answer.
    type Kept: Send + 'static;

    /// Takes the request apart. An empty list of operations needs no store.
    fn command(self) -> Result<(Command, Self::Kept), Refusal>;

    /// Makes the answer of what the operations gave, one each.
    fn done(kept: Self::Kept, results: Vec<OperationResponse>) -> Option<Self::Answer>;

    /// Makes the answer of whatever the store said.
    fn answer(kept: Self::Kept, response: Response) -> Self::Answer {
        match response.body {
            Ok(ResponseBody::Operations(results)) => Self::done(kept, results)
                .unwrap_or_else(|| Self::Answer::refuse(Refusal::from(RegionError::ReadNotReady))),
            // A store answers operations with operations; a retry is the worst of it.
            Ok(ResponseBody::Admin(_) | ResponseBody::Status(_)) => {
                Self::Answer::refuse(Refusal::from(RegionError::ReadNotReady))
            }
            Err(error) => Self::Answer::refuse(Refusal::from(error)),
        }
    }
}

/// An answer that can say no.
pub(super) trait Refuse: Message {
    fn refuse(refusal: Refusal) -> Self;
}

macro_rules! refuse_with_error {
    ($($answer:ty),* $(,)?) => {$(
        impl Refuse for $answer {
            fn refuse(refusal: Refusal) -> Self {
                let mut answer = Self::default();
                match refusal {
                    Refusal::Region(error) => answer.region_error = some(error),
                    Refusal::Request(error) => answer.error = error,
                }
                answer
            }
        }
    )*};
}

refuse_with_error!(
    RawGetResponse,
    RawPutResponse,
    RawBatchPutResponse,
    RawDeleteResponse,
    RawBatchDeleteResponse,
    RawDeleteRangeResponse,
    RawCASResponse,
    RawGetKeyTTLResponse,
    raftstore_grpc::pb::kvrpcpb::RawChecksumResponse,
);

impl Refuse for RawBatchGetResponse {
    fn refuse(refusal: Refusal) -> Self {
        let mut answer = Self::default();
        match refusal {
            Refusal::Region(error) => answer.region_error = some(error),
            Refusal::Request(text) => answer.pairs.push(Refusal::into_pair(text)),
        }
        answer
    }
}

pub(super) fn some(error: Box<errorpb::Error>) -> SingularPtrField<errorpb::Error> {
    SingularPtrField::some(*error)
}

fn operations(header: Header, operations: Vec<Operation>) -> Command {
    Command { header, body: Body::Operations(operations) }
}

fn one(header: Header, operation: Operation) -> Command {
    operations(header, vec![operation])
}

impl CommandRequest for RawGetRequest {
    type Answer = RawGetResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        let cf = family(&self.cf)?;
        Ok((one(header(self.get_context())?, Operation::Get { cf, key: self.key }), ()))
    }

    fn done((): (), results: Vec<OperationResponse>) -> Option<RawGetResponse> {
        let OperationResponse::Get(value) = results.into_iter().next()? else { return None };
        let not_found = value.is_none();
        let value = value.unwrap_or_default();
        Some(RawGetResponse { not_found, value, ..Default::default() })
    }
}

impl CommandRequest for RawGetKeyTTLRequest {
    type Answer = RawGetKeyTTLResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        let cf = family(&self.cf)?;
        Ok((one(header(self.get_context())?, Operation::Get { cf, key: self.key }), ()))
    }

    /// What is there stays there: a time to live of 0.
    fn done((): (), results: Vec<OperationResponse>) -> Option<RawGetKeyTTLResponse> {
        let OperationResponse::Get(value) = results.into_iter().next()? else { return None };
        Some(RawGetKeyTTLResponse { not_found: value.is_none(), ..Default::default() })
    }
}

impl CommandRequest for RawBatchGetRequest {
    type Answer = RawBatchGetResponse;
    /// The keys, which the store does not repeat.
    type Kept = Vec<Bytes>;

    fn command(self) -> Result<(Command, Vec<Bytes>), Refusal> {
        let cf = family(&self.cf)?;
        let header = header(self.get_context())?;
        let keys = self.keys;
        let gets = keys.iter().map(|key| Operation::Get { cf, key: key.clone() }).collect();
        Ok((operations(header, gets), keys))
    }

    fn done(keys: Vec<Bytes>, results: Vec<OperationResponse>) -> Option<RawBatchGetResponse> {
        let mut answer = RawBatchGetResponse::default();
        for (key, result) in keys.into_iter().zip(results) {
            let OperationResponse::Get(value) = result else { return None };
            // Keys without a value are left out.
            if let Some(value) = value {
                answer.pairs.push(KvPair { key, value, ..Default::default() });
            }
        }
        Some(answer)
    }
}

impl CommandRequest for RawPutRequest {
    type Answer = RawPutResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        no_ttl(self.ttl)?;
        let cf = family(&self.cf)?;
        let header = header(self.get_context())?;
        Ok((one(header, Operation::Put { cf, key: self.key, value: self.value }), ()))
    }

    fn done((): (), _: Vec<OperationResponse>) -> Option<RawPutResponse> {
        Some(RawPutResponse::default())
    }
}

impl CommandRequest for RawBatchPutRequest {
    type Answer = RawBatchPutResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        no_ttl(self.ttl)?;
        self.ttls.iter().try_for_each(|ttl| no_ttl(*ttl))?;
        let cf = family(&self.cf)?;
        let header = header(self.get_context())?;
        let puts = self.pairs.into_vec().into_iter();
        let puts = puts.map(|KvPair { key, value, .. }| Operation::Put { cf, key, value });
        Ok((operations(header, puts.collect()), ()))
    }

    fn done((): (), _: Vec<OperationResponse>) -> Option<RawBatchPutResponse> {
        Some(RawBatchPutResponse::default())
    }
}

impl CommandRequest for RawDeleteRequest {
    type Answer = RawDeleteResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        let cf = family(&self.cf)?;
        Ok((one(header(self.get_context())?, Operation::Delete { cf, key: self.key }), ()))
    }

    fn done((): (), _: Vec<OperationResponse>) -> Option<RawDeleteResponse> {
        Some(RawDeleteResponse::default())
    }
}

impl CommandRequest for RawBatchDeleteRequest {
    type Answer = RawBatchDeleteResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        let cf = family(&self.cf)?;
        let header = header(self.get_context())?;
        let deletes = self.keys.into_iter();
        let deletes = deletes.map(|key| Operation::Delete { cf, key });
        Ok((operations(header, deletes.collect()), ()))
    }

    fn done((): (), _: Vec<OperationResponse>) -> Option<RawBatchDeleteResponse> {
        Some(RawBatchDeleteResponse::default())
    }
}

impl CommandRequest for RawDeleteRangeRequest {
    type Answer = RawDeleteRangeResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        let cf = family(&self.cf)?;
        let header = header(self.get_context())?;
        let Self { start_key, end_key, .. } = self;
        Ok((one(header, Operation::DeleteRange { cf, start_key, end_key }), ()))
    }

    fn done((): (), _: Vec<OperationResponse>) -> Option<RawDeleteRangeResponse> {
        Some(RawDeleteRangeResponse::default())
    }
}

impl CommandRequest for RawCASRequest {
    type Answer = RawCASResponse;
    type Kept = ();

    fn command(self) -> Result<(Command, ()), Refusal> {
        no_ttl(self.ttl)?;
        let cf = family(&self.cf)?;
        let header = header(self.get_context())?;
        let Self { key, value, previous_value, previous_not_exist, delete, .. } = self;
        let expected = (!previous_not_exist).then_some(previous_value);
        let new = (!delete).then_some(value);
        let swap = CompareAndSwap { cf, key, expected, new };
        Ok((one(header, Operation::CompareAndSwap(Box::new(swap))), ()))
    }

    fn done((): (), results: Vec<OperationResponse>) -> Option<RawCASResponse> {
        let OperationResponse::CompareAndSwap { swapped, previous } = results.into_iter().next()?
        else {
            return None;
        };
        Some(RawCASResponse {
            succeed: swapped,
            previous_not_exist: previous.is_none(),
            previous_value: previous.unwrap_or_default(),
            ..Default::default()
        })
    }
}
