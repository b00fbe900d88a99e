//! Where a region may be cut if its keys are rows of tables, each in many versions.
//!
//! Such a key is the [memory-comparable](super::encode_bytes) form of a table key, and behind
//! it a version. A row of a table has several keys with one beginning: `t`, eight bytes of
//! table id, `_r`, eight bytes of row handle. Whoever reads the row wants all of them from one
//! region.

use bytes::Bytes;
use raftstore_proto::{AdminCommand, Region, RegionError, SplitRequest};

use super::{Asked, Observer, decode_bytes, encode_bytes};

/// Bytes of an id or a handle.
const NUMBER: usize = 8;
const TABLE: &[u8] = b"t";
const ROW: &[u8] = b"_r";
/// What all keys of one row begin with.
const ROW_PREFIX: usize = TABLE.len() + NUMBER + ROW.len() + NUMBER;

/// Moves cuts so that no row, and no key's versions, lie in two regions. An optional
/// observer; its customary priority is [`RowSplits::PRIORITY`].
///
/// A cut inside a row is moved to the row's beginning; one between the versions of any other
/// key to the first of them. Keys of another form are left alone. Cuts that come to lie at
/// the region's beginning, or on each other, are dropped. For the splits that a store wants
/// by itself there is [`WholeRows`](crate::split_check::WholeRows) too.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowSplits;

impl RowSplits {
    /// Where observers of splits are usually put.
    pub const PRIORITY: u32 = 100;
}

impl Observer for RowSplits {
    fn name(&self) -> &'static str {
        "row-splits"
    }

    fn pre_admin(
        &self,
        asked: &mut Asked<'_>,
        command: &mut AdminCommand,
    ) -> Result<(), RegionError> {
        if let AdminCommand::BatchSplit { requests, .. } = command {
            move_cuts(asked.region(), requests)?;
        }
        Ok(())
    }
}

fn move_cuts(region: &Region, requests: &mut Vec<SplitRequest>) -> Result<(), RegionError> {
    if requests.is_empty() {
        return Err(RegionError::InvalidCommand { why: "a split without a key" });
    }
    keep_rows_whole(&region.start_key, requests, |request| &mut request.key);
    if requests.is_empty() {
        return Err(RegionError::InvalidCommand { why: "no need to split: it is all one row" });
    }
    Ok(())
}

/// Moves ascending cuts of a region that starts at `start_key`, and drops those that come to
/// lie at its start or on each other.
pub(crate) fn keep_rows_whole<T>(
    start_key: &Bytes,
    cuts: &mut Vec<T>,
    key_of: impl Fn(&mut T) -> &mut Bytes,
) {
    let mut last = start_key.clone();
    cuts.retain_mut(|cut| {
        let key = key_of(cut);
        let Some(moved) = beginning(key) else { return true };
        let is_of_use = moved > last;
        if is_of_use {
            last = moved.clone();
            *key = moved;
        }
        is_of_use
    });
}

/// Where a cut at `key` should be. `None` if the key is not of the form.
fn beginning(key: &[u8]) -> Option<Bytes> {
    let (mut table_key, _version) = decode_bytes(key)?;
    if is_in_row(&table_key) {
        table_key.truncate(ROW_PREFIX);
    }
    Some(encode_bytes(&table_key).into())
}

