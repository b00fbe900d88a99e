//! What goes out comes back.

use bytes::Bytes;
use proptest::prelude::*;
use raftstore_proto::{
    ClusterId, RaftMessage, StoreId, StoreIdent,
    guard::Limits,
    wire::{
        decode_command, decode_region, decode_response, decode_snapshot_data, encode_command,
        encode_region, encode_response, encode_snapshot_data,
        record::{
            decode_apply_state, decode_entry, decode_local_state, decode_region_state,
            decode_store_ident, encode_apply_state, encode_entry, encode_local_state,
            encode_region_state, encode_store_ident,
        },
    },
};

use crate::strategies::{
    apply_state, command, entry, id, local_state, message, region, region_id, region_state,
    response,
};

proptest! {
    #[test]
    fn messages(message in message()) {
        let bytes = message.encode();
        prop_assert!(message.encoded_len_hint() + 200 > bytes.len());
        prop_assert_eq!(RaftMessage::decode(bytes.into(), &Limits::default()), Ok(message));
    }

    #[test]
    fn commands(command in command()) {
        let bytes = encode_command(&command);
        prop_assert_eq!(bytes.len(), bytes.capacity());
        prop_assert_eq!(decode_command(&bytes.into()), Ok(command));
    }

    #[test]
    fn responses(response in response()) {
        prop_assert_eq!(decode_response(&encode_response(&response).into()), Ok(response));
    }

    #[test]
    fn regions(region in region(), size_bytes: u64) {
        prop_assert_eq!(decode_region(&encode_region(&region).into()), Ok(region.clone()));
        let data = encode_snapshot_data(&region, size_bytes);
        prop_assert_eq!(decode_snapshot_data(&data), Ok((region, size_bytes)));
    }

    #[test]
    fn records(
        region in region_id(),
        cluster in id(),
        store in id(),
        local in local_state(),
        apply in apply_state(),
        state in region_state(),
        entry in entry(),
    ) {
        let ident =
            StoreIdent { cluster: ClusterId::must(cluster), store: StoreId::must(store) };
        prop_assert_eq!(decode_store_ident(&encode_store_ident(&ident)), Ok(ident));
        prop_assert_eq!(decode_local_state(region, &encode_local_state(region, &local)), Ok(local));
        prop_assert_eq!(decode_apply_state(region, &encode_apply_state(region, &apply)), Ok(apply));
        let own = state.region.id;
        prop_assert_eq!(decode_region_state(own, &encode_region_state(own, &state)), Ok(state));
        let record = Bytes::from(encode_entry(region, &entry));
        prop_assert_eq!(decode_entry(region, record), Ok(entry));
    }
}
