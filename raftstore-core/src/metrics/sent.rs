//! How many messages of each kind have left.

use raftstore_proto::MessageKind;

/// Counts by kind of message, without a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent([u64; MessageKind::ALL.len()]);

impl Default for Sent {
    fn default() -> Self {
        Self([0; MessageKind::ALL.len()])
    }
}

impl Sent {
    /// One more message of this kind.
    pub const fn count(&mut self, kind: MessageKind) {
        self.0[kind as usize] += 1;
    }

    /// Messages of this kind.
    #[must_use]
    pub const fn of(&self, kind: MessageKind) -> u64 {
        self.0[kind as usize]
    }

    /// The kinds that have left at least once, with their counts, in the order of kinds.
    pub fn iter(&self) -> impl Iterator<Item = (MessageKind, u64)> + '_ {
        MessageKind::ALL.iter().map(|kind| (*kind, self.of(*kind))).filter(|(_, count)| *count > 0)
    }

    /// Adds the counts of another lane.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.0.iter_mut().zip(&other.0) {
            *own += others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind's number is its place among all of them.
    #[test]
    fn every_kind_has_a_count_of_its_own() {
        let mut sent = Sent::default();
        for (place, kind) in MessageKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
            for _ in 0..=place {
                sent.count(*kind);
            }
        }
        let doubled = {
            let mut sum = sent.clone();
            sum.merge(&sent);
            sum
        };
        for (place, (kind, count)) in doubled.iter().enumerate() {
            assert_eq!((kind, count), (MessageKind::ALL[place], 2 * (place as u64 + 1)));
        }
    }
}
