//! Commands.

use bytes::Bytes;
use raftstore_proto::{
    AdminCommand, Body, Cf, ChangeKind, Command, CompareAndSwap, DecodeError, Epoch, Header,
    Operation, PeerChange, PeerId, RegionId, SplitRequest, StatusCommand,
    wire::{decode_command, encode_command},
};

use crate::bytes_of::{all, bytes, len, num, peer, peer_bytes};

fn command(body: Body) -> Command {
    Command {
        header: Header {
            region: RegionId::must(9),
            peer: peer(1, 2),
            epoch: Some(Epoch { conf_ver: 3, version: 4 }),
            term: 5,
            read_quorum: true,
            replica_read: true,
        },
        body,
    }
}

/// RaftRequestHeader: region_id 1, peer 2, read_quorum 3, region_epoch 5, term 6,
/// replica_read 8
fn header() -> Vec<u8> {
    let epoch = all([num(1, 3), num(2, 4)]);
    let peer = peer_bytes(1, 2);
    len(1, all([num(1, 9), len(2, peer), num(3, 1), len(5, epoch), num(6, 5), num(8, 1)]))
}

#[track_caller]
fn golden(body: Body, content: Vec<u8>) {
    let expected = all([header(), content]);
    let command = command(body);
    assert_eq!(encode_command(&command), expected);
    assert_eq!(decode_command(&expected.into()), Ok(command));
}

fn decode_body(content: Vec<u8>) -> Result<Body, DecodeError> {
    decode_command(&all([header(), content]).into()).map(|command| command.body)
}

#[test]
fn operations() {
    // RaftCmdRequest.requests 2; Request: cmd_type 1, get 2, put 4, delete 5, snap 6,
    // delete_range 8
    golden(
        Body::Operations(vec![
            Operation::Get { cf: Cf::Default, key: bytes("k") },
            Operation::Put { cf: Cf::Lock, key: bytes("k"), value: bytes("v") },
            Operation::Delete { cf: Cf::Write, key: bytes("k") },
            Operation::DeleteRange { cf: Cf::Default, start_key: bytes("a"), end_key: bytes("b") },
            Operation::Snap,
            Operation::Invalid { cmd_type: 9 },
        ]),
        all([
            len(2, all([num(1, 1), len(2, len(2, "k"))])),
            len(2, all([num(1, 3), len(4, all([len(1, "lock"), len(2, "k"), len(3, "v")]))])),
            len(2, all([num(1, 4), len(5, all([len(1, "write"), len(2, "k")]))])),
            len(2, all([num(1, 7), len(8, all([len(2, "a"), len(3, "b")]))])),
            len(2, all([num(1, 5), len(6, "")])),
            len(2, num(1, 9)),
        ]),
    );
    golden(Body::Operations(Vec::new()), Vec::new());
}

#[test]
fn conditional_writes() {
    // our own Request.compare_and_swap 1000; CompareAndSwapRequest: cf 1, key 2, expected 3,
    // new_value 4, expects_nothing 5, removes 6
    let swap = |expected, new| {
        let swap = CompareAndSwap { cf: Cf::Default, key: bytes("k"), expected, new };
        Body::Operations(vec![Operation::CompareAndSwap(Box::new(swap))])
    };
    let content = |fields| len(2, all([num(1, 1000), len(1000, fields)]));
    golden(
        swap(Some(bytes("a")), Some(bytes("b"))),
        content(all([len(2, "k"), len(3, "a"), len(4, "b")])),
    );
    // What is empty and what is nothing are two things.
    golden(swap(Some(bytes("")), Some(bytes(""))), content(len(2, "k")));
    golden(swap(None, None), content(all([len(2, "k"), num(5, 1), num(6, 1)])));
}

#[test]
fn put_spelled_out() {
    let command = Command {
        header: Header {
            region: RegionId::must(1),
            peer: peer(2, 3),
            epoch: None,
            term: 0,
            read_quorum: false,
            replica_read: false,
        },
        body: Body::Operations(vec![Operation::Put {
            cf: Cf::Default,
            key: bytes("k"),
            value: bytes("v"),
        }]),
    };
    let expected = [
        0x0a, 0x08, 0x08, 0x01, 0x12, 0x04, 0x08, 0x02, 0x10, 0x03, // header
        0x12, 0x0a, 0x08, 0x03, 0x22, 0x06, 0x12, 0x01, b'k', 0x1a, 0x01, b'v',
    ];
    assert_eq!(encode_command(&command), expected);
    assert_eq!(decode_command(&Bytes::copy_from_slice(&expected)), Ok(command));
}

