//! The generated messages. Nothing of them shows outside the crate.

#![expect(
    clippy::all,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::use_self,
    elided_lifetimes_in_paths,
    mismatched_lifetime_syntaxes,
    nonstandard_style,
    unnameable_types,
    unreachable_pub,
    unused,
    reason = "generated code"
)]

pub(crate) use raft_proto::eraftpb;

pub(crate) mod metapb {
    include!(concat!(env!("OUT_DIR"), "/metapb.rs"));
}

pub(crate) mod errorpb {
    include!(concat!(env!("OUT_DIR"), "/errorpb.rs"));
}

pub(crate) mod raft_serverpb {
    include!(concat!(env!("OUT_DIR"), "/raft_serverpb.rs"));
}

pub(crate) mod raft_cmdpb {
    include!(concat!(env!("OUT_DIR"), "/raft_cmdpb.rs"));
}
