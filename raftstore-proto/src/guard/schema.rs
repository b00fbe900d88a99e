//! What each message type holds, as far as its decoded form takes memory.
//!
//! A field that is missing here counts as unknown, which is the dearest kind; a test compares
//! the tables of generated types with their descriptors.

#[cfg(feature = "rpc")]
pub(super) mod client;

use std::mem::size_of;

use crate::{
    CompareAndSwap, Operation, PeerChange, SplitRequest,
    pb::{eraftpb, errorpb, metapb, raft_cmdpb},
};

/// A message type.
pub(super) struct Schema {
    /// Whether its decoder keeps fields it does not know.
    pub(super) keeps_unknown: bool,
    pub(super) fields: &'static [Field],
}

impl Schema {
    pub(super) fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// A field of it.
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// Memory that each occurrence takes, beside what its kind implies.
    pub(super) cost: usize,
}

/// What is in a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Number,
    /// One of the numbers up to `max`. Generated code would take some others for 0.
    Enum {
        name: &'static str,
        max: u64,
    },
    /// A slice of the input.
    Bytes,
    /// Copied.
    Text,
    /// Any number of numbers, packed or not.
    Numbers,
    Message(&'static Schema),
    /// A message of which the limits count how many there are.
    Items(&'static Schema),
}

const fn number(number: u32) -> Field {
    Field { number, kind: Kind::Number, cost: 0 }
}

const fn choice(number: u32, name: &'static str, max: u64) -> Field {
    Field { number, kind: Kind::Enum { name, max }, cost: 0 }
}

const fn bytes(number: u32) -> Field {
    Field { number, kind: Kind::Bytes, cost: 0 }
}

const fn text(number: u32) -> Field {
    Field { number, kind: Kind::Text, cost: 0 }
}

const fn numbers(number: u32) -> Field {
    // A vector starts with room for four.
    Field { number, kind: Kind::Numbers, cost: 4 * size_of::<u64>() }
}

/// A message in a box of its own.
const fn boxed<T>(number: u32, schema: &'static Schema) -> Field {
    Field { number, kind: Kind::Message(schema), cost: size_of::<T>() }
}

/// A message in a vector that grows: room for four at first, then old and new storage for
/// a moment.
const fn grown<T>(number: u32, schema: &'static Schema) -> Field {
    Field { number, kind: Kind::Message(schema), cost: 4 * size_of::<T>() }
}

/// A message that is decoded in place.
const fn inline(number: u32, schema: &'static Schema) -> Field {
    Field { number, kind: Kind::Message(schema), cost: 0 }
}

/// Messages in a vector made to measure.
const fn items<T>(number: u32, schema: &'static Schema) -> Field {
    Field { number, kind: Kind::Items(schema), cost: size_of::<T>() }
}

/// A type that the generated code decodes.
const fn generated(fields: &'static [Field]) -> Schema {
    Schema { keeps_unknown: true, fields }
}

/// A type that this crate decodes itself; fields it does not know are passed over.
const fn own(fields: &'static [Field]) -> Schema {
    Schema { keeps_unknown: false, fields }
}

const ENTRY_TYPES: u64 = eraftpb::EntryType::EntryConfChangeV2 as u64;
const MESSAGE_TYPES: u64 = eraftpb::MessageType::MsgRequestPreVoteResponse as u64;
const PEER_ROLES: u64 = metapb::PeerRole::DemotingVoter as u64;

pub(super) static EMPTY: Schema = generated(&[]);

pub(super) static PEER: Schema =
    generated(&[number(1), number(2), choice(3, "peer role", PEER_ROLES)]);

pub(super) static EPOCH: Schema = generated(&[number(1), number(2)]);

pub(super) static REGION: Schema = generated(&[
    number(1),
    bytes(2),
    bytes(3),
    boxed::<metapb::RegionEpoch>(4, &EPOCH),
    grown::<metapb::Peer>(5, &PEER),
]);

pub(super) static ENTRY: Schema = generated(&[
    choice(1, "entry type", ENTRY_TYPES),
    number(2),
    number(3),
    bytes(4),
    number(5),
    bytes(6),
]);

pub(super) static CONF_STATE: Schema =
    generated(&[numbers(1), numbers(2), numbers(3), numbers(4), number(5)]);

pub(super) static SNAPSHOT_METADATA: Schema =
    generated(&[boxed::<eraftpb::ConfState>(1, &CONF_STATE), number(2), number(3)]);

pub(super) static SNAPSHOT: Schema =
    generated(&[bytes(1), boxed::<eraftpb::SnapshotMetadata>(2, &SNAPSHOT_METADATA)]);

pub(super) static RAFT: Schema = generated(&[
    choice(1, "raft message type", MESSAGE_TYPES),
    number(2),
    number(3),
    number(4),
    number(5),
    number(6),
    items::<eraftpb::Entry>(7, &ENTRY),
    number(8),
    boxed::<eraftpb::Snapshot>(9, &SNAPSHOT),
    number(10),
    number(11),
    bytes(12),
    number(13),
    number(14),
    number(15),
    number(16),
]);

pub(super) static RAFT_MESSAGE: Schema = generated(&[
    number(1),
    boxed::<metapb::Peer>(2, &PEER),
    boxed::<metapb::Peer>(3, &PEER),
    boxed::<eraftpb::Message>(4, &RAFT),
    boxed::<metapb::RegionEpoch>(5, &EPOCH),
    number(6),
    bytes(7),
    bytes(8),
    number(12),
    number(1000),
]);

pub(super) static SNAPSHOT_DATA: Schema =
    generated(&[boxed::<metapb::Region>(1, &REGION), number(2), number(4)]);

static OWN_PEER: Schema = own(&[number(1), number(2), number(3)]);
static OWN_EPOCH: Schema = own(&[number(1), number(2)]);
static HEADER: Schema =
    own(&[number(1), inline(2, &OWN_PEER), number(3), inline(5, &OWN_EPOCH), number(6)]);

static GET: Schema = own(&[bytes(1), bytes(2)]);
static PUT: Schema = own(&[bytes(1), bytes(2), bytes(3)]);
static COMPARE_AND_SWAP: Schema =
    own(&[bytes(1), bytes(2), bytes(3), bytes(4), number(5), number(6)]);
static NOTHING: Schema = own(&[]);
static REQUEST: Schema = own(&[
    number(1),
    inline(2, &GET),
    inline(4, &PUT),
    inline(5, &GET),
    inline(6, &NOTHING),
    inline(8, &PUT),
    Field {
        number: 1000,
        kind: Kind::Message(&COMPARE_AND_SWAP),
        cost: size_of::<CompareAndSwap>(),
    },
]);

/// The change in an admin request on its own takes no vector, one in a list a place in it.
static CHANGE_PEER: Schema = own(&[number(1), inline(2, &OWN_PEER)]);
static CHANGE_PEER_V2: Schema =
    own(&[Field { number: 1, kind: Kind::Message(&CHANGE_PEER), cost: size_of::<PeerChange>() }]);
static SPLIT: Schema = own(&[bytes(1), number(2), numbers(3), number(4)]);
static SPLITS: Schema = own(&[
    Field { number: 1, kind: Kind::Message(&SPLIT), cost: size_of::<SplitRequest>() },
    number(2),
]);
static COMPACT_LOG: Schema = own(&[number(1), number(2)]);
static TRANSFER_LEADER: Schema = own(&[inline(1, &OWN_PEER)]);
static VERIFY_HASH: Schema = own(&[number(1), bytes(2)]);
static ADMIN: Schema = own(&[
    number(1),
    inline(2, &CHANGE_PEER),
    Field { number: 3, kind: Kind::Message(&SPLIT), cost: size_of::<SplitRequest>() },
    inline(4, &COMPACT_LOG),
    inline(5, &TRANSFER_LEADER),
    inline(6, &VERIFY_HASH),
    inline(10, &SPLITS),
    inline(11, &CHANGE_PEER_V2),
    inline(12, &NOTHING),
]);
static STATUS: Schema = own(&[number(1)]);

pub(super) static COMMAND: Schema = own(&[
    inline(1, &HEADER),
    items::<Operation>(2, &REQUEST),
    inline(3, &ADMIN),
    inline(4, &STATUS),
]);

pub(super) static ERROR: Schema = generated(&[
    text(1),
    boxed::<errorpb::NotLeader>(2, &NOT_LEADER),
    boxed::<errorpb::RegionNotFound>(3, &ONE_NUMBER),
    boxed::<errorpb::KeyNotInRegion>(4, &KEY_NOT_IN_REGION),
    boxed::<errorpb::EpochNotMatch>(5, &REGIONS),
    boxed::<errorpb::ServerIsBusy>(6, &SERVER_IS_BUSY),
    boxed::<errorpb::StaleCommand>(7, &EMPTY),
    boxed::<errorpb::StoreNotMatch>(8, &TWO_NUMBERS),
    boxed::<errorpb::RaftEntryTooLarge>(9, &ENTRY_TOO_LARGE),
    boxed::<errorpb::ReadIndexNotReady>(11, &READ_NOT_READY),
    boxed::<errorpb::RegionNotInitialized>(14, &ONE_NUMBER),
    boxed::<errorpb::DiskFull>(15, &DISK_FULL),
    boxed::<errorpb::MismatchPeerId>(20, &TWO_NUMBERS),
]);
pub(super) static NOT_LEADER: Schema = generated(&[number(1), boxed::<metapb::Peer>(2, &PEER)]);
pub(super) static ONE_NUMBER: Schema = generated(&[number(1)]);
pub(super) static TWO_NUMBERS: Schema = generated(&[number(1), number(2)]);
pub(super) static KEY_NOT_IN_REGION: Schema = generated(&[bytes(1), number(2), bytes(3), bytes(4)]);
/// A list of regions: of an epoch error and of a split alike.
pub(super) static REGIONS: Schema = generated(&[grown::<metapb::Region>(1, &REGION)]);
pub(super) static SERVER_IS_BUSY: Schema = generated(&[text(1), number(2)]);
pub(super) static ENTRY_TOO_LARGE: Schema = generated(&[number(1), number(2), number(1000)]);
pub(super) static DISK_FULL: Schema = generated(&[numbers(1), text(2)]);
pub(super) static READ_NOT_READY: Schema = generated(&[text(1), number(2)]);

pub(super) static RESPONSE: Schema = generated(&[
    boxed::<raft_cmdpb::RaftResponseHeader>(1, &RESPONSE_HEADER),
    Field {
        number: 2,
        kind: Kind::Items(&OPERATION_RESPONSE),
        // The generated form in a growing vector, and ours in one made to measure.
        cost: 4 * size_of::<raft_cmdpb::Response>() + size_of::<crate::OperationResponse>(),
    },
    boxed::<raft_cmdpb::AdminResponse>(3, &ADMIN_RESPONSE),
    boxed::<raft_cmdpb::StatusResponse>(4, &STATUS_RESPONSE),
]);
pub(super) static RESPONSE_HEADER: Schema =
    generated(&[boxed::<errorpb::Error>(1, &ERROR), number(3)]);
pub(super) static OPERATION_RESPONSE: Schema = generated(&[
    number(1),
    boxed::<raft_cmdpb::GetResponse>(2, &GET_RESPONSE),
    boxed::<raft_cmdpb::PutResponse>(4, &EMPTY),
    boxed::<raft_cmdpb::DeleteResponse>(5, &EMPTY),
    boxed::<raft_cmdpb::SnapResponse>(6, &ONE_REGION),
    boxed::<raft_cmdpb::DeleteRangeResponse>(8, &EMPTY),
    boxed::<raft_cmdpb::CompareAndSwapResponse>(1000, &COMPARE_AND_SWAP_RESPONSE),
]);
pub(super) static GET_RESPONSE: Schema = generated(&[bytes(1), number(1000)]);
pub(super) static COMPARE_AND_SWAP_RESPONSE: Schema = generated(&[number(1), bytes(2), number(3)]);
pub(super) static ONE_REGION: Schema = generated(&[boxed::<metapb::Region>(1, &REGION)]);
pub(super) static ADMIN_RESPONSE: Schema = generated(&[
    number(1),
    boxed::<raft_cmdpb::ChangePeerResponse>(2, &ONE_REGION),
    boxed::<raft_cmdpb::SplitResponse>(3, &SPLIT_RESPONSE),
    boxed::<raft_cmdpb::CompactLogResponse>(4, &EMPTY),
    boxed::<raft_cmdpb::TransferLeaderResponse>(5, &EMPTY),
    boxed::<raft_cmdpb::VerifyHashResponse>(6, &EMPTY),
    boxed::<raft_cmdpb::BatchSplitResponse>(10, &REGIONS),
    boxed::<raft_cmdpb::ChangePeerV2Response>(11, &ONE_REGION),
]);
pub(super) static SPLIT_RESPONSE: Schema =
    generated(&[boxed::<metapb::Region>(1, &REGION), boxed::<metapb::Region>(2, &REGION)]);
pub(super) static STATUS_RESPONSE: Schema = generated(&[
    number(1),
    boxed::<raft_cmdpb::RegionLeaderResponse>(2, &LEADER_RESPONSE),
    boxed::<raft_cmdpb::RegionDetailResponse>(3, &DETAIL_RESPONSE),
]);
pub(super) static LEADER_RESPONSE: Schema = generated(&[boxed::<metapb::Peer>(1, &PEER)]);
pub(super) static DETAIL_RESPONSE: Schema =
    generated(&[boxed::<metapb::Region>(1, &REGION), boxed::<metapb::Peer>(2, &PEER)]);

#[cfg(test)]
mod tests {
    use protobuf::{
        Message, ProtobufEnum, descriptor::FieldDescriptorProto_Type as Type,
        reflect::MessageDescriptor,
    };

    use super::*;
    use crate::pb::raft_serverpb;

    /// Compares a table with the type's real fields; those of messages in it by name.
    fn compare(schema: &Schema, descriptor: &MessageDescriptor) {
        assert!(schema.keeps_unknown, "{}", descriptor.full_name());
        let real = descriptor.fields();
        assert_eq!(schema.fields.len(), real.len(), "{}", descriptor.full_name());
        for field in real {
            let proto = field.proto();
            let number = u32::try_from(proto.get_number()).unwrap();
            let ours = schema.field(number).unwrap();
            let fits = match proto.get_field_type() {
                Type::TYPE_MESSAGE => matches!(ours.kind, Kind::Message(_) | Kind::Items(_)),
                Type::TYPE_BYTES => matches!(ours.kind, Kind::Bytes),
                Type::TYPE_STRING => matches!(ours.kind, Kind::Text),
                Type::TYPE_ENUM => matches!(ours.kind, Kind::Enum { .. } | Kind::Number),
                _ if field.is_repeated() => matches!(ours.kind, Kind::Numbers),
                _ => matches!(ours.kind, Kind::Number),
            };
            assert!(fits, "{}.{}", descriptor.full_name(), field.name());
            let boxed = matches!(ours.kind, Kind::Message(_) | Kind::Items(_));
            let grown = field.is_repeated() && matches!(ours.kind, Kind::Bytes);
            assert_eq!(ours.cost > 0, boxed || grown || matches!(ours.kind, Kind::Numbers));
        }
    }

    pub(super) fn check<M: Message>(schema: &Schema) {
        compare(schema, MessageDescriptor::for_type::<M>());
    }

    #[test]
    fn tables_of_generated_types_are_complete() {
        check::<metapb::Peer>(&PEER);
        check::<metapb::RegionEpoch>(&EPOCH);
        check::<metapb::Region>(&REGION);
        check::<eraftpb::Entry>(&ENTRY);
        check::<eraftpb::ConfState>(&CONF_STATE);
        check::<eraftpb::SnapshotMetadata>(&SNAPSHOT_METADATA);
        check::<eraftpb::Snapshot>(&SNAPSHOT);
        check::<eraftpb::Message>(&RAFT);
        check::<raft_serverpb::RaftMessage>(&RAFT_MESSAGE);
        check::<raft_serverpb::RaftSnapshotData>(&SNAPSHOT_DATA);
    }

    #[test]
    fn tables_of_errors_are_complete() {
        check::<errorpb::Error>(&ERROR);
        check::<errorpb::NotLeader>(&NOT_LEADER);
        check::<errorpb::RegionNotFound>(&ONE_NUMBER);
        check::<errorpb::KeyNotInRegion>(&KEY_NOT_IN_REGION);
        check::<errorpb::EpochNotMatch>(&REGIONS);
        check::<errorpb::ServerIsBusy>(&SERVER_IS_BUSY);
        check::<errorpb::DiskFull>(&DISK_FULL);
        check::<errorpb::StaleCommand>(&EMPTY);
        check::<errorpb::StoreNotMatch>(&TWO_NUMBERS);
        check::<errorpb::RaftEntryTooLarge>(&ENTRY_TOO_LARGE);
        check::<errorpb::ReadIndexNotReady>(&READ_NOT_READY);
        check::<errorpb::RegionNotInitialized>(&ONE_NUMBER);
        check::<errorpb::MismatchPeerId>(&TWO_NUMBERS);
    }

    #[test]
    fn tables_of_responses_are_complete() {
        check::<raft_cmdpb::RaftCmdResponse>(&RESPONSE);
        check::<raft_cmdpb::RaftResponseHeader>(&RESPONSE_HEADER);
        check::<raft_cmdpb::Response>(&OPERATION_RESPONSE);
        check::<raft_cmdpb::GetResponse>(&GET_RESPONSE);
        check::<raft_cmdpb::CompareAndSwapResponse>(&COMPARE_AND_SWAP_RESPONSE);
        check::<raft_cmdpb::SnapResponse>(&ONE_REGION);
        check::<raft_cmdpb::AdminResponse>(&ADMIN_RESPONSE);
        check::<raft_cmdpb::ChangePeerResponse>(&ONE_REGION);
        check::<raft_cmdpb::SplitResponse>(&SPLIT_RESPONSE);
        check::<raft_cmdpb::BatchSplitResponse>(&REGIONS);
        check::<raft_cmdpb::StatusResponse>(&STATUS_RESPONSE);
        check::<raft_cmdpb::RegionLeaderResponse>(&LEADER_RESPONSE);
        check::<raft_cmdpb::RegionDetailResponse>(&DETAIL_RESPONSE);
    }

    #[test]
    fn enums_end_where_the_tables_say() {
        let last = |values: &[i32]| values.iter().copied().max().map(i64::from);
        let entry_types: Vec<_> =
            eraftpb::EntryType::values().iter().map(|kind| kind.value()).collect();
        let message_types: Vec<_> =
            eraftpb::MessageType::values().iter().map(|kind| kind.value()).collect();
        let roles: Vec<_> = metapb::PeerRole::values().iter().map(|role| role.value()).collect();
        assert_eq!(last(&entry_types), Some(ENTRY_TYPES.cast_signed()));
        assert_eq!(last(&message_types), Some(MESSAGE_TYPES.cast_signed()));
        assert_eq!(last(&roles), Some(PEER_ROLES.cast_signed()));
        for values in [entry_types, message_types, roles] {
            assert_eq!(last(&values), Some(values.len() as i64 - 1), "no gaps");
        }
    }
}
