//! Answers that are put together from PD's records.

use bytes::Bytes;
use raftstore_grpc::pb::{metapb, pdpb, pdpb::ErrorType};
use raftstore_proto::{
    DecodeError, RegionId,
    wire::{peer_to_pb, region_to_pb},
};

use super::service::Refusal;
use crate::{
    Error, OperatorState, OperatorStatus, StoreInfo, StoreLifecycle,
    grpc::convert::{down_to_pb, store_to_pb},
    mock::{PdCore, RegionRecord},
};

/// Bytes of keys and members that one answer with many regions may hold: clients take 4 MiB
/// for the whole.
const SCAN_BYTES_MAX: usize = 1 << 20;
/// What a region takes besides its keys, roughly.
const REGION_BYTES: usize = 128;
/// Regions that one question may name.
const REGIONS_MAX: usize = 4096;
/// Bytes of an address, and of a label's key and value.
const TEXT_MAX: usize = 1024;
/// Labels of a store.
const LABELS_MAX: usize = 64;

/// A store whose description is of a size that PD wants to remember.
pub(super) fn admissible(store: StoreInfo) -> Result<StoreInfo, Error> {
    let is_long = |text: &String| text.len() > TEXT_MAX;
    if is_long(&store.address) {
        return Err(Error::Invalid("the address is longer than 1024 bytes"));
    }
    if store.labels.len() > LABELS_MAX {
        return Err(Error::Invalid("a store has at most 64 labels"));
    }
    if store.labels.iter().any(|(key, value)| is_long(key) || is_long(value)) {
        return Err(Error::Invalid("a label is longer than 1024 bytes"));
    }
    Ok(store)
}

pub(super) fn stores(core: &PdCore, without_buried: bool) -> Vec<metapb::Store> {
    core.stores()
        .filter(|it| !without_buried || it.info.lifecycle != StoreLifecycle::Tombstone)
        .map(|record| store_to_pb(&record.info))
        .collect()
}

pub(super) fn region(record: &RegionRecord) -> pdpb::GetRegionResponse {
    let mut answer = pdpb::GetRegionResponse::new();
    answer.set_region(region_to_pb(&record.region));
    if let Some(leader) = &record.leader {
        answer.set_leader(peer_to_pb(leader));
    }
    answer.down_peers = record.down_peers.iter().map(down_to_pb).collect();
    answer.pending_peers = record.pending_peers.iter().map(peer_to_pb).collect();
    answer
}

fn entry(record: &RegionRecord) -> pdpb::Region {
    let mut whole = region(record);
    let mut entry = pdpb::Region::new();
    entry.set_region(whole.take_region());
    if whole.has_leader() {
        entry.set_leader(whole.take_leader());
    }
    entry.down_peers = whole.take_down_peers();
    entry.pending_peers = whole.take_pending_peers();
    entry
}

/// Regions of one range, so far as there is room in the answer.
struct Scan {
    found: Vec<pdpb::Region>,
    limit: usize,
    bytes_left: usize,
}

impl Scan {
    /// A limit that is not positive is none.
    fn new(limit: i32) -> Self {
        let limit = usize::try_from(limit).ok().filter(|limit| *limit != 0);
        Self { found: Vec::new(), limit: limit.unwrap_or(usize::MAX), bytes_left: SCAN_BYTES_MAX }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit || self.bytes_left == 0
    }

    /// Adds what shares keys with `[start, end)`. Gives whether every key of it is in some
    /// region that was added.
    fn add(&mut self, core: &PdCore, start: &[u8], end: &[u8]) -> bool {
        let mut covered_to = Some(Bytes::copy_from_slice(start));
        for record in core.regions_from(start) {
            let region = &record.region;
            if self.is_full() || (!end.is_empty() && region.start_key.as_ref() >= end) {
                break;
            }
            let is_gapless = covered_to.as_ref().is_some_and(|to| region.start_key <= *to);
            let is_known =
                self.found.last().is_some_and(|it| it.get_region().id == region.id.get());
            if !is_known {
                let bytes = REGION_BYTES + 2 * (region.start_key.len() + region.end_key.len());
                self.bytes_left = self.bytes_left.saturating_sub(bytes);
                self.found.push(entry(record));
            }
            if !is_gapless {
                covered_to = None;
            } else if region.end_key.is_empty() {
                return true;
            } else if covered_to.is_some() {
                covered_to = Some(region.end_key.clone());
            }
        }
        covered_to.is_some_and(|to| !end.is_empty() && to.as_ref() >= end)
    }
}

