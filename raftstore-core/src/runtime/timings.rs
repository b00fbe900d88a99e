//! Decides what the threads of a node measure about their work, and what of it is slow
//! enough to be told at once.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::metrics::{BUCKETS, Micros};

/// Work that takes longer is logged.
const SLOW: Duration = Duration::from_secs(1);

/// A histogram of durations that threads add to.
#[derive(Debug)]
pub(super) struct Timing {
    counts: [AtomicU64; BUCKETS],
    total: AtomicU64,
    sum: AtomicU64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            total: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl Timing {
    pub(super) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(Micros::bucket_of(micros)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Records work that has just ended; tells of it if it was slow.
    pub(super) fn end(&self, begun: Instant, what: fmt::Arguments<'_>) {
        let took = begun.elapsed();
        self.record(took);
        if took >= SLOW {
            tracing::warn!(?took, "slow: {what}");
        }
    }

    fn snapshot(&self) -> Micros {
        let mut micros = Micros::default();
        for (count, shared) in micros.counts.iter_mut().zip(&self.counts) {
            *count = shared.load(Ordering::Relaxed);
        }
        micros.total = self.total.load(Ordering::Relaxed);
        micros.sum = self.sum.load(Ordering::Relaxed);
        micros
    }
}

macro_rules! timings {
    ($($(#[doc = $doc:literal])+ $field:ident,)*) => {
        /// How long the work of a node's threads takes.
        #[derive(Debug, Default)]
        pub(super) struct Timings {
            $($(#[doc = $doc])+ pub(super) $field: Timing,)*
        }

        impl Timings {
            /// Every histogram: its name, what it measures, its values.
            pub(super) fn named(&self) -> Vec<(&'static str, &'static str, Micros)> {
                vec![$((stringify!($field), concat!($($doc),+), self.$field.snapshot()),)*]
            }
        }
    };
}

timings! {
    /// From a command's arrival until its lane took it in.
    request_wait,
    /// One turn of a lane: events handled, rounds collected.
    turn,
    /// One group of rounds written to the raft log.
    append,
    /// One run of an apply thread.
    apply,
    /// One sync of the data engine.
    kv_sync,
    /// One region snapshot built.
    snapshot_build,
    /// One slice of installing a snapshot or deleting a range.
    region_slice,
    /// One slice of looking where a region should be cut.
    check_slice,
    /// One range compacted.
    compaction,
    /// One slice of hashing a region.
    hash_slice,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_seen() {
        let timings = Timings::default();
        timings.append.record(Duration::from_micros(400));
        timings.append.record(Duration::from_millis(1));
        timings.append.end(Instant::now(), format_args!("nothing"));
        let named = timings.named();
        let (_, help, append) = named.iter().find(|(name, ..)| *name == "append").expect("known");
        assert_eq!(append.counts[..2], [2, 1]);
        assert_eq!(append.total, 3);
        assert!(help.contains("raft log"));
    }
}
