//! Keeps panics of raft-engine from leaving the engine.
//!
//! raft-engine panics where a sync fails, where a log would have a hole, and on bytes that it
//! cannot have written. The panic hook still runs and may print; silencing it would be a change
//! to the whole process, which is not an engine's to make.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; a panic in it becomes an error with its message.
///
/// raft-engine's locks do not poison, so its reads may go on after a panic. Its writes may not:
/// the caller has to see to that.
pub(crate) fn contain<T>(work: impl FnOnce() -> raft_engine::Result<T>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Trouble::Error),
        Err(panic) => Err(Trouble::Panic(message(panic.as_ref()).to_owned())),
    }
}

/// How a call of raft-engine went wrong.
#[derive(Debug)]
pub(crate) enum Trouble {
    Error(raft_engine::Error),
    Panic(String),
}

impl Trouble {
    /// Whether it is about stored bytes, and not about the device.
    pub(crate) fn is_damage(&self) -> bool {
        use raft_engine::Error as E;
        matches!(self, Self::Error(E::Corruption(_) | E::Codec(_) | E::Protobuf(_)))
    }

    /// What it says, for a message.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Error(error) => error.to_string(),
            Self::Panic(message) => format!("raft-engine panicked: {message}"),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let trouble = contain(|| -> raft_engine::Result<()> { panic!("entry {} is odd", 7) });
        let trouble = trouble.unwrap_err();
        assert!(!trouble.is_damage());
        assert!(trouble.text().contains("entry 7 is odd"), "{trouble:?}");
    }
}