fn in_order(start: &[u8], end: &[u8]) -> Result<(), Refusal> {
    if end.is_empty() || start <= end {
        return Ok(());
    }
    Err(Error::Invalid("a range ends before it starts").into())
}

pub(super) fn scan(
    core: &PdCore,
    request: &pdpb::ScanRegionsRequest,
) -> Result<pdpb::ScanRegionsResponse, Refusal> {
    if !core.is_bootstrapped() {
        return Err(Error::NotBootstrapped.into());
    }
    in_order(&request.start_key, &request.end_key)?;
    let mut scan = Scan::new(request.limit);
    scan.add(core, &request.start_key, &request.end_key);
    let mut answer = pdpb::ScanRegionsResponse::new();
    // Older clients look for the two lists; a region without a leader has an empty one.
    answer.region_metas = scan.found.iter().map(|it| it.get_region().clone()).collect();
    answer.leaders = scan.found.iter().map(|it| it.get_leader().clone()).collect();
    answer.regions = scan.found.into();
    Ok(answer)
}

pub(super) fn batch_scan(
    core: &PdCore,
    request: &pdpb::BatchScanRegionsRequest,
) -> Result<pdpb::BatchScanRegionsResponse, Refusal> {
    if !core.is_bootstrapped() {
        return Err(Error::NotBootstrapped.into());
    }
    let mut scan = Scan::new(request.limit);
    let mut last_end: Option<&Bytes> = None;
    for range in &request.ranges {
        in_order(&range.start_key, &range.end_key)?;
        if last_end.is_some_and(|end| end.is_empty() || range.start_key < *end) {
            return Err(Error::Invalid("the ranges overlap or are not in order").into());
        }
        last_end = Some(&range.end_key);
        if scan.is_full() {
            break;
        }
        let is_covered = scan.add(core, &range.start_key, &range.end_key);
        if request.contain_all_key_range && !is_covered && !scan.is_full() {
            return Err(Refusal::Told(
                ErrorType::REGIONS_NOT_CONTAIN_ALL_KEY_RANGE,
                "no region is known for a part of the ranges".to_owned(),
            ));
        }
    }
    let mut answer = pdpb::BatchScanRegionsResponse::new();
    answer.regions = scan.found.into();
    Ok(answer)
}

/// The regions to scatter, and their group.
pub(super) fn scattered(
    request: &pdpb::ScatterRegionRequest,
) -> Result<(Vec<RegionId>, &str), Refusal> {
    let one = std::slice::from_ref(&request.region_id);
    let ids = if request.regions_id.is_empty() { one } else { &request.regions_id };
    if ids.len() > REGIONS_MAX {
        return Err(Error::Invalid("at most 4096 regions are scattered at a time").into());
    }
    if request.group.len() > TEXT_MAX {
        return Err(Error::Invalid("the group's name is longer than 1024 bytes").into());
    }
    let regions = ids.iter().map(|id| RegionId::try_from(*id));
    Ok((regions.collect::<Result<_, DecodeError>>()?, &request.group))
}

pub(super) fn operator(region: u64, status: OperatorStatus) -> pdpb::GetOperatorResponse {
    let mut answer = pdpb::GetOperatorResponse::new();
    answer.region_id = region;
    answer.desc = Bytes::from(status.reason);
    answer.kind = answer.desc.clone();
    answer.status = match status.state {
        OperatorState::Running => pdpb::OperatorStatus::RUNNING,
        OperatorState::Finished => pdpb::OperatorStatus::SUCCESS,
        OperatorState::Cancelled => pdpb::OperatorStatus::CANCEL,
        OperatorState::TimedOut => pdpb::OperatorStatus::TIMEOUT,
        OperatorState::Replaced => pdpb::OperatorStatus::REPLACE,
    };
    answer
}
