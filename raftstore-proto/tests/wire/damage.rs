//! Damaged records give an error, never another value; damaged wire forms never a panic.

use bytes::Bytes;
use proptest::prelude::*;
use raft_proto::eraftpb;
use raftstore_proto::{
    Entry, EntryFlags, RaftMessage, RegionId,
    guard::Limits,
    wire::{
        decode_command, decode_region, decode_response, decode_snapshot_data, encode_command,
        encode_response,
        record::{
            decode_apply_state, decode_entry, decode_local_state, decode_region_state,
            encode_apply_state, encode_entry, encode_local_state, encode_region_state,
        },
    },
};

use crate::strategies::{
    apply_state, command, entry, local_state, message, region_id, region_state, response,
};

/// Calls `damaged` with each copy of `record` that has one bit flipped, or is cut short.
fn for_each_damage(record: &[u8], mut damaged: impl FnMut(Vec<u8>)) {
    for bit in 0..record.len() * 8 {
        let mut copy = record.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        damaged(copy);
    }
    for end in 0..record.len() {
        damaged(record[..end].to_vec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_flipped_bit_of_a_record_gives_another_value(
        region in region_id(),
        local in local_state(),
        apply in apply_state(),
        state in region_state(),
        entry in entry(),
    ) {
        for_each_damage(&encode_local_state(region, &local), |record| {
            assert!(decode_local_state(region, &record).is_err());
        });
        for_each_damage(&encode_apply_state(region, &apply), |record| {
            assert!(decode_apply_state(region, &record).is_err());
        });
        let own = state.region.id;
        for_each_damage(&encode_region_state(own, &state), |record| {
            assert!(decode_region_state(own, &record).is_err());
        });
        for_each_damage(&encode_entry(region, &entry), |record| {
            assert!(decode_entry(region, record.into()).is_err());
        });
    }

    #[test]
    fn no_flipped_bit_of_a_message_in_flight_changes_an_entry(
        region in region_id(),
        index: u64,
        term: u64,
        data in prop::collection::vec(any::<u8>(), 1..60),
        split: bool,
    ) {
        let flags = EntryFlags { split, ..EntryFlags::NONE };
        let mut inner = eraftpb::Entry::new();
        inner.index = index;
        inner.term = term;
        inner.context = Entry::context_for(region, index, term, flags, &data).into();
        inner.data = data.into();
        let mut raft = eraftpb::Message::new();
        raft.entries.push(inner.clone());
        let mut message = RaftMessage::default();
        *message.raft_mut() = raft;
        for_each_damage(&message.encode(), |bytes| {
            let Ok(message) = RaftMessage::decode(bytes.into(), &Limits::default()) else {
                return;
            };
            for found in message.into_raft().take_entries() {
                let found = Entry::from_raft(found);
                // Without payload and context it is one of raft's own, or cut to look so.
                if found.payload_len() > 0 && found.verify(region).is_ok() {
                    assert_same(&found, &inner);
                }
            }
        });
    }

    #[test]
    fn damaged_wire_forms_never_panic(
        message in message(),
        command in command(),
        response in response(),
        region in region_id(),
    ) {
        for bytes in [message.encode(), encode_command(&command), encode_response(&response)] {
            for_each_damage(&bytes[..bytes.len().min(300)], |bytes| decode_all(region, bytes));
        }
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        region in region_id(),
    ) {
        decode_all(region, bytes);
    }
}

/// Position, kind and payload; unknown fields beside them do no harm.
fn assert_same(found: &Entry, original: &eraftpb::Entry) {
    assert_eq!(found.index(), original.index);
    assert_eq!(found.term(), original.term);
    assert_eq!(found.data(), &original.data);
    assert_eq!(found.as_raft().entry_type, original.entry_type);
}

/// Every decoder there is. What it gives back does not matter here.
fn decode_all(region: RegionId, bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    drop(RaftMessage::decode(bytes.clone(), &Limits::default()));
    drop(decode_command(&bytes));
    drop(decode_response(&bytes));
    drop(decode_region(&bytes));
    drop(decode_snapshot_data(&bytes));
    drop(decode_local_state(region, &bytes));
    drop(decode_region_state(region, &bytes));
    drop(decode_entry(region, bytes));
}
