//! Reads that do not go through the log.

mod local;
mod view;

pub(crate) use local::execute;
pub use local::LocalReader;
pub use view::{View, ViewState, Views};
