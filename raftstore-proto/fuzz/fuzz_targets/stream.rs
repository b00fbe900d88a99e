//! See `stream` in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = raftstore_proto_fuzz::stream(data);
});
