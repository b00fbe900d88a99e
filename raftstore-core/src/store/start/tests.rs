//! Every crash point of the matrix that involves the start, and every contradiction.

use engine_traits::{
    Reader,
    mem::{MemEngine, MemRaftLog},
};
use raft::eraftpb;
use raftstore_proto::{ClusterId, Entry, EntryFlags, Epoch, HardState, StoreIdent, Truncated};

use super::*;
use crate::{NoHooks, store::bootstrap::put_new_region};

mod crashes;
mod damage;

const STORE: StoreId = StoreId::must(1);
const R1: RegionId = RegionId::must(10);
const OWN: Peer = Peer::voter(PeerId::must(11), STORE);
const OTHER: Peer = Peer::voter(PeerId::must(12), StoreId::must(2));

/// Turns on one bug.
#[derive(Clone, Copy, Debug)]
struct Planted(Bug);

impl Hooks for Planted {
    fn planted(&self, bug: Bug) -> bool {
        self.0 == bug
    }
}

/// The two engines of a store, filled record by record.
#[derive(Debug, Default)]
struct Disk {
    kv: MemEngine,
    raft: MemRaftLog,
}

impl Disk {
    fn put(&self, key: &[u8], value: &[u8]) -> &Self {
        let mut batch = self.kv.write_batch();
        batch.put(Cf::Raft, key, value);
        self.kv.write(batch, Durability::Synced).unwrap();
        self
    }

    fn region(&self, phase: RegionPhase, region: &Region) -> &Self {
        let state = RegionState { phase, region: region.clone() };
        let record = record::encode_region_state(region.id, &state);
        self.put(&keys::region_state_key(region.id), &record)
    }

    fn apply(&self, region: RegionId, apply: ApplyState) -> &Self {
        let record = record::encode_apply_state(region, &apply);
        self.put(&keys::apply_state_key(region), &record)
    }

    fn copy(&self, region: RegionId, copy: LocalState) -> &Self {
        let record = record::encode_local_state(region, &copy);
        self.put(&keys::snapshot_raft_state_key(region), &record)
    }

    fn local(&self, region: RegionId, local: LocalState) -> &Self {
        let mut batch = self.raft.log_batch();
        batch.put_raft_state(region, &local);
        self.raft.write(batch, Durability::Synced).unwrap();
        self
    }

    /// Entries of one term.
    fn log(&self, region: RegionId, indexes: std::ops::RangeInclusive<u64>, term: u64) -> &Self {
        let entries: Vec<Entry> = indexes.map(|index| entry(region, index, term)).collect();
        let mut batch = self.raft.log_batch();
        batch.append(region, &entries);
        self.raft.write(batch, Durability::Synced).unwrap();
        self
    }

    fn recover(&self) -> Result<Recovery, FatalError> {
        self.recover_with(&NoHooks)
    }

    fn recover_with<H: Hooks>(&self, hooks: &H) -> Result<Recovery, FatalError> {
        recover(&self.kv, &self.raft, STORE, hooks)
    }

    /// Recovers, checks that a second recovery finds the same, and gives the only peer.
    fn only_peer(&self) -> RecoveredPeer {
        let found = self.recover().unwrap();
        assert!(found.applying.is_empty() && found.quarantined.is_empty(), "{found:?}");
        let [peer] = found.peers.as_slice() else { panic!("{found:?}") };
        assert_eq!(self.recover().unwrap().peers, found.peers, "repaired on disk too");
        peer.clone()
    }

    /// Why the store does not start.
    fn refusal(&self) -> String {
        match self.recover() {
            Err(FatalError { source: crate::FatalSource::Inconsistent(detail), .. }) => detail,
            other => panic!("{other:?}"),
        }
    }

    fn stored(&self, key: &[u8]) -> Option<bytes::Bytes> {
        self.kv.get(Cf::Raft, key).unwrap()
    }
}

fn entry(region: RegionId, index: u64, term: u64) -> Entry {
    let data = vec![1, 2, 3];
    let context = Entry::context_for(region, index, term, EntryFlags::default(), &data).into();
    Entry::from_raft(eraftpb::Entry {
        index,
        term,
        data: data.into(),
        context,
        ..Default::default()
    })
}

fn region_of(id: RegionId, start: &'static str, end: &'static str) -> Region {
    Region {
        start_key: start.into(),
        end_key: end.into(),
        epoch: Epoch { conf_ver: 2, version: 3 },
        peers: vec![OTHER, OWN],
        ..Region::uninitialized(id)
    }
}

fn region() -> Region {
    region_of(R1, "", "")
}

const fn apply(applied: u64, applied_term: u64, index: u64, term: u64) -> ApplyState {
    ApplyState { applied, applied_term, truncated: Truncated { index, term } }
}

const fn local(term: u64, vote: u64, commit: u64, last_index: u64) -> LocalState {
    LocalState { peer: OWN.id, hard_state: HardState { term, vote, commit }, last_index }
}

const fn of_peer(peer: u64, local: LocalState) -> LocalState {
    LocalState { peer: PeerId::must(peer), ..local }
}

/// A replica that has run for a while: log 6..=20 of term 7, 15 applied, cut at 8.
fn normal() -> Disk {
    let disk = Disk::default();
    disk.region(RegionPhase::Normal, &region())
        .apply(R1, apply(15, 7, 8, 7))
        .log(R1, 6..=20, 7)
        .local(R1, local(7, 12, 18, 20));
    disk
}

/// A replica that has accepted a snapshot at (30, 9) over an old log 6..=40 of term 7.
fn applying() -> Disk {
    let disk = Disk::default();
    disk.region(RegionPhase::Applying, &region())
        .apply(R1, apply(30, 9, 30, 9))
        .copy(R1, local(9, 12, 30, 30))
        .log(R1, 6..=40, 7)
        .local(R1, local(8, 11, 20, 40));
    disk
}
