//! Splits, seen from one peer: which of its log's entries cut it, what that does to leases
//! and reads, how a cut is proposed, and how a peer that a split has made begins.

use std::collections::VecDeque;

use bytes::Bytes;
use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{
    AdminCommand, Body, BusyReason, Command, EntryFlags, Epoch, Header, Operation, PeerId, Region,
    RegionError, RegionId, SplitRequest,
};

use super::Peer;
use crate::{
    FatalError, PdRequest, ReplyId,
    apply::{kept_part, validate},
    command::{check_cuts, check_epoch, check_split},
    context::Context,
    hooks::{Bug, Hooks},
};

/// Questions for split ids of one region that may wait for PD.
const ASKS_MAX: usize = 16;
/// Regions told of besides the one asked for.
const SIBLINGS_MAX: usize = 64;

/// Indexes of entries that cut the region and are not applied, ascending; those on their
/// way to the disk too (W1).
#[derive(Debug, Default)]
pub(super) struct OpenSplits {
    indexes: VecDeque<u64>,
    /// Nobody is told of them: a planted bug.
    hidden: bool,
}

impl OpenSplits {
    pub(super) const fn new(hidden: bool) -> Self {
        Self { indexes: VecDeque::new(), hidden }
    }

    /// Entries were staged: from the first index on they replace what was there.
    pub(super) fn staged<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a raftstore_proto::Entry>,
    ) {
        for (place, entry) in entries.into_iter().enumerate() {
            if place == 0 {
                self.indexes.retain(|index| *index < entry.index());
            }
            if entry.flags().split {
                self.indexes.push_back(entry.index());
            }
        }
    }

    /// Everything up to `index` is applied, or replaced by a snapshot.
    pub(super) fn applied(&mut self, index: u64) {
        while self.indexes.front().is_some_and(|first| *first <= index) {
            self.indexes.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Whether one of them is committed, in raft's own eyes: the commit index can leave with
    /// the next message although this peer has not been handed the entry.
    pub(super) fn any_committed(&self, committed: u64) -> bool {
        !self.hidden && self.indexes.front().is_some_and(|first| *first <= committed)
    }
}

/// A split that a leader has proposed in its term and not yet applied. Writes that it does not
/// concern need not stop for it.
#[derive(Debug)]
pub(super) struct Carry {
    /// Index of its entry.
    split: u64,
    /// The part that will keep the region's id.
    kept: Region,
}

/// A caller who wants the region cut, while PD is asked for ids.
#[derive(Debug)]
pub(crate) struct SplitAsk {
    pub(crate) number: u64,
    pub(crate) reply: Option<ReplyId>,
    epoch: Epoch,
    keys: Vec<Bytes>,
}

impl<R: RaftEngine> Peer<R> {
    /// Whether a split is committed and not yet applied: a part of the range may be served
    /// elsewhere at any moment (H36).
    pub(crate) fn has_committed_split(&self) -> bool {
        self.splits.any_committed(self.group.committed())
    }

    /// Takes note of the log as it is: while a split is open its commit is told to
    /// followers at once, and once it is committed nobody reads by the old range.
    pub(super) fn sync_splits(&mut self) {
        self.group.set_eager_commit(!self.splits.is_empty());
        if self.has_committed_split() {
            self.withdraw_view();
        }
    }

    /// Everything up to `index` is applied.
    pub(crate) fn note_splits_applied(&mut self, index: u64) {
        self.splits.applied(index);
        self.carry.take_if(|carry| carry.split <= index);
    }

    /// Looks for cuts among the entries that were not applied before a restart.
    pub(crate) fn find_open_splits<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &Context<K, R, H>,
    ) -> Result<(), FatalError> {
        let (mut next, last) = (self.applied.applied + 1, self.group.storage().last_index);
        while next <= last {
            let mut entries = Vec::new();
            match ctx.raft.entries(self.region_id(), next, last + 1, 1 << 20, &mut entries) {
                // raft's own reads will come across damage, and end the replica's service.
                Ok(0) | Err(engine_traits::Error::CorruptLog { .. }) => break,
                Ok(_) => {}
                Err(error) => {
                    let region = Some(self.region_id());
                    return Err(FatalError::engine("reading the raft log", region)(error));
                }
            }
            for entry in entries.iter().filter(|entry| entry.flags().split) {
                self.splits.indexes.push_back(entry.index());
            }
            next += entries.len() as u64;
        }
        Ok(())
    }

    /// Whether a wish for a split waits for its ids.
    pub(crate) const fn asks_for_split(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Takes on a wish for a split: PD is asked for ids (5.8).
    pub(crate) fn ask_split<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        epoch: Epoch,
        keys: Vec<Bytes>,
    ) {
        let asked = self.admit_split(epoch, &keys).and_then(|()| {
            if self.asks.len() < ASKS_MAX {
                Ok(())
            } else {
                Err(RegionError::ServerIsBusy { reason: BusyReason::Queue, backoff_ms: 100 })
            }
        });
        if let Err(error) = asked {
            let error = self.with_siblings(ctx, error, epoch);
            if let Some(reply) = reply {
                ctx.refuse(reply, self.term(), error);
            }
            return;
        }
        self.last_ask += 1;
        let number = self.last_ask;
        ctx.effects.pd.push(PdRequest::AskSplit {
            ask: number,
            region: self.region().clone(),
            count: keys.len(),
        });
        // conf_ver as of now: the ids fit these members (H25).
        let epoch = self.region().epoch;
        self.asks.push(SplitAsk { number, reply, epoch, keys });
    }

    fn admit_split(&self, epoch: Epoch, keys: &[Bytes]) -> Result<(), RegionError> {
        if self.going_away || self.quarantined {
            return Err(RegionError::RegionNotFound { region: self.region_id() });
        }
        // The leader that is known, never this peer itself (H29).
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        if !self.is_initialized() || self.intake.is_some() {
            return Err(RegionError::RegionNotInitialized { region: self.region_id() });
        }
        if epoch.version != self.region().epoch.version {
            return Err(RegionError::EpochNotMatch { current: vec![self.region().clone()] });
        }
        check_cuts(self.region(), keys.iter())
    }

    /// PD has answered: the split is proposed, or its asker refused.
    pub(crate) fn on_split_ids<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        number: u64,
        ids: Option<Vec<(RegionId, Vec<PeerId>)>>,
    ) -> Result<(), FatalError> {
        let Some(at) = self.asks.iter().position(|ask| ask.number == number) else {
            return Ok(());
        };
        let SplitAsk { reply, epoch, keys, .. } = self.asks.remove(at);
        let Some(ids) = ids.filter(|ids| ids.len() == keys.len()) else {
            if let Some(reply) = reply
                && !ctx.hooks.planted(Bug::SplitAskForgotten)
            {
                ctx.refuse(reply, self.term(), RegionError::PlacementUnavailable);
            }
            tracing::debug!(region = %self.region_id(), "no ids for a split");
            return Ok(());
        };
        let requests = keys
            .into_iter()
            .zip(ids)
            .map(|(key, (new_region, new_peers))| SplitRequest { key, new_region, new_peers })
            .collect();
        let right_derive = ctx.config.right_derive_when_split;
        let header = Header {
            region: self.region_id(),
            peer: self.replica,
            epoch: Some(epoch),
            term: 0,
            read_quorum: false,
            replica_read: false,
        };
        let admin = AdminCommand::BatchSplit { requests, right_derive };
        let command = Command { header, body: Body::Admin(admin) };
        self.on_command(ctx, reply, command)
    }

    pub(super) fn propose_split<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        command: &Command,
    ) -> Result<(), RegionError> {
        let Body::Admin(AdminCommand::BatchSplit { requests, right_derive }) = &command.body else {
            return Err(RegionError::InvalidCommand { why: "not a split" });
        };
        // A new leader may not know yet what its region is (H26).
        if !self.applied_own_term() {
            return Err(RegionError::NotReady);
        }
        check_split(self.region(), requests)?;
        let is_first = self.splits.is_empty() && self.carry.is_none();
        let flags = EntryFlags { split: true, ..EntryFlags::NONE };
        self.propose_with(ctx, reply, command, flags)?;
        // A change of members ahead of it would have it refused when it is applied, and so
        // would a split ahead of it.
        if is_first && !self.group.has_pending_conf() {
            let kept = kept_part(self.region(), requests, *right_derive);
            let split = self.group.last_index();
            self.carry = kept.map(|kept| Box::new(Carry { split, kept }));
        }
        Ok(())
    }

    /// The epoch to propose writes under while this leader's split is ahead of them in the log
    /// and leaves all their keys to this region; `None` for the epoch they came with, which
    /// will have them refused if there is such a split (H24).
    ///
    /// The split is applied before them, or they are not applied at all: what is behind an
    /// entry in the log goes with it. If it turns out to be refused, so are they.
    pub(super) fn epoch_behind_split(&self, writes: &[Operation]) -> Option<Epoch> {
        let Carry { kept, .. } = self.carry.as_deref()?;
        validate(writes, kept).is_ok().then_some(kept.epoch)
    }

    /// Adds to a refusal for a stale epoch the regions that were cut off since, nearest
    /// first, so that the asker need not ask PD.
    pub(super) fn with_siblings<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
        error: RegionError,
        asked: Epoch,
    ) -> RegionError {
        let RegionError::EpochNotMatch { mut current } = error else {
            return error;
        };
        if let Some(own) = current.first() {
            let behind = own.epoch.version.saturating_sub(asked.version);
            let count = usize::try_from(behind).unwrap_or(usize::MAX).min(SIBLINGS_MAX);
            let left = ctx.config.right_derive_when_split;
            let siblings = ctx.meta.neighbours(own, count, left);
            current.extend(siblings);
        }
        RegionError::EpochNotMatch { current }
    }

    /// Answers the reads that came for the range as it was before it was cut.
    pub(crate) fn refuse_reads_before_split<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
    ) {
        if ctx.hooks.planted(Bug::ReadsAcrossSplit) {
            return;
        }
        let term = self.term();
        for (reply, command) in self.reads.take_all() {
            let error = check_epoch(&command.header, &command.body, self.region())
                .err()
                .unwrap_or(RegionError::ReadNotReady);
            let asked = command.header.epoch.unwrap_or_default();
            let error = self.with_siblings(ctx, error, asked);
            ctx.refuse(reply, term, error);
        }
    }

    /// A peer that a split has made: nothing is written to its log before the records of
    /// its region are durable (D4), and nothing leaves before its first write is.
    pub(crate) fn begin_split_born<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        kv_number: u64,
        campaign: bool,
    ) {
        if ctx.hooks.planted(Bug::SplitBornAtOnce) {
            self.born_by = Some(0);
        } else {
            self.born_by = Some(kv_number);
            self.group.hold_until_first_write();
        }
        ctx.metrics.parked_writes += 1;
        ctx.visit_when_durable(self.region_id(), kv_number);
        ctx.want_kv_durable(kv_number);
        self.register_applier(ctx);
        if campaign || self.group.is_sole_voter() {
            ctx.metrics.campaigns += 1;
            self.group.campaign_at_once();
        }
        self.sync_role(ctx);
        ctx.mark(self.region_id());
    }

    /// Whether the records of a split-born peer's region are not yet durable.
    pub(crate) fn waits_for_birth<K, H>(&self, ctx: &Context<K, R, H>) -> bool {
        self.born_by.is_some_and(|number| number > ctx.kv_durable)
    }
}