#[test]
fn admin() {
    // RaftCmdRequest.admin_request 3; AdminRequest.cmd_type 1
    let change = |kind, id| PeerChange { kind, peer: peer(id, id) };
    let admin =
        |cmd_type, field, content: Vec<u8>| len(3, all([num(1, cmd_type), len(field, content)]));
    // ChangePeerRequest: change_type 1, peer 2
    golden(
        Body::Admin(AdminCommand::ChangePeer(change(ChangeKind::RemoveNode, 7))),
        admin(1, 2, all([num(1, 1), len(2, peer_bytes(7, 7))])),
    );
    golden(
        Body::Admin(AdminCommand::ChangePeerV2(vec![
            change(ChangeKind::AddNode, 7),
            change(ChangeKind::AddLearner, 8),
        ])),
        admin(
            11,
            11,
            all([
                len(1, len(2, peer_bytes(7, 7))),
                len(1, all([num(1, 2), len(2, peer_bytes(8, 8))])),
            ]),
        ),
    );
    golden(
        Body::Admin(AdminCommand::CompactLog { index: 200, term: 6 }),
        admin(3, 4, all([num(1, 200), num(2, 6)])),
    );
    golden(
        Body::Admin(AdminCommand::TransferLeader(peer(7, 8))),
        admin(4, 5, len(1, peer_bytes(7, 8))),
    );
    golden(Body::Admin(AdminCommand::ComputeHash), admin(5, 12, Vec::new()));
    golden(
        Body::Admin(AdminCommand::VerifyHash { index: 200, hash: bytes("h") }),
        admin(6, 6, all([num(1, 200), len(2, "h")])),
    );
    golden(Body::Admin(AdminCommand::Invalid { cmd_type: 8 }), len(3, num(1, 8)));
}

/// Merges are known by number, whatever they hold, so that they are refused by name.
#[test]
fn merges_are_told_from_what_is_unknown() {
    let region = all([num(1, 40), len(2, "a"), len(3, "b")]);
    // PrepareMerge 7 (min_index 1, target 2), CommitMerge 8 (source 1, commit 2, entries 3),
    // RollbackMerge 9 (commit 1)
    let prepare = all([num(1, 7), len(7, all([num(1, 60), len(2, region.clone())]))]);
    let entry = len(3, all([num(2, 6), num(3, 61), len(4, "data")]));
    let commit = all([num(1, 8), len(8, all([len(1, region), num(2, 70), entry]))]);
    let rollback = all([num(1, 9), len(9, num(1, 70))]);
    for (cmd_type, content) in [(7, prepare), (8, commit), (9, rollback)] {
        let Ok(Body::Admin(admin)) = decode_body(len(3, content)) else {
            panic!("an admin command expected");
        };
        assert_eq!(admin, AdminCommand::Invalid { cmd_type });
        assert!(admin.is_merge());
    }
    for cmd_type in [0, 6, 10, 77] {
        assert!(!AdminCommand::Invalid { cmd_type }.is_merge());
    }
}

fn cut(key: &'static str) -> SplitRequest {
    SplitRequest {
        key: bytes(key),
        new_region: RegionId::must(40),
        new_peers: vec![PeerId::must(41), PeerId::must(300)],
    }
}

#[test]
fn splits() {
    // SplitRequest: split_key 1, new_region_id 2, new_peer_ids 3, right_derive 4;
    // BatchSplitRequest: requests 1, right_derive 2
    let packed = |key| all([len(1, key), num(2, 40), len(3, [41, 0xac, 0x02])]);
    golden(
        Body::Admin(AdminCommand::BatchSplit {
            requests: vec![cut("k"), cut("m")],
            right_derive: true,
        }),
        len(
            3,
            all([num(1, 10), len(10, all([len(1, packed("k")), len(1, packed("m")), num(2, 1)]))]),
        ),
    );
    let one_by_one = all([len(1, "k"), num(2, 40), num(3, 41), num(3, 300), num(4, 1)]);
    assert_eq!(
        decode_body(len(3, all([num(1, 2), len(3, one_by_one)]))),
        Ok(Body::Admin(AdminCommand::BatchSplit { requests: vec![cut("k")], right_derive: true }))
    );
}

