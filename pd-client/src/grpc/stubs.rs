//! The generated service and client of PD's protocol.

#![expect(
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/pdpb.PD.rs"));
