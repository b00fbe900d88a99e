//! Records without an input: the same ones for the same seed and run.

use bytes::Bytes;

use super::{Record, Survey};

/// Makes records up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generator {
    /// How many.
    pub(crate) count: u64,
    /// Bytes of each value.
    pub(crate) value_bytes: usize,
    /// Other seeds give other values.
    pub(crate) seed: u64,
    /// Number of the run over one directory. Part of every value, so that a value of an
    /// earlier run is never mistaken for one of this.
    pub(crate) run: u64,
}

/// A step of splitmix64.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

impl Generator {
    fn record(&self, number: u64) -> Record {
        let mut state = self.seed ^ self.run.rotate_left(40) ^ number.rotate_left(20);
        let mut value = Vec::with_capacity(self.value_bytes + 8);
        while value.len() < self.value_bytes {
            value.extend_from_slice(&mix(&mut state).to_le_bytes());
        }
        value.truncate(self.value_bytes);
        // Spread over the key space: a load that only appends is kinder to trees than life.
        let mut spread = number;
        let key = format!("record/{:016x}", mix(&mut spread));
        Record { key: key.into(), value: Bytes::from(value) }
    }

    /// The records, in no order of keys.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + use<> {
        let this = *self;
        (0..this.count).map(move |number| this.record(number))
    }

    /// What they amount to.
    pub(crate) fn survey(&self) -> Survey {
        let bytes = self.records().next().map_or(0, |record| record.key.len() + self.value_bytes);
        Survey { records: self.count, bytes: bytes as u64 * self.count, ..Survey::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GENERATOR: Generator = Generator { count: 1000, value_bytes: 100, seed: 7, run: 1 };

    #[test]
    fn keys_and_values_are_unique_and_repeat_with_the_seed() {
        let records: Vec<Record> = GENERATOR.records().collect();
        let keys: BTreeSet<_> = records.iter().map(|record| &record.key).collect();
        let values: BTreeSet<_> = records.iter().map(|record| &record.value).collect();
        assert_eq!((keys.len(), values.len()), (1000, 1000));
        assert_eq!(records, GENERATOR.records().collect::<Vec<_>>());
    }

    #[test]
    fn another_run_has_the_same_keys_and_other_values() {
        let later = Generator { run: 2, ..GENERATOR };
        for (first, second) in GENERATOR.records().zip(later.records()) {
            assert_eq!(first.key, second.key);
            assert_ne!(first.value, second.value);
        }
    }

    #[test]
    fn the_survey_counts_what_comes() {
        let mut counted = Survey::default();
        for record in GENERATOR.records() {
            counted.count(&record);
        }
        assert_eq!(GENERATOR.survey(), counted);
    }
}
