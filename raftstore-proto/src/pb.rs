//! The generated messages. Nothing of them shows outside the crate, but to those who serve or
//! call remote procedures (feature `rpc`): whoever names them here is bound to rust-protobuf.

#![expect(
    clippy::all,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::use_self,
    elided_lifetimes_in_paths,
    mismatched_lifetime_syntaxes,
    nonstandard_style,
    unused,
    reason = "generated code"
)]
#![cfg_attr(
    not(feature = "rpc"),
    expect(unnameable_types, unreachable_pub, reason = "generated for use elsewhere, too")
)]
#![cfg_attr(feature = "rpc", expect(clippy::panic, missing_docs, reason = "generated code"))]

pub use raft_proto::eraftpb;

pub mod metapb {
    include!(concat!(env!("OUT_DIR"), "/metapb.rs"));
}

pub mod errorpb {
    include!(concat!(env!("OUT_DIR"), "/errorpb.rs"));
}

pub mod raft_serverpb {
    include!(concat!(env!("OUT_DIR"), "/raft_serverpb.rs"));
}

pub mod raft_cmdpb {
    include!(concat!(env!("OUT_DIR"), "/raft_cmdpb.rs"));
}

#[cfg(feature = "rpc")]
pub mod pdpb {
    include!(concat!(env!("OUT_DIR"), "/pdpb.rs"));
}

#[cfg(feature = "rpc")]
pub mod kvrpcpb {
    include!(concat!(env!("OUT_DIR"), "/kvrpcpb.rs"));
}

#[cfg(feature = "rpc")]
pub mod tikvpb {
    include!(concat!(env!("OUT_DIR"), "/tikvpb.rs"));
}
