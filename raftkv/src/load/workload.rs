//! What clients of a load do: the six core workloads of YCSB, and how keys are chosen.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clap::ValueEnum;
use rand::{Rng, RngCore, distr::Distribution, rngs::SmallRng};
use rand_distr::Zipf;

/// A mix of requests, by its letter in YCSB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mix {
    /// Half reads, half updates
    A,
    /// Reads, one in twenty an update
    B,
    /// Reads only
    C,
    /// Reads of what was inserted last, one in twenty an insert
    D,
    /// Short scans, one in twenty an insert
    E,
    /// Half reads, half reads followed by a write of the same key
    F,
}

/// How the keys of requests are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Every key as often as any other
    Uniform,
    /// A few keys very often, most hardly ever, spread over the key space
    Zipfian,
    /// The newest most often
    Latest,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Read(u64),
    Update(u64),
    Insert(u64),
    Scan(u64, u32),
    /// Read, then write what depends on it.
    Modify(u64),
}

impl Ask {
    pub(crate) const KINDS: [&'static str; 5] = ["read", "update", "insert", "scan", "modify"];

    pub(crate) const fn kind(&self) -> usize {
        match self {
            Self::Read(_) => 0,
            Self::Update(_) => 1,
            Self::Insert(_) => 2,
            Self::Scan(..) => 3,
            Self::Modify(_) => 4,
        }
    }
}

/// YCSB's own constant of its skew.
const SKEW: f64 = 0.99;

/// Rows of the longest scan.
const SCAN: u32 = 100;

/// A mix over records, some of which are inserted on the way.
#[derive(Debug)]
pub(crate) struct Workload {
    mix: Mix,
    choice: Choice,
    zipf: Zipf<f64>,
    records: AtomicU64,
}

impl Workload {
    /// `None` of a choice is the one that belongs to the mix.
    pub(crate) fn new(mix: Mix, choice: Option<Choice>, records: u64) -> Self {
        let usual = if mix == Mix::D { Choice::Latest } else { Choice::Zipfian };
        let records = records.max(1);
        let zipf = Zipf::new(records as f64, SKEW).expect("at least one record, a skew above 0");
        Self { mix, choice: choice.unwrap_or(usual), zipf, records: AtomicU64::new(records) }
    }

    pub(crate) fn draw(&self, lots: &mut SmallRng) -> Ask {
        let lot = lots.random_range(0..100_u32);
        match self.mix {
            Mix::A if lot < 50 => Ask::Read(self.key(lots)),
            Mix::B if lot < 95 => Ask::Read(self.key(lots)),
            Mix::A | Mix::B => Ask::Update(self.key(lots)),
            Mix::C => Ask::Read(self.key(lots)),
            Mix::D if lot < 95 => Ask::Read(self.key(lots)),
            Mix::E if lot < 95 => Ask::Scan(self.key(lots), lots.random_range(1..=SCAN)),
            Mix::D | Mix::E => Ask::Insert(self.records.fetch_add(1, Ordering::Relaxed)),
            Mix::F if lot < 50 => Ask::Read(self.key(lots)),
            Mix::F => Ask::Modify(self.key(lots)),
        }
    }

    fn key(&self, lots: &mut SmallRng) -> u64 {
        let records = self.records.load(Ordering::Relaxed);
        match self.choice {
            Choice::Uniform => lots.random_range(0..records),
            Choice::Zipfian => mixed(self.rank(lots)) % records,
            Choice::Latest => records - 1 - self.rank(lots).min(records - 1),
        }
    }

    /// From 0 on, low ones far oftener.
    fn rank(&self, lots: &mut SmallRng) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 1 to the records"
        )]
        let rank = self.zipf.sample(lots) as u64;
        rank.saturating_sub(1)
    }
}

/// Spreads neighbours over all numbers (the finalizer of splitmix64).
const fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// The key of a record. Neighbours in number are neighbours in order, so that scans find rows.
pub(crate) fn key(number: u64) -> Bytes {
    format!("user{number:016}").into()
}

/// A value that does not compress.
pub(crate) fn value(bytes: usize, lots: &mut SmallRng) -> Bytes {
    let mut value = vec![0; bytes];
    lots.fill_bytes(&mut value);
    value.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;

    use super::*;

    const DRAWN: usize = 20_000;

    fn drawn(mix: Mix, choice: Option<Choice>, records: u64) -> Vec<Ask> {
        let workload = Workload::new(mix, choice, records);
        let mut lots = SmallRng::seed_from_u64(1);
        (0..DRAWN).map(|_| workload.draw(&mut lots)).collect()
    }

    /// Of a hundred requests so many are of each kind.
    fn percent(asks: &[Ask]) -> [usize; 5] {
        let mut counts = [0; 5];
        asks.iter().for_each(|ask| counts[ask.kind()] += 1);
        counts.map(|count| (count * 100 + DRAWN / 2) / DRAWN)
    }

    #[test]
    fn mixes_are_those_of_their_letters() {
        let near = |mix, wanted: [usize; 5]| {
            let found = percent(&drawn(mix, None, 1_000));
            let fits = found.iter().zip(wanted).all(|(found, wanted)| found.abs_diff(wanted) <= 1);
            assert!(fits, "{mix:?}: {found:?}, not {wanted:?}");
        };
        near(Mix::A, [50, 50, 0, 0, 0]);
        near(Mix::B, [95, 5, 0, 0, 0]);
        near(Mix::C, [100, 0, 0, 0, 0]);
        near(Mix::D, [95, 0, 5, 0, 0]);
        near(Mix::E, [0, 0, 5, 95, 0]);
        near(Mix::F, [50, 0, 0, 0, 50]);
    }

    #[test]
    fn inserts_take_the_next_key_each_and_reads_know_them() {
        let asks = drawn(Mix::D, None, 1_000);
        let mut next = 1_000;
        for ask in asks {
            match ask {
                Ask::Insert(number) => {
                    assert_eq!(number, next);
                    next += 1;
                }
                Ask::Read(number) => assert!(number < next),
                other => panic!("{other:?} is not of this mix"),
            }
        }
    }

    #[test]
    fn choices_are_as_skewed_as_they_say() {
        let share_of_top = |choice: Choice| {
            let mut counts = BTreeMap::<u64, usize>::new();
            for ask in drawn(Mix::C, Some(choice), 1_000) {
                let Ask::Read(number) = ask else { panic!("{ask:?}") };
                assert!(number < 1_000);
                *counts.entry(number).or_default() += 1;
            }
            let mut counts: Vec<usize> = counts.into_values().collect();
            counts.sort_unstable();
            counts.iter().rev().take(10).sum::<usize>() * 100 / DRAWN
        };
        assert!(share_of_top(Choice::Uniform) < 3);
        assert!((25..60).contains(&share_of_top(Choice::Zipfian)));
        assert!((25..60).contains(&share_of_top(Choice::Latest)));
    }
}
