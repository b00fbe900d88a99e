//! The walk over the records of all regions, past those that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use engine_traits::{Direction, Error, KvEngine, Range};
use raftstore_proto::{Cf, RegionId, RegionState, wire::record};

use crate::{error::FatalError, keys};

const DOING: &str = "reading region states";

/// What the walk found about one region.
#[derive(Debug, Default)]
pub(in crate::store) struct Scanned {
    /// Its lifecycle record, or why it cannot be read.
    pub(in crate::store) state: Option<Result<RegionState, String>>,
    /// Why it was taken out of service before.
    pub(in crate::store) quarantined: Option<String>,
}

/// All regions with a record, in order. `logs` are the regions that have a raft log: they
/// are asked for one by one where the walk cannot go on.
pub(in crate::store) fn regions<K: KvEngine>(
    kv: &K,
    logs: &BTreeSet<RegionId>,
) -> Result<BTreeMap<RegionId, Scanned>, FatalError> {
    let mut found = BTreeMap::new();
    let mut from = keys::REGION_META_MIN.to_vec();
    loop {
        match walk(kv, &mut from, &mut found) {
            Ok(()) => return Ok(found),
            Err(error @ Error::Corrupt { .. }) => {
                let Some((region, why)) = next_unreadable(kv, &from, logs)? else {
                    return Err(FatalError::engine(DOING, None)(error));
                };
                let entry: &mut Scanned = found.entry(region).or_default();
                entry.state = Some(Err(why));
                from = after(&keys::region_state_key(region));
            }
            Err(error) => return Err(FatalError::engine(DOING, None)(error)),
        }
    }
}

/// Takes in records from `from` on, and moves it behind the last one read.
fn walk<K: KvEngine>(
    kv: &K,
    from: &mut Vec<u8>,
    found: &mut BTreeMap<RegionId, Scanned>,
) -> Result<(), Error> {
    let start = from.clone();
    let range = Range::new(&start, &keys::REGION_META_MAX);
    let mut cursor = kv.cursor(Cf::Raft, range, Direction::Forward)?;
    while let Some((key, value)) = cursor.next()? {
        *from = after(key);
        let Some((region, suffix)) = keys::decode_region_meta_key(key) else {
            return Err(Error::Corrupt {
                engine: kv.name(),
                place: format!("key {key:?}"),
                detail: "no key of a region record".to_owned(),
            });
        };
        match suffix {
            keys::REGION_STATE_SUFFIX => {
                let state = record::decode_region_state(region, value);
                let state = state.map_err(|error| error.to_string());
                found.entry(region).or_default().state = Some(state);
            }
            keys::QUARANTINE_SUFFIX => {
                let why = String::from_utf8_lossy(value).into_owned();
                found.entry(region).or_default().quarantined = Some(why);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first region at or behind `from` whose record the engine refuses to give.
fn next_unreadable<K: KvEngine>(
    kv: &K,
    from: &[u8],
    logs: &BTreeSet<RegionId>,
) -> Result<Option<(RegionId, String)>, FatalError> {
    for region in logs {
        let key = keys::region_state_key(*region);
        if key[..] < *from {
            continue;
        }
        match kv.get(Cf::Raft, &key) {
            Ok(_) => {}
            Err(error @ Error::Corrupt { .. }) => return Ok(Some((*region, error.to_string()))),
            Err(error) => return Err(FatalError::engine(DOING, Some(*region))(error)),
        }
    }
    Ok(None)
}

fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
