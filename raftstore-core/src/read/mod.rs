//! Reads that do not go through the log.

mod local;
mod view;

pub use local::LocalReader;
pub(crate) use local::execute;
pub use view::{View, ViewState, Views};
