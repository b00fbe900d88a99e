//! Which of our errors an error of redb is.

use std::io::ErrorKind;

use engine_traits::Error;

/// The engine's name in messages.
pub(crate) const NAME: &str = "redb";

/// A closure for `map_err`: what redb reported while doing `op`.
pub(crate) fn during<E: Into<redb::Error>>(op: &'static str) -> impl FnOnce(E) -> Error {
    move |source| classify(op, source.into())
}

fn classify(op: &'static str, source: redb::Error) -> Error {
    match source {
        redb::Error::Corrupted(detail) => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail }
        }
        // The tables are made when the file is, so one that is missing or of another type
        // was hidden by damage.
        redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail: source.to_string() }
        }
        redb::Error::ValueTooLarge(len) => Error::InvalidBatch {
            engine: NAME,
            detail: format!("a row of {len} bytes is longer than redb takes"),
        },
        redb::Error::Io(source) if is_full(&source) => {
            Error::Full { engine: NAME, op, source: Box::new(source) }
        }
        redb::Error::Io(source) if source.kind() == ErrorKind::InvalidData => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail: source.to_string() }
        }
        source => Error::Backend { engine: NAME, op, source: Box::new(source) },
    }
}

/// Whether an I/O error says that there is no room.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// An I/O error of our own file access while doing `op`.
pub(crate) fn io(op: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| {
        if is_full(&source) {
            Error::Full { engine: NAME, op, source: Box::new(source) }
        } else {
            Error::Backend { engine: NAME, op, source: Box::new(source) }
        }
    }
}

/// Key bytes for a message: printable ASCII as it is, the rest in hex, long ones cut.
pub(crate) fn escape(key: &[u8]) -> String {
    const SHOWN: usize = 48;
    let shown = key.get(..SHOWN).unwrap_or(key);
    let dots = if key.len() > SHOWN { ".." } else { "" };
    format!("\"{}\"{dots}", shown.escape_ascii())
}

/// A call that the engine's own state forbids.
#[cold]
pub(crate) fn invalid_state(detail: &'static str) -> Error {
    Error::Backend { engine: NAME, op: "checking its state", source: detail.into() }
}
