//! How long to wait before trying again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use crate::config::GrpcConfig;

/// Doubles with each failure up to the longest, and varies by half: stores that lost the same
/// peer must not all come back to it in the same moment.
pub(crate) fn pause(failures: u32, config: &GrpcConfig) -> Duration {
    let doubled = config.backoff_min.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let longest = doubled.min(config.backoff_max);
    // A hasher is begun with random numbers, which is all that is wanted.
    let chance = RandomState::new().hash_one(failures) % 512;
    longest / 2 + longest * u32::try_from(chance).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary_by_half() {
        let config = GrpcConfig {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            ..GrpcConfig::default()
        };
        for (failures, longest) in [(1, 100), (2, 200), (4, 800), (5, 1000), (u32::MAX, 1000)] {
            let longest = Duration::from_millis(longest);
            let pauses: Vec<_> = (0..64).map(|_| pause(failures, &config)).collect();
            assert!(pauses.iter().all(|pause| (longest / 2..longest).contains(pause)));
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "there is no chance in it");
        }
    }
}
