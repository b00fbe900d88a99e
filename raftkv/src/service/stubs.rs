//! The generated stubs of `tikvpb.Tikv`.

#![expect(
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/server/tikvpb.Tikv.rs"));
#[cfg(test)]
include!(concat!(env!("OUT_DIR"), "/client/tikvpb.Tikv.rs"));
