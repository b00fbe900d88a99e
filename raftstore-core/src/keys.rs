//! Where each record of a store lies in its data engine, and how user keys become data keys.
//!
//! Records of the store begin with the byte `01`, user data with `z`, so that neither can
//! reach into the other. Numbers inside keys are big-endian, so that byte order is number
//! order. The raft log engine has a key layout of its own; nothing of it is here.
//!
//! | record | family | key |
//! |---|---|---|
//! | store identity | default | `01 01` |
//! | prepared bootstrap | default | `01 02` |
//! | apply state | raft | `01 02 <region> 03` |
//! | raft state of an accepted snapshot | raft | `01 02 <region> 04` |
//! | region state | raft | `01 03 <region> 01` |
//! | quarantine mark | raft | `01 03 <region> 02` |
//! | user data | any but raft | `7A <user key>` |

use raftstore_proto::{ApplyState, HardState, LocalState, PeerId, Region, RegionId, Truncated};

/// Length of every key that names a record of one region.
pub const REGION_KEY_LEN: usize = 11;

/// Key of the store's identity, in the default family.
pub const STORE_IDENT: [u8; 2] = [LOCAL, 0x01];

/// Key of the first region while its cluster is being bootstrapped, in the default family.
pub const PREPARE_BOOTSTRAP: [u8; 2] = [LOCAL, 0x02];

/// First key of the records found by a scan over regions.
pub const REGION_META_MIN: [u8; 2] = [LOCAL, REGION_META];

/// End, exclusive, of the records found by a scan over regions.
pub const REGION_META_MAX: [u8; 2] = [LOCAL, REGION_META + 1];

/// First byte of every data key.
pub const DATA_PREFIX: u8 = b'z';

/// First data key.
pub const DATA_MIN: [u8; 1] = [DATA_PREFIX];

/// End, exclusive, of all data keys.
pub const DATA_MAX: [u8; 1] = [DATA_PREFIX + 1];

/// Suffix of a region's lifecycle record.
pub const REGION_STATE_SUFFIX: u8 = 0x01;

/// Suffix of the mark that a replica is out of service because a record of it is damaged.
pub const QUARANTINE_SUFFIX: u8 = 0x02;

/// Term of the entry a new region's log begins after.
///
/// Together with [`RAFT_INIT_LOG_INDEX`] it makes the log of a new region begin at 6, so
/// that an empty replica can never be caught up by entries: it always gets a snapshot.
pub const RAFT_INIT_LOG_TERM: u64 = 5;

/// Index of the entry a new region's log begins after.
pub const RAFT_INIT_LOG_INDEX: u64 = 5;

/// State of a new region's data.
pub(crate) const fn initial_apply_state() -> ApplyState {
    ApplyState {
        applied: RAFT_INIT_LOG_INDEX,
        applied_term: RAFT_INIT_LOG_TERM,
        truncated: Truncated { index: RAFT_INIT_LOG_INDEX, term: RAFT_INIT_LOG_TERM },
    }
}

/// State of a new region's log.
pub(crate) const fn initial_local_state(peer: PeerId) -> LocalState {
    LocalState {
        peer,
        hard_state: HardState { term: RAFT_INIT_LOG_TERM, vote: 0, commit: RAFT_INIT_LOG_INDEX },
        last_index: RAFT_INIT_LOG_INDEX,
    }
}

/// State of a split-born region's log, when `voted` is what a peer of the same id that
/// waited for its data has promised (H9, W3).
pub(crate) fn completed_local_state(voted: &LocalState) -> LocalState {
    let HardState { term, vote, .. } = voted.hard_state;
    LocalState {
        peer: voted.peer,
        hard_state: HardState {
            term: term.max(RAFT_INIT_LOG_TERM),
            vote: if term > RAFT_INIT_LOG_TERM { vote } else { 0 },
            commit: RAFT_INIT_LOG_INDEX,
        },
        last_index: RAFT_INIT_LOG_INDEX,
    }
}

const LOCAL: u8 = 0x01;
const REGION_RAFT: u8 = 0x02;
const REGION_META: u8 = 0x03;
const APPLY_STATE_SUFFIX: u8 = 0x03;
const SNAPSHOT_RAFT_STATE_SUFFIX: u8 = 0x04;

