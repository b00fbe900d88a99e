//! Whole inputs of each kind to begin with.

use bytes::Bytes;
use raftstore_proto::{
    AdminCommand, ApplyState, Body, Cf, ChangeKind, ClusterId, Command, CompareAndSwap, Epoch,
    HardState, Header, LocalState, Operation, OperationResponse, Peer, PeerChange, PeerId,
    RaftMessage, Region, RegionError, RegionPhase, RegionState, Response, ResponseBody,
    SplitRequest, StatusCommand, StoreId, StoreIdent, Truncated,
    guard::Limits,
    wire::{
        SnapshotChunk, encode_batch, encode_command, encode_region, encode_response,
        encode_snapshot_chunk, encode_snapshot_data,
        record::{encode_apply_state, encode_local_state, encode_region_state, encode_store_ident},
    },
};

use super::REGION;

fn peer(id: u64) -> Peer {
    Peer::voter(PeerId::must(id), StoreId::must(id))
}

fn region() -> Region {
    Region {
        id: REGION,
        start_key: Bytes::from_static(b"a"),
        end_key: Bytes::from_static(b"m"),
        epoch: Epoch { conf_ver: 3, version: 2 },
        peers: vec![peer(11), peer(12), Peer::learner(PeerId::must(13), StoreId::must(13))],
    }
}

/// The inputs of a target, by its name.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "raft_message" => raft_messages(),
        "command" => commands(),
        "stream" => frames(),
        _ => records(),
    }
}

fn raft_messages() -> Vec<Vec<u8>> {
    let epoch = region().epoch;
    let mut out = vec![RaftMessage::tombstone(REGION, peer(11), peer(12), epoch).encode()];
    // Every type of message there is, with something in each of its fields.
    for msg_type in 0..19_u8 {
        let mut message = RaftMessage::new(REGION, peer(11), peer(12), epoch, Default::default());
        message = message.with_range(region().start_key, region().end_key);
        let raft = message.raft_mut();
        // Not the type that is not written because it is 0.
        raft.msg_type = raftstore_proto::MessageKind::Beat.into();
        (raft.to, raft.from, raft.term) = (12, 11, 7);
        (raft.log_term, raft.index, raft.commit) = (6, 20, 19);
        (raft.reject, raft.reject_hint) = (true, 18);
        raft.context = Bytes::from_static(b"context");
        let entry = raft.mut_entries().push_default();
        (entry.index, entry.term) = (21, 7);
        entry.data = encode_command(&command(Body::Operations(operations()))).into();
        entry.context = Bytes::from_static(&[1, 2, 3, 4, 5]);
        let snapshot = raft.mut_snapshot();
        snapshot.data = encode_snapshot_data(&region(), 1_000);
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (20, 6);
        meta.mut_conf_state().voters = vec![11, 12];
        meta.mut_conf_state().learners = vec![13];
        let mut bytes = message.encode();
        // The type is a small number: there is one byte to change.
        if let Some(at) = bytes.windows(4).position(|it| it == [8, 1, 16, 12]) {
            bytes[at + 1] = msg_type;
        }
        out.push(bytes);
    }
    out
}

fn frames() -> Vec<Vec<u8>> {
    let messages: Vec<_> = raft_messages()
        .into_iter()
        .filter_map(|bytes| RaftMessage::decode(bytes.into(), &Limits::default()).ok())
        .collect();
    let mut out = Vec::new();
    for batch in messages.chunks(3) {
        let mut frame = Vec::new();
        encode_batch(batch, &mut frame).expect("memory takes everything");
        out.push(frame);
    }
    let chunks = [
        SnapshotChunk::Head { message: Box::new(messages[0].clone()), size_bytes: 70_000 },
        SnapshotChunk::Data { offset: 300, bytes: Bytes::from_static(b"some bytes") },
        SnapshotChunk::End { size_bytes: 70_000, checksum: u32::MAX },
    ];
    out.extend(chunks.iter().map(|chunk| {
        let (mut frame, rest) = encode_snapshot_chunk(chunk);
        frame.extend_from_slice(&rest);
        frame
    }));
    out
}

