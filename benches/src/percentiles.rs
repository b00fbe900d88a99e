//! Durations, and how long most of them are.

use std::time::Duration;

/// A handful of measured durations.
#[derive(Clone, Debug, Default)]
pub struct Percentiles(Vec<Duration>);

impl Percentiles {
    /// One more.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Those of another, too.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The shortest one that so many of a hundred do not exceed; zero of none.
    #[must_use]
    pub fn at(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Half, ninety and ninety-nine of a hundred, in milliseconds, also as multiples of `unit`.
    #[must_use]
    pub fn line(&self, unit: Duration) -> String {
        let cell = |percent| {
            let at = self.at(percent);
            let times = at.as_secs_f64() / unit.as_secs_f64();
            format!("p{percent} {:>8.3} ms ({times:>6.2} x)", at.as_secs_f64() * 1e3)
        };
        format!("{}  {}  {}", cell(50), cell(90), cell(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_added() {
        let mut some = Percentiles::default();
        assert_eq!(some.at(50), Duration::ZERO);
        (1..=200).rev().for_each(|ms| some.add(Duration::from_millis(ms)));
        let at = |percent| some.at(percent).as_millis();
        assert_eq!((at(1), at(50), at(99), at(100)), (2, 100, 198, 200));
    }
}