/// Key of a region's apply state, in the raft family.
#[must_use]
pub fn apply_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_RAFT, region, APPLY_STATE_SUFFIX)
}

/// Key of the copy of the raft state that belongs to an accepted snapshot, in the raft
/// family. There only while the snapshot is being installed.
#[must_use]
pub fn snapshot_raft_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_RAFT, region, SNAPSHOT_RAFT_STATE_SUFFIX)
}

/// Key of a region's lifecycle record, in the raft family.
#[must_use]
pub fn region_state_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_META, region, REGION_STATE_SUFFIX)
}

/// Key of the mark that takes a damaged replica out of service, in the raft family. Its
/// value says why, as text.
#[must_use]
pub fn quarantine_key(region: RegionId) -> [u8; REGION_KEY_LEN] {
    region_key(REGION_META, region, QUARANTINE_SUFFIX)
}

fn region_key(kind: u8, region: RegionId, suffix: u8) -> [u8; REGION_KEY_LEN] {
    let mut key = [0; REGION_KEY_LEN];
    key[0] = LOCAL;
    key[1] = kind;
    key[2..10].copy_from_slice(&region.get().to_be_bytes());
    key[10] = suffix;
    key
}

/// The region and the suffix of a key found by the scan over regions.
///
/// `None` for anything of another length, outside the scanned range, or naming region 0.
#[must_use]
pub fn decode_region_meta_key(key: &[u8]) -> Option<(RegionId, u8)> {
    let key: &[u8; REGION_KEY_LEN] = key.try_into().ok()?;
    let [LOCAL, REGION_META, number @ .., suffix] = key else {
        return None;
    };
    Some((RegionId::new(u64::from_be_bytes(*number))?, *suffix))
}

/// The region of a lifecycle record's key. Length, prefix and suffix must all fit (H64).
#[must_use]
pub fn decode_region_state_key(key: &[u8]) -> Option<RegionId> {
    match decode_region_meta_key(key)? {
        (region, REGION_STATE_SUFFIX) => Some(region),
        _ => None,
    }
}

/// Where the value of a user key lies.
#[must_use]
pub fn data_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    write_data_key(key, &mut out);
    out
}

/// Puts the data key of `key` into `out` in place of what was there, keeping its memory.
pub fn write_data_key(key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(DATA_PREFIX);
    out.extend_from_slice(key);
}

/// The data key that ends a range of user keys; an empty end is after every user key.
#[must_use]
pub fn data_end_key(end_key: &[u8]) -> Vec<u8> {
    if end_key.is_empty() { DATA_MAX.to_vec() } else { data_key(end_key) }
}

/// The data keys `[start, end)` of a region.
///
/// # Panics
/// If the region is not initialised: its range is then unknown, not everything.
#[must_use]
pub fn region_data_range(region: &Region) -> (Vec<u8>, Vec<u8>) {
    assert!(region.is_initialized(), "range of the uninitialised region {}", region.id);
    (data_key(&region.start_key), data_end_key(&region.end_key))
}

/// The user key of a data key.
///
/// # Panics
/// If `data_key` is not one.
#[must_use]
pub fn origin_key(data_key: &[u8]) -> &[u8] {
    assert_eq!(data_key.first(), Some(&DATA_PREFIX), "{data_key:?} is no data key");
    &data_key[1..]
}

#[cfg(test)]
mod tests {
    use raftstore_proto::{Peer, PeerId, StoreId};

    use super::*;

    const R1: RegionId = RegionId::must(1);

    fn region(start: &'static [u8], end: &'static [u8]) -> Region {
        let mut region = Region::uninitialized(R1);
        region.start_key = start.into();
        region.end_key = end.into();
        region.peers.push(Peer::voter(PeerId::must(2), StoreId::must(3)));
        region
    }