fn is_in_row(table_key: &[u8]) -> bool {
    table_key.len() >= ROW_PREFIX
        && table_key.starts_with(TABLE)
        && table_key[TABLE.len() + NUMBER..].starts_with(ROW)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raftstore_proto::{Epoch, Peer, PeerId, RegionId, StoreId};

    use super::*;

    fn row(table: u64, handle: u64, column: &[u8]) -> Vec<u8> {
        [TABLE, &table.to_be_bytes(), ROW, &handle.to_be_bytes(), column].concat()
    }

    fn versioned(table_key: &[u8], version: u64) -> Vec<u8> {
        [encode_bytes(table_key), version.to_be_bytes().to_vec()].concat()
    }

    fn region(start: Vec<u8>) -> Region {
        Region {
            id: RegionId::must(1),
            start_key: start.into(),
            end_key: Bytes::new(),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![Peer::voter(PeerId::must(2), StoreId::must(1))],
        }
    }

    fn cuts(region: &Region, keys: &[Vec<u8>]) -> Result<Vec<Bytes>, RegionError> {
        let request = |(at, key): (usize, &Vec<u8>)| SplitRequest {
            key: key.clone().into(),
            new_region: RegionId::must(10 + at as u64),
            new_peers: vec![PeerId::must(20 + at as u64)],
        };
        let requests = keys.iter().enumerate().map(request).collect();
        let mut command = AdminCommand::BatchSplit { requests, right_derive: true };
        let mut asked = Asked { region, bypass: false };
        RowSplits.pre_admin(&mut asked, &mut command)?;
        let AdminCommand::BatchSplit { requests, .. } = command else {
            unreachable!("it stays a split");
        };
        Ok(requests.into_iter().map(|request| request.key).collect())
    }

    #[test]
    fn a_cut_inside_a_row_moves_to_its_beginning() {
        let whole = region(Vec::new());
        let start = Bytes::from(encode_bytes(&row(7, 3, b"")));
        for key in [
            versioned(&row(7, 3, b"column"), 99),
            versioned(&row(7, 3, b""), 1),
            encode_bytes(&row(7, 3, b"column")),
            start.to_vec(),
        ] {
            assert_eq!(cuts(&whole, &[key]), Ok(vec![start.clone()]));
        }
    }

    #[test]
    fn other_keys_lose_their_version_only() {
        let whole = region(Vec::new());
        let index = [&b"t"[..], &7_u64.to_be_bytes(), b"_i", &[5; 30]].concat();
        let short = row(7, 3, b"")[..ROW_PREFIX - 1].to_vec();
        for key in [index, short, b"meta".to_vec(), Vec::new()] {
            let cut = cuts(&whole, &[versioned(&key, 99)]).unwrap();
            assert_eq!(cut, [Bytes::from(encode_bytes(&key))]);
        }
    }

    #[test]
    fn keys_of_another_form_are_left_alone() {
        let whole = region(Vec::new());
        for key in [&b"plain"[..], b"not a form at all", &row(7, 3, b"")] {
            assert_eq!(cuts(&whole, &[key.to_vec()]).unwrap(), [Bytes::copy_from_slice(key)]);
        }
    }

    #[test]
    fn cuts_that_would_leave_an_empty_part_are_dropped() {
        let first = encode_bytes(&row(7, 3, b""));
        let starting = region(first);
        let inside = |handle, column: &[u8]| versioned(&row(7, handle, column), 1);
        let refused = cuts(&starting, &[inside(3, b"a"), inside(3, b"b")]);
        assert!(matches!(refused, Err(RegionError::InvalidCommand { .. })), "{refused:?}");
        let kept = cuts(&starting, &[inside(3, b"a"), inside(4, b"a"), inside(4, b"b")]).unwrap();
        assert_eq!(kept, [Bytes::from(encode_bytes(&row(7, 4, b"")))]);
        let nothing = cuts(&starting, &[]);
        assert!(matches!(nothing, Err(RegionError::InvalidCommand { .. })), "{nothing:?}");
    }

    #[test]
    fn other_commands_are_left_alone() {
        let whole = region(Vec::new());
        let mut asked = Asked { region: &whole, bypass: false };
        let mut command = AdminCommand::CompactLog { index: 5, term: 5 };
        RowSplits.pre_admin(&mut asked, &mut command).unwrap();
        assert_eq!(command, AdminCommand::CompactLog { index: 5, term: 5 });
    }

    proptest! {
        /// Whatever cut is asked for, all keys of a row lie on one side of it.
        #[test]
        fn no_row_straddles_a_cut(
            handle in 0_u64..4,
            at in 0_u64..4,
            columns in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 1..6),
            cut_column in proptest::collection::vec(any::<u8>(), 0..12),
            version: u64,
        ) {
            let cut = cuts(&region(Vec::new()), &[versioned(&row(7, at, &cut_column), version)]);
            let cut = cut.unwrap().remove(0);
            let mut sides = columns.iter().map(|column| {
                versioned(&row(7, handle, column), version) < cut.to_vec()
            });
            let first = sides.next().unwrap();
            prop_assert!(sides.all(|side| side == first));
        }
    }
}
