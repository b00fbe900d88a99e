//! Finds where two replicas differ, by halving the range in which their hashes do.

use bytes::Bytes;
use engine_traits::{DATA_CFS, Reader};
use raftstore_proto::{Cf, Region};

use crate::hash::{RangeHash, RowWalk};

/// One of two replicas: a store that can be asked, or an engine at hand.
pub trait HashedSide {
    /// Why it could not answer.
    type Error;

    /// The hash of the user keys `[start, end)` of a family, as of the moment at which the
    /// two sides are compared; an empty end is after every key.
    ///
    /// # Errors
    /// Whatever keeps the side from answering. The comparison ends there.
    fn range_hash(&mut self, cf: Cf, start: &[u8], end: &[u8]) -> Result<RangeHash, Self::Error>;
}

/// A replica in an engine, or in a snapshot of one, read in this process.
#[derive(Clone, Copy)]
pub struct ReaderSide<'a>(pub &'a dyn Reader);

impl std::fmt::Debug for ReaderSide<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderSide").finish_non_exhaustive()
    }
}

impl HashedSide for ReaderSide<'_> {
    type Error = engine_traits::Error;

    fn range_hash(&mut self, cf: Cf, start: &[u8], end: &[u8]) -> Result<RangeHash, Self::Error> {
        let mut walk = RowWalk::range(cf, start, end);
        while !walk.advance(self.0, u64::MAX)? {}
        Ok(walk.range_hash())
    }
}

/// The first range in which two replicas differ. It holds one row at most on each side, and
/// not the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The family.
    pub cf: Cf,
    /// First user key of the range.
    pub start: Bytes,
    /// End user key, exclusive; empty is after every key.
    pub end: Bytes,
    /// Rows in it, on the first and on the second side.
    pub rows: (u64, u64),
}

/// Finds the first difference in the data of `region`, family by family in order of name.
/// `None` if there is none: the replicas then differ in range, epoch or members, if at all.
///
/// Both sides must answer for one index of the region's log. Of sides that change meanwhile
/// the answer says nothing.
///
/// # Errors
/// The first that a side gives.
pub fn first_difference<E>(
    one: &mut dyn HashedSide<Error = E>,
    other: &mut dyn HashedSide<Error = E>,
    region: &Region,
) -> Result<Option<Difference>, E> {
    for cf in DATA_CFS {
        let mut halves = Halves { one, other, cf };
        if let Some(found) = halves.search(region.start_key.clone(), region.end_key.clone())? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

struct Halves<'a, E> {
    one: &'a mut dyn HashedSide<Error = E>,
    other: &'a mut dyn HashedSide<Error = E>,
    cf: Cf,
}

/// The hashes of both sides, which differ.
type Pair = (RangeHash, RangeHash);

impl<E> Halves<'_, E> {
    fn search(&mut self, mut start: Bytes, mut end: Bytes) -> Result<Option<Difference>, E> {
        let Some(mut differing) = self.compare(&start, &end)? else {
            return Ok(None);
        };
        while let Some(middle) = middle(&differing) {
            if let Some(left) = self.compare(&start, &middle)? {
                end = middle;
                differing = left;
            } else if let Some(right) = self.compare(&middle, &end)? {
                start = middle;
                differing = right;
            } else {
                // Only sides that do not stand still get here.
                return Ok(None);
            }
        }
        let rows = (differing.0.rows, differing.1.rows);
        Ok(Some(Difference { cf: self.cf, start, end, rows }))
    }

    /// The hashes of a range, if they differ.
    fn compare(&mut self, start: &[u8], end: &[u8]) -> Result<Option<Pair>, E> {
        let one = self.one.range_hash(self.cf, start, end)?;
        let other = self.other.range_hash(self.cf, start, end)?;
        Ok((!one.is_same_content(&other)).then_some((one, other)))
    }
}

/// Where to cut: in the middle of the fuller side, so that each cut takes rows away from it.
fn middle((one, other): &Pair) -> Option<Bytes> {
    let fuller = if one.rows >= other.rows { one } else { other };
    fuller.middle.clone()
}

#[cfg(test)]
mod tests {
    use engine_traits::{Durability, KvEngine, WriteBatch, mem::MemEngine};
    use raftstore_proto::{Epoch, Peer, PeerId, RegionId, StoreId};

    use super::*;
    use crate::keys;

