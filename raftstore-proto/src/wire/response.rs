//! Answers to commands on the wire (package raft_cmdpb).

use bytes::Bytes;
use protobuf::Message as _;

use crate::{
    AdminResponse, DecodeError, OperationResponse, Peer, Region, Response, ResponseBody,
    StatusResponse,
    guard::{self, Limits},
    pb::{metapb, raft_cmdpb},
    wire::{
        error::{error_from_pb, error_to_pb},
        parse,
        region::{peer_from_pb, peer_to_pb, region_from_pb, region_to_pb, regions_from_pb},
    },
};
use raft_cmdpb::{AdminCmdType, CmdType, StatusCmdType};

/// The wire form of an answer.
///
/// kvproto cannot say whether a value is absent or empty: a field of our own marks a value
/// that is there and empty. Readers that skip it take an empty value for an absent one.
#[must_use]
pub fn encode_response(response: &Response) -> Vec<u8> {
    let mut out = raft_cmdpb::RaftCmdResponse::new();
    let header = out.mut_header();
    header.current_term = response.term;
    match &response.body {
        Err(error) => header.set_error(error_to_pb(error)),
        Ok(ResponseBody::Operations(operations)) => {
            out.responses = operations.iter().map(operation_to_pb).collect();
        }
        Ok(ResponseBody::Admin(admin)) => out.set_admin_response(admin_to_pb(admin)),
        Ok(ResponseBody::Status(status)) => out.set_status_response(status_to_pb(status)),
    }
    out.write_to_bytes().expect("no field is required")
}

/// Reads an answer. Payloads are slices of `bytes`.
///
/// The region of a [`KeyNotInRegion`](crate::RegionError::KeyNotInRegion) comes back with its
/// id and range only. The answer to a split into two, as older stores send it, becomes
/// [`AdminResponse::Split`].
///
/// # Errors
/// - what [`guard::check_response`] refuses under the default limits
/// - [`DecodeError::UnknownValue`]: an answer of a type that we do not know
/// - [`DecodeError::ZeroId`], [`DecodeError::Missing`], [`DecodeError::Malformed`]
pub fn decode_response(bytes: &Bytes) -> Result<Response, DecodeError> {
    guard::check_response(bytes, &Limits::default())?;
    let mut response: raft_cmdpb::RaftCmdResponse = parse("response", bytes)?;
    let term = response.get_header().current_term;
    if let Some(error) = response.mut_header().error.take() {
        return Ok(Response::error(term, error_from_pb(error)));
    }
    let body = if let Some(admin) = response.admin_response.take() {
        ResponseBody::Admin(admin_from_pb(admin)?)
    } else if let Some(status) = response.status_response.take() {
        ResponseBody::Status(status_from_pb(status)?)
    } else {
        let responses = response.take_responses().into_vec();
        let mut operations = Vec::with_capacity(responses.len());
        for operation in responses {
            operations.push(operation_from_pb(operation)?);
        }
        ResponseBody::Operations(operations)
    };
    Ok(Response::ok(term, body))
}

fn operation_to_pb(response: &OperationResponse) -> raft_cmdpb::Response {
    let mut out = raft_cmdpb::Response::new();
    match response {
        OperationResponse::Get(value) => {
            out.cmd_type = CmdType::Get;
            let get = out.mut_get();
            if let Some(value) = value {
                get.has_empty_value = value.is_empty();
                get.value = value.clone();
            }
        }
        OperationResponse::Put => {
            out.cmd_type = CmdType::Put;
            out.mut_put();
        }
        OperationResponse::Delete => {
            out.cmd_type = CmdType::Delete;
            out.mut_delete();
        }
        OperationResponse::DeleteRange => {
            out.cmd_type = CmdType::DeleteRange;
            out.mut_delete_range();
        }
        OperationResponse::CompareAndSwap { swapped, previous } => {
            out.cmd_type = CmdType::CompareAndSwap;
            let answer = out.mut_compare_and_swap();
            answer.swapped = *swapped;
            answer.held_nothing = previous.is_none();
            answer.previous = previous.clone().unwrap_or_default();
        }
        OperationResponse::Snap(region) => {
            out.cmd_type = CmdType::Snap;
            out.mut_snap().set_region(region_to_pb(region));
        }
    }
    out
}

fn operation_from_pb(mut response: raft_cmdpb::Response) -> Result<OperationResponse, DecodeError> {
    Ok(match response.cmd_type {
        CmdType::Get => {
            let get = response.take_get();
            let there = get.has_empty_value || !get.value.is_empty();
            OperationResponse::Get(there.then_some(get.value))
        }
        CmdType::Put => OperationResponse::Put,
        CmdType::Delete => OperationResponse::Delete,
        CmdType::DeleteRange => OperationResponse::DeleteRange,
        CmdType::CompareAndSwap => {
            let answer = response.take_compare_and_swap();
            let previous = (!answer.held_nothing).then_some(answer.previous);
            OperationResponse::CompareAndSwap { swapped: answer.swapped, previous }
        }
        CmdType::Snap => {
            OperationResponse::Snap(needed_region(response.take_snap().region.take())?)
        }
        CmdType::Invalid => return Err(unknown_type("response type", &response.unknown_fields)),
    })
}

