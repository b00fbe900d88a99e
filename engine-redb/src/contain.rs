//! Keeps panics of redb on damaged pages from leaving the engine.
//!
//! redb trusts the pages of a file that was closed cleanly, so bytes that it cannot have
//! written may break its assertions. The panic hook still runs and may print; silencing it
//! would be a change to the whole process, which is not an engine's to make.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine_traits::{Error, Result};

use crate::error::NAME;

/// Runs `work`; a panic in it becomes `Corrupt`, with `place` saying where.
///
/// What `work` borrows must not be relied on after the error but through calls that can fail
/// themselves: redb handles, which check their own latches, or values dropped at once.
pub(crate) fn contain<T>(place: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(Error::Corrupt {
            engine: NAME,
            place: place.to_owned(),
            detail: format!("redb panicked: {}", message(panic.as_ref())),
        }),
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
        let error =
            contain("reading", || -> Result<()> { panic!("page {} is odd", 7) }).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }));
        assert!(error.to_string().contains("page 7 is odd"), "{error}");
    }
}
