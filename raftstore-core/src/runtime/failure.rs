//! Decides what happens when a store must stop: the first failure counts, everything that
//! runs is told, everybody who waits is answered, the embedder gets the error (H63).

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};

use super::router::Router;
use crate::{FatalError, FatalSource};

/// Called once with the error that stopped the store, on the thread that found it.
pub type OnFatal = Box<dyn Fn(&Arc<FatalError>) + Send + Sync>;

/// Nothing is ever sent; its channel only ends.
pub(super) enum Never {}

/// Whether, and why, the store has failed.
pub(super) struct Failure {
    failed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    quit: Receiver<Never>,
    router: Arc<Router>,
    on_fatal: Option<OnFatal>,
}

struct State {
    error: Option<Arc<FatalError>>,
    /// The node has been joined: no failure can come any more.
    is_over: bool,
    /// Dropped to end the channel that every thread looks at.
    quit: Option<Sender<Never>>,
}

impl Failure {
    pub(super) fn new(router: Arc<Router>, on_fatal: Option<OnFatal>) -> Self {
        let (sender, quit) = crossbeam_channel::bounded(0);
        Self {
            failed: AtomicBool::new(false),
            state: Mutex::new(State { error: None, is_over: false, quit: Some(sender) }),
            changed: Condvar::new(),
            quit,
            router,
            on_fatal,
        }
    }

    /// Ends when the store fails.
    pub(super) const fn quit(&self) -> &Receiver<Never> {
        &self.quit
    }

    /// From the moment this says so, nothing is sent and nothing is acknowledged.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The first error stops everything; later ones are its consequences.
    pub(super) fn fail(&self, error: FatalError) {
        self.failed.store(true, Ordering::Release);
        let error = {
            let mut state = self.state.lock();
            if state.error.is_some() {
                tracing::warn!(%error, "failure of a store that has failed already");
                return;
            }
            let error = Arc::new(error);
            state.error = Some(Arc::clone(&error));
            state.quit = None;
            error
        };
        tracing::error!(error = %DisplayChain(&*error), "store stopped");
        self.router.close();
        self.changed.notify_all();
        if let Some(on_fatal) = &self.on_fatal
            && catch_unwind(AssertUnwindSafe(|| on_fatal(&error))).is_err()
        {
            tracing::error!("the embedder's handler of fatal errors panicked");
        }
    }

    pub(super) fn error(&self) -> Option<Arc<FatalError>> {
        self.state.lock().error.clone()
    }

    /// Called when every thread has ended.
    pub(super) fn over(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Waits until the store fails or is over, `timeout` at most.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Option<Arc<FatalError>> {
        let mut state = self.state.lock();
        let pending = |state: &mut State| state.error.is_none() && !state.is_over;
        match timeout {
            None => self.changed.wait_while(&mut state, pending),
            Some(timeout) => {
                let _ = self.changed.wait_while_for(&mut state, pending, timeout);
            }
        }
        state.error.clone()
    }

    /// Runs the body of a thread. Its error or panic fails the store.
    pub(super) fn guard(
        &self,
        worker: &'static str,
        body: impl FnOnce() -> Result<(), FatalError>,
    ) {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(error),
            Err(payload) => {
                let message = panic_message(&*payload);
                let source = FatalSource::Panic { worker, message };
                self.fail(FatalError { doing: "running a worker", region: None, source });
            }
        }
    }
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failure").field("error", &self.error()).finish_non_exhaustive()
    }
}

pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// An error with everything that caused it, in one line.
struct DisplayChain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for DisplayChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
