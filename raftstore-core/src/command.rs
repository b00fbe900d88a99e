//! Rules about commands that proposing and executing must share, so that replicas agree.

use raftstore_proto::{AdminCommand, Body, Header, Region, RegionError};

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
