//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that double, each shortened by chance so that clients that failed together do not
/// come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    chance: RandomState,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST, chance: RandomState::new() }
    }
}

impl Backoff {
    /// Between a half and the whole of the pause whose turn it is.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        let half = pause / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.chance = RandomState::new();
        half + Duration::from_nanos(self.chance.hash_one(spread) % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_keep_half_of_themselves() {
        let mut backoff = Backoff::default();
        let mut whole = FIRST;
        for _ in 0..12 {
            let pause = backoff.next_pause();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(LONGEST);
        }
        assert_eq!(whole, LONGEST);
    }
}
