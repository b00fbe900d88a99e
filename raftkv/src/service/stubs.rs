//! The generated stubs of `tikvpb.Tikv`.

#![expect(
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/tikvpb.Tikv.rs"));
