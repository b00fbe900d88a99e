//! What a split means for the store: asking PD for ids, and, once the entry is applied,
//! shrinking the region and building the peers of the regions cut off.
//!
//! A region's records appear on disk with the apply worker's write; its peer is built by
//! the lane of its id, which may be another than the parent's (W9). In between, messages for
//! it are refused like those for any region that is on disk and not built, and the first
//! votes among them are kept (H22).

use std::collections::VecDeque;

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{MessageKind, PeerId, RaftMessage, Region, RegionError, RegionId};

use super::{Store, start};
use crate::{
    Event, FatalError, PdRequest, ReplyId, SplitBorn, Task,
    apply::SplitPart,
    hooks::{Bug, Hooks, Point},
    keys::{
        self, RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM, completed_local_state, initial_apply_state,
        initial_local_state,
    },
    meta::LaneId,
    observe::{Cause, RegionEvent},
    peer::{Birth, Peer},
};

/// First messages kept for regions that are not here yet.
const FIRST_MESSAGES_MAX: usize = 20;

/// What a split entry did, as the parent's apply tells it.
pub(super) struct SplitDone {
    pub(super) derived: Region,
    pub(super) parts: Vec<SplitPart>,
    pub(super) right_derive: bool,
    pub(super) kv_number: u64,
}

fn is_first_entry(message: &RaftMessage) -> bool {
    let first = message.raft().entries.first();
    first.is_some_and(|entry| entry.index == RAFT_INIT_LOG_INDEX + 1 && entry.data.is_empty())
}

/// The range of a region that a split would have put here, whose data has to go once the
/// split is durable (H12, W8).
#[derive(Debug)]
pub(super) struct Leftover {
    region: Region,
    kv_number: u64,
}

/// Messages with which a region's life begins, kept until its peer is built: at most one
/// per target (H22).
#[derive(Debug, Default)]
pub(super) struct FirstMessages(VecDeque<(RegionId, PeerId, RaftMessage)>);

impl FirstMessages {
    /// Keeps a message if it is one of those.
    pub(super) fn keep(&mut self, region: RegionId, message: &RaftMessage) -> bool {
        let Some(to) = message.to_peer() else { return false };
        let is_vote = match message.kind() {
            Some(MessageKind::RequestVote | MessageKind::RequestPreVote)
                if message.term() == RAFT_INIT_LOG_TERM + 1 =>
            {
                true
            }
            // Members that do not vote hear of their region by its first entry. It pushes no
            // vote out.
            Some(MessageKind::Append)
                if is_first_entry(message) && self.0.len() < FIRST_MESSAGES_MAX =>
            {
                false
            }
            _ => return false,
        };
        let known = self.0.iter().position(|(at, peer, _)| (*at, *peer) == (region, to.id));
        match known {
            // A vote is worth more than what comes behind it.
            Some(_) if !is_vote => return false,
            Some(place) => drop(self.0.remove(place)),
            None if self.0.len() >= FIRST_MESSAGES_MAX => drop(self.0.pop_front()),
            None => {}
        }
        self.0.push_back((region, to.id, message.clone()));
        true
    }

    fn take(&mut self, region: RegionId, peer: PeerId) -> Option<RaftMessage> {
        let place = self.0.iter().position(|(at, to, _)| (*at, *to) == (region, peer))?;
        self.0.remove(place).map(|(.., message)| message)
    }
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// Somebody wants a region cut at keys.
    pub(super) fn on_split_wanted(
        &mut self,
        reply: Option<ReplyId>,
        region: RegionId,
        epoch: raftstore_proto::Epoch,
        keys: Vec<bytes::Bytes>,
    ) {
        let ctx = &mut self.ctx;
        let refused = if self.stopping {
            RegionError::Stopping
        } else if let Some(peer) = self.peers.get_mut(&region) {
            return peer.ask_split(ctx, reply, epoch, keys);
        } else {
            RegionError::RegionNotFound { region }
        };
        if let Some(reply) = reply {
            ctx.refuse(reply, 0, refused);
        }
    }

    /// PD has given ids for a split, or none.
    pub(super) fn on_split_ids(
        &mut self,
        region: RegionId,
        ask: u64,
        ids: Option<Vec<(RegionId, Vec<PeerId>)>>,
    ) -> Result<(), FatalError> {
        match self.peers.get_mut(&region) {
            Some(peer) => peer.on_split_ids(&mut self.ctx, ask, ids),
            // Whoever asked was answered when the peer went.
            None => Ok(()),
        }
    }

