//! What the requests of clients hold.

use protobuf::Message;

use super::{Field, Kind, Schema, boxed, bytes, generated, grown, number, numbers, text};
use crate::pb::{kvrpcpb as kv, metapb, tikvpb};

/// A request that is checked before it is decoded.
pub trait ClientRequest: Message {
    #[doc(hidden)]
    fn schema() -> &'static SchemaOf;
}

/// A table of what a type holds, which nobody outside needs to look at.
#[doc(hidden)]
pub struct SchemaOf(pub(in crate::guard) &'static Schema);

impl std::fmt::Debug for SchemaOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SchemaOf")
    }
}

/// One of several fields: decoded in a place that they share, and moved there.
const fn choice_of<T>(number: u32, schema: &'static Schema) -> Field {
    Field { number, kind: Kind::Message(schema), cost: 2 * size_of::<T>() }
}

/// Byte strings in a vector that grows.
const fn many_bytes(number: u32) -> Field {
    Field { number, kind: Kind::Bytes, cost: 4 * size_of::<::bytes::Bytes>() }
}

static CONTEXT: Schema = generated(&[
    number(1),
    boxed::<metapb::RegionEpoch>(2, &super::EPOCH),
    boxed::<metapb::Peer>(3, &super::PEER),
    number(5),
    number(6),
    number(7),
    number(8),
    number(9),
    number(10),
    number(11),
    number(12),
    numbers(13),
    number(14),
    number(15),
    number(16),
    number(17),
    bytes(18),
    number(19),
    number(20),
    number(21),
    numbers(22),
    text(24),
    number(25),
    number(27),
    text(31),
    number(32),
    number(33),
    number(35),
    bytes(36),
    number(37),
]);

const fn context() -> Field {
    boxed::<kv::Context>(1, &CONTEXT)
}

static KEY_ERROR: Schema = generated(&[text(2), text(3)]);
static KV_PAIR: Schema =
    generated(&[boxed::<kv::KeyError>(1, &KEY_ERROR), bytes(2), bytes(3), number(4)]);
static KEY_RANGE: Schema = generated(&[bytes(1), bytes(2)]);

/// A context, a key and a family.
static KEY_IN_FAMILY: Schema = generated(&[context(), bytes(2), text(3)]);
static RAW_BATCH_GET: Schema = generated(&[context(), many_bytes(2), text(3)]);
static RAW_PUT: Schema = generated(&[context(), bytes(2), bytes(3), text(4), number(5), number(6)]);
static RAW_BATCH_PUT: Schema = generated(&[
    context(),
    grown::<kv::KvPair>(2, &KV_PAIR),
    text(3),
    number(4),
    number(5),
    numbers(6),
]);
static RAW_DELETE: Schema = generated(&[context(), bytes(2), text(3), number(4)]);
static RAW_BATCH_DELETE: Schema = generated(&[context(), many_bytes(2), text(3), number(4)]);
static RAW_SCAN: Schema =
    generated(&[context(), bytes(2), number(3), number(4), text(5), number(6), bytes(7)]);
static RAW_DELETE_RANGE: Schema = generated(&[context(), bytes(2), bytes(3), text(4)]);
static RAW_BATCH_SCAN: Schema = generated(&[
    context(),
    grown::<kv::KeyRange>(2, &KEY_RANGE),
    number(3),
    number(4),
    text(5),
    number(6),
]);
static RAW_CAS: Schema =
    generated(&[context(), bytes(2), bytes(3), number(4), bytes(5), text(6), number(7), number(8)]);
static RAW_CHECKSUM: Schema =
    generated(&[context(), number(2), grown::<kv::KeyRange>(3, &KEY_RANGE)]);
static RAW_COPROCESSOR: Schema =
    generated(&[context(), text(2), text(3), grown::<kv::KeyRange>(4, &KEY_RANGE), bytes(5)]);
