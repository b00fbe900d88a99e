//! Decides which rounds share a sync: all that wait when the disk is free again, and where
//! there are many, those that come a moment later (D3, W10).

use std::{sync::Arc, thread, time::Instant};

use crossbeam_channel::{Receiver, select};
use engine_traits::{KvEngine, RaftEngine};

use super::{
    company::Company,
    fail_points::{FailPoints, fail_point},
    shared::{LaneInput, Shared},
};
use crate::{FatalError, LaneId, Persisted, StoreMeta, Writes};

/// The one writer of a store.
pub(super) struct Writer<K: KvEngine, R: RaftEngine> {
    pub(super) kv: K,
    pub(super) raft: R,
    pub(super) meta: Arc<StoreMeta>,
    pub(super) rounds: Receiver<Writes<K, R>>,
    pub(super) shared: Arc<Shared>,
}

impl<K: KvEngine, R: RaftEngine> Writer<K, R> {
    /// Writes until no lane is left, or the store fails.
    pub(super) fn run(self) -> Result<(), FatalError> {
        let mut company = Company::default();
        loop {
            let first = select! {
                recv(self.rounds) -> round => match round {
                    Ok(round) => round,
                    Err(_) => return Ok(()),
                },
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
            };
            if first.must_sync() {
                thread::sleep(company.wait());
            }
            let mut group = vec![first];
            group.extend(self.rounds.try_iter());
            // Once anything has failed nothing is written any more (R29).
            if self.shared.failure.has_failed() {
                return Ok(());
            }
            let rounds = group.iter().filter(|round| round.must_sync()).count();
            let begun = Instant::now();
            self.commit(group)?;
            if rounds > 0 {
                company.note(rounds, begun.elapsed());
            }
        }
    }

    fn commit(&self, group: Vec<Writes<K, R>>) -> Result<(), FatalError> {
        let counters = &self.shared.counters;
        counters.groups.add(1);
        counters.rounds.add(group.len() as u64);
        counters.log_bytes.add(group.iter().map(|round| round.log_bytes() as u64).sum());
        counters.log_syncs.add(u64::from(group.iter().any(Writes::must_sync)));
        let (begun, rounds) = (Instant::now(), group.len());
        let _span = tracing::trace_span!("append", rounds).entered();
        fail_point!("raft_before_save");
        let numbers = &self.meta.numbers;
        let proofs = Writes::commit_group(group, &self.kv, &self.raft, numbers, &FailPoints)?;
        fail_point!("raft_after_save");
        let timing = &self.shared.timings.append;
        timing.end(begun, format_args!("{rounds} rounds written to the raft log"));
        let mut by_lane: Vec<Vec<Persisted>> = Vec::new();
        by_lane.resize_with(self.shared.lanes.len(), Vec::new);
        for proof in proofs {
            by_lane[usize::from(proof.lane().0)].push(proof);
        }
        for (lane, proofs) in (0..).map(LaneId).zip(by_lane) {
            if !proofs.is_empty() {
                // A lane that has ended releases nothing any more.
                let _ = self.shared.link(lane).significant.send(LaneInput::Proofs(proofs));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
