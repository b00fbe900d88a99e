//! Comparing: all replicas of every region, each store as of one moment, at equal applied
//! indexes. Nothing is read through raft here: what counts is what is on the disks.

use std::{collections::BTreeMap, time::Duration};

use engine_traits::{Cf, DATA_CFS, Direction, Range, Reader, Result as EngineResult};
use raftstore_core::keys;
use raftstore_proto::{DecodeError, Region, RegionId, RegionPhase, StoreId, wire::record};

use super::{DemoError, say};
use crate::{
    cluster::{Cluster, ClusterError, SnapshotOf},
    machine::Machine,
};

/// A replica's records of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    region: Region,
    phase: RegionPhase,
    applied: u64,
}

/// What a range holds, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Content {
    rows: u64,
    crc: u32,
}

/// What comes of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// All are equal, and no store holds anything else.
    Equal,
    /// Replicas that have applied the same entries differ.
    Different(String),
    /// Not all are at the same place yet.
    NotYet(String),
}

/// Whether all replicas hold the same. The last entries, and the removal of replicas that
/// were moved, may be under way still, so they get some time; replicas that differ although
/// they have applied the same entries get none.
pub(super) fn replicas_are_equal<M: Machine>(
    cluster: &Cluster<M>,
    patience: Duration,
) -> Result<bool, DemoError> {
    let mut last = Verdict::NotYet("nothing was compared".to_owned());
    let mut failed = None;
    let waited = cluster.wait("equality of the replicas", patience, || {
        match look(cluster) {
            Ok(verdict) => last = verdict,
            Err(error) => failed = Some(error),
        }
        failed.is_some() || !matches!(last, Verdict::NotYet(_))
    });
    if let Some(error) = failed {
        return Err(error);
    }
    match waited {
        Ok(()) | Err(ClusterError::Late { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match last {
        Verdict::Equal => Ok(true),
        Verdict::Different(why) | Verdict::NotYet(why) => {
            say(&why);
            Ok(false)
        }
    }
}

fn look<M: Machine>(cluster: &Cluster<M>) -> Result<Verdict, DemoError> {
    let mut stores = Vec::new();
    for (number, snapshot) in cluster.snapshots() {
        let snapshot = snapshot.map_err(|source| DemoError::Compare { number, source })?;
        let heads = heads(&snapshot).map_err(|source| DemoError::Compare { number, source })?;
        stores.push(Store::<SnapshotOf<M>> { number, snapshot, heads });
    }
    compare(&stores, &cluster.numbers())
}

/// A store at one moment.
struct Store<S> {
    number: u64,
    snapshot: S,
    heads: BTreeMap<RegionId, Head>,
}

/// The records of all replicas that a store serves.
fn heads<S: Reader>(snapshot: &S) -> EngineResult<BTreeMap<RegionId, Head>> {
    let mut heads = BTreeMap::new();
    let all = Range::new(&keys::REGION_META_MIN, &keys::REGION_META_MAX);
    let mut cursor = snapshot.cursor(Cf::Raft, all, Direction::Forward)?;
    while let Some((key, value)) = cursor.next()? {
        let Some(id) = keys::decode_region_state_key(key) else { continue };
        let damaged = |error: DecodeError| engine_traits::Error::Corrupt {
            engine: "raftkv",
            place: format!("a record of region {id}"),
            detail: error.to_string(),
        };
        let state = record::decode_region_state(id, value).map_err(damaged)?;
        if state.phase == RegionPhase::Tombstone {
            continue;
        }
        let apply_state = snapshot
            .get(Cf::Raft, &keys::apply_state_key(id))?
            .ok_or_else(|| damaged(DecodeError::Missing { what: "apply state" }))?;
        let applied = record::decode_apply_state(id, &apply_state).map_err(damaged)?.applied;
        heads.insert(id, Head { region: state.region, phase: state.phase, applied });
    }
    Ok(heads)
}

fn compare<S: Reader>(
    stores: &[Store<S>],
    numbers: &BTreeMap<StoreId, u64>,
) -> Result<Verdict, DemoError> {
    let mut regions: BTreeMap<RegionId, Vec<(&Store<S>, &Head)>> = BTreeMap::new();
    for store in stores {
        for (id, head) in &store.heads {
            regions.entry(*id).or_default().push((store, head));
        }
    }
    // All heads first: there is no use in reading data while they still move.
    for (id, replicas) in &regions {
        if let Some(why) = not_yet(*id, replicas, numbers) {
            return Ok(Verdict::NotYet(why));
        }
    }
    if let Some(why) =
        gap(regions.values().filter_map(|replicas| Some(&replicas.first()?.1.region)))
    {
        return Ok(Verdict::NotYet(why));
    }
    let mut held: BTreeMap<u64, u64> = BTreeMap::new();
    for (id, replicas) in &regions {
        let mut first: Option<(u64, Content)> = None;
        for (Store { number, snapshot, .. }, head) in replicas {
            let (start, end) = keys::region_data_range(&head.region);
            let found = content(snapshot, Range::new(&start, &end))
                .map_err(|source| DemoError::Compare { number: *number, source })?;
            *held.entry(*number).or_default() += found.rows;
            match first {
                None => first = Some((*number, found)),
                Some((_, same)) if same == found => {}
                Some((other, Content { rows, crc })) => {
                    return Ok(Verdict::Different(format!(
                        "region {id} at entry {}: store {other} holds {rows} rows with checksum \
                         {crc:08x}, store {number} {} rows with {:08x}",
                        head.applied, found.rows, found.crc
                    )));
                }
            }
        }
    }
    for Store { number, snapshot, .. } in stores {
        let all = content(snapshot, Range::new(&keys::DATA_MIN, &keys::DATA_MAX))
            .map_err(|source| DemoError::Compare { number: *number, source })?;
        let in_regions = held.get(number).copied().unwrap_or_default();
        if all.rows != in_regions {
            return Ok(Verdict::NotYet(format!(
                "store {number} holds {} rows, of them {in_regions} in its regions",
                all.rows
            )));
        }
    }
    Ok(Verdict::Equal)
}

/// Why the replicas of a region cannot be compared: they do not agree on the region and on
/// how much of its log is applied, or they are not on the stores the region names.
fn not_yet<S>(
    id: RegionId,
    replicas: &[(&Store<S>, &Head)],
    numbers: &BTreeMap<StoreId, u64>,
) -> Option<String> {
    let (_, newest) = replicas.iter().max_by_key(|(_, head)| head.applied)?;
    let mut members: Vec<u64> = newest
        .region
        .peers
        .iter()
        .map(|peer| numbers.get(&peer.store).copied().unwrap_or_default())
        .collect();
    members.sort_unstable();
    let on: Vec<u64> = replicas.iter().map(|(store, _)| store.number).collect();
    if on != members {
        return Some(format!("region {id} is on stores {on:?}, its members are on {members:?}"));
    }
    let is_behind = |head: &Head| head != *newest || head.phase != RegionPhase::Normal;
    let (store, head) = replicas.iter().find(|(_, head)| is_behind(head))?;
    Some(format!(
        "region {id}: store {} is at entry {} of {}, and {:?}",
        store.number, head.applied, newest.applied, head.phase
    ))
}

/// Where regions do not hold every key exactly once.
fn gap<'a>(regions: impl Iterator<Item = &'a Region>) -> Option<String> {
    let mut regions: Vec<&Region> = regions.collect();
    regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
    let (Some(first), Some(last)) = (regions.first(), regions.last()) else {
        return Some("there is no region".to_owned());
    };
    if !first.start_key.is_empty() || !last.end_key.is_empty() {
        return Some("no region holds the first keys, or the last".to_owned());
    }
    regions
        .windows(2)
        .find(|pair| pair[0].end_key != pair[1].start_key)
        .map(|pair| format!("regions {} and {} do not meet at one key", pair[0].id, pair[1].id))
}

fn content<S: Reader>(snapshot: &S, range: Range<'_>) -> EngineResult<Content> {
    let mut content = Content::default();
    for cf in DATA_CFS {
        let mut cursor = snapshot.cursor(cf, range, Direction::Forward)?;
        while let Some((key, value)) = cursor.next()? {
            content.rows += 1;
            for part in [&key.len().to_be_bytes(), key, value] {
                content.crc = crc32c::crc32c_append(content.crc, part);
            }
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
