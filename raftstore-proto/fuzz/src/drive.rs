//! A driver for where there is no fuzzer: it changes known inputs at random, under a seed, and
//! keeps those that go a new way.

use std::collections::BTreeSet;

use super::Target;

/// Longest input that is kept.
const LONGEST: usize = 4_096;

/// A sequence of numbers that a seed decides.
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        // Field tags, lengths and numbers of the wire form are small more often than not.
        let [any, choice, ..] = self.next().to_le_bytes();
        match choice % 4 {
            0 => any,
            1 => any % 16,
            2 => any | 0x80,
            _ => [0, 1, 2, 8, 10, 18, 26, 34, 0x7F, 0xFF][usize::from(any) % 10],
        }
    }
}

/// Known inputs, and the ways they have gone.
#[derive(Debug, Default)]
pub struct Corpus {
    inputs: Vec<Vec<u8>>,
    ways: BTreeSet<u64>,
}

impl Corpus {
    /// Shows `target` an input, and keeps it if it goes a new way.
    pub fn show(&mut self, target: Target, input: Vec<u8>) {
        if self.ways.insert(target(&input)) && input.len() <= LONGEST {
            self.inputs.push(input);
        }
    }

    /// How many ways were seen.
    #[must_use]
    pub fn ways(&self) -> usize {
        self.ways.len()
    }

    /// A known input, changed in a few places.
    pub fn next(&self, numbers: &mut Numbers) -> Vec<u8> {
        let mut input = match self.inputs.len() {
            0 => Vec::new(),
            count => self.inputs[numbers.below(count)].clone(),
        };
        for _ in 0..=numbers.below(4) {
            self.change(&mut input, numbers);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&self, input: &mut Vec<u8>, numbers: &mut Numbers) {
        let at = numbers.below(input.len() + 1);
        let len = numbers.below(16).min(input.len() - at);
        match numbers.below(7) {
            0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            1 if at < input.len() => input[at] = numbers.byte(),
            2 => drop(input.drain(at..at + len)),
            3 => {
                let part = input[at..at + len].to_vec();
                let to = numbers.below(input.len() + 1);
                drop(input.splice(to..to, part));
            }
            4 if !self.inputs.is_empty() => {
                // A piece of another input, which may be a whole message of its own.
                let other = &self.inputs[numbers.below(self.inputs.len())];
                let from = numbers.below(other.len() + 1);
                let to = from + numbers.below(other.len() - from + 1);
                drop(input.splice(at..at + len, other[from..to].iter().copied()));
            }
            5 if at < input.len() => {
                // A length or number that is a little, or very, different.
                input[at] = input[at].wrapping_add(if numbers.below(2) == 0 { 1 } else { 0xFF });
            }
            _ => {
                let byte = numbers.byte();
                input.insert(at, byte);
            }
        }
    }
}
