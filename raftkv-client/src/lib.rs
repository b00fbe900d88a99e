//! A lean client of raftkv, and of whatever else speaks its protocol.
//!
//! [`Client`] asks PD for regions once and again after a refusal, sends each request to the
//! leader of its key's region, and tries again until its patience ends. Requests go one by
//! one, or many in a message (`BatchCommands`). It is cheap to clone and serves any number of
//! tasks at once.
//!
//! A request that is tried again may have taken effect before: a [`Client::put`] that ends
//! well has stored its value, perhaps twice. Who cannot have that uses
//! [`Client::compare_and_swap`], which is tried again only where it certainly did nothing.

mod batch;
mod client;
mod error;
mod routes;

pub use client::{Client, ClientOptions, Row, Swap};
pub use error::ClientError;
