//! What a peer acknowledges is in its log (Raft dissertation 10.2.1: "before responding
//! to RPCs"; raft fact R22), and of a snapshot, in its data (hazard H43).

use crate::engine::SimLog;
use engine_traits::RaftEngine;
use raftstore_proto::{MessageKind, RaftMessage};

use super::{Violation, log_matching::region_id};

/// Looks at a message that leaves `store`, whose log was cut at `truncated`.
///
/// # Errors
/// If it acknowledges an entry that is not in the log engine.
pub fn check_ack(
    store: u64,
    message: &RaftMessage,
    truncated: u64,
    log: &SimLog,
) -> Result<(), Violation> {
    let raft = message.raft();
    if message.kind() != Some(MessageKind::AppendResponse) || raft.reject {
        return Ok(());
    }
    let Some(region) = message.region() else { return Ok(()) };
    if raft.index <= truncated || matches!(log.entry(region, raft.index), Ok(Some(_))) {
        return Ok(());
    }
    // Several rounds become durable with one sync. A later one may have replaced the entry
    // on behalf of a newer leader: the answer to the old one is then as late as one that
    // the network had delayed, and as harmless, since the newer term is durable too.
    if matches!(log.raft_state(region), Ok(Some(state)) if state.hard_state.term > raft.term) {
        return Ok(());
    }
    Err(Violation::new(
        "an acknowledgement is durable",
        format!(
            "store {store}: peer {} acknowledges index {} of region {}, which is not in its log",
            raft.from,
            raft.index,
            region_id(region.get())
        ),
    ))
}

/// Looks at a message that leaves `store` while a snapshot up to `index` is being installed
/// there.
///
/// # Errors
/// If it acknowledges the snapshot.
pub fn check_snapshot_ack(store: u64, message: &RaftMessage, index: u64) -> Result<(), Violation> {
    let raft = message.raft();
    if raft.reject || raft.index < index {
        return Ok(());
    }
    Err(Violation::new(
        "a snapshot is acknowledged once it is installed",
        format!("store {store}: peer {} acknowledges index {}", raft.from, raft.index),
    ))
}
