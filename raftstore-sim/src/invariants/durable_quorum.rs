//! What is committed is durable on a quorum (Raft dissertation 3.4 and 10.2.1: an entry
//! counts where it is on disk).

use std::collections::BTreeMap;

use engine_traits::RaftEngine;
use engine_traits::mem::MemRaftLog;
use raftstore_proto::{Entry, PeerRole, Region};

use super::{Violation, log_matching::region_id};

/// The voters of every region, by store, as of the newest membership that any replica has
/// applied, and of the one before: a leader may be one change behind.
#[derive(Debug, Default)]
pub struct Members {
    regions: BTreeMap<u64, Vec<(u64, Vec<u64>)>>,
}

impl Members {
    /// A replica has this membership.
    pub fn note(&mut self, region: &Region) {
        let known = self.regions.entry(region.id.get()).or_default();
        if known.last().is_some_and(|(conf_ver, _)| *conf_ver >= region.epoch.conf_ver) {
            return;
        }
        let voters = region
            .peers
            .iter()
            .filter(|peer| peer.role == PeerRole::Voter)
            .map(|peer| peer.store.get())
            .collect();
        known.push((region.epoch.conf_ver, voters));
        if known.len() > 2 {
            known.remove(0);
        }
    }
}

/// Looks at an entry that was just seen committed for the first time. `log_of` gives the
/// log of a store, also of one that is down.
///
/// # Errors
/// If fewer than a majority of the voters hold it where a power cut cannot take it.
pub fn check_durable<'a>(
    members: &Members,
    region: u64,
    entry: &Entry,
    log_of: impl Fn(u64) -> Option<&'a MemRaftLog>,
) -> Result<(), Violation> {
    let Some(memberships) = members.regions.get(&region) else { return Ok(()) };
    let holds = |store: &u64| {
        log_of(*store).is_some_and(|log| {
            // An unsynced log may or may not have this entry among the synced ones; only
            // what is not there at all is certainly not durable.
            log.entry(region_id(region), entry.index())
                .ok()
                .flatten()
                .is_some_and(|held| held.term() == entry.term())
        })
    };
    // A voter of the membership before may have acknowledged the entry, applied its own
    // removal and cleared its log: what it had on disk then cannot be asked any more. The
    // majorities of neighbouring memberships overlap in those that stay.
    let cleared = |store: &u64| {
        log_of(*store).is_some_and(|log| matches!(log.raft_state(region_id(region)), Ok(None)))
    };
    let newest = memberships.len() - 1;
    let mut counts = Vec::new();
    for (position, (_, voters)) in memberships.iter().enumerate() {
        let counts_for = |store: &&u64| holds(store) || (position < newest && cleared(store));
        let count = voters.iter().filter(counts_for).count();
        if count > voters.len() / 2 {
            return Ok(());
        }
        counts.push(format!("{count} of {}", voters.len()));
    }
    Err(Violation::new(
        "committed is durable on a quorum",
        format!(
            "region {region}: index {} of term {} is committed, but on the disks of {} voters only",
            entry.index(),
            entry.term(),
            counts.join(" or ")
        ),
    ))
}
