//! Counts what only a store itself knows to have happened.

use raftstore_core::{Dropped, StoreMetrics};

use super::World;
use crate::counters::{Counters, Sometimes};

impl World {
    /// Takes in what a running store has counted. To be called once in each of its lives,
    /// at the end.
    pub(crate) fn harvest(&mut self, store: u64) {
        for metrics in self.metrics(store) {
            take_in(&mut self.counters, &metrics);
        }
    }

    /// Takes in what all running stores have counted.
    pub(crate) fn harvest_all(&mut self) {
        let stores: Vec<u64> = self.nodes.keys().copied().collect();
        for store in stores {
            self.harvest(store);
        }
    }
}

fn take_in(counters: &mut Counters, metrics: &StoreMetrics) {
    let dropped = |reason| metrics.dropped.get(&reason).copied().unwrap_or(0);
    for (what, times) in [
        (Sometimes::SplitBorn, metrics.split_born),
        (Sometimes::SplitReplaced, metrics.split_replaced),
        (Sometimes::SplitSkipped, metrics.split_skipped),
        (Sometimes::FirstKept, metrics.first_messages_kept),
        (Sometimes::FirstReplayed, metrics.first_messages_replayed),
        (Sometimes::ReadsBehindSplit, metrics.reads_behind_split),
        (Sometimes::SnapshotsOverlapping, metrics.snapshots_overlapping),
        (Sometimes::ParkedWrites, metrics.parked_writes),
        (Sometimes::WithheldProofs, metrics.withheld_proofs),
        (Sometimes::UnsafeVotes, dropped(Dropped::UnsafeVote)),
        (Sometimes::Overlaps, dropped(Dropped::RegionOverlap)),
        (Sometimes::Tombstones, dropped(Dropped::TombstonePeer)),
        (Sometimes::StaleClaims, dropped(Dropped::StaleGc)),
        (Sometimes::SnapshotsUnderWay, dropped(Dropped::ApplyingSnapshot)),
        (Sometimes::Backpressure, dropped(Dropped::Backpressure)),
    ] {
        counters.add(what, times);
    }
}
