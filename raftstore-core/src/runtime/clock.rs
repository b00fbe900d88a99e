//! Decides what time it is: one monotonic clock per node.

use std::time::{Duration, Instant};

use crate::MonoTime;

/// A monotonic clock. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct MonoClock {
    origin: Instant,
}

impl MonoClock {
    /// A clock that starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        let nanos = self.origin.elapsed().as_nanos();
        MonoTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When `moment` is, for waiting until then.
    pub(super) fn instant(&self, moment: MonoTime) -> Instant {
        self.origin + Duration::from_nanos(moment.as_nanos())
    }
}
