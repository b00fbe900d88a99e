//! The data of a region is exactly what its apply state says (behaviour 1.9; architecture
//! D4): after any crash, rows equal the committed entries up to the applied index.

use crate::engine::{SimKv, SimLog};
use engine_traits::{Cf, DATA_CFS, Direction, KvEngine, RaftEngine, Range, Reader};
use raftstore_core::keys;
use raftstore_proto::{ApplyState, Region, RegionPhase, RegionState, wire::record};

use super::{Ledger, Silence, Violation, chain::check_no_hole, effects::Rows};

/// Looks at the disk of a store that has just died.
///
/// # Errors
/// If a record cannot be read, a region's rows do not fit its apply state, or its log has a
/// hole.
pub fn check_disk(
    store: u64,
    kv: &SimKv,
    log: &SimLog,
    ledger: &Ledger,
    silence: &mut Silence,
) -> Result<(), Violation> {
    for state in region_states(store, kv)? {
        let region = &state.region;
        match state.phase {
            RegionPhase::Normal => {
                let apply = apply_state(store, kv, region)?;
                ledger.check_shape(store, apply.applied, region)?;
                check_rows(store, kv, region, &apply, ledger)?;
                let last = log.raft_state(region.id).ok().flatten().map_or(0, |raft| {
                    if region.peers.iter().any(|peer| peer.id == raft.peer) {
                        raft.last_index
                    } else {
                        0
                    }
                });
                check_no_hole(store, region.id.get(), apply.truncated.index, last, log)?;
            }
            RegionPhase::Tombstone => {
                if let Some(own) = region.peers.iter().find(|peer| peer.store.get() == store) {
                    silence.bury(store, region.id.get(), own.id.get());
                }
            }
            RegionPhase::Applying | RegionPhase::Merging | RegionPhase::Quarantined => {}
        }
    }
    Ok(())
}

fn unreadable(store: u64, what: &str, detail: &dyn std::fmt::Display) -> Violation {
    Violation::new("records are readable", format!("store {store}: {what}: {detail}"))
}

fn region_states(store: u64, kv: &SimKv) -> Result<Vec<RegionState>, Violation> {
    let range = Range::new(&keys::REGION_META_MIN, &keys::REGION_META_MAX);
    let mut cursor = kv
        .cursor(Cf::Raft, range, Direction::Forward)
        .map_err(|error| unreadable(store, "region states", &error))?;
    let mut states = Vec::new();
    loop {
        let row = cursor.next().map_err(|error| unreadable(store, "region states", &error))?;
        let Some((key, record)) = row else { return Ok(states) };
        let Some(region) = keys::decode_region_state_key(key) else { continue };
        let state = record::decode_region_state(region, record)
            .map_err(|error| unreadable(store, "a region state", &error))?;
        states.push(state);
    }
}

fn apply_state(store: u64, kv: &SimKv, region: &Region) -> Result<ApplyState, Violation> {
    let record = kv
        .get(Cf::Raft, &keys::apply_state_key(region.id))
        .map_err(|error| unreadable(store, "apply state", &error))?
        .ok_or_else(|| unreadable(store, "apply state", &format!("none for {}", region.id)))?;
    record::decode_apply_state(region.id, &record)
        .map_err(|error| unreadable(store, "apply state", &error))
}

fn check_rows(
    store: u64,
    kv: &SimKv,
    region: &Region,
    apply: &ApplyState,
    ledger: &Ledger,
) -> Result<(), Violation> {
    let Some(expected) = ledger.rows_at(region.id.get(), apply.applied) else { return Ok(()) };
    let found = logical_content(kv, region).map_err(|error| unreadable(store, "rows", &error))?;
    if expected == found {
        return Ok(());
    }
    let difference = expected
        .iter()
        .find(|(key, value)| found.get(*key) != Some(*value))
        .or_else(|| found.iter().find(|(key, _)| !expected.contains_key(*key)));
    Err(Violation::new(
        "apply state matches data",
        format!(
            "store {store}: region {} at applied index {} has {} rows instead of {}; first \
             difference at key {:?}",
            region.id,
            apply.applied,
            found.len(),
            expected.len(),
            difference.map(|((cf, key), _)| (*cf, key.escape_ascii().to_string()))
        ),
    ))
}

/// All user keys of an engine, by column family.
///
/// # Errors
/// If the engine cannot be read.
pub fn all_rows<K: KvEngine>(kv: &K) -> engine_traits::Result<Vec<(Cf, bytes::Bytes)>> {
    let mut rows = Vec::new();
    for cf in DATA_CFS {
        let range = Range::new(&keys::DATA_MIN, &keys::DATA_MAX);
        let mut cursor = kv.cursor(cf, range, Direction::Forward)?;
        while let Some((key, _)) = cursor.next()? {
            rows.push((cf, bytes::Bytes::copy_from_slice(keys::origin_key(key))));
        }
    }
    Ok(rows)
}

/// All rows of a region, user keys.
///
/// # Errors
/// If the engine cannot be read.
pub fn logical_content<K: KvEngine>(kv: &K, region: &Region) -> engine_traits::Result<Rows> {
    let (start, end) = keys::region_data_range(region);
    let mut rows = Rows::new();
    for cf in DATA_CFS {
        let mut cursor = kv.cursor(cf, Range::new(&start, &end), Direction::Forward)?;
        while let Some((key, value)) = cursor.next()? {
            let user_key = bytes::Bytes::copy_from_slice(keys::origin_key(key));
            rows.insert((cf, user_key), bytes::Bytes::copy_from_slice(value));
        }
    }
    Ok(rows)
}
