//! How much is written to a region: an average that forgets, and a judgement that does not
//! waver.

/// Bytes written to a region per second, averaged over a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    bytes_per_second: u64,
    is_hot: bool,
}

/// What makes a region hot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threshold {
    /// From here on it is; below half of it, it is no more.
    pub(super) bytes_per_second: u64,
    pub(super) window_ms: u64,
}

impl Flow {
    /// That of a region nothing is known of.
    pub const NONE: Self = Self { bytes_per_second: 0, is_hot: false };

    /// The average.
    #[must_use]
    pub const fn per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Whether it stands out from that of other regions.
    #[must_use]
    pub const fn is_hot(&self) -> bool {
        self.is_hot
    }

    /// The average if it stands out, else nothing.
    pub(super) const fn hot(&self) -> u64 {
        if self.is_hot { self.bytes_per_second } else { 0 }
    }

    /// After `bytes` more in `span_ms`.
    ///
    /// The average leans towards the new figure by the part that `span_ms` is of the window,
    /// so it does not matter in how many reports the bytes come.
    pub(super) fn after(self, bytes: u64, span_ms: u64, threshold: &Threshold) -> Self {
        // In u128: the products of large figures overflow.
        let (bytes, span, window) =
            (u128::from(bytes), u128::from(span_ms), u128::from(threshold.window_ms.max(1)));
        let per_second = if span >= window {
            bytes * 1000 / span
        } else {
            (u128::from(self.bytes_per_second) * (window - span) + bytes * 1000) / window
        };
        let bytes_per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
        let from = if self.is_hot {
            threshold.bytes_per_second.div_ceil(2)
        } else {
            threshold.bytes_per_second
        };
        Self { bytes_per_second, is_hot: bytes_per_second >= from.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_1000: Threshold = Threshold { bytes_per_second: 1000, window_ms: 60_000 };

    fn fed(mut flow: Flow, bytes: u64, span_ms: u64, times: u64) -> Flow {
        for _ in 0..times {
            flow = flow.after(bytes, span_ms, &AT_1000);
        }
        flow
    }

    #[test]
    fn a_steady_flow_is_found_whatever_the_reports() {
        for (span_ms, times) in [(1_000, 600), (10_000, 60), (60_000, 3), (600_000, 1)] {
            let flow = fed(Flow::NONE, 5 * span_ms, span_ms, times);
            let error = 5000_u64.abs_diff(flow.per_second());
            assert!(error <= 250, "{span_ms}: {}", flow.per_second());
            assert!(flow.is_hot());
        }
    }

    /// H67: two reports at once are no spike.
    #[test]
    fn h67_reports_close_together_make_no_spike() {
        let steady = fed(Flow::NONE, 5_000, 10_000, 100);
        let burst = steady.after(5_000, 0, &AT_1000);
        assert!(burst.per_second() <= steady.per_second() + 100, "{burst:?} after {steady:?}");
        assert_eq!(Flow::NONE.after(u64::MAX, 0, &AT_1000).per_second(), u64::MAX / 60);
    }

    #[test]
    fn hot_ends_at_half_of_where_it_begins() {
        let hot = fed(Flow::NONE, 12_000, 10_000, 100);
        assert!(hot.is_hot());
        let between = fed(hot, 7_000, 10_000, 100);
        assert!(between.is_hot(), "{between:?}");
        assert!(!fed(Flow::NONE, 7_000, 10_000, 100).is_hot());
        let cold = fed(between, 4_000, 10_000, 100);
        assert!(!cold.is_hot() && cold.hot() == 0);
    }

    #[test]
    fn nothing_is_hot_where_nothing_is_written() {
        let none = Threshold { bytes_per_second: 0, window_ms: 0 };
        assert!(!Flow::NONE.after(0, 10, &none).is_hot());
    }
}
