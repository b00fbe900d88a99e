//! What replicas are compared by: hashes of logical content, the same on every engine.
//!
//! A region's hash covers its id, range, epoch and members, and every row of user data,
//! family by family in order of name, under user keys. It covers nothing of how an engine
//! or a store lays things out. Everything that goes in is preceded by its length, so that
//! different contents never look the same.
//!
//! The form is frozen: replicas that hash differently would accuse each other. A change
//! needs another [`VERSION`], which makes hashes of two versions incomparable.

use std::fmt;

use bytes::Bytes;
use engine_traits::{DATA_CFS, Direction, Range, Reader};
use raftstore_proto::{Cf, PeerRole, Region};

use crate::keys;

/// First byte of an encoded hash.
const VERSION: u8 = 1;

/// Length of an encoded hash.
const ENCODED_LEN: usize = 13;

/// Most keys remembered while looking for a middle one. With half as many the middle may be
/// off by 1/16 of the rows, with double the walk copies keys for nothing.
const SAMPLES_MAX: usize = 32;

/// Marks of what follows.
const MARK_REGION: u8 = 1;
const MARK_FAMILY: u8 = 2;
const MARK_ROW: u8 = 3;

/// Hash of a region at one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionHash {
    /// CRC32C of all content.
    pub crc: u32,
    /// Number of rows, in all families.
    pub rows: u64,
}

impl RegionHash {
    /// The form that is sent to other replicas.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(ENCODED_LEN);
        out.push(VERSION);
        out.extend_from_slice(&self.crc.to_be_bytes());
        out.extend_from_slice(&self.rows.to_be_bytes());
        out.into()
    }

    /// A hash from another replica; `None` if it is of another version and says nothing
    /// about ours.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENCODED_LEN] = bytes.try_into().ok()?;
        let [VERSION, c0, c1, c2, c3, rows @ ..] = bytes else {
            return None;
        };
        Some(Self {
            crc: u32::from_be_bytes([*c0, *c1, *c2, *c3]),
            rows: u64::from_be_bytes(*rows),
        })
    }
}

impl fmt::Display for RegionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x} over {} rows", self.crc, self.rows)
    }
}

/// Hash of part of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeHash {
    /// CRC32C of the rows.
    pub crc: u32,
    /// Their number.
    pub rows: u64,
    /// The user key of a row near the middle, not the first one; `None` below two rows.
    pub middle: Option<Bytes>,
}

impl RangeHash {
    /// Whether both ranges hold the same rows. Where the middle was found does not matter.
    #[must_use]
    pub fn is_same_content(&self, other: &Self) -> bool {
        (self.crc, self.rows) == (other.crc, other.rows)
    }
}

/// Hashes rows in slices, so that nobody has to wait for all of them.
#[derive(Debug)]
pub(crate) struct RowWalk {
    /// Families still to be read; the first is being read.
    families: &'static [Cf],
    /// First data key of the range.
    start: Vec<u8>,
    /// End data key, exclusive.
    end: Vec<u8>,
    /// Data key from which the current family goes on.
    next: Vec<u8>,
    crc: u32,
    rows: u64,
    samples: Option<Samples>,
}

impl RowWalk {
    /// Over a region: its description and all its data.
    ///
    /// # Panics
    /// If the region is not initialised.
    pub(crate) fn region(region: &Region) -> Self {
        let (start, end) = keys::region_data_range(region);
        let mut walk = Self::new(&DATA_CFS, start, end);
        walk.add_description(region);
        walk
    }

    /// Over the user keys `[start, end)` of one family; an empty end is after every key.
    pub(crate) fn range(cf: Cf, start: &[u8], end: &[u8]) -> Self {
        let family = match cf {
            Cf::Default => &[Cf::Default][..],
            Cf::Lock => &[Cf::Lock],
            Cf::Write => &[Cf::Write],
            Cf::Raft => &[Cf::Raft],
        };
        let mut walk = Self::new(family, keys::data_key(start), keys::data_end_key(end));
        walk.samples = Some(Samples::default());
        walk
    }

    fn new(families: &'static [Cf], start: Vec<u8>, end: Vec<u8>) -> Self {
        Self { families, next: start.clone(), start, end, crc: 0, rows: 0, samples: None }
    }

    /// Reads on until about `bytes` of keys and values were read. Gives whether that was
    /// the last of them. After an error the walk is of no use.
    pub(crate) fn advance(
        &mut self,
        reader: &dyn Reader,
        bytes: u64,
    ) -> Result<bool, engine_traits::Error> {
        let mut read = 0;
        while let [family, rest @ ..] = self.families {
            if self.next == self.start {
                self.add(&[MARK_FAMILY]);
                self.add_sized(family.name().as_bytes());
            }
            let range = Range::new(&self.next, &self.end);
            let mut cursor = reader.cursor(*family, range, Direction::Forward)?;
            while let Some((key, value)) = cursor.next()? {
                read += (key.len() + value.len()) as u64;
                let key = keys::origin_key(key);
                self.add(&[MARK_ROW]);
                self.add_sized(key);
                self.add_sized(value);
                if let Some(samples) = &mut self.samples {
                    samples.take(self.rows, key);
                }
                self.rows += 1;
                if read >= bytes {
                    // Right behind this key.
                    keys::write_data_key(key, &mut self.next);
                    self.next.push(0);
                    return Ok(false);
                }
            }
            self.families = rest;
            self.next.clone_from(&self.start);
        }
        Ok(true)
    }

