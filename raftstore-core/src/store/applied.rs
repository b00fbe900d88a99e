//! What apply has done, taken in: first the effects of admin entries, then the progress
//! (H39), then the answers that waited for both (H58).

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{ChangeKind, PeerChange, Region, RegionId, Truncated};

use super::{Store, split::SplitDone};
use crate::{
    FatalError, PdRequest,
    apply::{ApplyEvent, ApplyResult, ExecResult},
    hooks::{Bug, Hooks},
    observe::{Cause, RegionEvent},
};

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    pub(super) fn on_applied(&mut self, events: Vec<ApplyEvent>) -> Result<(), FatalError> {
        for event in events {
            match event {
                ApplyEvent::Applied(result) => self.on_result(*result)?,
                ApplyEvent::Destroyed { region, incarnation } => {
                    let known = self
                        .peers
                        .get_mut(&region)
                        .filter(|peer| peer.incarnation == incarnation && peer.going_away);
                    if let Some(peer) = known {
                        peer.has_applier = false;
                        self.finish_destroy(region);
                    }
                }
                ApplyEvent::Damaged { region, incarnation, index } => {
                    let ours =
                        self.peers.get(&region).is_some_and(|p| p.incarnation == incarnation);
                    if ours {
                        self.quarantine(region, &format!("log entry {index} fails its checksum"));
                    }
                }
            }
        }
        Ok(())
    }

    fn on_result(&mut self, result: ApplyResult) -> Result<(), FatalError> {
        let ApplyResult { region, incarnation, state, kv_number, exec, answers, metrics } = result;
        self.ctx.metrics.applied_bytes += metrics.written_bytes;
        self.ctx.metrics.applied_keys += metrics.written_keys;
        self.ctx.lock_cf_bytes += metrics.lock_cf_bytes;
        self.ctx.kv_unsynced_bytes += metrics.written_bytes;
        if self.ctx.kv_unsynced_bytes >= self.ctx.config.kv_sync_bytes {
            self.ctx.kv_unsynced_bytes = 0;
            self.ctx.want_kv_durable(kv_number);
        }
        let known = self.peers.get(&region).is_some_and(|peer| peer.incarnation == incarnation);
        if known {
            for effect in exec {
                match effect {
                    ExecResult::ChangePeer { index, applied } => {
                        if let Some((changes, after)) = applied {
                            self.on_peers_changed(region, index, &changes, after);
                        }
                    }
                    ExecResult::Split { index: _, derived, parts, right_derive } => {
                        let split = SplitDone { derived, parts, right_derive, kv_number };
                        self.on_split(region, split)?;
                    }
                    ExecResult::Truncate { truncated, first_index_before } => {
                        self.on_truncated(region, truncated, first_index_before, kv_number);
                    }
                    ExecResult::ComputeHash { index: _ } => self.on_hash_begun(region),
                    ExecResult::VerifyHash { index, hash } => {
                        self.on_verify_hash(region, index, &hash)?;
                    }
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(&region).filter(|p| p.incarnation == incarnation) {
            let ctx = &mut self.ctx;
            let truncated = peer.applied.truncated.max(state.truncated);
            peer.applied = raftstore_proto::ApplyState { truncated, ..state };
            peer.release_backlog(ctx, state.applied);
            peer.note_splits_applied(state.applied);
            peer.written.0 += metrics.written_bytes;
            peer.written.1 += metrics.written_keys;
            peer.size.applied(metrics.size_diff, metrics.written_keys, metrics.deleted_keys);
            let config = &ctx.config;
            if peer.size.is_due(config.region_split_check_diff, config.region_split_keys / 16) {
                ctx.attention.splits.insert(region);
            }
            if peer.size.deleted_keys >= config.region_compact_delete_keys_count {
                ctx.attention.compactions.insert(region);
            }
            if !peer.going_away {
                peer.group.advance_apply(state.applied);
                peer.sync_role(ctx);
                peer.publish_view();
                peer.serve_reads(ctx)?;
                ctx.mark(region);
            }
        }
        self.ctx.effects.answers.extend(answers);
        Ok(())
    }

    fn on_peers_changed(
        &mut self,
        id: RegionId,
        index: u64,
        changes: &[PeerChange],
        after: Region,
    ) {
        let ctx = &mut self.ctx;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        ctx.metrics.conf_changes += 1;
        // A snapshot may already contain the change, in raft's eyes too (H51, R36).
        if index >= peer.group.first_index() || ctx.hooks.planted(Bug::ConfChangeTwice) {
            peer.group.apply_conf_change(changes);
            if changes.len() > 1 && ctx.hooks.planted(Bug::JointSkipped) {
                peer.group.apply_conf_change(&[]);
            }
            if !ctx.hooks.planted(Bug::LeadsWithoutVote) {
                peer.group.follow_unless_voter();
            }
        }
        let removes_own = after.peer(peer.replica.id).is_none();
        if !removes_own {
            ctx.meta.update(&after);
        }
        peer.set_region(after);
        peer.tell_region(ctx, RegionEvent::Updated(Cause::Membership));
        peer.note_conf_changed(ctx);
        peer.give_up_building();
        for change in changes {
            if change.kind == ChangeKind::RemoveNode {
                peer.forget_member(change.peer.id);
            } else if peer.is_leader() {
                peer.heard.entry(change.peer.id).or_insert(ctx.now);
            }
        }
        if peer.is_leader() && changes.iter().any(|change| change.kind != ChangeKind::RemoveNode) {
            peer.group.ping();
        }
        peer.sync_role(ctx);
        if peer.region().is_joint() {
            ctx.attention.joint.insert(id);
        }
        if removes_own {
            // The Applier has ended itself with this entry.
            peer.group.step_down();
            peer.sync_role(ctx);
            peer.has_applier = false;
            self.start_destroy(id, Cause::Removed);
            return;
        }
        if peer.intake.is_none() && peer.group.pending_snapshot().is_none() {
            peer.require_same_members();
        }
        peer.publish_view();
        if peer.is_leader() {
            let heartbeat = peer.heartbeat(ctx);
            ctx.effects.pd.push(PdRequest::RegionHeartbeat(heartbeat));
        }
        ctx.mark(id);
    }

    fn on_truncated(
        &mut self,
        region: RegionId,
        truncated: Truncated,
        first_index_before: u64,
        kv_number: u64,
    ) {
        let ctx = &mut self.ctx;
        let Some(peer) = self.peers.get_mut(&region) else {
            return;
        };
        if truncated <= peer.group.storage().truncated {
            return;
        }
        ctx.metrics.log_cuts += 1;
        let last = peer.last_applying;
        let storage = peer.group.storage_mut();
        storage.truncated = truncated;
        let durable = storage.persisted_index;
        storage.cache.compact(truncated.index + 1, durable);
        // What is left of the log, by count.
        let before = last.saturating_sub(first_index_before).max(1);
        let left = last.saturating_sub(truncated.index + 1);
        peer.log_bytes = peer.log_bytes / before * left.min(before);
        peer.removal = Some((truncated.index + 1, kv_number));
        ctx.visit_when_durable(region, kv_number);
    }
}
