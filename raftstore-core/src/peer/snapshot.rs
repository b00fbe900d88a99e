//! Region snapshots, seen from one peer: having one made for a lagging member, and taking
//! one in.
//!
//! Taking in goes through stages, each entered by an event. Until the last, raft is not
//! ticked, fetched or given entries (R9, W7), and its acknowledgement is held (H43).
//!
//! ```text
//!   collected -> KvRound    the KV part (region Applying, new apply state) is in a round
//!             -> KvWait     written; the log part is parked until that write is durable (W6)
//!             -> LogRound   the log part is in a round
//!             -> Installing the data is being replaced by the region worker
//!             -> installed: held messages leave, raft goes on
//! ```

use engine_traits::{Cf, KvEngine, RaftEngine, RaftLogBatch, WriteBatch};
use raft::eraftpb::{Message, Snapshot};
use raftstore_proto::{ApplyState, Entry, Region, RegionPhase, RegionState, Truncated, wire};
use transport_traits::{SnapDirection, SnapKey};

use super::{Peer, storage::SnapshotMaking};
use crate::{
    BuiltSnapshot, FatalError, GivenUp, MonoTime, Task,
    apply::{ApplyTask, ApplyWork, Registration},
    context::Context,
    hooks::{Bug, Hooks},
    keys,
    observe::{Cause, RegionEvent},
};

/// A snapshot being taken in.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Which bytes.
    pub(crate) key: SnapKey,
    /// Range and members as of the snapshot.
    pub(crate) region: Region,
    /// Entries that came behind it in the same ready.
    entries: Vec<Entry>,
    pub(crate) stage: IntakeStage,
    /// raft's messages of that ready.
    held: Vec<Message>,
    /// The peer shall be destroyed once the installation has ended (H16).
    pub(crate) destroy_after: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntakeStage {
    /// The KV part is in this round.
    KvRound(u64),
    /// The log part waits until the KV engine is durable so far.
    KvWait(u64),
    /// The log part is in this round.
    LogRound(u64),
    /// The region worker has it.
    Installing,
}

