//! Records on disk: what decodes was sealed with its checksum, and encodes to a record that
//! decodes to the same value.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use raftstore_proto::{
    RegionId,
    wire::record::{
        decode_apply_state, decode_entry, decode_local_state, decode_region_state,
        decode_store_ident, encode_apply_state, encode_entry, encode_local_state,
        encode_region_state, encode_store_ident,
    },
};

const REGION: RegionId = RegionId::must(1);

fuzz_target!(|data: &[u8]| {
    if let Ok(ident) = decode_store_ident(data) {
        assert_eq!(decode_store_ident(&encode_store_ident(&ident)), Ok(ident));
    }
    if let Ok(state) = decode_local_state(REGION, data) {
        assert_eq!(decode_local_state(REGION, &encode_local_state(REGION, &state)), Ok(state));
    }
    if let Ok(state) = decode_apply_state(REGION, data) {
        assert_eq!(decode_apply_state(REGION, &encode_apply_state(REGION, &state)), Ok(state));
    }
    if let Ok(state) = decode_region_state(REGION, data) {
        assert_eq!(decode_region_state(REGION, &encode_region_state(REGION, &state)), Ok(state));
    }
    if let Ok(entry) = decode_entry(REGION, Bytes::copy_from_slice(data)) {
        assert_eq!(decode_entry(REGION, encode_entry(REGION, &entry).into()), Ok(entry));
    }
});
