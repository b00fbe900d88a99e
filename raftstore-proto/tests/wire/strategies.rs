//! Arbitrary values of everything with a wire form.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use raft_proto::eraftpb;
use raftstore_proto::{
    AdminCommand, AdminResponse, ApplyState, Body, BusyReason, Cf, ChangeKind, Command,
    CompareAndSwap, DATA_CFS, Entry, Epoch, HardState, Header, LocalState, Operation,
    OperationResponse, Peer, PeerChange, PeerId, PeerRole, RaftMessage, Region, RegionError,
    RegionId, RegionPhase, RegionState, Response, ResponseBody, SplitRequest, StatusCommand,
    StatusResponse, StoreId, Truncated,
};

pub(crate) fn id() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..300, 1..=u64::MAX]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..300, any::<u64>()]
}

pub(crate) fn region_id() -> impl Strategy<Value = RegionId> {
    id().prop_map(RegionId::must)
}

fn peer_id() -> impl Strategy<Value = PeerId> {
    id().prop_map(PeerId::must)
}

fn store_id() -> impl Strategy<Value = StoreId> {
    id().prop_map(StoreId::must)
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn cf() -> impl Strategy<Value = Cf> {
    prop::sample::select(&DATA_CFS[..])
}

pub(crate) fn epoch() -> impl Strategy<Value = Epoch> {
    (number(), number()).prop_map(|(conf_ver, version)| Epoch { conf_ver, version })
}

pub(crate) fn peer() -> impl Strategy<Value = Peer> {
    let roles =
        [PeerRole::Voter, PeerRole::Learner, PeerRole::IncomingVoter, PeerRole::DemotingVoter];
    (peer_id(), store_id(), prop::sample::select(roles.to_vec()))
        .prop_map(|(id, store, role)| Peer { id, store, role })
}

pub(crate) fn region() -> impl Strategy<Value = Region> {
    (region_id(), payload(), payload(), epoch(), vec(peer(), 0..6)).prop_map(
        |(id, start_key, end_key, epoch, peers)| Region { id, start_key, end_key, epoch, peers },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    // What the known types say is known; others stay invalid.
    let unknown =
        any::<i32>().prop_filter("known", |number| ![1, 3, 4, 5, 7, 1000].contains(number));
    prop_oneof![
        (cf(), payload()).prop_map(|(cf, key)| Operation::Get { cf, key }),
        (cf(), payload(), payload()).prop_map(|(cf, key, value)| Operation::Put { cf, key, value }),
        (cf(), payload()).prop_map(|(cf, key)| Operation::Delete { cf, key }),
        (cf(), payload(), payload()).prop_map(|(cf, start_key, end_key)| Operation::DeleteRange {
            cf,
            start_key,
            end_key
        }),
        (cf(), payload(), option::of(payload()), option::of(payload())).prop_map(
            |(cf, key, expected, new)| {
                Operation::CompareAndSwap(Box::new(CompareAndSwap { cf, key, expected, new }))
            }
        ),
        Just(Operation::Snap),
        unknown.prop_map(|cmd_type| Operation::Invalid { cmd_type }),
    ]
}

fn change() -> impl Strategy<Value = PeerChange> {
    let kinds = vec![ChangeKind::AddNode, ChangeKind::RemoveNode, ChangeKind::AddLearner];
    (prop::sample::select(kinds), peer()).prop_map(|(kind, peer)| PeerChange { kind, peer })
}

fn split() -> impl Strategy<Value = SplitRequest> {
    (payload(), region_id(), vec(peer_id(), 0..6))
        .prop_map(|(key, new_region, new_peers)| SplitRequest { key, new_region, new_peers })
}

fn admin() -> impl Strategy<Value = AdminCommand> {
    let unknown = any::<i32>()
        .prop_filter("known", |number| !(1..=6).contains(number) && ![10, 11].contains(number));
    prop_oneof![
        change().prop_map(AdminCommand::ChangePeer),
        vec(change(), 0..5).prop_map(AdminCommand::ChangePeerV2),
        (vec(split(), 0..5), any::<bool>()).prop_map(|(requests, right_derive)| {
            AdminCommand::BatchSplit { requests, right_derive }
        }),
        (number(), number()).prop_map(|(index, term)| AdminCommand::CompactLog { index, term }),
        peer().prop_map(AdminCommand::TransferLeader),
        Just(AdminCommand::ComputeHash),
        (number(), payload()).prop_map(|(index, hash)| AdminCommand::VerifyHash { index, hash }),
        unknown.prop_map(|cmd_type| AdminCommand::Invalid { cmd_type }),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let flags = (any::<bool>(), any::<bool>());
    let header = (region_id(), peer(), option::of(epoch()), number(), flags).prop_map(
        |(region, peer, epoch, term, (read_quorum, replica_read))| Header {
            region,
            peer,
            epoch,
            term,
            read_quorum,
            replica_read,
        },
    );
    let status =
        vec![StatusCommand::RegionLeader, StatusCommand::RegionDetail, StatusCommand::Invalid];
    let body = prop_oneof![
        vec(operation(), 0..10).prop_map(Body::Operations),
        admin().prop_map(Body::Admin),
        prop::sample::select(status).prop_map(Body::Status),
    ];
    (header, body).prop_map(|(header, body)| Command { header, body })
}

/// Errors that come back as they are; the others have tests of their own.
fn error() -> impl Strategy<Value = RegionError> {
    let reasons =
        vec![BusyReason::Queue, BusyReason::Uncommitted, BusyReason::Writes, BusyReason::Apply];
    prop_oneof![
        (region_id(), option::of(peer()))
            .prop_map(|(region, leader)| RegionError::NotLeader { region, leader }),
        region_id().prop_map(|region| RegionError::RegionNotFound { region }),
        vec(region(), 0..4).prop_map(|current| RegionError::EpochNotMatch { current }),
        (store_id(), store_id())
            .prop_map(|(asked, here)| RegionError::StoreNotMatch { asked, here }),
        Just(RegionError::StaleCommand),
        (prop::sample::select(reasons), number())
            .prop_map(|(reason, backoff_ms)| RegionError::ServerIsBusy { reason, backoff_ms }),
        (region_id(), number(), number()).prop_map(|(region, size_bytes, max_bytes)| {
            RegionError::EntryTooLarge { region, size_bytes, max_bytes }
        }),
        (peer_id(), peer_id()).prop_map(|(asked, here)| RegionError::PeerNotMatch { asked, here }),
        region_id().prop_map(|region| RegionError::RegionNotInitialized { region }),
        Just(RegionError::ReadNotReady),
        vec(store_id(), 0..4).prop_map(|stores| RegionError::DiskFull { stores }),
        "[a-z ]{0,40}".prop_map(|message| RegionError::Remote { message }),
    ]
}

pub(crate) fn response() -> impl Strategy<Value = Response> {
    let operation = prop_oneof![
        option::of(payload()).prop_map(OperationResponse::Get),
        Just(OperationResponse::Put),
        Just(OperationResponse::Delete),
        Just(OperationResponse::DeleteRange),
        (any::<bool>(), option::of(payload())).prop_map(|(swapped, previous)| {
            OperationResponse::CompareAndSwap { swapped, previous }
        }),
        region().prop_map(OperationResponse::Snap),
    ];
    let admin = prop_oneof![
        region().prop_map(AdminResponse::ChangePeer),
        vec(region(), 0..4).prop_map(AdminResponse::Split),
        Just(AdminResponse::CompactLog),
        Just(AdminResponse::TransferLeader),
        Just(AdminResponse::ComputeHash),
        Just(AdminResponse::VerifyHash),
    ];
    let status = prop_oneof![
        option::of(peer()).prop_map(StatusResponse::RegionLeader),
        (region(), option::of(peer()))
            .prop_map(|(region, leader)| StatusResponse::RegionDetail(region, leader)),
    ];
    let body = prop_oneof![
        vec(operation, 0..8).prop_map(ResponseBody::Operations),
        admin.prop_map(ResponseBody::Admin),
        status.prop_map(ResponseBody::Status),
    ];
    let body = prop_oneof![body.prop_map(Ok), error().prop_map(Err)];
    (number(), body).prop_map(|(term, body)| Response { term, body })
}

fn raft_entry() -> impl Strategy<Value = eraftpb::Entry> {
    let kinds = vec![
        eraftpb::EntryType::EntryNormal,
        eraftpb::EntryType::EntryConfChange,
        eraftpb::EntryType::EntryConfChangeV2,
    ];
    (prop::sample::select(kinds), number(), number(), payload(), payload()).prop_map(
        |(kind, term, index, data, context)| {
            let mut entry = eraftpb::Entry::new();
            entry.entry_type = kind;
            entry.term = term;
            entry.index = index;
            entry.data = data;
            entry.context = context;
            entry
        },
    )
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    raft_entry().prop_map(Entry::from_raft)
}

pub(crate) fn message() -> impl Strategy<Value = RaftMessage> {
    let raft = (0..19_usize, number(), number(), vec(raft_entry(), 0..8), option::of(payload()))
        .prop_map(|(kind, term, commit, entries, snapshot)| {
            let mut raft = eraftpb::Message::new();
            raft.msg_type = raftstore_proto::MessageKind::ALL[kind].into();
            raft.term = term;
            raft.commit = commit;
            raft.entries = entries.into();
            if let Some(data) = snapshot {
                raft.mut_snapshot().data = data;
                raft.mut_snapshot().mut_metadata().mut_conf_state().learners = vec![term, commit];
            }
            raft
        });
    (region_id(), peer(), peer(), epoch(), option::of(raft), option::of((payload(), payload())))
        .prop_map(|(region, from, to, epoch, raft, range)| {
            let message = match raft {
                Some(raft) => RaftMessage::new(region, from, to, epoch, raft),
                None => RaftMessage::tombstone(region, from, to, epoch),
            };
            match range {
                Some((start, end)) => message.with_range(start, end),
                None => message,
            }
        })
}

pub(crate) fn local_state() -> impl Strategy<Value = LocalState> {
    (peer_id(), number(), number(), number(), number()).prop_map(
        |(peer, term, vote, commit, last_index)| LocalState {
            peer,
            hard_state: HardState { term, vote, commit },
            last_index,
        },
    )
}

pub(crate) fn apply_state() -> impl Strategy<Value = ApplyState> {
    (number(), number(), number(), number()).prop_map(|(applied, applied_term, index, term)| {
        ApplyState { applied, applied_term, truncated: Truncated { index, term } }
    })
}

pub(crate) fn region_state() -> impl Strategy<Value = RegionState> {
    let phases = vec![
        RegionPhase::Normal,
        RegionPhase::Applying,
        RegionPhase::Tombstone,
        RegionPhase::Merging,
        RegionPhase::Quarantined,
    ];
    (prop::sample::select(phases), region())
        .prop_map(|(phase, region)| RegionState { phase, region })
}
