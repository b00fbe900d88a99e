//! What becomes of a hash: it waits for its other half, or is compared with it (9.9).
//!
//! Two hashes of the same index are compared, one that this store has computed and one that
//! a leader has sent, whichever comes first. A newer index displaces an older one that
//! still waits.

use std::cmp::Ordering;

use crate::{MonoTime, hash::RegionHash};

/// Where one peer stands with its comparisons.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// Index of the newest hash seen.
    index: u64,
    /// That hash, until it is compared, and where it comes from.
    half: Option<(Origin, RegionHash)>,
    /// When the last comparison was begun, or the peer was built.
    pub(crate) at: MonoTime,
}

/// Where a hash comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This store.
    Here,
    /// A leader, by the log.
    Leader,
}

/// What came of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits for its other half.
    Waits,
    /// It waits, and one that waited before will never be compared.
    Displaces,
    /// It is too old to be compared.
    TooOld,
    /// Its index is done with.
    Repeated,
    /// It is equal to its other half.
    Matches,
    /// Its other half is this one.
    Differs(RegionHash),
}

impl Checked {
    pub(crate) const fn new(at: MonoTime) -> Self {
        Self { index: 0, half: None, at }
    }

    /// Index of the newest hash seen.
    pub(crate) const fn index(&self) -> u64 {
        self.index
    }

    /// Takes in the hash of `index`. Hashes of two leaders are not compared: what they
    /// disagree about is not this replica.
    pub(crate) fn take(&mut self, index: u64, origin: Origin, hash: RegionHash) -> Verdict {
        match index.cmp(&self.index) {
            Ordering::Less => Verdict::TooOld,
            Ordering::Equal => match self.half.take_if(|(from, _)| *from != origin) {
                None => Verdict::Repeated,
                Some((_, other)) if other == hash => Verdict::Matches,
                Some((_, other)) => Verdict::Differs(other),
            },
            Ordering::Greater => {
                self.index = index;
                match self.half.replace((origin, hash)) {
                    None => Verdict::Waits,
                    Some(_) => Verdict::Displaces,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Origin::*, *};

    fn hash(crc: u32) -> RegionHash {
        RegionHash { crc, rows: 1 }
    }

    #[test]
    fn either_half_may_come_first_and_each_index_is_compared_once() {
        let mut checked = Checked::new(MonoTime::ZERO);
        assert_eq!(checked.take(7, Here, hash(1)), Verdict::Waits);
        assert_eq!(checked.take(7, Leader, hash(1)), Verdict::Matches);
        assert_eq!(checked.take(7, Leader, hash(2)), Verdict::Repeated);
        assert_eq!(checked.take(6, Here, hash(2)), Verdict::TooOld);
        assert_eq!(checked.take(9, Leader, hash(3)), Verdict::Waits);
        assert_eq!(checked.take(9, Here, hash(4)), Verdict::Differs(hash(3)));
        assert_eq!(checked.take(9, Here, hash(3)), Verdict::Repeated);
    }

    #[test]
    fn a_newer_index_displaces_one_that_waits() {
        let mut checked = Checked::new(MonoTime::ZERO);
        assert_eq!(checked.take(7, Here, hash(1)), Verdict::Waits);
        assert_eq!(checked.take(8, Leader, hash(2)), Verdict::Displaces);
        assert_eq!(checked.take(7, Leader, hash(1)), Verdict::TooOld);
        assert_eq!(checked.take(8, Here, hash(2)), Verdict::Matches);
        assert_eq!(checked.take(9, Here, hash(3)), Verdict::Waits, "nothing waited");
    }

    /// Both the old and the new leader may send their hash of one index.
    #[test]
    fn hashes_of_two_leaders_accuse_nobody_here() {
        let mut checked = Checked::new(MonoTime::ZERO);
        assert_eq!(checked.take(7, Leader, hash(1)), Verdict::Waits);
        assert_eq!(checked.take(7, Leader, hash(2)), Verdict::Repeated);
        assert_eq!(checked.take(7, Here, hash(1)), Verdict::Matches);
        assert_eq!(checked.take(7, Leader, hash(2)), Verdict::Repeated);
    }
}
