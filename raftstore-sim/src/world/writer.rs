//! The writer of a store: takes all rounds that wait, writes them as one group, proves it.

use crate::engine::{SimKv, SimLog};
use engine_traits::mem::Leaves;
use raftstore_core::{Persisted, Writes};

use super::{
    NodeStep, World,
    node::{CutPoint, Input},
};
use crate::{counters::Sometimes, planted::Planted, queue::MICRO};

/// Most rounds of a group.
const GROUP: usize = 64;

impl World {
    pub(super) fn queue_round(&mut self, store: u64, writes: Writes<SimKv, SimLog>) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        running.waiting_rounds.push_back(writes);
        self.start_write(store);
    }

    /// Starts the writer if it has something to do and does nothing.
    fn start_write(&mut self, store: u64) {
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        if running.writer_busy || running.waiting_rounds.is_empty() {
            return;
        }
        running.writer_busy = true;
        let delay = self.write_time();
        self.node_after(delay, store, NodeStep::Write);
    }

    fn write_time(&mut self) -> crate::queue::Nanos {
        let pace = self.plan.pace;
        let mean =
            if self.pace_rng.chance(pace.slow_writes) { pace.write * 100 } else { pace.write };
        20 * MICRO + self.pace_rng.exponential(mean / 2)
    }

    pub(super) fn write(&mut self, store: u64) {
        let bug = self.plan.bug;
        let Some(node) = self.nodes.get_mut(&store) else { return };
        if let Some(crash) = node.cut_at(CutPoint::BeforeWrite) {
            return self.crash_at(store, crash, CutPoint::BeforeWrite);
        }
        let Some(running) = node.running.as_mut() else { return };
        let take = running.waiting_rounds.len().min(GROUP);
        let rounds: Vec<_> = running.waiting_rounds.drain(..take).collect();
        let count = rounds.len();
        let inside = [CutPoint::BetweenKvAndLog, CutPoint::InsideGroup]
            .into_iter()
            .find_map(|point| node.cut_at(point).map(|crash| (point, crash)));
        if let Some((point, _)) = inside {
            let nth = match point {
                CutPoint::InsideGroup => self.fault_rng.between(1, count as u64),
                _ => 1,
            };
            let leaves = if point == CutPoint::InsideGroup && self.fault_rng.chance(500) {
                Leaves::Everything
            } else {
                Leaves::Nothing
            };
            node.disk.log.faults().fail_write(nth, leaves);
        }
        let running = node.running.as_ref().expect("looked at above");
        let result = Writes::commit_group(
            rounds,
            &node.disk.kv,
            &node.disk.log,
            &running.meta.numbers,
            &Planted(bug),
        );
        if let Some((point, crash)) = inside {
            return self.crash_at(store, crash, point);
        }
        let proofs = match result {
            Ok(proofs) => proofs,
            Err(error) => return self.fatal(store, &error),
        };
        if count > 1 {
            self.counters.hit(Sometimes::GroupCommits);
        }
        self.transcript.event(self.now, store, 0, format_args!("wrote {count}"));
        let crash = self.nodes.get_mut(&store).and_then(|node| node.cut_at(CutPoint::BeforeProof));
        if let Some(crash) = crash {
            return self.crash_at(store, crash, CutPoint::BeforeProof);
        }
        let delay = self.write_time();
        self.node_after(delay, store, NodeStep::Proofs(proofs));
    }

    pub(super) fn deliver_proofs(&mut self, store: u64, proofs: Vec<Persisted>) {
        for proof in proofs {
            let lane = usize::from(proof.lane().0);
            self.push(store, lane, Input::Proof(proof));
        }
        if let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut()) {
            running.writer_busy = false;
        }
        self.start_write(store);
    }
}