fn operations() -> Vec<Operation> {
    let key = Bytes::from_static(b"key");
    vec![
        Operation::Get { cf: Cf::Default, key: key.clone() },
        Operation::Put { cf: Cf::Lock, key: key.clone(), value: Bytes::from_static(b"value") },
        Operation::Delete { cf: Cf::Write, key: key.clone() },
        Operation::DeleteRange {
            cf: Cf::Default,
            start_key: key,
            end_key: Bytes::from_static(b"kez"),
        },
        Operation::CompareAndSwap(Box::new(CompareAndSwap {
            cf: Cf::Lock,
            key: Bytes::from_static(b"key"),
            expected: Some(Bytes::from_static(b"old")),
            new: None,
        })),
        Operation::Snap,
    ]
}

fn command(body: Body) -> Command {
    let header = Header {
        region: REGION,
        peer: peer(11),
        epoch: Some(region().epoch),
        term: 7,
        read_quorum: true,
        replica_read: true,
    };
    Command { header, body }
}

fn commands() -> Vec<Vec<u8>> {
    let change = PeerChange { kind: ChangeKind::AddLearner, peer: peer(14) };
    let split = SplitRequest {
        key: Bytes::from_static(b"g"),
        new_region: raftstore_proto::RegionId::must(2),
        new_peers: vec![PeerId::must(21), PeerId::must(22), PeerId::must(23)],
    };
    let bodies = [
        Body::Operations(operations()),
        Body::Admin(AdminCommand::ChangePeer(change)),
        Body::Admin(AdminCommand::ChangePeerV2(vec![change, change])),
        Body::Admin(AdminCommand::BatchSplit { requests: vec![split], right_derive: true }),
        Body::Admin(AdminCommand::CompactLog { index: 9, term: 6 }),
        Body::Admin(AdminCommand::TransferLeader(peer(12))),
        Body::Admin(AdminCommand::ComputeHash),
        Body::Admin(AdminCommand::VerifyHash { index: 9, hash: Bytes::from_static(b"hash") }),
        Body::Status(StatusCommand::RegionDetail),
    ];
    let errors = [
        RegionError::NotLeader { region: REGION, leader: Some(peer(12)) },
        RegionError::RegionNotFound { region: REGION },
        RegionError::StaleCommand,
        RegionError::EpochNotMatch { current: vec![region(), region()] },
    ];
    let values = vec![
        OperationResponse::Get(Some(Bytes::from_static(b"value"))),
        OperationResponse::Get(None),
        OperationResponse::Put,
        OperationResponse::Snap(region()),
    ];
    let mut out: Vec<Vec<u8>> = bodies.map(|body| encode_command(&command(body))).into();
    out.push(encode_region(&region()));
    out.push(encode_response(&Response::ok(7, ResponseBody::Operations(values))));
    out.extend(errors.map(|error| encode_response(&Response::error(7, error))));
    out
}

/// With and without their checksums: the target adds those that fit.
fn records() -> Vec<Vec<u8>> {
    let ident = StoreIdent { cluster: ClusterId::must(1), store: StoreId::must(2) };
    let hard_state = HardState { term: 7, vote: 11, commit: 20 };
    let local = LocalState { peer: PeerId::must(11), hard_state, last_index: 21 };
    let truncated = Truncated { index: 9, term: 6 };
    let apply = ApplyState { applied: 20, applied_term: 7, truncated };
    let state = RegionState { phase: RegionPhase::Normal, region: region() };
    let whole = [
        encode_store_ident(&ident),
        encode_local_state(REGION, &local),
        encode_apply_state(REGION, &apply),
        encode_region_state(REGION, &state),
    ];
    let bare = whole.clone().map(|mut record| {
        record.truncate(record.len() - 4);
        record
    });
    whole.into_iter().chain(bare).chain([b"\x10\x07\x18\x09\x22\x04data".to_vec()]).collect()
}