static SPLIT_REGION: Schema = generated(&[context(), bytes(2), many_bytes(3), number(4)]);
static READ_INDEX: Schema =
    generated(&[context(), number(2), grown::<kv::KeyRange>(3, &KEY_RANGE)]);
static EMPTY_REQUEST: Schema = generated(&[number(1), number(2)]);

static BATCHED: Schema = generated(&[
    choice_of::<kv::RawGetRequest>(13, &KEY_IN_FAMILY),
    choice_of::<kv::RawBatchGetRequest>(14, &RAW_BATCH_GET),
    choice_of::<kv::RawPutRequest>(15, &RAW_PUT),
    choice_of::<kv::RawBatchPutRequest>(16, &RAW_BATCH_PUT),
    choice_of::<kv::RawDeleteRequest>(17, &RAW_DELETE),
    choice_of::<kv::RawBatchDeleteRequest>(18, &RAW_BATCH_DELETE),
    choice_of::<kv::RawScanRequest>(19, &RAW_SCAN),
    choice_of::<kv::RawDeleteRangeRequest>(20, &RAW_DELETE_RANGE),
    choice_of::<kv::RawBatchScanRequest>(21, &RAW_BATCH_SCAN),
    choice_of::<kv::RawCoprocessorRequest>(34, &RAW_COPROCESSOR),
    choice_of::<tikvpb::BatchCommandsEmptyRequest>(255, &EMPTY_REQUEST),
]);
static BATCH_COMMANDS: Schema = generated(&[
    Field {
        number: 1,
        kind: Kind::Items(&BATCHED),
        cost: 4 * size_of::<tikvpb::BatchCommandsRequest_Request>(),
    },
    numbers(2),
    number(3),
]);

macro_rules! requests {
    ($($request:ty => $schema:ident,)*) => {
        $(impl ClientRequest for $request {
            fn schema() -> &'static SchemaOf {
                static SCHEMA: SchemaOf = SchemaOf(&$schema);
                &SCHEMA
            }
        })*

        #[cfg(test)]
        #[test]
        fn tables_of_requests_are_complete() {
            $(super::tests::check::<$request>(&$schema);)*
        }
    };
}

requests! {
    kv::RawGetRequest => KEY_IN_FAMILY,
    kv::RawGetKeyTTLRequest => KEY_IN_FAMILY,
    kv::RawBatchGetRequest => RAW_BATCH_GET,
    kv::RawPutRequest => RAW_PUT,
    kv::RawBatchPutRequest => RAW_BATCH_PUT,
    kv::RawDeleteRequest => RAW_DELETE,
    kv::RawBatchDeleteRequest => RAW_BATCH_DELETE,
    kv::RawScanRequest => RAW_SCAN,
    kv::RawBatchScanRequest => RAW_BATCH_SCAN,
    kv::RawDeleteRangeRequest => RAW_DELETE_RANGE,
    kv::RawCASRequest => RAW_CAS,
    kv::RawChecksumRequest => RAW_CHECKSUM,
    kv::SplitRegionRequest => SPLIT_REGION,
    kv::ReadIndexRequest => READ_INDEX,
    tikvpb::BatchCommandsRequest => BATCH_COMMANDS,
}

#[cfg(test)]
#[test]
fn tables_of_what_is_in_requests_are_complete() {
    super::tests::check::<kv::Context>(&CONTEXT);
    super::tests::check::<kv::KvPair>(&KV_PAIR);
    super::tests::check::<kv::KeyRange>(&KEY_RANGE);
    super::tests::check::<kv::KeyError>(&KEY_ERROR);
    super::tests::check::<kv::RawCoprocessorRequest>(&RAW_COPROCESSOR);
    super::tests::check::<tikvpb::BatchCommandsEmptyRequest>(&EMPTY_REQUEST);
    super::tests::check::<tikvpb::BatchCommandsRequest_Request>(&BATCHED);
}
