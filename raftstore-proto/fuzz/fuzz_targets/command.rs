//! Commands and answers: no panic, and what decodes comes back the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use raftstore_proto::wire::{
    decode_command, decode_region, decode_response, encode_command, encode_region,
    encode_response,
};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(command) = decode_command(&bytes) {
        assert_eq!(decode_command(&encode_command(&command).into()), Ok(command));
    }
    if let Ok(region) = decode_region(&bytes) {
        assert_eq!(decode_region(&encode_region(&region).into()), Ok(region));
    }
    if let Ok(response) = decode_response(&bytes) {
        let _ = decode_response(&encode_response(&response).into());
    }
});
