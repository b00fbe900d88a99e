//! What is committed is durable on a quorum (Raft dissertation 3.4 and 10.2.1: an entry
//! counts where it is on disk).

use crate::engine::SimLog;
use std::collections::BTreeMap;

use engine_traits::RaftEngine;
use raftstore_proto::{Entry, Peer, Region};

use super::{Violation, log_matching::region_id};

/// The voters of every region as of the newest membership that any replica has applied, and
/// of the one before: a leader may be one change behind.
#[derive(Debug, Default)]
pub struct Members {
    regions: BTreeMap<u64, Vec<Membership>>,
}

/// Who votes, by store. While a configuration is joint there are two halves of it, and what
/// counts must have a majority in each (Raft dissertation 4.3).
#[derive(Debug)]
struct Membership {
    conf_ver: u64,
    halves: Vec<Vec<u64>>,
}

impl Members {
    /// A replica has this membership.
    pub fn note(&mut self, region: &Region) {
        let known = self.regions.entry(region.id.get()).or_default();
        if known.last().is_some_and(|newest| newest.conf_ver >= region.epoch.conf_ver) {
            return;
        }
        let voters = |votes: fn(&Peer) -> bool| {
            region.peers.iter().filter(|peer| votes(peer)).map(|peer| peer.store.get()).collect()
        };
        let mut halves = vec![voters(|peer| peer.role.votes_after())];
        if region.is_joint() {
            halves.push(voters(|peer| peer.role.voted_before()));
        }
        known.push(Membership { conf_ver: region.epoch.conf_ver, halves });
        if known.len() > 2 {
            known.remove(0);
        }
    }
}

/// Looks at an entry that was just seen committed for the first time. `log_of` gives the
/// log of a store, also of one that is down.
///
/// # Errors
/// If fewer than a majority of the voters hold it where a power cut cannot take it; in a joint
/// configuration, of the voters of either half.
pub fn check_durable<'a>(
    members: &Members,
    region: u64,
    entry: &Entry,
    log_of: impl Fn(u64) -> Option<&'a SimLog>,
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
    for (position, membership) in memberships.iter().enumerate() {
        let counts_for = |store: &&u64| holds(store) || (position < newest && cleared(store));
        let of_halves: Vec<(usize, usize)> = membership
            .halves
            .iter()
            .map(|voters| (voters.iter().filter(counts_for).count(), voters.len()))
            .collect();
        if of_halves.iter().all(|(count, voters)| *count > voters / 2) {
            return Ok(());
        }
        let of_halves: Vec<String> =
            of_halves.iter().map(|(count, voters)| format!("{count} of {voters}")).collect();
        counts.push(of_halves.join(" and "));
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

#[cfg(test)]
mod tests {
    use engine_traits::{Durability, RaftEngine, RaftLogBatch};
    use raftstore_proto::{Epoch, HardState, LocalState, PeerId, PeerRole, StoreId};

    use super::*;

    /// A region whose peers 1, 2, ... have these roles, on stores of the same number.
    fn region(conf_ver: u64, roles: &[PeerRole]) -> Region {
        let mut region = Region::uninitialized(region_id(1));
        region.epoch = Epoch { conf_ver, version: 1 };
        region.peers = (1..)
            .zip(roles)
            .map(|(id, role)| Peer { id: PeerId::must(id), store: StoreId::must(id), role: *role })
            .collect();
        region
    }

    fn entry() -> Entry {
        let raw = raft_proto::eraftpb::Entry { index: 6, term: 5, ..Default::default() };
        Entry::from_raft(raw)
    }

    fn log(entries: &[Entry]) -> SimLog {
        let log = SimLog::default();
        let mut batch = log.log_batch();
        batch.append(region_id(1), entries);
        let hard_state = HardState { term: 5, vote: 1, commit: 5 };
        let state = LocalState { peer: PeerId::must(1), hard_state, last_index: 6 };
        batch.put_raft_state(region_id(1), &state);
        log.write(batch, Durability::Synced).expect("memory takes writes");
        log
    }

    /// A joint configuration counts with a majority in each half, in neither alone.
    #[test]
    fn both_halves_count() {
        use PeerRole::{DemotingVoter, IncomingVoter, Voter};
        // Old {1, 2, 3}, new {1, 4, 5}.
        let roles = [Voter, DemotingVoter, DemotingVoter, IncomingVoter, IncomingVoter];
        let mut members = Members::default();
        members.note(&region(5, &roles));
        let (with, without) = (log(&[entry()]), log(&[]));
        let durable_on = |stores: &[u64]| {
            let log_of = |store: u64| Some(if stores.contains(&store) { &with } else { &without });
            check_durable(&members, 1, &entry(), log_of).is_ok()
        };
        assert!(durable_on(&[1, 2, 4]));
        assert!(durable_on(&[2, 3, 4, 5]));
        assert!(!durable_on(&[1, 2, 3]), "the old half alone");
        assert!(!durable_on(&[1, 4, 5]), "the new half alone");
        // Once it is left, only the new half counts; a leader may not know of it yet.
        let mut members = Members::default();
        members.note(&region(5, &roles));
        members.note(&region(9, &[Voter, PeerRole::Learner, PeerRole::Learner, Voter, Voter]));
        let log_of = |store: u64| Some(if [1, 4].contains(&store) { &with } else { &without });
        assert!(check_durable(&members, 1, &entry(), log_of).is_ok());
        let log_of = |store: u64| Some(if [2, 3].contains(&store) { &with } else { &without });
        assert!(check_durable(&members, 1, &entry(), log_of).is_err());
    }
}