#[test]
fn status() {
    // RaftCmdRequest.status_request 4; StatusRequest: cmd_type 1, region_leader 2,
    // region_detail 3
    golden(Body::Status(StatusCommand::RegionLeader), len(4, all([num(1, 1), len(2, "")])));
    golden(Body::Status(StatusCommand::RegionDetail), len(4, all([num(1, 2), len(3, "")])));
    golden(Body::Status(StatusCommand::Invalid), len(4, ""));
}

#[test]
fn what_is_not_understood_is_named() {
    // Prewrite 6 and IngestSST 8 exist, but not here.
    for cmd_type in [0_i32, 2, 6, 8, 77] {
        assert_eq!(
            decode_body(len(2, num(1, cmd_type.unsigned_abs().into()))),
            Ok(Body::Operations(vec![Operation::Invalid { cmd_type }]))
        );
    }
    for cmd_type in [0_i32, 7, 9, 15, 77] {
        assert_eq!(
            decode_body(len(3, num(1, cmd_type.unsigned_abs().into()))),
            Ok(Body::Admin(AdminCommand::Invalid { cmd_type }))
        );
    }
    // -1, sign extended
    assert_eq!(
        decode_body(len(2, num(1, u64::MAX))),
        Ok(Body::Operations(vec![Operation::Invalid { cmd_type: -1 }]))
    );
    // custom_request 5 is content too: without it the command would look empty.
    assert_eq!(
        decode_body(len(5, "")),
        Err(DecodeError::UnknownValue { what: "command content", value: 5 })
    );
}

#[test]
fn families_that_are_not_for_clients_are_refused() {
    let get = |cf: &str| len(2, all([num(1, 1), len(2, all([len(1, cf), len(2, "k")]))]));
    for (name, cf) in [("default", Cf::Default), ("lock", Cf::Lock), ("write", Cf::Write)] {
        assert_eq!(
            decode_body(get(name)),
            Ok(Body::Operations(vec![Operation::Get { cf, key: bytes("k") }]))
        );
    }
    for name in ["raft", "Default", "x"] {
        assert_eq!(
            decode_body(get(name)),
            Err(DecodeError::UnknownColumnFamily { name: name.to_owned() })
        );
    }
    let long = "x".repeat(1000);
    assert_eq!(
        decode_body(get(&long)),
        Err(DecodeError::UnknownColumnFamily { name: "x".repeat(64) })
    );
}

#[test]
fn incomplete_commands_are_refused() {
    let missing = |result| matches!(result, Err(DecodeError::Missing { .. }));
    assert!(missing(decode_command(&Bytes::new()).map(|command| command.body)));
    assert!(missing(decode_command(&len(1, num(1, 9)).into()).map(|command| command.body)));
    for cmd_type in [1, 3, 4, 7] {
        assert!(missing(decode_body(len(2, num(1, cmd_type)))), "{cmd_type}");
    }
    for cmd_type in [1, 2, 3, 4, 6, 10, 11] {
        assert!(missing(decode_body(len(3, num(1, cmd_type)))), "{cmd_type}");
    }
    let no_region = len(1, len(2, peer_bytes(1, 2)));
    assert!(matches!(decode_command(&no_region.into()), Err(DecodeError::ZeroId { .. })));
    let two_kinds = all([len(2, all([num(1, 5), len(6, "")])), len(4, num(1, 1))]);
    assert!(matches!(decode_body(two_kinds), Err(DecodeError::Malformed { .. })));
    let unknown_change =
        len(3, all([num(1, 1), len(2, all([num(1, 3), len(2, peer_bytes(7, 7))]))]));
    assert!(matches!(decode_body(unknown_change), Err(DecodeError::UnknownValue { .. })));
}

#[test]
fn payloads_are_slices_of_the_input() {
    let body = Body::Operations(vec![Operation::Put {
        cf: Cf::Default,
        key: vec![1; 100].into(),
        value: vec![2; 1000].into(),
    }]);
    let encoded = Bytes::from(encode_command(&command(body)));
    let range = encoded.as_ptr_range();
    let Body::Operations(operations) = decode_command(&encoded).unwrap().body else {
        panic!("operations expected");
    };
    let Operation::Put { key, value, .. } = &operations[0] else {
        panic!("put expected");
    };
    assert!(range.contains(&key.as_ptr()) && range.contains(&value.as_ptr()));
}