impl<R: RaftEngine> Peer<R> {
    /// Passes raft's wish for a snapshot on to apply, behind all entries given out (H46).
    pub(super) fn ask_snapshot<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        let storage = self.group.storage();
        let mut making = storage.making.borrow_mut();
        let SnapshotMaking::Wanted(request_index) = *making else {
            return;
        };
        if self.nobody_takes_snapshots() {
            return;
        }
        let given_up = GivenUp::default();
        *making = SnapshotMaking::Underway(given_up.clone());
        drop(making);
        ctx.metrics.snapshots_asked += 1;
        ctx.effects.apply.push(ApplyTask {
            region: self.region_id(),
            incarnation: self.incarnation,
            work: ApplyWork::Snapshot { request_index, given_up },
        });
    }

    /// A snapshot was built, or could not be. raft asks again on its own.
    pub(crate) fn on_built<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        built: Option<BuiltSnapshot>,
    ) {
        let region = self.region_id();
        if let Some(built) = &built {
            self.generated.push((built.key, ctx.now));
            ctx.attention.generated.insert(region);
        }
        let storage = self.group.storage();
        let wanted =
            self.is_active() && matches!(*storage.making.borrow(), SnapshotMaking::Underway(_));
        let usable = built.filter(|built| {
            wanted
                && built.key.index >= storage.truncated.index
                && built.region.epoch.conf_ver >= self.region.epoch.conf_ver
        });
        let Some(built) = usable else {
            if wanted {
                *storage.making.borrow_mut() = SnapshotMaking::Idle;
            }
            self.discard_generated(ctx);
            return;
        };
        let data = wire::encode_snapshot_data(&built.region, built.size_bytes);
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let meta = snapshot.mut_metadata();
        meta.index = built.key.index;
        meta.term = built.key.term;
        meta.set_conf_state(super::storage::conf_state_of(&built.region));
        *storage.making.borrow_mut() = SnapshotMaking::Made(Box::new(snapshot));
        self.group.send_to_lagging();
        ctx.mark(region);
    }

    /// This peer leads no more: a snapshot in the making is of no use (H53).
    pub(crate) fn forget_snapshot_making<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
    ) {
        self.give_up_building();
        *self.group.storage().making.borrow_mut() = SnapshotMaking::Idle;
        self.discard_generated(ctx);
    }

    /// The members have changed, and a snapshot of the former ones is of no use (H53). raft
    /// is made to ask for another when the end of this one is heard of.
    pub(crate) fn give_up_building(&self) {
        if let SnapshotMaking::Underway(given_up) = &*self.group.storage().making.borrow() {
            given_up.give_up();
        }
    }

    /// Gives up the snapshots built here once nobody is being sent one. A transfer that
    /// has begun goes on to its end.
    pub(crate) fn discard_generated<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        let made = match &*self.group.storage().making.borrow() {
            SnapshotMaking::Made(snapshot) => Some(snapshot.get_metadata().index),
            _ => None,
        };
        if self.generated.is_empty() || self.group.progress().any(|(_, member)| member.in_snapshot)
        {
            return;
        }
        for (key, at) in std::mem::take(&mut self.generated) {
            if Some(key.index) == made {
                self.generated.push((key, at));
                continue;
            }
            let direction = SnapDirection::Generated;
            ctx.effects.tasks.push(Task::DeleteSnapshot { direction, key });
        }
    }

    /// Whether a snapshot is asked for, being built or waiting for raft.
    pub(crate) fn is_making_snapshot(&self) -> bool {
        !matches!(*self.group.storage().making.borrow(), SnapshotMaking::Idle)
    }

    /// The snapshots made here that are at rest.
    pub(crate) fn generated(&self) -> impl Iterator<Item = SnapKey> + '_ {
        self.generated.iter().map(|(key, _)| *key)
    }

    /// Gives up snapshots that nobody has fetched in time (8.8).
    pub(crate) fn expire_generated<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        let (timeout, now) = (ctx.config.snap_gc_timeout, ctx.now);
        let is_old = |at: MonoTime| now.since(at) >= timeout;
        if !self.generated.iter().any(|(_, at)| is_old(*at)) {
            return;
        }
        let made = match &*self.group.storage().making.borrow() {
            SnapshotMaking::Made(snapshot) => Some(snapshot.get_metadata().index),
            _ => None,
        };
        for (key, at) in std::mem::take(&mut self.generated) {
            if !is_old(at) {
                self.generated.push((key, at));
                continue;
            }
            if Some(key.index) == made {
                *self.group.storage().making.borrow_mut() = SnapshotMaking::Idle;
            }
            ctx.metrics.snapshots_expired += 1;
            let direction = SnapDirection::Generated;
            ctx.effects.tasks.push(Task::DeleteSnapshot { direction, key });
        }
    }

    /// Puts the KV part of an accepted snapshot into the round.
    pub(super) fn accept_snapshot<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        snapshot: &Snapshot,
        entries: Vec<Entry>,
        batch: &mut K::WriteBatch,
        round: u64,
    ) -> Result<(), FatalError> {
        let id = self.region_id();
        let (region, _) = wire::decode_snapshot_data(&snapshot.data)
            .map_err(FatalError::record("taking in a snapshot", Some(id)))?;
        let meta = snapshot.get_metadata();
        let at = Truncated { index: meta.index, term: meta.term };
        self.withdraw_view();
        self.release_backlog(ctx, u64::MAX);
        let term = self.term();
        for proposal in std::mem::take(&mut self.proposals) {
            ctx.refuse(proposal.reply, term, raftstore_proto::RegionError::StaleCommand);
        }
        self.applied = ApplyState { applied: at.index, applied_term: at.term, truncated: at };
        self.last_applying = at.index;
        self.removal = None;
        self.log_bytes = 0;
        self.splits.applied(u64::MAX);
        self.splits.staged(&entries);
        let local = self.group.storage().local_state(self.replica.id);
        let state = RegionState { phase: RegionPhase::Applying, region: region.clone() };
        batch.put(
            Cf::Raft,
            &keys::region_state_key(id),
            &wire::record::encode_region_state(id, &state),
        );
        batch.put(
            Cf::Raft,
            &keys::apply_state_key(id),
            &wire::record::encode_apply_state(id, &self.applied),
        );
        // A copy, for the case that the log part below is lost (1.8 step 3). It ends at the
        // snapshot: entries behind it are raft's to send again.
        let mut copy = local;
        copy.last_index = at.index;
        copy.hard_state.commit = at.index;
        batch.put(
            Cf::Raft,
            &keys::snapshot_raft_state_key(id),
            &wire::record::encode_local_state(id, &copy),
        );
        ctx.metrics.snapshots_accepted += 1;
        ctx.attention.taking_in.insert(id);
        self.intake = Some(Intake {
            key: SnapKey { region: id, term: at.term, index: at.index },
            region,
            entries,
            stage: IntakeStage::KvRound(round),
            held: Vec::new(),
            destroy_after: false,
        });
        Ok(())
    }

    /// The round with the KV part was written under `kv_number`.
    pub(super) fn on_intake_written<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        kv_number: u64,
    ) {
        if let Some(intake) = &mut self.intake {
            intake.stage = IntakeStage::KvWait(kv_number);
            ctx.metrics.parked_writes += 1;
            ctx.visit_when_durable(self.region.id, kv_number);
            ctx.want_kv_durable(kv_number);
        }
    }

    /// Puts the parked log part into the round, if the KV engine is durable far enough.
    pub(super) fn unpark_intake<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &Context<K, R, H>,
        log: &mut R::LogBatch,
        round: u64,
    ) -> bool {
        let Some(intake) = &mut self.intake else {
            return false;
        };
        let IntakeStage::KvWait(number) = intake.stage else {
            return false;
        };
        if number > ctx.kv_durable {
            return false;
        }
        let id = self.region.id;
        log.clear_region(id);
        log.append(id, &intake.entries);
        log.put_raft_state(id, &self.group.storage().local_state(self.replica.id));
        intake.entries = Vec::new();
        intake.stage = IntakeStage::LogRound(round);
        self.group.unpark(round);
        self.hard_state_dirty = false;
        true
    }

    /// The log part is durable: the new range is this region's, and the data follows.
    pub(super) fn on_intake_durable<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        mut messages: Vec<Message>,
    ) {
        let Some(intake) = &mut self.intake else {
            return;
        };
        if ctx.hooks.planted(Bug::SnapshotAckedEarly) {
            intake.held = Vec::new();
        } else {
            intake.held = std::mem::take(&mut messages);
        }
        intake.stage = IntakeStage::Installing;
        let (key, new) = (intake.key, intake.region.clone());
        let old = self.region.clone();
        self.group.snapshot_persisted();
        self.stored_first = key.index + 1;
        if old.is_initialized() && !ctx.hooks.planted(Bug::SnapshotLeavesRest) {
            for (start, end) in uncovered(&old, &new) {
                ctx.effects.tasks.push(Task::DeleteRange { start, end, left_by: None });
            }
        }
        ctx.meta.register(&new);
        ctx.attention.uninitialized.remove(&new.id);
        let differs = *old != new;
        self.set_region(new.clone());
        if !old.is_initialized() {
            self.tell_region(ctx, RegionEvent::Created(Cause::Snapshot));
        } else if differs {
            self.tell_region(ctx, RegionEvent::Updated(Cause::Snapshot));
        }
        ctx.effects.tasks.push(Task::Install {
            region: new,
            peer: self.replica.id,
            incarnation: self.incarnation,
            key,
        });
        self.send(ctx, messages);
    }

    /// The data is in the engine: raft goes on.
    pub(crate) fn on_installed<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        kv_number: u64,
    ) {
        let Some(intake) = self.intake.take() else {
            return;
        };
        ctx.metrics.snapshots_installed += 1;
        ctx.attention.taking_in.remove(&self.region_id());
        self.group.snapshot_installed();
        self.require_same_members();
        self.size.forget();
        self.tell_snapshot(ctx);
        self.register_applier(ctx);
        self.sync_role(ctx);
        self.send(ctx, intake.held);
        ctx.want_kv_durable(kv_number);
        ctx.mark(self.region_id());
    }

    /// Has an Applier start from where the data stands.
    pub(crate) fn register_applier<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        self.has_applier = true;
        ctx.effects.apply.push(ApplyTask {
            region: self.region_id(),
            incarnation: self.incarnation,
            work: ApplyWork::Register(Box::new(Registration {
                peer: self.replica,
                store: ctx.store,
                term: self.term(),
                region: self.region().clone(),
                state: self.applied,
            })),
        });
    }

    /// Takes up an installation that a restart interrupted.
    pub(crate) fn resume_intake<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        let at = self.applied.truncated;
        let key = SnapKey { region: self.region_id(), term: at.term, index: at.index };
        self.group.resume_taking_snapshot();
        ctx.attention.taking_in.insert(key.region);
        self.intake = Some(Intake {
            key,
            region: self.region().clone(),
            entries: Vec::new(),
            stage: IntakeStage::Installing,
            held: Vec::new(),
            destroy_after: false,
        });
        ctx.effects.tasks.push(Task::Install {
            region: self.region().clone(),
            peer: self.replica.id,
            incarnation: self.incarnation,
            key,
        });
    }
}

/// The encoded parts of `old`'s range that `new` does not cover.
fn uncovered(old: &Region, new: &Region) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (old_start, old_end) = keys::region_data_range(old);
    let (new_start, new_end) = keys::region_data_range(new);
    let mut parts = Vec::new();
    if new_end <= old_start || old_end <= new_start {
        parts.push((old_start, old_end));
        return parts;
    }
    if old_start < new_start {
        parts.push((old_start, new_start));
    }
    if new_end < old_end {
        parts.push((new_end, old_end));
    }
    parts
}
