//! Messages between stores: no panic, and what decodes encodes to something that decodes
//! to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use raftstore_proto::{RaftMessage, guard::Limits, wire::decode_snapshot_data};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let Ok(message) = RaftMessage::decode(Bytes::copy_from_slice(data), &limits) else {
        return;
    };
    if let Some(snapshot) = message.snapshot() {
        let _ = decode_snapshot_data(&snapshot.data);
    }
    // A repeated message may take more bytes, and so pass limits the original did not; the
    // other way round cannot be.
    if let Ok(again) = RaftMessage::decode(message.encode().into(), &limits) {
        assert_eq!(again, message);
    }
});