    fn region(start: &'static str, end: &'static str) -> Region {
        Region {
            id: RegionId::must(1),
            start_key: start.into(),
            end_key: end.into(),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![Peer::voter(PeerId::must(1), StoreId::must(1))],
        }
    }

    fn filled(
        rows: u32,
        change: impl FnOnce(&mut <MemEngine as KvEngine>::WriteBatch),
    ) -> MemEngine {
        let kv = MemEngine::default();
        let mut batch = kv.write_batch();
        for number in 0..rows {
            for cf in DATA_CFS {
                batch.put(cf, &data(number), format!("{cf} {number}").as_bytes());
            }
        }
        change(&mut batch);
        kv.write(batch, Durability::Buffered).unwrap();
        kv
    }

    fn key(number: u32) -> String {
        format!("k{number:05}")
    }

    fn data(number: u32) -> Vec<u8> {
        keys::data_key(key(number).as_bytes())
    }

    fn find(one: &MemEngine, other: &MemEngine, region: &Region) -> Option<Difference> {
        let there = first_difference(&mut ReaderSide(one), &mut ReaderSide(other), region).unwrap();
        let back = first_difference(&mut ReaderSide(other), &mut ReaderSide(one), region).unwrap();
        let swapped = back.map(|it| Difference { rows: (it.rows.1, it.rows.0), ..it });
        assert_eq!(there, swapped, "it does not matter who is asked first");
        there
    }

    #[test]
    fn equal_replicas_do_not_differ() {
        assert_eq!(find(&filled(100, |_| ()), &filled(100, |_| ()), &region("", "")), None);
        assert_eq!(find(&filled(0, |_| ()), &filled(0, |_| ()), &region("", "")), None);
    }

    #[test]
    fn a_changed_missing_or_additional_row_is_found_wherever_it_is() {
        let healthy = filled(1_000, |_| ());
        for at in [0, 1, 2, 499, 500, 998, 999] {
            for cf in DATA_CFS {
                let changed = filled(1_000, |batch| batch.put(cf, &data(at), b"damaged"));
                let missing = filled(1_000, |batch| batch.delete(cf, &data(at)));
                let mut beside = data(at);
                beside.push(b'+');
                let additional = filled(1_000, |batch| batch.put(cf, &beside, b""));
                for (damaged, rows) in [(changed, (1, 1)), (missing, (1, 0)), (additional, (0, 1))]
                {
                    let found = find(&healthy, &damaged, &region("", "")).expect("they differ");
                    assert_eq!((found.cf, found.rows), (cf, rows), "row {at}");
                    let holds = |key: &[u8]| {
                        engine_traits::Range::new(&found.start, &found.end).contains(key)
                    };
                    let culprit = if rows == (0, 1) { &beside[..] } else { &data(at)[..] };
                    assert!(holds(keys::origin_key(culprit)), "row {at}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn the_first_of_several_is_found_in_the_region_alone() {
        let healthy = filled(100, |_| ());
        let damaged = filled(100, |batch| {
            for at in [10, 40, 41, 70] {
                batch.put(Cf::Write, &data(at), b"damaged");
            }
            batch.delete(Cf::Lock, &data(90));
        });
        let found = find(&healthy, &damaged, &region("k00020", "k00060")).expect("they differ");
        assert_eq!((found.cf, found.rows), (Cf::Write, (1, 1)));
        assert!(
            found.start.as_ref() <= key(40).as_bytes() && found.end.as_ref() > key(40).as_bytes()
        );
        assert!(found.end.as_ref() <= key(41).as_bytes());
        let found = find(&healthy, &damaged, &region("", "")).expect("they differ");
        assert_eq!(found.cf, Cf::Lock, "families go by name");
        assert_eq!(find(&healthy, &damaged, &region("k00042", "k00070")), None);
    }

    #[test]
    fn one_side_without_any_row_differs_at_the_first_of_the_other() {
        let (full, empty) = (filled(50, |_| ()), filled(0, |_| ()));
        let found = find(&full, &empty, &region("", "")).expect("they differ");
        assert_eq!((found.cf, found.rows), (Cf::Default, (1, 0)));
        assert_eq!(found.end, key(1));
    }

    #[test]
    fn a_side_that_cannot_answer_ends_the_search() {
        let (one, other) = (filled(100, |_| ()), filled(90, |_| ()));
        other.faults().fail_read(50);
        let found =
            first_difference(&mut ReaderSide(&one), &mut ReaderSide(&other), &region("", ""));
        assert!(found.is_err());
    }
}
