//! Reads that do not go through the log.

mod local;

pub use local::LocalReader;

pub use crate::view::{View, ViewState, Views};