    pub(crate) const fn region_hash(&self) -> RegionHash {
        RegionHash { crc: self.crc, rows: self.rows }
    }

    pub(crate) fn range_hash(&self) -> RangeHash {
        let middle = self.samples.as_ref().and_then(Samples::middle);
        RangeHash { crc: self.crc, rows: self.rows, middle }
    }

    /// What the replicas must agree on about the region itself. Its members may be listed
    /// in any order.
    fn add_description(&mut self, region: &Region) {
        self.add(&[MARK_REGION]);
        self.add(&region.id.get().to_be_bytes());
        self.add_sized(&region.start_key);
        self.add_sized(&region.end_key);
        self.add(&region.epoch.conf_ver.to_be_bytes());
        self.add(&region.epoch.version.to_be_bytes());
        let mut peers = region.peers.clone();
        peers.sort_by_key(|peer| peer.id);
        self.add(&(peers.len() as u64).to_be_bytes());
        for peer in peers {
            self.add(&peer.id.get().to_be_bytes());
            self.add(&peer.store.get().to_be_bytes());
            self.add(&[match peer.role {
                PeerRole::Voter => 0,
                PeerRole::Learner => 1,
                PeerRole::IncomingVoter => 2,
                PeerRole::DemotingVoter => 3,
            }]);
        }
    }

    fn add_sized(&mut self, bytes: &[u8]) {
        self.add(&(bytes.len() as u64).to_be_bytes());
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

/// Some keys of a walk of unknown length, evenly apart.
#[derive(Debug)]
struct Samples {
    keys: Vec<Bytes>,
    /// Every so many rows one is taken.
    stride: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { keys: Vec::new(), stride: 1 }
    }
}

impl Samples {
    /// Looks at row `number`, counted from 0.
    fn take(&mut self, number: u64, key: &[u8]) {
        if number == 0 || !number.is_multiple_of(self.stride) {
            return;
        }
        if self.keys.len() == SAMPLES_MAX {
            // The 2nd, 4th, ... are those at the doubled stride.
            let mut position = 0;
            self.keys.retain(|_| {
                position += 1;
                position % 2 == 0
            });
            self.stride *= 2;
            if !number.is_multiple_of(self.stride) {
                return;
            }
        }
        self.keys.push(Bytes::copy_from_slice(key));
    }

    fn middle(&self) -> Option<Bytes> {
        self.keys.get(self.keys.len().saturating_sub(1) / 2).cloned()
    }
}

#[cfg(test)]
mod tests {
    use engine_traits::{Durability, KvEngine, WriteBatch, mem::MemEngine};
    use raftstore_proto::{Epoch, Peer, PeerId, RegionId, StoreId};

    use super::*;

    fn region() -> Region {
        let peer = |id| Peer::voter(PeerId::must(id), StoreId::must(id));
        Region {
            id: RegionId::must(1),
            start_key: Bytes::from_static(b"a"),
            end_key: Bytes::from_static(b"n"),
            epoch: Epoch { conf_ver: 2, version: 3 },
            peers: vec![peer(1), peer(2), peer(3)],
        }
    }

    fn filled(rows: &[(Cf, &str, &str)]) -> MemEngine {
        let kv = MemEngine::default();
        let mut batch = kv.write_batch();
        for (cf, key, value) in rows {
            batch.put(*cf, &keys::data_key(key.as_bytes()), value.as_bytes());
        }
        kv.write(batch, Durability::Buffered).unwrap();
        kv
    }

    fn hash_in(kv: &MemEngine, region: &Region, slice: u64) -> RegionHash {
        let mut walk = RowWalk::region(region);
        let mut slices = 1;
        while !walk.advance(kv, slice).unwrap() {
            slices += 1;
        }
        assert!(slices <= walk.rows + 1);
        walk.region_hash()
    }

    fn hash(rows: &[(Cf, &str, &str)]) -> RegionHash {
        hash_in(&filled(rows), &region(), u64::MAX)
    }

    const ROWS: &[(Cf, &str, &str)] = &[
        (Cf::Default, "a", "1"),
        (Cf::Default, "b", ""),
        (Cf::Lock, "b", "2"),
        (Cf::Write, "m", "3"),
    ];