fn admin_to_pb(response: &AdminResponse) -> raft_cmdpb::AdminResponse {
    let mut out = raft_cmdpb::AdminResponse::new();
    match response {
        AdminResponse::ChangePeer(region) => {
            out.cmd_type = AdminCmdType::ChangePeer;
            out.mut_change_peer().set_region(region_to_pb(region));
        }
        AdminResponse::Split(regions) => {
            out.cmd_type = AdminCmdType::BatchSplit;
            out.mut_splits().regions = regions.iter().map(region_to_pb).collect();
        }
        AdminResponse::CompactLog => {
            out.cmd_type = AdminCmdType::CompactLog;
            out.mut_compact_log();
        }
        AdminResponse::TransferLeader => {
            out.cmd_type = AdminCmdType::TransferLeader;
            out.mut_transfer_leader();
        }
        AdminResponse::ComputeHash => out.cmd_type = AdminCmdType::ComputeHash,
        AdminResponse::VerifyHash => {
            out.cmd_type = AdminCmdType::VerifyHash;
            out.mut_verify_hash();
        }
    }
    out
}

fn admin_from_pb(mut response: raft_cmdpb::AdminResponse) -> Result<AdminResponse, DecodeError> {
    Ok(match response.cmd_type {
        AdminCmdType::ChangePeer => {
            AdminResponse::ChangePeer(needed_region(response.take_change_peer().region.take())?)
        }
        AdminCmdType::ChangePeerV2 => {
            AdminResponse::ChangePeer(needed_region(response.take_change_peer_v2().region.take())?)
        }
        AdminCmdType::Split => {
            let mut split = response.take_split();
            let left = needed_region(split.left.take())?;
            AdminResponse::Split(vec![left, needed_region(split.right.take())?])
        }
        AdminCmdType::BatchSplit => {
            let regions = response.take_splits().take_regions().into_vec();
            AdminResponse::Split(regions_from_pb(regions)?)
        }
        AdminCmdType::CompactLog => AdminResponse::CompactLog,
        AdminCmdType::TransferLeader => AdminResponse::TransferLeader,
        AdminCmdType::ComputeHash => AdminResponse::ComputeHash,
        AdminCmdType::VerifyHash => AdminResponse::VerifyHash,
        merge @ (AdminCmdType::PrepareMerge
        | AdminCmdType::CommitMerge
        | AdminCmdType::RollbackMerge) => {
            let value = i64::from(protobuf::ProtobufEnum::value(&merge));
            return Err(DecodeError::UnknownValue { what: "admin response type", value });
        }
        AdminCmdType::InvalidAdmin => {
            return Err(unknown_type("admin response type", &response.unknown_fields));
        }
    })
}

fn status_to_pb(response: &StatusResponse) -> raft_cmdpb::StatusResponse {
    let mut out = raft_cmdpb::StatusResponse::new();
    match response {
        StatusResponse::RegionLeader(leader) => {
            out.cmd_type = StatusCmdType::RegionLeader;
            out.mut_region_leader().leader = leader.as_ref().map(peer_to_pb).into();
        }
        StatusResponse::RegionDetail(region, leader) => {
            out.cmd_type = StatusCmdType::RegionDetail;
            let detail = out.mut_region_detail();
            detail.set_region(region_to_pb(region));
            detail.leader = leader.as_ref().map(peer_to_pb).into();
        }
    }
    out
}

fn status_from_pb(mut response: raft_cmdpb::StatusResponse) -> Result<StatusResponse, DecodeError> {
    Ok(match response.cmd_type {
        StatusCmdType::RegionLeader => {
            StatusResponse::RegionLeader(leader(response.get_region_leader().leader.as_ref())?)
        }
        StatusCmdType::RegionDetail => {
            let mut detail = response.take_region_detail();
            let region = needed_region(detail.region.take())?;
            StatusResponse::RegionDetail(region, leader(detail.leader.as_ref())?)
        }
        StatusCmdType::InvalidStatus => {
            return Err(unknown_type("status response type", &response.unknown_fields));
        }
    })
}

fn leader(leader: Option<&metapb::Peer>) -> Result<Option<Peer>, DecodeError> {
    leader.map(peer_from_pb).transpose()
}

fn needed_region(region: Option<metapb::Region>) -> Result<Region, DecodeError> {
    region_from_pb(region.ok_or(DecodeError::Missing { what: "region of a response" })?)
}

/// The generated code sets a number it does not know aside and leaves 0.
fn unknown_type(what: &'static str, fields: &protobuf::UnknownFields) -> DecodeError {
    let value = fields.get(1).and_then(|values| values.varint.last()).copied().unwrap_or(0);
    DecodeError::UnknownValue { what, value: value.cast_signed() }
}
