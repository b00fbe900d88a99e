//! Which of our errors an error of raft-engine or of the device is.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use engine_traits::Error;

use crate::contain::Trouble;

/// The engine's name in messages.
pub(crate) const NAME: &str = "raft-engine";

/// An I/O error while doing `op`.
pub(crate) fn io(op: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            Error::Full { engine: NAME, op, source: Box::new(source) }
        } else {
            Error::Backend { engine: NAME, op, source: Box::new(source) }
        }
    }
}

/// Bytes of a file that are not what was written.
pub(crate) fn corrupt(path: &Path, detail: impl fmt::Display) -> Error {
    Error::Corrupt { engine: NAME, place: path.display().to_string(), detail: detail.to_string() }
}

/// A folder or file of another program, or of a newer version.
pub(crate) fn foreign(path: &Path, detail: impl fmt::Display) -> Error {
    Error::Format { engine: NAME, path: path.display().to_string(), detail: detail.to_string() }
}

/// What raft-engine said while doing `op`; `device` is what the device said first, which
/// raft-engine turns into words or a panic.
pub(crate) fn during(op: &'static str, trouble: Trouble, device: Option<io::Error>) -> Error {
    if let Some(error) = device {
        return io(op)(error);
    }
    match trouble {
        Trouble::Error(raft_engine::Error::Io(error)) => io(op)(error),
        trouble if trouble.is_damage() => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail: trouble.text() }
        }
        trouble => Error::Backend { engine: NAME, op, source: trouble.text().into() },
    }
}

/// A call that the engine's own state forbids.
#[cold]
pub(crate) fn invalid_state(detail: &'static str) -> Error {
    Error::Backend { engine: NAME, op: "checking its state", source: detail.into() }
}
