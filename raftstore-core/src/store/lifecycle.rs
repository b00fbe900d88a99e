//! The end of a peer, and what is written when a region's life changes.
//!
//! A peer ends in steps: no more part in anything; its Applier is gone; its tombstone is
//! written and durable; its log is cleared and that is durable (R26, W8). Only then may a
//! new incarnation be built.

use engine_traits::{Cf, KvEngine, RaftEngine, RaftLogBatch, WriteBatch};
use pd_client::RegionRoute;
use raftstore_proto::{PeerId, Region, RegionError, RegionId, RegionPhase, RegionState, wire};
use transport_traits::{SnapDirection, SnapKey};

use super::Store;
use crate::{
    InstallOutcome, Task,
    apply::{ApplyTask, ApplyWork},
    hooks::{Bug, Hooks, Point},
    keys,
    observe::{Cause, RegionEvent},
    peer::{IntakeStage, Round},
};

/// A peer whose records are being removed.
#[derive(Debug)]
pub(super) struct Destroying {
    /// What the tombstone keeps: the epoch known, and the peer that is gone.
    tombstone: Region,
    /// The range whose data has to go, if there was any.
    range: Option<(Vec<u8>, Vec<u8>)>,
    stage: DestroyStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DestroyStage {
    /// The tombstone has to be written.
    WantKv,
    /// It is in this round.
    KvRound(u64),
    /// It was written under this number and is not yet durable.
    KvWait(u64),
    /// The log's removal is in this round.
    LogRound(u64),
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// Begins to remove a peer. Harmless if that is under way.
    pub(super) fn start_destroy(&mut self, region: RegionId, why: Cause) {
        let ctx = &mut self.ctx;
        let Some(peer) = self.peers.get_mut(&region) else {
            return;
        };
        if peer.going_away {
            if why == Cause::Removed {
                // What it has executed itself says more than what it was told.
                peer.goes_for = why;
            }
            return;
        }
        if !peer.is_initialized() && !ctx.meta.begin_end(region) {
            // A split has taken its place, and replaces it in a moment (H12).
            return;
        }
        peer.going_away = true;
        peer.goes_for = why;
        peer.withdraw_view();
        peer.answer_all(ctx, &RegionError::RegionNotFound { region });
        if let Some(intake) = &mut peer.intake
            && intake.stage == IntakeStage::Installing
        {
            // The region worker owns the range until it says otherwise (H16).
            intake.destroy_after = true;
            let incarnation = peer.incarnation;
            ctx.effects.tasks.push(Task::CancelInstall { region, incarnation });
            return;
        }
        self.destroy_applier(region);
    }

    fn destroy_applier(&mut self, region: RegionId) {
        let Some(peer) = self.peers.get(&region) else {
            return;
        };
        if peer.has_applier {
            let incarnation = peer.incarnation;
            self.ctx.effects.apply.push(ApplyTask {
                region,
                incarnation,
                work: ApplyWork::Destroy,
            });
        } else {
            self.finish_destroy(region);
        }
    }

    /// The Applier is gone: removes the peer from memory, then from disk.
    pub(super) fn finish_destroy(&mut self, region: RegionId) {
        let Some(mut peer) = self.peers.remove(&region) else {
            return;
        };
        let ctx = &mut self.ctx;
        ctx.hooks.reach(Point::BeforeDestroy);
        peer.going_away = true;
        peer.answer_all(ctx, &RegionError::RegionNotFound { region });
        peer.release_backlog(ctx, u64::MAX);
        peer.group.step_down();
        peer.tell_role(ctx);
        peer.forget_snapshot_making(ctx);
        peer.close_view(ctx);
        if peer.is_initialized() {
            peer.tell_region(ctx, RegionEvent::Destroyed(peer.goes_for));
        }
        ctx.metrics.peers_destroyed += 1;
        ctx.dirty.remove(&region);
        ctx.attention.forget(region, peer.checked.at);
        let range = peer.is_initialized().then(|| keys::region_data_range(peer.region()));
        let mut tombstone = peer.region().clone();
        // The tombstone is the memory that keeps this incarnation out (H10, H11).
        tombstone.peers.retain(|other| other.store != ctx.store);
        tombstone.peers.push(peer.replica);
        let pending = peer.group.pending_snapshot();
        self.destroying
            .insert(region, Destroying { tombstone, range, stage: DestroyStage::WantKv });
        let taken_in = peer.intake.map(|intake| intake.key);
        let stepped = pending.map(|(index, term)| SnapKey { region, term, index });
        for key in taken_in.into_iter().chain(stepped) {
            self.drop_received(key);
        }
    }

    /// Adds what the ends of peers have to write to the round.
    pub(super) fn write_lifecycle(&mut self, round: &mut Round<K, R>) {
        if !self.quarantine_records.is_empty() {
            self.quarantine_round = round.number;
        }
        for (region, detail) in std::mem::take(&mut self.quarantine_records) {
            round.kv(&self.ctx.kv).put(Cf::Raft, &keys::quarantine_key(region), detail.as_bytes());
        }
        let out_of_order = self.ctx.hooks.planted(Bug::DestroyOutOfOrder);
        for (region, gone) in &mut self.destroying {
            match gone.stage {
                DestroyStage::WantKv => {
                    let state = RegionState {
                        phase: RegionPhase::Tombstone,
                        region: gone.tombstone.clone(),
                    };
                    let batch = round.kv(&self.ctx.kv);
                    batch.delete(Cf::Raft, &keys::apply_state_key(*region));
                    batch.delete(Cf::Raft, &keys::snapshot_raft_state_key(*region));
                    batch.delete(Cf::Raft, &keys::quarantine_key(*region));
                    if self.ctx.hooks.planted(Bug::TombstoneMissing) {
                        batch.delete(Cf::Raft, &keys::region_state_key(*region));
                    } else {
                        batch.put(
                            Cf::Raft,
                            &keys::region_state_key(*region),
                            &wire::record::encode_region_state(*region, &state),
                        );
                    }
                    if out_of_order {
                        round.log.clear_region(*region);
                    }
                    gone.stage = DestroyStage::KvRound(round.number);
                }
                DestroyStage::KvWait(number) if number <= self.ctx.kv_durable => {
                    if let Some((start, end)) = gone.range.take()
                        && !self.ctx.hooks.planted(Bug::DestroyKeepsData)
                    {
                        self.ctx.effects.tasks.push(Task::DeleteRange {
                            start,
                            end,
                            left_by: None,
                        });
                    }
                    round.log.clear_region(*region);
                    round.sync = true;
                    gone.stage = DestroyStage::LogRound(round.number);
                }
                DestroyStage::KvRound(_) | DestroyStage::KvWait(_) | DestroyStage::LogRound(_) => {}
            }
        }
    }

    /// Moves on the ends of peers that waited for this round.
    pub(super) fn on_lifecycle_round(&mut self, number: u64, kv_number: Option<u64>) {
        if let Some(kv_number) = kv_number
            && number == self.quarantine_round
        {
            // The mark must outlive a restart (W12).
            self.ctx.want_kv_durable(kv_number);
        }
        let mut done = Vec::new();
        for (region, gone) in &mut self.destroying {
            match (gone.stage, kv_number) {
                (DestroyStage::KvRound(at), Some(kv_number)) if at == number => {
                    gone.stage = DestroyStage::KvWait(kv_number);
                    self.ctx.want_kv_durable(kv_number);
                }
                (DestroyStage::LogRound(at), _) if at == number => done.push(*region),
                _ => {}
            }
        }
        for region in done {
            self.destroying.remove(&region);
            self.ctx.meta.forget(region);
        }
    }

    /// An installation has ended.
    pub(super) fn on_installed(
        &mut self,
        region: RegionId,
        incarnation: u64,
        outcome: InstallOutcome,
    ) {
        let Some(peer) = self.peers.get_mut(&region).filter(|peer| peer.incarnation == incarnation)
        else {
            return;
        };
        let Some(intake) = &peer.intake else {
            return;
        };
        let key = intake.key;
        if intake.destroy_after {
            peer.intake = None;
            self.ctx.attention.taking_in.remove(&region);
            self.drop_received(key);
            self.destroy_applier(region);
            return;
        }
        match outcome {
            InstallOutcome::Done { kv_number } => {
                peer.on_installed(&mut self.ctx, kv_number);
                // The bytes are needed again if the record of their installation is lost.
                self.spent.push((key, kv_number));
            }
            InstallOutcome::Cancelled | InstallOutcome::BadContent => {
                tracing::warn!(%region, ?outcome, "snapshot not installed, peer has to go");
                peer.intake = None;
                self.ctx.attention.taking_in.remove(&region);
                self.drop_received(key);
                self.start_destroy(region, Cause::BadSnapshot);
            }
        }
    }

    /// The KV engine is durable up to `number`.
    pub(super) fn on_kv_durable(&mut self, number: u64) {
        let ctx = &mut self.ctx;
        ctx.kv_durable = ctx.kv_durable.max(number);
        ctx.kv_sync_asked = false;
        ctx.ask_kv_sync();
        let later = ctx.kv_waiters.split_off(&(ctx.kv_durable + 1));
        let reached = std::mem::replace(&mut ctx.kv_waiters, later);
        for region in reached.into_values().flatten() {
            ctx.mark(region);
        }
        self.remove_leftovers();
        let ctx = &mut self.ctx;
        let durable = ctx.kv_durable;
        let (spent, keep) = std::mem::take(&mut self.spent)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, kv_number)| *kv_number <= durable);
        self.spent = keep;
        for (key, _) in spent {
            ctx.received.remove(&key);
            let direction = SnapDirection::Received;
            ctx.effects.tasks.push(Task::DeleteSnapshot { direction, key });
        }
    }

    /// PD told what it knows of a region whose peer misses its leader (11.2).
    pub(super) fn on_validated(
        &mut self,
        region: RegionId,
        asked: PeerId,
        route: Option<RegionRoute>,
    ) {
        let (Some(peer), Some(route)) = (self.peers.get(&region), route) else {
            // "No such region" proves nothing: a split may not be reported yet (H71).
            return;
        };
        let known = route.region;
        if peer.replica.id != asked
            || known.epoch.is_stale_against(&peer.member_as_of())
            || known.peers.iter().any(|other| other.is_same_replica(&peer.replica))
        {
            return;
        }
        tracing::info!(%region, peer = %asked, "PD no longer lists this peer");
        self.start_destroy(region, Cause::NotListed);
    }

    /// Takes a replica out of service: it neither votes nor serves until it is replaced
    /// under a new peer id (D15, W12).
    pub(super) fn quarantine(&mut self, region: RegionId, why: &str) {
        let Some(peer) = self.peers.get_mut(&region).filter(|peer| !peer.quarantined) else {
            return;
        };
        tracing::error!(%region, why, "replica quarantined");
        peer.quarantined = true;
        peer.withdraw_view();
        peer.group.step_down();
        peer.sync_role(&mut self.ctx);
        peer.forget_snapshot_making(&mut self.ctx);
        peer.answer_all(&mut self.ctx, &RegionError::RegionNotFound { region });
        self.ctx.metrics.quarantined += 1;
        self.ctx.attention.quarantined.insert(region);
        self.quarantine_records.push((region, why.to_owned()));
    }
}
