//! Region errors on the wire (package errorpb).
//!
//! The text is always there, for humans and for clients that know no more. An error that
//! kvproto has no field for is text alone, and comes back as [`RegionError::Remote`].

#![cfg_attr(
    not(feature = "rpc"),
    expect(unreachable_pub, reason = "those who serve or call remote procedures convert, too")
)]

use crate::{
    BusyReason, DecodeError, Epoch, PeerId, Region, RegionError, RegionId, StoreId,
    pb::errorpb,
    wire::region::{peer_from_pb, peer_to_pb, region_to_pb, regions_from_pb},
};

/// The generated form of a refusal.
#[must_use]
pub fn error_to_pb(error: &RegionError) -> errorpb::Error {
    let mut out = errorpb::Error::new();
    out.message = error.to_string();
    match error {
        RegionError::NotLeader { region, leader } => {
            let detail = out.mut_not_leader();
            detail.region_id = region.get();
            detail.leader = leader.as_ref().map(peer_to_pb).into();
        }
        RegionError::RegionNotFound { region } => {
            out.mut_region_not_found().region_id = region.get();
        }
        RegionError::EpochNotMatch { current } => {
            out.mut_epoch_not_match().current_regions = current.iter().map(region_to_pb).collect();
        }
        RegionError::KeyNotInRegion { key, region } => {
            let detail = out.mut_key_not_in_region();
            detail.key = key.clone();
            detail.region_id = region.id.get();
            detail.start_key = region.start_key.clone();
            detail.end_key = region.end_key.clone();
        }
        RegionError::StoreNotMatch { asked, here } => {
            let detail = out.mut_store_not_match();
            detail.request_store_id = asked.get();
            detail.actual_store_id = here.get();
        }
        RegionError::StaleCommand => {
            out.mut_stale_command();
        }
        RegionError::ServerIsBusy { reason, backoff_ms } => {
            let detail = out.mut_server_is_busy();
            detail.reason = reason.as_str().to_owned();
            detail.backoff_ms = *backoff_ms;
        }
        RegionError::DiskFull { stores } => {
            let detail = out.mut_disk_full();
            detail.store_id = stores.iter().map(|store| store.get()).collect();
            detail.reason = error.to_string();
        }
        RegionError::EntryTooLarge { region, size_bytes, max_bytes } => {
            let detail = out.mut_raft_entry_too_large();
            detail.region_id = region.get();
            detail.entry_size = *size_bytes;
            detail.max_size = *max_bytes;
        }
        RegionError::PeerNotMatch { asked, here } => {
            let detail = out.mut_mismatch_peer_id();
            detail.request_peer_id = asked.get();
            detail.store_peer_id = here.get();
        }
        RegionError::RegionNotInitialized { region } => {
            out.mut_region_not_initialized().region_id = region.get();
        }
        RegionError::ReadNotReady => {
            out.mut_read_index_not_ready().reason = error.to_string();
        }
        RegionError::MissingEpoch
        | RegionError::InvalidCommand { .. }
        | RegionError::ConfChangePending
        | RegionError::ConfChangeUnsafe { .. }
        | RegionError::ConfChangeRejected { .. }
        | RegionError::NotReady
        | RegionError::Stopping
        | RegionError::PlacementUnavailable
        | RegionError::Refused { .. }
        | RegionError::Unsupported { .. }
        | RegionError::Remote { .. } => {}
    }
    out
}

/// The refusal of a generated form.
///
/// An error whose details do not hold together (an id is 0) is better repeated in words
/// than lost.
#[must_use]
pub fn error_from_pb(mut error: errorpb::Error) -> RegionError {
    let message = error.take_message();
    match typed(error) {
        Ok(Some(error)) => error,
        Ok(None) | Err(_) => RegionError::Remote { message: words(message) },
    }
}

/// Undoes what showing a [`RegionError::Remote`] adds, so that a message passed on by many
/// stores does not grow.
fn words(message: String) -> String {
    message.strip_prefix("remote error: ").map(str::to_owned).unwrap_or(message)
}

fn typed(mut error: errorpb::Error) -> Result<Option<RegionError>, DecodeError> {
    if let Some(detail) = error.not_leader.take() {
        let region = RegionId::try_from(detail.region_id)?;
        let leader = detail.leader.as_ref().and_then(|peer| peer_from_pb(peer).ok());
        return Ok(Some(RegionError::NotLeader { region, leader }));
    }
    if let Some(detail) = error.region_not_found.take() {
        let region = RegionId::try_from(detail.region_id)?;
        return Ok(Some(RegionError::RegionNotFound { region }));
    }
    if let Some(mut detail) = error.key_not_in_region.take() {
        let region = Region {
            id: RegionId::try_from(detail.region_id)?,
            start_key: detail.take_start_key(),
            end_key: detail.take_end_key(),
            epoch: Epoch::default(),
            peers: Vec::new(),
        };
        return Ok(Some(RegionError::KeyNotInRegion { key: detail.take_key(), region }));
    }
    if let Some(mut detail) = error.epoch_not_match.take() {
        let current = regions_from_pb(detail.take_current_regions().into_vec())?;
        return Ok(Some(RegionError::EpochNotMatch { current }));
    }
    typed_without_region(&error)
}

fn typed_without_region(error: &errorpb::Error) -> Result<Option<RegionError>, DecodeError> {
    if let Some(detail) = error.server_is_busy.as_ref() {
        return Ok(Some(RegionError::ServerIsBusy {
            reason: BusyReason::from_text(&detail.reason),
            backoff_ms: detail.backoff_ms,
        }));
    }
    if error.stale_command.is_some() {
        return Ok(Some(RegionError::StaleCommand));
    }
    if let Some(detail) = error.disk_full.as_ref() {
        let stores = detail.store_id.iter().map(|store| StoreId::try_from(*store));
        return Ok(Some(RegionError::DiskFull { stores: stores.collect::<Result<_, _>>()? }));
    }
    if let Some(detail) = error.store_not_match.as_ref() {
        let asked = StoreId::try_from(detail.request_store_id)?;
        let here = StoreId::try_from(detail.actual_store_id)?;
        return Ok(Some(RegionError::StoreNotMatch { asked, here }));
    }
    if let Some(detail) = error.raft_entry_too_large.as_ref() {
        return Ok(Some(RegionError::EntryTooLarge {
            region: RegionId::try_from(detail.region_id)?,
            size_bytes: detail.entry_size,
            max_bytes: detail.max_size,
        }));
    }
    if error.read_index_not_ready.is_some() {
        return Ok(Some(RegionError::ReadNotReady));
    }
    if let Some(detail) = error.region_not_initialized.as_ref() {
        let region = RegionId::try_from(detail.region_id)?;
        return Ok(Some(RegionError::RegionNotInitialized { region }));
    }
    if let Some(detail) = error.mismatch_peer_id.as_ref() {
        let asked = PeerId::try_from(detail.request_peer_id)?;
        let here = PeerId::try_from(detail.store_peer_id)?;
        return Ok(Some(RegionError::PeerNotMatch { asked, here }));
    }
    Ok(None)
}
