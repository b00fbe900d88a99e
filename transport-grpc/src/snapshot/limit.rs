//! So many bytes a second, and no more.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A bound on a flow of bytes that several share.
#[derive(Debug)]
pub(crate) struct Rate {
    /// 0 for none.
    bytes_per_second: u64,
    /// When what was let through so far is paid for.
    free_at: Mutex<Option<Instant>>,
}

impl Rate {
    pub(crate) const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(None) }
    }

    /// Waits until `bytes` more may pass. The first pass at once: the flow is bounded over
    /// time, and those that come later wait for those before them.
    pub(crate) async fn pass(&self, bytes: usize) {
        if self.bytes_per_second == 0 {
            return;
        }
        sleep_until(self.reserve(bytes, Instant::now())).await;
    }

    /// From when on `bytes` may pass.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock();
        let start = free_at.map_or(now, |free| free.max(now));
        *free_at = Some(start + takes);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_later_wait_for_those_before_them() {
        let rate = Rate::new(1000);
        let now = Instant::now();
        assert_eq!(rate.reserve(500, now), now);
        assert_eq!(rate.reserve(2000, now), now + Duration::from_millis(500));
        assert_eq!(rate.reserve(1, now), now + Duration::from_millis(2500));
        // Time in which nothing passed is not saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!(rate.reserve(1000, later), later);
        assert_eq!(rate.reserve(1, later), later + Duration::from_secs(1));
    }
}
