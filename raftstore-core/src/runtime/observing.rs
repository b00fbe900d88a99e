//! Decides when observers are told that their store begins and ends, and what becomes of
//! their panics where no thread of the node would catch them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::failure::panic_message;
use crate::{FatalError, FatalSource, observe::Observers};

/// Observers that were told of the start. Dropped, they are told of the end.
#[derive(Debug)]
pub(super) struct ObserversOn {
    observers: Observers,
    is_on: bool,
}

impl ObserversOn {
    /// Tells them of the start.
    pub(super) fn start(observers: Observers) -> Result<Self, FatalError> {
        // Whoever was told of the start before another panicked is told of the end.
        let on = Self { observers, is_on: true };
        guarded("starting observers", || on.observers.start())?;
        Ok(on)
    }

    pub(super) fn get(&self) -> Observers {
        self.observers.clone()
    }

    /// Tells them of the end, once.
    pub(super) fn stop(&mut self) {
        if std::mem::replace(&mut self.is_on, false)
            && let Err(error) = guarded("stopping observers", || self.observers.stop())
        {
            tracing::error!(%error, "an observer panicked");
        }
    }
}

impl Drop for ObserversOn {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Calls out on a thread of the embedder's, who gets a panic as an error.
pub(super) fn guarded<T>(doing: &'static str, call: impl FnOnce() -> T) -> Result<T, FatalError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let source = FatalSource::Panic { worker: "observer", message: panic_message(&*payload) };
        FatalError { doing, region: None, source }
    })
}
