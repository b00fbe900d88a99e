//! Records on disk.

use bytes::Bytes;
use raft_proto::eraftpb;
use raftstore_proto::{
    ApplyState, ClusterId, DecodeError, Entry, HardState, LocalState, PeerId, RegionId,
    RegionPhase, RegionState, StoreId, StoreIdent, Truncated,
    wire::record::{
        decode_apply_state, decode_entry, decode_local_state, decode_region_state,
        decode_store_ident, encode_apply_state, encode_entry, encode_local_state,
        encode_region_state, encode_store_ident,
    },
};

use crate::bytes_of::{all, bytes, len, num, region, region_bytes};

const REGION: RegionId = RegionId::must(300);

/// The message, and the checksum over kind, region and message.
fn sealed(kind: u8, region: u64, message: Vec<u8>) -> Vec<u8> {
    let covered = [&[kind][..], &region.to_be_bytes(), &message].concat();
    [&message[..], &crc32c::crc32c(&covered).to_be_bytes()].concat()
}

#[test]
fn store_ident() {
    let ident = StoreIdent { cluster: ClusterId::must(77), store: StoreId::must(3) };
    // cluster_id 1, store_id 2
    let expected = sealed(1, 0, all([num(1, 77), num(2, 3)]));
    assert_eq!(encode_store_ident(&ident), expected);
    assert_eq!(decode_store_ident(&expected), Ok(ident));
}

#[test]
fn local_state() {
    let state = LocalState {
        peer: PeerId::must(8),
        hard_state: HardState { term: 5, vote: 2, commit: 60 },
        last_index: 70,
    };
    // hard_state 1 (term 1, vote 2, commit 3), last_index 2, our own peer_id 1000
    let hard_state = all([num(1, 5), num(2, 2), num(3, 60)]);
    let expected = sealed(2, 300, all([len(1, hard_state), num(2, 70), num(1000, 8)]));
    assert_eq!(encode_local_state(REGION, &state), expected);
    assert_eq!(decode_local_state(REGION, &expected), Ok(state));
}

#[test]
fn apply_state() {
    let state =
        ApplyState { applied: 70, applied_term: 6, truncated: Truncated { index: 60, term: 5 } };
    // applied_index 1, truncated_state 2 (index 1, term 2), our own applied_term 1000
    let truncated = all([num(1, 60), num(2, 5)]);
    let expected = sealed(3, 300, all([num(1, 70), len(2, truncated), num(1000, 6)]));
    assert_eq!(encode_apply_state(REGION, &state), expected);
    assert_eq!(decode_apply_state(REGION, &expected), Ok(state));
}

#[test]
fn region_state() {
    // state 1, region 2; Quarantined is our own 1000
    for (phase, number) in [
        (RegionPhase::Applying, 1),
        (RegionPhase::Tombstone, 2),
        (RegionPhase::Merging, 3),
        (RegionPhase::Quarantined, 1000),
    ] {
        let state = RegionState { phase, region: region() };
        let expected = sealed(4, 300, all([num(1, number), len(2, region_bytes())]));
        assert_eq!(encode_region_state(REGION, &state), expected);
        assert_eq!(decode_region_state(REGION, &expected), Ok(state));
    }
    let normal = RegionState { phase: RegionPhase::Normal, region: region() };
    let expected = sealed(4, 300, len(2, region_bytes()));
    assert_eq!(encode_region_state(REGION, &normal), expected);
    assert_eq!(decode_region_state(REGION, &expected), Ok(normal));
}

/// The state of a merge has its place, and never passes for a region that serves.
#[test]
fn state_of_a_merge() {
    // merge_state 3 (min_index 1, target 2, commit 3)
    let merge = len(3, all([num(1, 60), len(2, region_bytes()), num(3, 70)]));
    let record =
        |phase: Vec<u8>| sealed(4, 300, all([phase, len(2, region_bytes()), merge.clone()]));
    for (phase, number) in [(RegionPhase::Merging, 3), (RegionPhase::Tombstone, 2)] {
        let decoded = decode_region_state(REGION, &record(num(1, number)));
        assert_eq!(decoded, Ok(RegionState { phase, region: region() }));
    }
    for phase in [Vec::new(), num(1, 1), num(1, 1000)] {
        let decoded = decode_region_state(REGION, &record(phase));
        assert!(matches!(decoded, Err(DecodeError::Malformed { .. })), "{decoded:?}");
    }
}