    /// A split of region `id` is applied.
    pub(super) fn on_split(&mut self, id: RegionId, split: SplitDone) -> Result<(), FatalError> {
        let SplitDone { derived, parts, right_derive, kv_number } = split;
        let ctx = &mut self.ctx;
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        ctx.hooks.reach(Point::BeforeSplit);
        ctx.metrics.splits += 1;
        // Readers beside the store's thread go first (H41), then the range (W9).
        peer.set_region(derived.clone());
        let (born, skipped): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.born);
        let regions = |parts: &[&SplitPart]| -> Vec<Region> {
            parts.iter().map(|part| part.region.clone()).collect()
        };
        let mut registered = regions(&born);
        if ctx.hooks.planted(Bug::SkippedPartRegistered) {
            registered.append(&mut regions(&skipped));
        }
        ctx.meta.split(&derived, &registered, &regions(&skipped));
        peer.tell_region(ctx, RegionEvent::Updated(Cause::Split));
        peer.refuse_reads_before_split(ctx);
        peer.size.forget();
        ctx.attention.splits.insert(id);
        let leads = peer.is_leader();
        if leads {
            let heartbeat = peer.heartbeat(ctx);
            ctx.effects.pd.push(PdRequest::RegionHeartbeat(heartbeat));
            let mut all: Vec<Region> = parts.iter().map(|part| part.region.clone()).collect();
            all.insert(if right_derive { all.len() } else { 0 }, derived);
            ctx.effects.pd.push(PdRequest::ReportSplit(all));
        }
        ctx.mark(id);
        for SplitPart { region, .. } in &skipped {
            tracing::info!(parent = %id, region = %region.id, "split-born region is not for here");
            ctx.metrics.split_skipped += 1;
            ctx.want_kv_durable(kv_number);
            if ctx.hooks.planted(Bug::LeftoversKept) {
                ctx.meta.leftover_removed(region.id);
                continue;
            }
            self.leftovers.push(Leftover { region: region.clone(), kv_number });
        }
        for SplitPart { region, .. } in born {
            let born = SplitBorn { region: region.clone(), campaign: leads, kv_number };
            let lane = LaneId::of(region.id, self.ctx.config.lanes);
            if lane == self.ctx.lane {
                self.on_split_born(born)?;
            } else {
                self.ctx.effects.lanes.push((lane, Event::SplitBorn(Box::new(born))));
            }
        }
        Ok(())
    }

    /// Builds the peer of a region that a split has put on disk. A peer that waits for its
    /// data under the same id is replaced: what it has promised binds the new one (H9), and
    /// nothing else of it lives on (H13).
    pub(super) fn on_split_born(&mut self, born: SplitBorn) -> Result<(), FatalError> {
        let SplitBorn { region, campaign, kv_number } = born;
        let id = region.id;
        let Some(replica) = region.peer_on(self.ctx.store).copied() else {
            let detail = format!("{region:?} has no peer here");
            return Err(FatalError::inconsistent("building a split-born peer", Some(id), detail));
        };
        let mut quarantined = false;
        let local = if let Some(mut former) = self.peers.remove(&id) {
            assert!(
                !former.is_initialized()
                    && former.replica.id == replica.id
                    && former.intake.is_none(),
                "region {id}: a split replaces a peer that has data, or another one"
            );
            self.ctx.metrics.split_replaced += 1;
            self.ctx.attention.forget(id, former.checked.at);
            quarantined = former.quarantined;
            former.answer_all(&mut self.ctx, &RegionError::RegionNotFound { region: id });
            former.close_view(&self.ctx);
            completed_local_state(&former.group.storage().local_state(replica.id))
        } else {
            match start::load_uninitialized(&self.ctx.raft, id, replica.id)? {
                Some(kept) if kept.peer == replica.id => completed_local_state(&kept),
                // A later incarnation's vote would have refused the birth (W2).
                _ => initial_local_state(replica.id),
            }
        };
        let local = if self.ctx.hooks.planted(Bug::SplitForgetsVote) {
            initial_local_state(replica.id)
        } else {
            local
        };
        let birth = Birth {
            region,
            replica,
            local,
            applied: initial_apply_state(),
            last_term: RAFT_INIT_LOG_TERM,
        };
        let mut peer = Peer::new(&mut self.ctx, birth)?;
        if quarantined {
            peer.quarantined = true;
            self.ctx.attention.quarantined.insert(id);
        }
        peer.tell_region(&self.ctx, RegionEvent::Created(Cause::Split));
        self.ctx.metrics.split_born += 1;
        self.ctx.meta.split_built(id);
        peer.begin_split_born(&mut self.ctx, kv_number, campaign && !quarantined);
        self.peers.insert(id, peer);
        match self.first_messages.take(id, replica.id) {
            Some(message) if !campaign => {
                self.ctx.metrics.first_messages_replayed += 1;
                self.on_message(message, None)
            }
            _ => Ok(()),
        }
    }

    /// Removes the data that splits have left to nobody, once they are durable.
    pub(super) fn remove_leftovers(&mut self) {
        let durable = self.ctx.kv_durable;
        let (due, later) = std::mem::take(&mut self.leftovers)
            .into_iter()
            .partition::<Vec<_>, _>(|leftover| leftover.kv_number <= durable);
        self.leftovers = later;
        for Leftover { region, .. } in due {
            let (start, end) = keys::region_data_range(&region);
            let left_by = Some(region.id);
            self.ctx.effects.tasks.push(Task::DeleteRange { start, end, left_by });
        }
    }
}