    /// The form on the wire and in the logs of running clusters.
    #[test]
    fn the_form_is_frozen() {
        assert_eq!(hash(ROWS), RegionHash { crc: 0x55BE_BD16, rows: 4 });
        let encoded = RegionHash { crc: 0x0102_0304, rows: 5 }.encode();
        assert_eq!(*encoded, [1, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn hashes_of_other_versions_say_nothing() {
        let hash = RegionHash { crc: 77, rows: u64::MAX };
        assert_eq!(RegionHash::decode(&hash.encode()), Some(hash));
        let mut other = hash.encode().to_vec();
        other[0] = 2;
        assert_eq!(RegionHash::decode(&other), None);
        assert_eq!(RegionHash::decode(&other[..12]), None);
        assert_eq!(RegionHash::decode(b""), None);
    }

    #[test]
    fn slices_make_no_difference() {
        let (kv, whole) = (filled(ROWS), hash(ROWS));
        for slice in 0..20 {
            assert_eq!(hash_in(&kv, &region(), slice), whole);
        }
    }

    #[test]
    fn every_part_of_a_row_counts_and_nothing_else_does() {
        let whole = hash(ROWS);
        for changed in [
            (Cf::Write, "a", "1"),
            (Cf::Default, "ab", "1"),
            (Cf::Default, "a", "2"),
            (Cf::Default, "a", ""),
        ] {
            let mut rows = ROWS.to_vec();
            rows[0] = changed;
            assert_ne!(hash(&rows), whole, "{changed:?}");
        }
        assert_ne!(hash(&ROWS[1..]), whole);
        // Bytes that move from a key to its value, or to the next row.
        assert_ne!(hash(&[(Cf::Default, "ab", "c")]), hash(&[(Cf::Default, "a", "bc")]));
        assert_ne!(hash(&[(Cf::Lock, "a", "")]), hash(&[(Cf::Write, "a", "")]));
        // Neighbours and records of the store.
        let kv = filled(ROWS);
        let mut batch = kv.write_batch();
        batch.put(Cf::Default, &keys::data_key(b"n"), b"right");
        batch.put(Cf::Default, &keys::data_key(b"A"), b"left");
        batch.put(Cf::Raft, &keys::region_state_key(RegionId::must(1)), b"state");
        kv.write(batch, Durability::Buffered).unwrap();
        assert_eq!(hash_in(&kv, &region(), 1), whole);
    }

    #[test]
    fn range_epoch_and_members_count_but_not_the_order_of_members() {
        let (kv, whole) = (filled(ROWS), hash(ROWS));
        let with = |change: fn(&mut Region)| {
            let mut region = region();
            change(&mut region);
            hash_in(&kv, &region, u64::MAX)
        };
        assert_eq!(with(|it| it.peers.reverse()), whole);
        assert_ne!(with(|it| it.id = RegionId::must(2)), whole);
        assert_ne!(with(|it| it.start_key = Bytes::new()), whole);
        assert_ne!(with(|it| it.end_key = Bytes::from_static(b"nn")), whole);
        assert_ne!(with(|it| it.epoch.conf_ver += 1), whole);
        assert_ne!(with(|it| it.epoch.version += 1), whole);
        assert_ne!(with(|it| it.peers[0].role = PeerRole::Learner), whole);
        assert_ne!(with(|it| it.peers[0].store = StoreId::must(9)), whole);
        assert_ne!(with(|it| it.peers.truncate(2)), whole);
    }

    /// H47: a hash over what could be read would accuse a healthy replica.
    #[test]
    fn h47_a_failed_read_gives_no_hash() {
        let kv = filled(ROWS);
        let reads = 3 + 4 + 3;
        for nth in 1..=reads {
            kv.faults().fail_read(nth);
            assert!(RowWalk::region(&region()).advance(&kv, u64::MAX).is_err(), "read {nth}");
        }
        kv.faults().fail_read(reads + 1);
        assert!(RowWalk::region(&region()).advance(&kv, u64::MAX).unwrap());
    }

    #[test]
    fn the_middle_is_near_the_middle_and_never_the_first() {
        for rows in [0_u64, 1, 2, 3, 5, 31, 32, 33, 34, 100, 1_000] {
            let keys: Vec<String> = (0..rows).map(|number| format!("k{number:04}")).collect();
            let kv =
                filled(&keys.iter().map(|key| (Cf::Lock, key.as_str(), "v")).collect::<Vec<_>>());
            let mut walk = RowWalk::range(Cf::Lock, b"k", b"l");
            while !walk.advance(&kv, 50).unwrap() {}
            let hash = walk.range_hash();
            assert_eq!(hash.rows, rows);
            let at =
                hash.middle.map(|key| keys.iter().position(|it| it.as_bytes() == key).unwrap());
            match (at, rows) {
                (None, 0 | 1) => {}
                (Some(at), 2..) => {
                    let share = at as f64 / rows as f64;
                    assert!(at > 0 && (0.2..0.8).contains(&share), "{at} of {rows}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
