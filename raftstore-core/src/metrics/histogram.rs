//! How often a figure was how large, in buckets whose bounds double.

/// Buckets of a [`Histogram`], the one without a bound left out.
pub const BUCKETS: usize = 20;

/// Counts values by size: the first bucket takes values up to `BASE`, each further one up to
/// twice as much, and what is above them all is in the total only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<const BASE: u64> {
    /// Values per bucket, not cumulated.
    pub counts: [u64; BUCKETS],
    /// How many values there were.
    pub total: u64,
    /// Their sum.
    pub sum: u64,
}

/// Durations in microseconds; the first bucket ends at half a millisecond.
pub type Micros = Histogram<500>;
/// Sizes in bytes; the first bucket ends at 256.
pub type Bytes = Histogram<256>;
/// Numbers of things.
pub type Counts = Histogram<1>;

impl<const BASE: u64> Histogram<BASE> {
    /// Upper bound of a bucket, inclusive.
    #[must_use]
    pub const fn bound(bucket: usize) -> u64 {
        BASE << bucket
    }

    /// The bucket of a value; [`BUCKETS`] if it is above them all.
    #[must_use]
    pub const fn bucket_of(value: u64) -> usize {
        let mut bucket = 0;
        while bucket < BUCKETS && value > Self::bound(bucket) {
            bucket += 1;
        }
        bucket
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(Self::bucket_of(value)) {
            *count += 1;
        }
        self.total += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_double() {
        let mut sizes = Bytes::default();
        for value in [0, 256, 257, 512, 513, u64::MAX] {
            sizes.record(value);
        }
        assert_eq!(sizes.counts[..3], [2, 2, 1]);
        assert_eq!((sizes.total, sizes.sum), (6, u64::MAX));
        assert_eq!(Bytes::bound(2), 1_024);
        let mut other = Bytes::default();
        other.record(1);
        sizes.merge(&other);
        assert_eq!((sizes.counts[0], sizes.total), (3, 7));
    }
}
