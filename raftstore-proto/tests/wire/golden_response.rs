//! Answers.

use raftstore_proto::{
    AdminResponse, DecodeError, OperationResponse, RegionError, Response, ResponseBody,
    StatusResponse,
    wire::{decode_response, encode_response},
};

use crate::bytes_of::{all, bytes, len, num, peer, peer_bytes, region, region_bytes};

/// RaftResponseHeader.current_term 3
fn header() -> Vec<u8> {
    len(1, num(3, 6))
}

#[track_caller]
fn golden(body: ResponseBody, content: Vec<u8>) {
    let expected = all([header(), content]);
    let response = Response::ok(6, body);
    assert_eq!(encode_response(&response), expected);
    assert_eq!(decode_response(&expected.into()), Ok(response));
}

#[test]
fn operations() {
    // RaftCmdResponse.responses 2; Response: cmd_type 1, get 2, put 4, delete 5, snap 6,
    // delete_range 8
    golden(
        ResponseBody::Operations(vec![
            OperationResponse::Get(Some(bytes("v"))),
            OperationResponse::Get(None),
            OperationResponse::Put,
            OperationResponse::Delete,
            OperationResponse::DeleteRange,
            OperationResponse::Snap(region()),
        ]),
        all([
            len(2, all([num(1, 1), len(2, len(1, "v"))])),
            len(2, all([num(1, 1), len(2, "")])),
            len(2, all([num(1, 3), len(4, "")])),
            len(2, all([num(1, 4), len(5, "")])),
            len(2, all([num(1, 7), len(8, "")])),
            len(2, all([num(1, 5), len(6, len(1, region_bytes()))])),
        ]),
    );
}

#[test]
fn empty_value_is_not_an_absent_one() {
    // our own GetResponse.has_empty_value 1000
    golden(
        ResponseBody::Operations(vec![OperationResponse::Get(Some(bytes("")))]),
        len(2, all([num(1, 1), len(2, num(1000, 1))])),
    );
}

#[test]
fn what_a_conditional_write_found() {
    // our own Response.compare_and_swap 1000; CompareAndSwapResponse: swapped 1, previous 2,
    // held_nothing 3
    let found = |swapped, previous| {
        ResponseBody::Operations(vec![OperationResponse::CompareAndSwap { swapped, previous }])
    };
    let content = |fields| len(2, all([num(1, 1000), len(1000, fields)]));
    golden(found(true, Some(bytes("v"))), content(all([num(1, 1), len(2, "v")])));
    golden(found(false, Some(bytes(""))), content(Vec::new()));
    golden(found(false, None), content(num(3, 1)));
}

#[test]
fn admin() {
    // RaftCmdResponse.admin_response 3
    let admin =
        |cmd_type, field, content: Vec<u8>| len(3, all([num(1, cmd_type), len(field, content)]));
    golden(
        ResponseBody::Admin(AdminResponse::ChangePeer(region())),
        admin(1, 2, len(1, region_bytes())),
    );
    golden(
        ResponseBody::Admin(AdminResponse::Split(vec![region(), region()])),
        admin(10, 10, all([len(1, region_bytes()), len(1, region_bytes())])),
    );
    golden(ResponseBody::Admin(AdminResponse::CompactLog), admin(3, 4, Vec::new()));
    golden(ResponseBody::Admin(AdminResponse::TransferLeader), admin(4, 5, Vec::new()));
    golden(ResponseBody::Admin(AdminResponse::ComputeHash), len(3, num(1, 5)));
    golden(ResponseBody::Admin(AdminResponse::VerifyHash), admin(6, 6, Vec::new()));

    let decode = |content: Vec<u8>| decode_response(&all([header(), content]).into());
    let left_and_right = all([len(1, region_bytes()), len(2, region_bytes())]);
    assert_eq!(
        decode(admin(2, 3, left_and_right)).unwrap().body,
        Ok(ResponseBody::Admin(AdminResponse::Split(vec![region(), region()])))
    );
    assert_eq!(
        decode(admin(11, 11, len(1, region_bytes()))).unwrap().body,
        Ok(ResponseBody::Admin(AdminResponse::ChangePeer(region())))
    );
}

#[test]
fn status() {
    // RaftCmdResponse.status_response 4
    golden(
        ResponseBody::Status(StatusResponse::RegionLeader(Some(peer(1, 2)))),
        len(4, all([num(1, 1), len(2, len(1, peer_bytes(1, 2)))])),
    );
    golden(
        ResponseBody::Status(StatusResponse::RegionLeader(None)),
        len(4, all([num(1, 1), len(2, "")])),
    );
    golden(
        ResponseBody::Status(StatusResponse::RegionDetail(region(), Some(peer(1, 2)))),
        len(4, all([num(1, 2), len(3, all([len(1, region_bytes()), len(2, peer_bytes(1, 2))]))])),
    );
}

#[test]
fn unknown_types_are_refused() {
    for (content, value) in [
        (len(2, num(1, 9)), 9),
        (len(3, num(1, 8)), 8),
        (len(3, num(1, 12)), 12),
        (len(4, num(1, 3)), 3),
        (len(2, ""), 0),
    ] {
        let decoded = decode_response(&all([header(), content]).into());
        assert!(
            matches!(decoded, Err(DecodeError::UnknownValue { value: found, .. }) if found == value),
            "{decoded:?}"
        );
    }
    let no_region = all([header(), len(2, all([num(1, 5), len(6, "")]))]);
    assert!(matches!(decode_response(&no_region.into()), Err(DecodeError::Missing { .. })));
}

#[test]
fn term_goes_with_errors_too() {
    let response = Response::error(6, RegionError::StaleCommand);
    let expected = len(1, all([len(1, all([len(1, "stale command"), len(7, "")])), num(3, 6)]));
    assert_eq!(encode_response(&response), expected);
    assert_eq!(decode_response(&expected.into()), Ok(response));
}
