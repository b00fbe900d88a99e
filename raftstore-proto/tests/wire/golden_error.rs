//! Region errors.

use raftstore_proto::{
    BusyReason, Epoch, PeerId, Region, RegionError, RegionId, Response, StoreId,
    wire::{decode_response, encode_response},
};

use crate::bytes_of::{all, bytes, len, num, peer, peer_bytes, region, region_bytes};

const REGION: RegionId = RegionId::must(9);

/// RaftCmdResponse.header 1, RaftResponseHeader.error 1, errorpb.Error.message 1
fn response(message: &str, detail: Vec<u8>) -> Vec<u8> {
    len(1, len(1, all([len(1, message), detail])))
}

#[track_caller]
fn golden(error: RegionError, detail: Vec<u8>) {
    let expected = response(&error.to_string(), detail);
    let answer = Response::error(0, error);
    assert_eq!(encode_response(&answer), expected);
    assert_eq!(decode_response(&expected.into()), Ok(answer));
}

#[test]
fn errors_with_fields() {
    golden(
        RegionError::NotLeader { region: REGION, leader: Some(peer(1, 2)) },
        len(2, all([num(1, 9), len(2, peer_bytes(1, 2))])),
    );
    golden(RegionError::NotLeader { region: REGION, leader: None }, len(2, num(1, 9)));
    golden(RegionError::RegionNotFound { region: REGION }, len(3, num(1, 9)));
    golden(
        RegionError::EpochNotMatch { current: vec![region(), region()] },
        len(5, all([len(1, region_bytes()), len(1, region_bytes())])),
    );
    golden(RegionError::EpochNotMatch { current: Vec::new() }, len(5, ""));
    golden(
        RegionError::ServerIsBusy { reason: BusyReason::Apply, backoff_ms: 30 },
        len(6, all([len(1, "apply is behind"), num(2, 30)])),
    );
    golden(
        RegionError::DiskFull { stores: vec![StoreId::must(3), StoreId::must(4)] },
        len(15, all([len(1, [3, 4]), len(2, "2 of the region's stores are short of space")])),
    );
    golden(RegionError::StaleCommand, len(7, ""));
    golden(
        RegionError::StoreNotMatch { asked: StoreId::must(1), here: StoreId::must(2) },
        len(8, all([num(1, 1), num(2, 2)])),
    );
    golden(
        RegionError::EntryTooLarge { region: REGION, size_bytes: 300, max_bytes: 200 },
        len(9, all([num(1, 9), num(2, 300), num(1000, 200)])),
    );
    golden(RegionError::ReadNotReady, len(11, len(1, "read cannot be served now")));
    golden(RegionError::RegionNotInitialized { region: REGION }, len(14, num(1, 9)));
    golden(
        RegionError::PeerNotMatch { asked: PeerId::must(1), here: PeerId::must(2) },
        len(20, all([num(1, 1), num(2, 2)])),
    );
}

#[test]
fn key_not_in_region_keeps_id_and_range() {
    let error = RegionError::KeyNotInRegion { key: bytes("z"), region: region() };
    let detail = len(4, all([len(1, "z"), num(2, 300), len(3, "b"), len(4, "m")]));
    let expected = response(&error.to_string(), detail);
    assert_eq!(encode_response(&Response::error(0, error)), expected);
    let bare = Region { epoch: Epoch::default(), peers: Vec::new(), ..region() };
    assert_eq!(
        decode_response(&expected.into()).unwrap().body,
        Err(RegionError::KeyNotInRegion { key: bytes("z"), region: bare })
    );
}

#[test]
fn errors_in_words_come_back_in_words() {
    for error in [
        RegionError::MissingEpoch,
        RegionError::InvalidCommand { why: "mixed" },
        RegionError::ConfChangePending,
        RegionError::ConfChangeUnsafe { why: "last voter" },
        RegionError::ConfChangeRejected { why: "no such peer" },
        RegionError::NotReady,
        RegionError::Stopping,
        RegionError::PlacementUnavailable,
        RegionError::Refused { by: "row-splits", why: "no need".to_owned() },
        RegionError::Unsupported { what: "region merge" },
    ] {
        let message = error.to_string();
        let expected = response(&message, Vec::new());
        assert_eq!(encode_response(&Response::error(0, error)), expected);
        assert_eq!(
            decode_response(&expected.into()).unwrap().body,
            Err(RegionError::Remote { message })
        );
    }
}

#[test]
fn words_do_not_grow_on_their_way() {
    let error = RegionError::Remote { message: "disk full".to_owned() };
    let bytes = encode_response(&Response::error(0, error.clone()));
    assert_eq!(decode_response(&bytes.into()).unwrap().body, Err(error));
}

#[test]
fn foreign_errors_become_the_nearest() {
    let remote = |message: &str| RegionError::Remote { message: message.to_owned() };
    let error = |bytes: Vec<u8>| decode_response(&bytes.into()).unwrap().body.unwrap_err();
    // Repeated numbers come packed or not.
    let full = RegionError::DiskFull { stores: vec![StoreId::must(3)] };
    assert_eq!(error(response("no space", len(15, num(1, 3)))), full);
    assert_eq!(error(response("no space", len(15, num(1, 0)))), remote("no space"));
    // A detail with an id of 0 is worth no more than its text.
    assert_eq!(error(response("where?", len(3, ""))), remote("where?"));
    assert_eq!(
        error(response("", len(6, all([len(1, "scheduler is busy"), num(2, 5)])))),
        RegionError::ServerIsBusy { reason: BusyReason::Queue, backoff_ms: 5 }
    );
}
