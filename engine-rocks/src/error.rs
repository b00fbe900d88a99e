//! Which of our errors an error of RocksDB is.

use std::io;
use std::path::Path;

use engine_traits::Error;
use rocksdb::ErrorKind;

/// The engine's name in messages.
pub(crate) const NAME: &str = "rocksdb";

/// A closure for `map_err`: what RocksDB reported while doing `op`.
pub(crate) fn during(op: &'static str) -> impl FnOnce(rocksdb::Error) -> Error {
    move |source| match source.kind() {
        ErrorKind::Corruption => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail: source.into_string() }
        }
        // RocksDB hands the system's words on, not its number.
        ErrorKind::IOError if source.as_ref().contains("No space left") => {
            Error::Full { engine: NAME, op, source: Box::new(source) }
        }
        // A file that the database names is gone, or shorter than what is read from it.
        ErrorKind::IOError if is_missing(source.as_ref()) => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail: source.into_string() }
        }
        _ => Error::Backend { engine: NAME, op, source: Box::new(source) },
    }
}

fn is_missing(words: &str) -> bool {
    words.contains("No such file or directory") || words.contains("truncated")
}

/// An I/O error of our own file access while doing `op`.
pub(crate) fn io(op: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { engine: NAME, op, source: Box::new(source) }
        }
        _ => Error::Backend { engine: NAME, op, source: Box::new(source) },
    }
}

/// As [`during`], for the open of the folder `path`.
pub(crate) fn opening(path: &Path) -> impl FnOnce(rocksdb::Error) -> Error {
    let path = path.display().to_string();
    move |source| {
        let foreign = matches!(source.kind(), ErrorKind::InvalidArgument | ErrorKind::NotSupported);
        if source.kind() == ErrorKind::IOError && source.as_ref().contains("lock") {
            Error::Locked { engine: NAME, path }
        } else if foreign {
            Error::Format { engine: NAME, path, detail: source.into_string() }
        } else {
            during("opening the database")(source)
        }
    }
}
