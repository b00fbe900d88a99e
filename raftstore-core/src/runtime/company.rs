//! Decides how long a sync waits for more rounds to share it (D3).

use std::time::Duration;

/// Longest wait for more rounds before a sync.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Syncs over which the number of rounds in one is averaged.
const AVERAGED: usize = 8;

/// Learns from the last syncs whether it pays to wait for more rounds before the next.
///
/// A round that just misses a sync waits for the whole of it, and then costs one of its own.
/// Where a store leads some regions and follows in others, rounds come all the time, and
/// syncs begun at once would carry one or two each. A caller who is alone never waits.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Average number of rounds that a sync was for, times [`AVERAGED`].
    rounds: usize,
    /// How long the last sync took.
    took: Duration,
}

impl Company {
    /// A sync for so many rounds has ended.
    pub(super) fn note(&mut self, rounds: usize, took: Duration) {
        self.rounds = self.rounds - self.rounds / AVERAGED + rounds;
        self.took = took;
    }

    /// How long to wait before the next sync: as long as the last one took. A round that
    /// just missed it has waited for the whole of it already, and its followers answer
    /// within that time.
    pub(super) fn wait(&self) -> Duration {
        let is_crowded = self.rounds >= 2 * AVERAGED;
        if is_crowded { self.took.min(WAIT_MAX) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(4);

    #[test]
    fn a_caller_alone_never_waits() {
        let mut company = Company::default();
        for _ in 0..100 {
            assert_eq!(company.wait(), Duration::ZERO);
            company.note(1, SYNC);
        }
    }

    #[test]
    fn a_crowd_is_waited_for_until_it_has_gone() {
        let mut company = Company::default();
        for _ in 0..20 {
            company.note(9, SYNC);
        }
        assert_eq!(company.wait(), SYNC);
        company.note(9, Duration::from_secs(3));
        assert_eq!(company.wait(), WAIT_MAX);
        for _ in 0..40 {
            company.note(1, SYNC);
        }
        assert_eq!(company.wait(), Duration::ZERO);
    }
}
