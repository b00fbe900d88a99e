//! Upkeep that workers do for the store: looking where regions should be cut, giving the
//! space of deleted keys back, collecting region snapshots that nobody needs.
//!
//! What is worth it is noted when it happens, so that a tick visits only regions that have
//! something to do.

use bytes::Bytes;
use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{Cf, RegionId};
use transport_traits::SnapDirection;

use super::Store;
use crate::{Task, event::CheckGoal, hooks::Hooks, keys};

/// How a look at a region has ended.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) region: RegionId,
    pub(super) incarnation: u64,
    /// The region's version when the look began.
    pub(super) version: u64,
    pub(super) size_bytes: u64,
    pub(super) keys: Vec<Bytes>,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// Has the regions looked at that may have become too large. One round of looks at a
    /// time: the next waits until the worker has nothing left (H77).
    pub(super) fn check_splits(&mut self) {
        let ctx = &mut self.ctx;
        if ctx.looks_under_way > 0 {
            return;
        }
        let (bytes, keys) =
            (ctx.config.region_split_check_diff, (ctx.config.region_split_keys / 16).max(1));
        ctx.metrics.duty_visits += ctx.attention.splits.len() as u64;
        for region in std::mem::take(&mut ctx.attention.splits) {
            let Some(peer) = self.peers.get_mut(&region) else { continue };
            if !peer.is_leader() || !peer.is_active() || !peer.size.is_due(bytes, keys) {
                continue;
            }
            if peer.is_making_snapshot() && peer.size.puts_off() {
                ctx.attention.splits.insert(region);
                continue;
            }
            peer.size.begin_look();
            ctx.looks_under_way += 1;
            ctx.metrics.split_checks += 1;
            let goal = CheckGoal::Auto;
            let task = Task::CheckSplit {
                region: peer.region().clone(),
                incarnation: peer.incarnation,
                goal,
            };
            ctx.effects.tasks.push(task);
        }
    }

    /// PD wants the region cut in the middle.
    pub(super) fn look_for_middle(&mut self, region: RegionId) {
        let Some(peer) = self.peers.get_mut(&region).filter(|p| p.is_leader() && p.is_active())
        else {
            return;
        };
        self.ctx.looks_under_way += 1;
        let (region, incarnation) = (peer.region().clone(), peer.incarnation);
        let task = Task::CheckSplit { region, incarnation, goal: CheckGoal::Half };
        self.ctx.effects.tasks.push(task);
    }

    /// A look has ended. Its keys are void if the region has been cut meanwhile (H70).
    pub(super) fn on_looked(&mut self, looked: Looked) {
        let Looked { region, incarnation, version, size_bytes, keys } = looked;
        let ctx = &mut self.ctx;
        ctx.looks_under_way = ctx.looks_under_way.saturating_sub(1);
        let Some(peer) = self.peers.get_mut(&region).filter(|p| p.incarnation == incarnation)
        else {
            return;
        };
        if peer.region().epoch.version != version {
            return;
        }
        peer.size.end_look(size_bytes);
        if keys.is_empty() || !peer.is_leader() {
            return;
        }
        ctx.metrics.split_checks_hit += 1;
        // Whatever keeps the split from happening, the next tick looks again.
        peer.size.look_again();
        ctx.attention.splits.insert(region);
        let epoch = peer.region().epoch;
        peer.ask_split(ctx, None, epoch, keys);
    }

    /// Gives the space of deleted keys back in one region that has many.
    pub(super) fn compact_region(&mut self) {
        let ctx = &mut self.ctx;
        while let Some(region) = ctx.attention.compactions.pop_first() {
            ctx.metrics.duty_visits += 1;
            let Some(peer) = self.peers.get_mut(&region) else { continue };
            if peer.size.deleted_keys < ctx.config.region_compact_delete_keys_count
                || !peer.is_initialized()
            {
                continue;
            }
            peer.size.deleted_keys = 0;
            for cf in [Cf::Default, Cf::Write] {
                let range = Some(keys::region_data_range(peer.region()));
                ctx.effects.tasks.push(Task::Compact { cf, range });
            }
            ctx.metrics.compactions += 1;
            return;
        }
    }

    /// Compacts the lock family if enough was written to it.
    pub(super) fn compact_locks(&mut self) {
        let ctx = &mut self.ctx;
        if ctx.lock_cf_bytes > ctx.config.lock_cf_compact_bytes_threshold {
            ctx.lock_cf_bytes = 0;
            ctx.metrics.lock_compactions += 1;
            ctx.effects.tasks.push(Task::Compact { cf: Cf::Lock, range: None });
        }
    }

    /// Gives up region snapshots that were made and not fetched for too long, and has those
    /// removed that nobody knows of.
    pub(super) fn collect_snapshots(&mut self) {
        let ctx = &mut self.ctx;
        let mut known = Vec::new();
        ctx.metrics.duty_visits += ctx.attention.generated.len() as u64;
        let mut makers = std::mem::take(&mut ctx.attention.generated);
        makers.retain(|region| {
            let Some(peer) = self.peers.get_mut(region) else { return false };
            peer.expire_generated(ctx);
            let before = known.len();
            known.extend(peer.generated().map(|key| (SnapDirection::Generated, key)));
            known.len() > before
        });
        ctx.attention.generated = makers;
        known.extend(ctx.received.keys().map(|key| (SnapDirection::Received, *key)));
        let lane = (ctx.lane, ctx.config.lanes);
        ctx.effects.tasks.push(Task::CollectSnapshots { lane, known });
    }
}
