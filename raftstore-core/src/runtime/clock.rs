//! Decides what time it is: one raw monotonic clock per node (H42).

use std::time::{Duration, Instant};

use crate::MonoTime;

/// A monotonic clock whose rate nobody adjusts, where the platform has one: a lease that is
/// measured while the clock is slewed would be longer than its followers' patience. Copies
/// show the same time.
#[derive(Clone, Copy, Debug)]
pub struct MonoClock {
    origin: Reading,
}

impl MonoClock {
    /// A clock that starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Reading::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        let nanos = Reading::now().since(self.origin).as_nanos();
        MonoTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When `moment` is for those who wait by the clock of threads. Not to be kept: that one
    /// may run at another rate.
    pub(super) fn instant(&self, moment: MonoTime) -> Instant {
        Instant::now() + moment.since(self.now())
    }
}

/// What the clock shows. Of the raw one seconds and nanoseconds since some moment of the
/// machine's.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy, Debug)]
struct Reading(Duration);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Reading {
    fn now() -> Self {
        let shown = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
        let seconds = u64::try_from(shown.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(shown.tv_nsec).unwrap_or(0);
        Self(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
    }

    fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the clock shows. Of the monotonic one, where there is no raw one.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Clone, Copy, Debug)]
struct Reading(Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Reading {
    fn now() -> Self {
        Self(Instant::now())
    }

    fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H42: what the store is told of time is what the raw clock shows, from zero on.
    #[test]
    fn h42_the_clock_is_the_raw_one() {
        let before = Reading::now();
        let clock = MonoClock::start();
        let copy = clock;
        let times: Vec<MonoTime> =
            (0..1_000).map(|turn| if turn % 2 == 0 { clock.now() } else { copy.now() }).collect();
        assert!(times.is_sorted(), "a copy shows another time, or time went back");
        let passed = Reading::now().since(before);
        assert!(times[999] <= MonoTime::ZERO + passed, "{:?} in {passed:?}", times[999]);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn h42_readings_lie_between_two_of_the_system() {
        let raw = || {
            let shown = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
            (shown.tv_sec, shown.tv_nsec)
        };
        for _ in 0..100 {
            let before = raw();
            let Reading(shown) = Reading::now();
            let after = raw();
            let shown = (i64::try_from(shown.as_secs()).unwrap(), i64::from(shown.subsec_nanos()));
            assert!(before <= shown && shown <= after, "{before:?} {shown:?} {after:?}");
        }
    }

    #[test]
    fn moments_that_have_passed_are_waited_for_no_more() {
        let clock = MonoClock::start();
        assert!(clock.instant(MonoTime::ZERO) <= Instant::now());
        let hour = Duration::from_secs(3_600);
        let then = clock.instant(clock.now() + hour);
        assert!(then > Instant::now() + hour / 2 && then <= Instant::now() + hour);
    }
}
