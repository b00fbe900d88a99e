//! Transports over loopback: the suite of all transports, streams of messages and of
//! snapshots in good order and in bad, certificates, and whole stores.

#![expect(unreachable_pub, reason = "what several tests share")]

mod common;
mod conformance;
mod hostile;
mod snapshots;
mod store;
mod streams;
mod tls;
