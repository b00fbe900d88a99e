//! Messages between stores, and what snapshots carry.

use bytes::Bytes;
use raft_proto::eraftpb;
use raftstore_proto::{
    DecodeError, DiskUsage, Epoch, MessageKind, RaftMessage, RegionId,
    guard::Limits,
    wire::{decode_region, decode_snapshot_data, encode_region, encode_snapshot_data},
};

use crate::bytes_of::{all, bytes, len, num, peer, peer_bytes, region, region_bytes};

const EPOCH: Epoch = Epoch { conf_ver: 1, version: 2 };

fn decode(bytes: Vec<u8>) -> Result<RaftMessage, DecodeError> {
    RaftMessage::decode(bytes.into(), &Limits::default())
}

/// region_id 1, from_peer 2, to_peer 3, message 4, region_epoch 5, is_tombstone 6
fn envelope(message: &[u8]) -> Vec<u8> {
    all([
        num(1, 9),
        len(2, peer_bytes(1, 10)),
        len(3, peer_bytes(2, 20)),
        message.to_vec(),
        len(5, all([num(1, 1), num(2, 2)])),
    ])
}

fn message(raft: eraftpb::Message) -> RaftMessage {
    RaftMessage::new(RegionId::must(9), peer(1, 10), peer(2, 20), EPOCH, raft)
}

#[test]
fn region_bytes_spelled_out() {
    let expected = [
        0x08, 0xac, 0x02, // 1: 300
        0x12, 0x01, b'b', // 2: "b"
        0x1a, 0x01, b'm', // 3: "m"
        0x22, 0x04, 0x08, 0x03, 0x10, 0x04, // 4: (3, 4)
        0x2a, 0x04, 0x08, 0x01, 0x10, 0x02, // 5: (1, 2)
        0x2a, 0x06, 0x08, 0x03, 0x10, 0x04, 0x18, 0x03, // 5: (3, 4, demoting)
    ];
    assert_eq!(region_bytes(), expected);
    assert_eq!(encode_region(&region()), expected);
    assert_eq!(decode_region(&Bytes::copy_from_slice(&expected)), Ok(region()));
}

#[test]
fn append() {
    let mut raft = eraftpb::Message::new();
    raft.msg_type = eraftpb::MessageType::MsgAppend;
    raft.to = 2;
    raft.from = 1;
    raft.term = 5;
    raft.log_term = 4;
    raft.index = 70;
    raft.commit = 69;
    let mut entry = eraftpb::Entry::new();
    entry.entry_type = eraftpb::EntryType::EntryConfChangeV2;
    entry.term = 5;
    entry.index = 71;
    entry.data = bytes("data");
    entry.context = bytes("ctx");
    raft.entries.push(entry);
    let expected = envelope(&len(
        4,
        all([
            num(1, 3),
            num(2, 2),
            num(3, 1),
            num(4, 5),
            num(5, 4),
            num(6, 70),
            len(7, all([num(1, 2), num(2, 5), num(3, 71), len(4, "data"), len(6, "ctx")])),
            num(8, 69),
        ]),
    ));
    assert_eq!(message(raft.clone()).encode(), expected);
    let back = decode(expected).unwrap();
    assert_eq!(back.kind(), Some(MessageKind::Append));
    assert_eq!(back.into_raft(), raft);
}

#[test]
fn snapshot_with_its_region() {
    let mut raft = eraftpb::Message::new();
    raft.msg_type = eraftpb::MessageType::MsgSnapshot;
    let snapshot = raft.mut_snapshot();
    snapshot.data = encode_snapshot_data(&region(), 1 << 20);
    let metadata = snapshot.mut_metadata();
    metadata.index = 8;
    metadata.term = 6;
    metadata.mut_conf_state().voters = vec![1, 2];
    // raft_serverpb.RaftSnapshotData: region 1, file_size 2, version 4
    let data = all([len(1, region_bytes()), num(2, 1 << 20), num(4, 1000)]);
    // eraftpb.ConfState: voters 1, one by one as raft's generator writes them
    let conf_state = all([num(1, 1), num(1, 2)]);
    let metadata = all([len(1, conf_state), num(2, 8), num(3, 6)]);
    let expected =
        envelope(&len(4, all([num(1, 7), len(9, all([len(1, data.clone()), len(2, metadata)]))])));
    assert_eq!(message(raft).encode(), expected);
    let back = decode(expected).unwrap();
    let carried = &back.snapshot().unwrap().data;
    assert_eq!(*carried, data);
    assert_eq!(decode_snapshot_data(carried), Ok((region(), 1 << 20)));
}

