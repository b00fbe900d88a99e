//! Rounds: filling one from the peers that were touched, and releasing what waited for it.

use engine_traits::{KvEngine, RaftEngine, RaftLogBatch, WriteBatch};
use raftstore_proto::RegionId;

use super::Store;
use crate::{Effects, FatalError, MonoTime, Persisted, Ready, Writes, hooks::Hooks, peer::Round};

/// A round on its way to the disk.
#[derive(Debug)]
pub(super) struct RoundInFlight {
    pub(super) number: u64,
    /// Who waits for it, by region and incarnation.
    pub(super) members: Vec<(RegionId, u64)>,
    pub(super) bytes: u64,
    /// When it was handed out.
    at: MonoTime,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// What the events since the last call ask for: one round of writes, and effects that
    /// may happen beside them. To be called until it gives `None`.
    ///
    /// # Errors
    /// The store must stop.
    pub fn ready(&mut self) -> Result<Option<Ready<K, R>>, FatalError> {
        let mut round = Round {
            number: self.last_round + 1,
            kv: None,
            log: self.ctx.raft.log_batch(),
            sync: false,
        };
        let mut members = Vec::new();
        for region in std::mem::take(&mut self.ctx.dirty) {
            let Some(peer) = self.peers.get_mut(&region) else { continue };
            if peer.collect(&mut self.ctx, &mut round)? {
                members.push((region, peer.incarnation));
            }
            if peer.is_active()
                && peer.group.has_ready()
                && !peer.waits_with_snapshot()
                && !peer.waits_for_birth(&self.ctx)
            {
                self.ctx.mark(region);
            }
            self.check_damage(region)?;
        }
        if std::mem::take(&mut self.flush_commits_due) {
            self.flush_commits(&mut round);
        }
        self.write_lifecycle(&mut round);
        let early = std::mem::take(&mut self.ctx.effects);
        let has_kv = round.kv.as_ref().is_some_and(|batch| !batch.is_empty());
        if !has_kv && round.log.is_empty() {
            debug_assert!(members.is_empty(), "peers wait for a round that writes nothing");
            return Ok((!early.is_empty()).then_some(Ready { early, writes: None }));
        }
        self.last_round = round.number;
        let bytes = round.log.size_bytes() as u64;
        self.ctx.in_flight_bytes += bytes;
        self.ctx.rounds_in_flight += 1;
        self.ctx.metrics.rounds += 1;
        self.ctx.metrics.synced_rounds += u64::from(round.sync);
        let at = self.ctx.now;
        self.rounds.push_back(RoundInFlight { number: round.number, members, bytes, at });
        let writes = Writes {
            lane: self.ctx.lane,
            number: round.number,
            kv: round.kv.filter(|batch| !batch.is_empty()),
            log: round.log,
            sync: round.sync,
        };
        Ok(Some(Ready { early, writes: Some(writes) }))
    }

    fn flush_commits(&mut self, round: &mut Round<K, R>) {
        let mut moved = std::mem::take(&mut self.ctx.attention.commits);
        self.ctx.metrics.duty_visits += moved.len() as u64;
        moved.retain(|region| {
            self.peers.get_mut(region).is_some_and(|peer| peer.flush_commit(&self.ctx, round))
        });
        self.ctx.attention.commits = moved;
    }

    /// The round of `proof` is durable: what may happen only now.
    ///
    /// # Errors
    /// The store must stop.
    ///
    /// # Panics
    /// If the proof is not that of the oldest round without one: proofs come in order.
    pub fn on_persisted(&mut self, now: MonoTime, proof: Persisted) -> Result<Effects, FatalError> {
        self.ctx.now = self.ctx.now.max(now);
        assert_eq!(proof.lane(), self.ctx.lane, "a proof of another lane");
        let round = self.rounds.pop_front();
        assert_eq!(
            round.as_ref().map(|round| round.number),
            Some(proof.number()),
            "proofs come in the order of rounds"
        );
        if let Some(round) = round {
            self.ctx.in_flight_bytes -= round.bytes;
            self.ctx.rounds_in_flight -= 1;
            if self.ctx.now.since(round.at) >= self.ctx.config.election_timeout() {
                // PD shall give a store nothing more that cannot keep up (6.7).
                self.ctx.was_slow = true;
                self.ctx.metrics.slow_rounds += 1;
            }
            for (region, incarnation) in round.members {
                if let Some(peer) = self.peers.get_mut(&region)
                    && peer.incarnation == incarnation
                    && !peer.going_away
                    && !peer.quarantined
                {
                    peer.on_round_durable(&mut self.ctx, proof.number(), proof.kv_number())?;
                    self.check_damage(region)?;
                }
            }
        }
        self.on_lifecycle_round(proof.number(), proof.kv_number());
        Ok(std::mem::take(&mut self.ctx.effects))
    }
}
