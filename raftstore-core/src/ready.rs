//! One round: what to write, what may happen beside it, and the proof that it is durable.

use engine_traits::{Durability, KvEngine, RaftEngine, RaftLogBatch, WriteBatch};

use crate::{
    Effects, FatalError,
    hooks::{Bug, Hooks, Point},
    meta::{KvNumbers, LaneId},
};

/// One round of a lane.
#[must_use = "a round that is not carried out stops its peers"]
pub struct Ready<K: KvEngine, R: RaftEngine> {
    /// May happen at once, beside the writes.
    pub early: Effects,
    /// To be carried out with [`Writes::commit_group`], in the order of rounds; `None` if
    /// nothing has to be written.
    pub writes: Option<Writes<K, R>>,
}

impl<K: KvEngine, R: RaftEngine> std::fmt::Debug for Ready<K, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("early", &self.early).field("writes", &self.writes).finish()
    }
}

/// The writes of one round.
#[must_use = "writes must be committed"]
pub struct Writes<K: KvEngine, R: RaftEngine> {
    pub(crate) lane: LaneId,
    pub(crate) number: u64,
    /// Buffered, and numbered once it has returned (W4).
    pub(crate) kv: Option<K::WriteBatch>,
    pub(crate) log: R::LogBatch,
    /// Whether the log write must be durable before the proof.
    pub(crate) sync: bool,
}

impl<K: KvEngine, R: RaftEngine> std::fmt::Debug for Writes<K, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writes")
            .field("lane", &self.lane)
            .field("number", &self.number)
            .field("kv_operations", &self.kv.as_ref().map_or(0, WriteBatch::len))
            .field("log_bytes", &self.log.size_bytes())
            .field("sync", &self.sync)
            .finish()
    }
}

/// The proof that a round is durable. Made by [`Writes::commit_group`] alone.
#[derive(Debug)]
#[must_use = "a proof releases what waits for it"]
pub struct Persisted {
    lane: LaneId,
    number: u64,
    kv_number: Option<u64>,
}

impl Persisted {
    /// The lane whose round it was.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.lane
    }

    /// The round's number; rounds of a lane count up from 1.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The number of the round's KV write, if it had one. That write is not yet durable.
    #[must_use]
    pub const fn kv_number(&self) -> Option<u64> {
        self.kv_number
    }
}

impl<K: KvEngine, R: RaftEngine> Writes<K, R> {
    /// The lane whose round this is.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.lane
    }

    /// The round's number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Rough bytes of the log part.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.log.size_bytes()
    }

    /// Whether the log part must be durable before the proof.
    #[must_use]
    pub const fn must_sync(&self) -> bool {
        self.sync
    }

    /// Carries out the rounds that are waiting, in order, with one sync for all of them
    /// (W10): log writes are buffered but for the last, which is synced if any of them
    /// must be. KV parts go before log parts and are numbered as they return.
    ///
    /// # Errors
    /// If any write fails nobody gets a proof, and nothing may be written any more.
    pub fn commit_group<H: Hooks>(
        rounds: Vec<Self>,
        kv: &K,
        raft: &R,
        numbers: &KvNumbers,
        hooks: &H,
    ) -> Result<Vec<Persisted>, FatalError> {
        let sync = rounds.iter().any(|round| round.sync) && !hooks.planted(Bug::SkipLogSync);
        let mut proofs = Vec::with_capacity(rounds.len());
        let mut logs = Vec::with_capacity(rounds.len());
        for round in rounds {
            let mut kv_number = None;
            if let Some(batch) = round.kv {
                kv.write(batch, Durability::Buffered)
                    .map_err(FatalError::engine("writing region states", None))?;
                kv_number = Some(numbers.next_written());
            }
            if !round.log.is_empty() {
                logs.push(round.log);
            }
            proofs.push(Persisted { lane: round.lane, number: round.number, kv_number });
        }
        hooks.reach(Point::BetweenSave);
        let last = logs.len().saturating_sub(1);
        for (position, log) in logs.into_iter().enumerate() {
            let durability =
                if sync && position == last { Durability::Synced } else { Durability::Buffered };
            raft.write(log, durability)
                .map_err(FatalError::engine("writing the raft log", None))?;
        }
        Ok(proofs)
    }
}