#[test]
fn entry() {
    let mut raft = eraftpb::Entry::new();
    raft.entry_type = eraftpb::EntryType::EntryConfChange;
    raft.term = 6;
    raft.index = 71;
    raft.data = bytes("data");
    raft.context = bytes("12345");
    let entry = Entry::from_raft(raft);
    let message = all([num(1, 1), num(2, 6), num(3, 71), len(4, "data"), len(6, "12345")]);
    let expected = sealed(5, 300, message);
    assert_eq!(encode_entry(REGION, &entry), expected);
    let record = Bytes::from(expected);
    let back = decode_entry(REGION, record.clone()).unwrap();
    assert_eq!(back, entry);
    assert!(record.as_ptr_range().contains(&back.data().as_ptr()));
}

/// W14: an entry without payload is protected too.
#[test]
fn w14_empty_entry_is_covered() {
    let mut raft = eraftpb::Entry::new();
    raft.term = 6;
    raft.index = 71;
    let record = encode_entry(REGION, &Entry::from_raft(raft));
    assert_eq!(record, sealed(5, 300, all([num(2, 6), num(3, 71)])));
    let damaged = sealed(5, 300, all([num(2, 7), num(3, 71)]));
    let mixed = [&damaged[..4], &record[4..]].concat();
    assert_eq!(
        decode_entry(REGION, mixed.into()),
        Err(DecodeError::Checksum { what: "log entry" })
    );
}

#[test]
fn records_are_bound_to_kind_and_region() {
    let state = ApplyState { applied: 1, ..ApplyState::default() };
    let record = encode_apply_state(REGION, &state);
    assert!(decode_apply_state(RegionId::must(301), &record).is_err());
    assert!(matches!(decode_region_state(REGION, &record), Err(DecodeError::Checksum { .. })));
    assert!(matches!(decode_local_state(REGION, &record), Err(DecodeError::Checksum { .. })));
    assert!(matches!(decode_entry(REGION, record.into()), Err(DecodeError::Checksum { .. })));
}

#[test]
fn numbers_of_later_versions_are_errors_not_defaults() {
    let unknown = |result| matches!(result, Err(DecodeError::UnknownValue { .. }));
    // Unavailable 4
    let phase = sealed(4, 300, all([num(1, 4), len(2, region_bytes())]));
    assert!(unknown(decode_region_state(REGION, &phase).map(drop)));
    let role = all([num(1, 300), len(5, all([num(1, 1), num(2, 1), num(3, 9)]))]);
    let role = sealed(4, 300, len(2, role));
    assert!(unknown(decode_region_state(REGION, &role).map(drop)));
    let entry_type = sealed(5, 300, num(1, 3));
    assert!(matches!(decode_entry(REGION, entry_type.into()), Err(DecodeError::Malformed { .. })));
}

#[test]
fn incomplete_records_are_errors() {
    let missing = |result| matches!(result, Err(DecodeError::Missing { .. }));
    assert!(missing(decode_local_state(REGION, &sealed(2, 300, num(1000, 8))).map(drop)));
    assert!(missing(decode_apply_state(REGION, &sealed(3, 300, num(1, 8))).map(drop)));
    assert!(missing(decode_region_state(REGION, &sealed(4, 300, num(1, 2))).map(drop)));
    let other_region = sealed(4, 301, len(2, region_bytes()));
    assert!(matches!(
        decode_region_state(RegionId::must(301), &other_region),
        Err(DecodeError::Malformed { .. })
    ));
    for short in 0..4 {
        assert!(decode_store_ident(&vec![0; short]).is_err());
    }
}