    #[test]
    fn layout_is_the_documented_one() {
        assert_eq!(STORE_IDENT, [1, 1]);
        assert_eq!(PREPARE_BOOTSTRAP, [1, 2]);
        assert_eq!(apply_state_key(R1), [1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 3]);
        assert_eq!(snapshot_raft_state_key(R1), [1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 4]);
        assert_eq!(region_state_key(R1), [1, 3, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(quarantine_key(R1), [1, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(data_key(b"a"), b"za");
        assert_eq!(data_key(b""), b"z");
    }

    #[test]
    fn byte_order_is_number_order() {
        let ids = [1, 2, 255, 256, 65_535, 1 << 32, u64::MAX].map(RegionId::must);
        for pair in ids.windows(2) {
            assert!(region_state_key(pair[0]) < region_state_key(pair[1]));
            assert!(apply_state_key(pair[0]) < apply_state_key(pair[1]));
            // All records of one region come before those of the next.
            assert!(quarantine_key(pair[0]) < region_state_key(pair[1]));
        }
    }

    #[test]
    fn scan_range_holds_region_records_and_nothing_else() {
        let inside = |key: &[u8]| *key >= REGION_META_MIN[..] && *key < REGION_META_MAX[..];
        for id in [1, u64::MAX].map(RegionId::must) {
            assert!(inside(&region_state_key(id)));
            assert!(!inside(&apply_state_key(id)));
            assert!(!inside(&snapshot_raft_state_key(id)));
        }
        assert!(!inside(&STORE_IDENT) && !inside(&PREPARE_BOOTSTRAP) && !inside(&data_key(b"")));
    }

    #[test]
    fn local_keys_never_meet_data_keys() {
        for local in [&STORE_IDENT[..], &region_state_key(RegionId::must(u64::MAX))] {
            assert!(*local > [0x01][..] && *local < [0x02][..]);
            assert!(*local < DATA_MIN[..]);
        }
    }

    #[test]
    fn region_state_keys_decode() {
        for id in [1, 7, u64::MAX].map(RegionId::must) {
            assert_eq!(decode_region_state_key(&region_state_key(id)), Some(id));
            assert_eq!(decode_region_meta_key(&quarantine_key(id)), Some((id, QUARANTINE_SUFFIX)));
        }
    }

    /// H64: a decoder that looks at the length alone takes another region's, or another
    /// kind's, key for its own.
    #[test]
    fn h64_foreign_keys_are_refused() {
        let key = region_state_key(R1);
        assert_eq!(decode_region_state_key(&key[..10]), None, "too short");
        assert_eq!(decode_region_state_key(&[&key[..], &[0]].concat()), None, "too long");
        assert_eq!(decode_region_state_key(&apply_state_key(R1)), None, "another kind");
        assert_eq!(decode_region_state_key(&quarantine_key(R1)), None, "another suffix");
        let mut data = key;
        data[0] = DATA_PREFIX;
        assert_eq!(decode_region_state_key(&data), None, "another prefix");
        assert_eq!(decode_region_state_key(&[1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None, "region 0");
        assert_eq!(decode_region_state_key(b""), None);
    }

    #[test]
    fn data_ranges() {
        assert_eq!(region_data_range(&region(b"", b"")), (b"z".to_vec(), b"{".to_vec()));
        assert_eq!(region_data_range(&region(b"a", b"m")), (b"za".to_vec(), b"zm".to_vec()));
        assert_eq!(region_data_range(&region(b"m", b"")), (b"zm".to_vec(), b"{".to_vec()));
        // The largest keys there are still lie below the end of an endless range.
        assert!(data_key(&[0xFF; 64]) < data_end_key(b""));
    }

    #[test]
    #[should_panic(expected = "uninitialised region 1")]
    fn range_of_an_uninitialised_region_is_a_bug() {
        let _ = region_data_range(&Region::uninitialized(R1));
    }

    #[test]
    fn origin_is_the_inverse_of_data() {
        for key in [&b""[..], b"a", b"zz", &[0xFF; 3]] {
            assert_eq!(origin_key(&data_key(key)), key);
        }
    }

    #[test]
    #[should_panic(expected = "is no data key")]
    fn origin_of_a_local_key_is_a_bug() {
        let _ = origin_key(&STORE_IDENT);
    }

    #[test]
    fn write_data_key_replaces_what_was_there() {
        let mut buffer = b"something longer".to_vec();
        write_data_key(b"k", &mut buffer);
        assert_eq!(buffer, b"zk");
    }
}
