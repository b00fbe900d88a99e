//! Whether the records of one replica fit together, and which repairs make them fit.

use engine_traits::{KvEngine, RaftEngine, RaftLogBatch};
use raftstore_proto::{
    ApplyState, Cf, HardState, LocalState, Peer, Region, RegionId, wire::record,
};

use super::{RecoveredPeer, Run, Trouble, initial_apply_state, initial_local_state};
use crate::{
    hooks::{Bug, Hooks},
    keys::{self, completed_local_state},
};

const DOING: &str = "recovering a region";

impl<K: KvEngine, R: RaftEngine, H: Hooks> Run<'_, K, R, H> {
    /// A replica that was serving.
    pub(super) fn normal(&mut self, region: &Region) -> Result<RecoveredPeer, Trouble> {
        let peer = self.own_peer(region)?;
        let apply = self.apply_state(region.id)?;
        let stored = self.raft.raft_state(region.id).map_err(Trouble::engine(DOING, region.id))?;
        let is_new = apply == initial_apply_state();
        let local = match stored {
            Some(stored) if stored.peer == peer.id && (stored.last_index > 0 || !is_new) => stored,
            Some(stored) if stored.peer == peer.id => {
                // W3: split-born where an uninitialised peer of the same id had voted.
                let local = completed_local_state(&stored);
                self.log_batch.put_raft_state(region.id, &local);
                local
            }
            None if is_new => self.initialise(region.id, &peer),
            // W3: an earlier incarnation's vote binds nobody any more.
            Some(stored) if stored.peer < peer.id && is_new => self.initialise(region.id, &peer),
            _ => {
                let detail = format!("{apply:?} of peer {} with {stored:?}", peer.id);
                return Err(Trouble::inconsistent(region.id, detail));
            }
        };
        self.checked(region, peer, local, apply)
    }

    /// A replica that had accepted a snapshot. If the log part of that was lost, the copy
    /// in the data engine takes its place, and nothing of the old log may stay (H1).
    pub(super) fn applying(&mut self, region: &Region) -> Result<RecoveredPeer, Trouble> {
        let peer = self.own_peer(region)?;
        let apply = self.apply_state(region.id)?;
        let copy = self.snapshot_copy(region.id)?;
        let stored = self.raft.raft_state(region.id).map_err(Trouble::engine(DOING, region.id))?;
        let fits = apply.applied == apply.truncated.index
            && copy.hard_state.commit == apply.applied
            && copy.peer == peer.id
            && stored.is_none_or(|stored| stored.peer <= peer.id);
        if !fits {
            let detail = format!("{apply:?} of peer {} with {copy:?}, {stored:?}", peer.id);
            return Err(Trouble::inconsistent(region.id, detail));
        }
        let local = match stored {
            Some(stored)
                if stored.peer == peer.id && stored.hard_state.commit >= copy.hard_state.commit =>
            {
                stored
            }
            stored => {
                let same = stored.filter(|stored| stored.peer == peer.id);
                let hard_state = newer_vote(copy.hard_state, same.map(|it| it.hard_state));
                let local = LocalState { hard_state, last_index: apply.applied, ..copy };
                self.log_batch.clear_region(region.id);
                self.log_batch.put_raft_state(region.id, &local);
                // The log is as good as empty, whatever the engine still shows.
                return Ok(RecoveredPeer {
                    region: region.clone(),
                    peer,
                    local,
                    apply,
                    last_term: apply.truncated.term,
                });
            }
        };
        self.checked(region, peer, local, apply)
    }

    fn initialise(&mut self, region: RegionId, peer: &Peer) -> LocalState {
        let local = initial_local_state(peer.id);
        self.log_batch.clear_region(region);
        self.log_batch.put_raft_state(region, &local);
        local
    }

    fn own_peer(&self, region: &Region) -> Result<Peer, Trouble> {
        region.peer_on(self.store).copied().ok_or_else(|| {
            let detail = format!("store {} is not a member: {region:?}", self.store);
            Trouble::inconsistent(region.id, detail)
        })
    }

    fn apply_state(&self, region: RegionId) -> Result<ApplyState, Trouble> {
        let record = self
            .kv
            .get(Cf::Raft, &keys::apply_state_key(region))
            .map_err(Trouble::engine(DOING, region))?
            .ok_or_else(|| Trouble::inconsistent(region, "no apply state".to_owned()))?;
        record::decode_apply_state(region, &record).map_err(Trouble::record)
    }

    fn snapshot_copy(&self, region: RegionId) -> Result<LocalState, Trouble> {
        let missing =
            || Trouble::inconsistent(region, "no raft state of the accepted snapshot".to_owned());
        let record = self
            .kv
            .get(Cf::Raft, &keys::snapshot_raft_state_key(region))
            .map_err(Trouble::engine(DOING, region))?
            .ok_or_else(missing)?;
        record::decode_local_state(region, &record).map_err(Trouble::record)
    }

    /// Repairs the commit index and checks the order of all positions and terms (H3).
    fn checked(
        &mut self,
        region: &Region,
        peer: Peer,
        mut local: LocalState,
        apply: ApplyState,
    ) -> Result<RecoveredPeer, Trouble> {
        let id = region.id;
        let wrong = |what: &str| {
            Err(Trouble::inconsistent(id, format!("{what}: {local:?} with {apply:?}")))
        };
        if apply.truncated.index > apply.applied {
            return wrong("log cut beyond what is applied");
        }
        if local.last_index < apply.applied {
            return wrong("log ends before what is applied");
        }
        if local.hard_state.commit > local.last_index {
            return wrong("log ends before what is committed");
        }
        let applied_term = self.term_at(id, apply.applied, &local, &apply)?;
        if applied_term != apply.applied_term {
            return wrong("another entry is in the log than was applied");
        }
        let last_term = self.term_at(id, local.last_index, &local, &apply)?;
        if local.hard_state.term < applied_term || local.hard_state.term < last_term {
            return wrong("term behind the log's");
        }
        // What is applied was committed; the commit index alone is never synced (R3, R24).
        if local.hard_state.commit < apply.applied && !self.hooks.planted(Bug::CommitNotRepaired) {
            local.hard_state.commit = apply.applied;
            self.log_batch.put_raft_state(id, &local);
        }
        Ok(RecoveredPeer { region: region.clone(), peer, local, apply, last_term })
    }

    /// The term of an entry that must be there.
    fn term_at(
        &self,
        region: RegionId,
        index: u64,
        local: &LocalState,
        apply: &ApplyState,
    ) -> Result<u64, Trouble> {
        if index == apply.truncated.index {
            return Ok(apply.truncated.term);
        }
        let entry = self.raft.entry(region, index).map_err(Trouble::engine(DOING, region))?;
        let Some(entry) = entry.filter(|entry| entry.index() == index) else {
            let detail = format!("entry {index} is not in the log: {local:?} with {apply:?}");
            return Err(Trouble::inconsistent(region, detail));
        };
        entry.verify(region).map_err(Trouble::record)?;
        Ok(entry.term())
    }
}

/// The copy's hard state, with term and vote of the same peer's stored one if that is ahead.
fn newer_vote(copy: HardState, stored: Option<HardState>) -> HardState {
    match stored {
        Some(stored) if stored.term > copy.term => HardState { commit: copy.commit, ..stored },
        Some(stored) if stored.term == copy.term && copy.vote == 0 => {
            HardState { vote: stored.vote, ..copy }
        }
        _ => copy,
    }
}
