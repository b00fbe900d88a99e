//! One peer's part in a round: what raft wants written, sent, applied and answered.

use engine_traits::{KvEngine, RaftEngine, RaftLogBatch};
use raftstore_proto::{Entry, RaftMessage};

use super::{IntakeStage, Peer, raft_group::Collected};
use crate::{
    FatalError,
    apply::{ApplyTask, ApplyWork},
    context::Context,
    hooks::{Bug, Hooks},
};

/// The round being filled.
pub(crate) struct Round<K: KvEngine, R: RaftEngine> {
    pub(crate) number: u64,
    pub(crate) kv: Option<K::WriteBatch>,
    pub(crate) log: R::LogBatch,
    pub(crate) sync: bool,
}

impl<K: KvEngine, R: RaftEngine> Round<K, R> {
    /// The round's KV batch, begun if there is none.
    pub(crate) fn kv(&mut self, engine: &K) -> &mut K::WriteBatch {
        self.kv.get_or_insert_with(|| engine.write_batch())
    }
}

impl<R: RaftEngine> Peer<R> {
    /// Adds this peer's share to the round. Gives whether it waits for the round's proof.
    pub(crate) fn collect<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        round: &mut Round<K, R>,
    ) -> Result<bool, FatalError> {
        if self.going_away || self.quarantined || self.waits_for_birth(ctx) {
            return Ok(false);
        }
        if self.unpark_intake(ctx, &mut round.log, round.number) {
            round.sync = true;
            return Ok(true);
        }
        let mut waits = self.remove_old_entries(ctx, round);
        self.issue_reads(ctx);
        // A snapshot must not race with writes on their way, nor with apply (6.2, R25).
        let snapshot_waits = self.group.pending_snapshot().is_some()
            && (self.group.has_in_flight() || !self.is_drained());
        if !snapshot_waits && let Some(collected) = self.group.collect() {
            waits |= self.take_in(ctx, round, collected)?;
        }
        self.sync_role(ctx);
        self.ask_snapshot(ctx);
        Ok(waits)
    }

    fn take_in<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        round: &mut Round<K, R>,
        mut collected: Collected,
    ) -> Result<bool, FatalError> {
        self.sync_role(ctx);
        if collected.role.is_some_and(|role| !role.is_leader) {
            self.forget_snapshot_making(ctx);
        }
        self.renew_from_commit(ctx);
        if ctx.hooks.planted(Bug::LeaseFromConfirmation)
            && self.is_leader()
            && !collected.committed.is_empty()
        {
            self.renew_lease(ctx.now);
        }
        for state in std::mem::take(&mut collected.read_states) {
            self.on_read_state(&state.request_ctx, state.index);
        }
        let committed = std::mem::take(&mut collected.committed);
        self.give_to_apply(ctx, committed);
        let early = std::mem::take(&mut collected.early);
        if ctx.hooks.planted(Bug::AckBeforePersist) && !self.is_leader() {
            let late = collected.take_late();
            self.send(ctx, late);
        }
        let waits = self.write(ctx, round, &mut collected)?;
        self.send(ctx, early);
        self.serve_reads(ctx)?;
        Ok(waits)
    }

    /// Fills the round with what must be durable.
    fn write<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        round: &mut Round<K, R>,
        collected: &mut Collected,
    ) -> Result<bool, FatalError> {
        if let Some(snapshot) = collected.snapshot.take() {
            // It clears the log itself, with whatever waited there.
            self.born_by = None;
            self.group.launch(collected, None);
            let entries = std::mem::take(&mut collected.entries);
            let number = round.number;
            let batch = round.kv(&ctx.kv);
            self.accept_snapshot(ctx, &snapshot, entries, batch, number)?;
            return Ok(true);
        }
        if !collected.must_write {
            // Most readies of this kind hold heartbeats and nothing more.
            if collected.state_changed {
                self.hard_state_dirty = true;
                ctx.attention.commits.insert(self.region_id());
            }
            self.group.launch(collected, None);
            return Ok(false);
        }
        let id = self.region_id();
        if self.born_by.take().is_some() {
            // Nothing of a peer that waited here may stay beside what follows (W11).
            round.log.clear_region(id);
        }
        self.splits.staged(&collected.entries);
        if !collected.entries.is_empty() {
            ctx.metrics.appended_entries += collected.entries.len() as u64;
            if self.is_leader() {
                ctx.attention.logs.insert(id);
            }
            self.log_bytes += collected.entries.iter().map(|e| e.payload_len() as u64).sum::<u64>();
            round.log.append(id, &collected.entries);
        }
        self.put_raft_state(ctx, round);
        round.sync = true;
        self.group.launch(collected, Some(round.number));
        Ok(true)
    }

    /// Writes the raft state as it is staged; the commit index rides along (W5).
    pub(crate) fn put_raft_state<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &Context<K, R, H>,
        round: &mut Round<K, R>,
    ) {
        let mut local = self.group.storage().local_state(self.replica.id);
        let early = !self.is_initialized() && ctx.hooks.planted(Bug::EarlyVoteForgotten);
        if early || ctx.hooks.planted(Bug::VoteForgotten) {
            local.hard_state.vote = 0;
        }
        round.log.put_raft_state(self.region_id(), &local);
        self.hard_state_dirty = false;
    }

    /// Writes a commit index that moved without anything else, so that a restart knows
    /// more of what is committed. Not synced. Gives whether it has yet to be written.
    pub(crate) fn flush_commit<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &Context<K, R, H>,
        round: &mut Round<K, R>,
    ) -> bool {
        if self.hard_state_dirty && self.is_active() && !self.group.has_in_flight() {
            self.put_raft_state(ctx, round);
        }
        self.hard_state_dirty
    }

    /// Removes entries below a cut whose apply state is durable (H4, R27). Rides in the
    /// round like any other write of the region.
    fn remove_old_entries<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &Context<K, R, H>,
        round: &mut Round<K, R>,
    ) -> bool {
        let Some((keep_from, kv_number)) = self.removal else {
            return false;
        };
        let durable = kv_number <= ctx.kv_durable || ctx.hooks.planted(Bug::LogRemovedEarly);
        // Never past what is durable in this log.
        let persisted = self.group.storage().persisted_index;
        if !durable || keep_from > persisted + 1 || self.intake.is_some() {
            return false;
        }
        self.removal = None;
        if keep_from > self.stored_first {
            round.log.truncate_prefix(self.region_id(), keep_from);
            self.stored_first = keep_from;
        }
        false
    }

    /// Hands committed entries, and the callers that wait for them, to apply.
    fn give_to_apply<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        entries: Vec<Entry>,
    ) {
        let Some(last) = entries.last().map(Entry::index) else {
            return;
        };
        assert!(self.has_applier, "region {}: nobody to apply for", self.region_id());
        assert_eq!(
            entries[0].index(),
            self.last_applying + 1,
            "region {}: entries are applied in order, each once",
            self.region_id()
        );
        self.last_applying = last;
        let bytes = entries.iter().map(|e| e.payload_len() as u64).sum::<u64>();
        ctx.apply_backlog_bytes += bytes;
        self.applying.push_back((last, bytes));
        let proposals = std::mem::take(&mut self.proposals).into();
        ctx.effects.apply.push(ApplyTask {
            region: self.region_id(),
            incarnation: self.incarnation,
            work: ApplyWork::Entries { term: self.term(), entries, proposals },
        });
    }

    /// Round `number` is durable; its KV part, if it had one, was written under
    /// `kv_number`.
    pub(crate) fn on_round_durable<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        number: u64,
        kv_number: Option<u64>,
    ) -> Result<(), FatalError> {
        let messages = self.group.on_round_durable(number);
        ctx.metrics.withheld_proofs += self.group.take_withheld();
        let stage = self.intake.as_ref().map(|intake| intake.stage);
        match (stage, kv_number) {
            (Some(IntakeStage::KvRound(at)), Some(kv_number)) if at == number => {
                self.on_intake_written(ctx, kv_number);
            }
            (Some(IntakeStage::LogRound(at)), _) if at == number => {
                self.on_intake_durable(ctx, messages);
                return Ok(());
            }
            _ => {}
        }
        self.trim_cache(ctx);
        self.sync_role(ctx);
        self.renew_from_commit(ctx);
        self.send(ctx, messages);
        ctx.mark(self.region_id());
        Ok(())
    }

    fn trim_cache<K: KvEngine, H: Hooks>(&mut self, ctx: &Context<K, R, H>) {
        let count = ctx.config.peer_entry_cache_count;
        let storage = self.group.storage_mut();
        let durable = storage.persisted_index;
        storage.cache.trim(count, durable);
    }

    /// Whether the message carries entries of this region that are not what their proposer
    /// made (D21).
    pub(crate) fn has_damaged_entries(&self, message: &RaftMessage) -> bool {
        let region = self.region_id();
        message
            .raft()
            .entries
            .iter()
            .any(|entry| Entry::from_raft(entry.clone()).verify(region).is_err())
    }
}
