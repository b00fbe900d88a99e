//! Timestamps: always larger than every earlier one, over restarts and clocks that go back.

/// Bits of a timestamp that count within a millisecond.
const LOGICAL_BITS: u32 = 18;
/// Most timestamps that one question can get.
pub(super) const COUNT_MAX: u32 = (1 << LOGICAL_BITS) - 1;
/// For how many ms timestamps are promised at a time: as often the promise has to be saved.
const WINDOW_MS: u64 = 3000;

/// A timestamp: milliseconds of the Unix epoch, and a count within them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp {
    pub(super) physical_ms: u64,
    pub(super) logical: u64,
}

/// Gives out timestamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tso {
    /// The last one given out.
    last: Timestamp,
    /// Saved. Invariant: no timestamp given out is as late, and none of a later life is
    /// earlier.
    limit_ms: u64,
}

impl Tso {
    /// One that goes on after a life that had saved `limit_ms`.
    pub(super) const fn after(limit_ms: u64) -> Self {
        Self { last: Timestamp { physical_ms: limit_ms, logical: 0 }, limit_ms }
    }

    pub(super) const fn limit_ms(&self) -> u64 {
        self.limit_ms
    }

    /// The last of `count` new timestamps, which differ only in their count; `None` if a
    /// higher limit has to be saved first. `count` is 1 to [`COUNT_MAX`].
    pub(super) fn take(&mut self, now_ms: u64, count: u32) -> Option<Timestamp> {
        let next = self.after_last(now_ms, count);
        if next.physical_ms >= self.limit_ms {
            return None;
        }
        self.last = next;
        Some(next)
    }

    /// Raises the limit so that `count` timestamps can be taken now.
    pub(super) fn extend(&mut self, now_ms: u64, count: u32) {
        let next = self.after_last(now_ms, count);
        self.limit_ms = self.limit_ms.max(next.physical_ms.saturating_add(WINDOW_MS));
    }

    fn after_last(&self, now_ms: u64, count: u32) -> Timestamp {
        let count = u64::from(count);
        if now_ms > self.last.physical_ms {
            return Timestamp { physical_ms: now_ms, logical: count };
        }
        let logical = self.last.logical + count;
        if logical <= u64::from(COUNT_MAX) {
            return Timestamp { logical, ..self.last };
        }
        // More in a millisecond than can be counted: the next one is begun early.
        Timestamp { physical_ms: self.last.physical_ms + 1, logical: count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First and last of what was taken.
    fn taken(tso: &mut Tso, now_ms: u64, count: u32) -> (Timestamp, Timestamp) {
        if tso.take(now_ms, 1).is_none() {
            tso.extend(now_ms, count);
        }
        let last = tso.take(now_ms, count).unwrap_or_else(|| {
            tso.extend(now_ms, count);
            tso.take(now_ms, count).expect("the limit was raised")
        });
        let first = Timestamp { logical: last.logical + 1 - u64::from(count), ..last };
        (first, last)
    }

    #[test]
    fn timestamps_grow_whatever_the_clock_does() {
        let mut tso = Tso::after(0);
        let mut newest = Timestamp { physical_ms: 0, logical: 0 };
        for (now_ms, count) in [
            (1000, 1),
            (1000, 5),
            (1000, COUNT_MAX),
            (900, 7),
            (0, COUNT_MAX),
            (1001, 2),
            (50_000, 1),
        ] {
            let (first, last) = taken(&mut tso, now_ms, count);
            assert!(first > newest, "{first:?} is not after {newest:?}");
            assert!(last.logical <= u64::from(COUNT_MAX));
            assert!(last.physical_ms < tso.limit_ms());
            newest = last;
        }
    }

    /// A life that ends without a word leaves only the limit it had saved.
    #[test]
    fn a_later_life_begins_above_the_limit_though_its_clock_is_behind() {
        let mut tso = Tso::after(0);
        let (_, last) = taken(&mut tso, 5000, 9);
        let mut next = Tso::after(tso.limit_ms());
        assert_eq!(next.take(10, 1), None, "nothing is given out before a limit is saved");
        assert!(taken(&mut next, 10, 1).0 > last);
    }
}
