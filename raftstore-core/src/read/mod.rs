//! Reads that do not go through the log.

mod local;
mod region_cursor;
mod region_snapshot;

pub use local::LocalReader;
pub use region_cursor::RegionCursor;
pub use region_snapshot::{ReadError, RegionSnapshot};

pub use crate::view::{View, ViewState, Views};