#[test]
fn tombstone() {
    let message = RaftMessage::tombstone(RegionId::must(9), peer(1, 10), peer(2, 20), EPOCH);
    let expected = all([envelope(&[]), num(6, 1)]);
    assert_eq!(message.encode(), expected);
    assert_eq!(decode(expected), Ok(message));
}

#[test]
fn ranges() {
    // start_key 7, end_key 8, and our own has_open_range 1000
    for (start, end, fields) in [
        ("a", "b", all([len(7, "a"), len(8, "b")])),
        ("a", "", len(7, "a")),
        ("", "b", len(8, "b")),
        ("", "", num(1000, 1)),
    ] {
        let message = message(eraftpb::Message::new()).with_range(bytes(start), bytes(end));
        let expected = all([envelope(&len(4, "")), fields]);
        assert_eq!(message.encode(), expected);
        assert_eq!(decode(expected).unwrap().range(), Some((bytes(start), bytes(end))));
    }
}

#[test]
fn absent_parts_read_as_none() {
    let empty = decode(Vec::new()).unwrap();
    assert_eq!(empty.region(), None);
    assert_eq!((empty.from_peer(), empty.to_peer()), (None, None));
    assert_eq!(empty.epoch(), None);
    assert_eq!(empty.kind(), None);
    assert_eq!(empty.range(), None);
    assert_eq!(empty.snapshot(), None);
    let zero_store = decode(len(2, num(1, 5))).unwrap();
    assert_eq!(zero_store.from_peer(), None);
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    // merge_target 9, extra_msg 10, extra_ctx 11
    let later = all([envelope(&[]), len(9, num(1, 3)), len(10, num(1, 4)), len(11, "x")]);
    assert_eq!(decode(later).unwrap().region(), Some(RegionId::must(9)));
}

#[test]
fn disk_usage_is_a_number() {
    // disk_usage 12
    let usage = |number| decode(all([envelope(&[]), num(12, number)])).unwrap().disk_usage();
    assert_eq!(decode(envelope(&[])).unwrap().disk_usage(), DiskUsage::Normal);
    assert_eq!((usage(1), usage(2)), (DiskUsage::AlmostFull, DiskUsage::Full));
    // Whatever a later version means by it, it is no less.
    assert_eq!(usage(7), DiskUsage::Full);
    for usage in [DiskUsage::Normal, DiskUsage::AlmostFull, DiskUsage::Full] {
        let bytes = RaftMessage::default().with_disk_usage(usage).encode();
        let back = RaftMessage::decode(bytes.into(), &Limits::default()).unwrap();
        assert_eq!(back.disk_usage(), usage);
    }
}

#[test]
fn unknown_types_are_never_taken_for_others() {
    let message_type = envelope(&len(4, num(1, 19)));
    let entry_type = envelope(&len(4, len(7, num(1, 3))));
    let role = len(2, all([peer_bytes(1, 2), num(3, 4)]));
    for bytes in [message_type, entry_type, role] {
        assert!(matches!(decode(bytes), Err(DecodeError::UnknownValue { .. })));
    }
    let data = all([len(1, region_bytes()), num(4, 2)]);
    assert_eq!(
        decode_snapshot_data(&data.into()),
        Err(DecodeError::UnknownValue { what: "snapshot data version", value: 2 })
    );
}

#[test]
fn regions_with_zero_ids_are_refused() {
    let no_id = len(2, "b");
    let zero_peer = all([num(1, 1), len(5, num(2, 4))]);
    let zero_store = all([num(1, 1), len(5, num(1, 4))]);
    for bytes in [no_id, zero_peer, zero_store] {
        assert!(matches!(decode_region(&bytes.into()), Err(DecodeError::ZeroId { .. })));
    }
}

#[test]
fn local_messages_are_known_by_their_kind() {
    let local: Vec<_> =
        MessageKind::ALL.iter().filter(|kind| kind.is_local()).map(|kind| kind.name()).collect();
    assert_eq!(local, ["hup", "beat", "unreachable", "snap_status", "check_quorum"]);
}
