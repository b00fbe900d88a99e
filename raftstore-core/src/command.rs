//! What the parts that handle commands must share: the rules on epochs, so that replicas
//! agree, and the execution of reads.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine_traits::Reader;
use raftstore_proto::{
    AdminCommand, Body, Header, Operation, OperationResponse, Region, RegionError, Response,
    ResponseBody, SplitRequest,
};

use crate::{
    hooks::{Bug, Hooks},
    keys,
};

/// Why a condition is refused beside other operations: one batch cannot hold both what they
/// write and what it must look at.
pub(crate) const CONDITION_NOT_ALONE: &str = "a conditional write stands alone in its command";

/// Which parts of the epoch a command depends on: (version, conf_ver).
///
/// A frozen format: replicas of one cluster must agree on it, or they diverge.
const fn depends_on(body: &Body) -> (bool, bool) {
    match body {
        Body::Operations(_) => (true, false),
        Body::Admin(admin) => match admin {
            AdminCommand::CompactLog { .. }
            | AdminCommand::ComputeHash
            | AdminCommand::VerifyHash { .. }
            | AdminCommand::Invalid { .. } => (false, false),
            // conf_ver too: peer ids for the new regions are given by position (H25).
            AdminCommand::BatchSplit { .. } | AdminCommand::TransferLeader(_) => (true, true),
            AdminCommand::ChangePeer(_) | AdminCommand::ChangePeerV2(_) => (false, true),
        },
        Body::Status(_) => (false, false),
    }
}

/// Whether the sender's idea of the region is the region, in the parts that matter. Newer
/// is as wrong as older (H24).
///
/// # Errors
/// `MissingEpoch`, or `EpochNotMatch` with the region as it is.
pub(crate) fn check_epoch(
    header: &Header,
    body: &Body,
    region: &Region,
) -> Result<(), RegionError> {
    let (version, conf_ver) = depends_on(body);
    if !version && !conf_ver {
        return Ok(());
    }
    let Some(epoch) = header.epoch else {
        return Err(RegionError::MissingEpoch);
    };
    if (version && epoch.version != region.epoch.version)
        || (conf_ver && epoch.conf_ver != region.epoch.conf_ver)
    {
        return Err(RegionError::EpochNotMatch { current: vec![region.clone()] });
    }
    Ok(())
}

/// Whether the region can be cut at these keys (H62, H69).
///
/// # Errors
/// `InvalidCommand`, or `KeyNotInRegion` for a key outside of the region.
pub(crate) fn check_cuts<'a>(
    region: &Region,
    keys: impl ExactSizeIterator<Item = &'a Bytes>,
) -> Result<(), RegionError> {
    let invalid = |why| Err(RegionError::InvalidCommand { why });
    if keys.len() == 0 {
        return invalid("a split without a key");
    }
    let mut previous = region.start_key.clone();
    for key in keys {
        if key.is_empty() {
            return invalid("an empty split key");
        }
        if !region.contains(key) {
            return Err(RegionError::KeyNotInRegion { key: key.clone(), region: region.clone() });
        }
        if *key <= previous {
            return invalid("split keys do not ascend from the region's start");
        }
        previous = key.clone();
    }
    Ok(())
}

/// Whether a planted bug has this split pass in spite of its `conf_ver`.
pub(crate) fn is_blind_split<H: Hooks>(
    header: &Header,
    body: &Body,
    region: &Region,
    hooks: &H,
) -> bool {
    hooks.planted(Bug::SplitIgnoresConfVer)
        && matches!(body, Body::Admin(AdminCommand::BatchSplit { .. }))
        && header.epoch.is_some_and(|epoch| epoch.version == region.epoch.version)
}

/// Whether the cuts fit the region and its members (H62). What is checked looks at the
/// command and the region alone, so that every replica decides alike.
///
/// # Errors
/// `InvalidCommand`, or `KeyNotInRegion` for a cut outside of the region.
pub(crate) fn check_split(region: &Region, requests: &[SplitRequest]) -> Result<(), RegionError> {
    let invalid = |why| Err(RegionError::InvalidCommand { why });
    check_cuts(region, requests.iter().map(|request| &request.key))?;
    if region.is_joint() {
        return invalid("the region is in a joint membership");
    }
    let mut regions = BTreeSet::from([region.id]);
    let mut peers: BTreeSet<_> = region.peers.iter().map(|peer| peer.id).collect();
    for SplitRequest { new_region, new_peers, .. } in requests {
        if !regions.insert(*new_region) {
            return invalid("the id of a new region is used twice");
        }
        if new_peers.len() != region.peers.len() {
            return invalid("a new region has another number of peers");
        }
        if !new_peers.iter().all(|peer| peers.insert(*peer)) {
            return invalid("the id of a new peer is used twice");
        }
    }
    Ok(())
}

/// Carries out reads against one state of the data. The caller has made sure that `region`
/// may be read.
pub(crate) fn execute_reads(
    reader: &dyn Reader,
    region: &Region,
    operations: &[Operation],
    term: u64,
) -> Result<Response, engine_traits::Error> {
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        match operation {
            Operation::Get { cf, key } => {
                if !region.contains(key) {
                    let error =
                        RegionError::KeyNotInRegion { key: key.clone(), region: region.clone() };
                    return Ok(Response::error(term, error));
                }
                let value = reader.get(*cf, &keys::data_key(key))?;
                responses.push(OperationResponse::Get(value));
            }
            Operation::Snap => responses.push(OperationResponse::Snap(region.clone())),
            Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::DeleteRange { .. }
            | Operation::CompareAndSwap(_)
            | Operation::Invalid { .. } => {
                let error = RegionError::InvalidCommand { why: "read and write cannot be mixed" };
                return Ok(Response::error(term, error));
            }
        }
    }
    Ok(Response::ok(term, ResponseBody::Operations(responses)))
}
