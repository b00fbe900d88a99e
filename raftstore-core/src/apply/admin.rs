//! Which admin commands a log may carry, and what each does.

use bytes::Bytes;
use engine_traits::WriteBatch;
use raftstore_proto::{
    AdminCommand, AdminResponse, Cf, EntryFlags, PeerChange, Region, RegionError, RegionPhase,
    RegionState, Truncated, wire::record,
};

use super::{
    Applier, ExecResult, SplitPart, membership,
    pending::Fill,
    split::{self, Births, Parts},
    truncate,
};
use crate::keys;

/// What an admin command changes once it is accepted.
#[derive(Debug)]
pub(super) enum Admin {
    /// The members.
    Members {
        changes: Vec<PeerChange>,
        region: Region,
        /// The replica that executes it is the one removed.
        own_removal: bool,
    },
    /// The range.
    Split(Parts),
    /// The start of the log; `None` if it is there already.
    Truncate(Option<Truncated>),
    /// Nothing: replicas are compared.
    ComputeHash,
    /// Nothing: replicas are compared.
    VerifyHash { at: u64, hash: Bytes },
}

/// Decides on an admin command in an ordinary entry.
///
/// # Errors
/// The same on every replica.
pub(super) fn decide(
    applier: &Applier,
    command: &AdminCommand,
    flags: EntryFlags,
) -> Result<Admin, RegionError> {
    let refused = |why| Err(RegionError::InvalidCommand { why });
    match command {
        AdminCommand::CompactLog { index, term } => {
            truncate::truncate(&applier.state, *index, *term).map(Admin::Truncate)
        }
        AdminCommand::BatchSplit { requests, right_derive } => {
            split::cut(&applier.region, flags, requests, *right_derive).map(Admin::Split)
        }
        AdminCommand::ComputeHash => Ok(Admin::ComputeHash),
        AdminCommand::VerifyHash { index, hash } => {
            Ok(Admin::VerifyHash { at: *index, hash: hash.clone() })
        }
        AdminCommand::ChangePeer(_) | AdminCommand::ChangePeerV2(_) => {
            refused("membership change in an ordinary entry")
        }
        AdminCommand::TransferLeader(_) => refused("a leader transfer is not replicated"),
        merge if merge.is_merge() => Err(RegionError::Unsupported { what: "region merge" }),
        AdminCommand::Invalid { .. } => refused("unknown admin command"),
    }
}

/// Decides on an admin command in a membership change entry.
///
/// # Errors
/// The same on every replica.
pub(super) fn decide_members(
    applier: &Applier,
    command: &AdminCommand,
) -> Result<Admin, RegionError> {
    let changes = match command {
        AdminCommand::ChangePeer(change) => std::slice::from_ref(change),
        AdminCommand::ChangePeerV2(changes) => changes,
        _ => return Err(RegionError::InvalidCommand { why: "not a membership change" }),
    };
    let region = membership::change(&applier.region, changes)?;
    let own_removal = region.peer(applier.peer.id).is_none();
    Ok(Admin::Members { changes: changes.to_vec(), region, own_removal })
}

/// Carries out an accepted command at `index`: batch, the Applier's own state, and what the
/// store is told.
pub(super) fn execute<B: WriteBatch>(
    applier: &mut Applier,
    admin: Admin,
    index: u64,
    births: &dyn Births,
    fill: &mut Fill<B>,
    exec: &mut Vec<ExecResult>,
) -> AdminResponse {
    match admin {
        Admin::Split(parts) => {
            let born = split::write(&parts, applier.store, births, fill);
            applier.region = parts.derived.clone();
            let answer = AdminResponse::Split(parts.in_key_order());
            let Parts { derived, new, right_derive } = parts;
            let parts = new
                .into_iter()
                .zip(born)
                .map(|(region, born)| SplitPart { region, born })
                .collect();
            exec.push(ExecResult::Split { index, derived, parts, right_derive });
            answer
        }
        Admin::Members { changes, region, own_removal } => {
            write_region_state(applier, &region, own_removal, fill);
            applier.region = region.clone();
            match region.peer(applier.peer.id) {
                Some(own) => applier.peer = *own,
                None => applier.remove(),
            }
            let applied = Some((changes, region.clone()));
            exec.push(ExecResult::ChangePeer { index, applied });
            AdminResponse::ChangePeer(region)
        }
        Admin::Truncate(truncated) => {
            if let Some(truncated) = truncated {
                let first_index_before = applier.state.truncated.index + 1;
                applier.state.truncated = truncated;
                exec.push(ExecResult::Truncate { truncated, first_index_before });
            }
            AdminResponse::CompactLog
        }
        Admin::ComputeHash => {
            exec.push(ExecResult::ComputeHash { index });
            AdminResponse::ComputeHash
        }
        Admin::VerifyHash { at, hash } => {
            exec.push(ExecResult::VerifyHash { index: at, hash });
            AdminResponse::VerifyHash
        }
    }
}

fn write_region_state<B: WriteBatch>(
    applier: &Applier,
    region: &Region,
    own_removal: bool,
    fill: &mut Fill<B>,
) {
    let mut state = RegionState { phase: RegionPhase::Normal, region: region.clone() };
    if own_removal {
        state.phase = RegionPhase::Tombstone;
        // H10, H11: the record must keep the removed peer from coming back, by its id.
        state.region.peers.push(applier.peer);
    }
    let key = keys::region_state_key(region.id);
    fill.batch.put(Cf::Raft, &key, &record::encode_region_state(region.id, &state));
}
