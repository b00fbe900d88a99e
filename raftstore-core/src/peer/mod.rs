//! One replica of one region on this store: raft, the reads and proposals that wait for
//! it, and how far its data has come.

mod collect;
mod consistency;
mod entry_cache;
mod lease;
mod liveness;
mod log_drain;
pub(crate) mod membership;
mod observed;
mod propose;
mod raft_group;
mod read;
mod reads;
mod room;
mod size;
mod snapshot;
mod split;
mod storage;

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use engine_traits::{KvEngine, RaftEngine};
use raft::eraftpb::{Message, MessageType};
use raftstore_proto::{
    ApplyState, DiskUsage, Epoch, LocalState, Peer as Replica, PeerId, PeerRole, RaftMessage,
    Region, RegionError, RegionId,
};

pub(crate) use collect::Round;
pub(crate) use consistency::{Checked, Origin, Verdict};
pub(crate) use log_drain::TracingDrain;
pub(crate) use snapshot::{Intake, IntakeStage};
pub(crate) use storage::conf_state_of;

use self::{
    lease::Lease,
    membership::Member,
    observed::ToldRole,
    raft_group::RaftGroup,
    reads::ReadQueue,
    size::RegionSize,
    split::{Carry, OpenSplits, SplitAsk},
    storage::PeerStorage,
};
use crate::{
    FatalError, MonoTime,
    apply::Proposal,
    context::Context,
    hooks::{Bug, Hooks, Point},
    observe::Cause,
    view::{View, ViewState},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Peer<R: RaftEngine> {
    /// Range and members as of the last entry whose result was taken in.
    region: Arc<Region>,
    /// Comparisons with other replicas.
    pub(crate) checked: Checked,
    /// This replica.
    pub(crate) replica: Replica,
    /// Number of this RawNode, unique in the store (R20).
    pub(crate) incarnation: u64,
    pub(crate) group: RaftGroup<R>,
    /// Being removed: takes part in nothing.
    pub(crate) going_away: bool,
    /// A record of it failed its checksum: it neither votes nor serves (D15).
    pub(crate) quarantined: bool,
    /// Region snapshots built here for lagging members, still at rest.
    generated: Vec<(transport_traits::SnapKey, MonoTime)>,
    /// The snapshot it is taking in.
    pub(crate) intake: Option<Intake>,
    /// What the data contains.
    ///
    /// Invariant: `applied.applied <= last_applying <= raft's commit index`.
    pub(crate) applied: ApplyState,
    /// Last entry given to apply.
    pub(crate) last_applying: u64,
    /// Payload bytes of what apply holds: (last index of a run, bytes).
    applying: VecDeque<(u64, u64)>,
    /// An Applier of this incarnation exists, or will by the tasks already given out.
    pub(crate) has_applier: bool,
    /// Role, term and leader when the peer was last looked at.
    seen: Seen,
    /// The same as observers were told last.
    told_role: Option<ToldRole>,
    /// Why it is being removed.
    pub(crate) goes_for: Cause,
    lease: Lease,
    reads: ReadQueue,
    next_read: u64,
    /// Proposals not yet given to apply, ascending by index.
    proposals: VecDeque<Proposal>,
    /// When proposals of this term were made, to renew the lease: (index, when).
    proposed_at: VecDeque<(u64, MonoTime)>,
    view: Arc<View>,
    view_generation: u64,
    view_is_open: bool,
    /// A replica has asked this leader for an index to read at in this term: what is
    /// committed may be known outside before it is applied here (H40).
    replicas_read: bool,
    is_behind: bool,
    /// When a leader last heard from its members.
    pub(crate) heard: BTreeMap<PeerId, MonoTime>,
    /// Senders that the region may not list yet.
    known: BTreeMap<PeerId, Replica>,
    /// The newest epoch in which a leader spoke to this peer, and so counted it a member.
    spoken_to: Epoch,
    /// Members whose stores said last that they are short of room.
    short_of_room: BTreeMap<PeerId, DiskUsage>,
    /// When this peer last heard from a leader it could follow, or led.
    leader_heard_at: MonoTime,
    /// Cut of the log whose entries still lie in the engine: (first index to keep, KV
    /// number of the apply state that says so).
    pub(crate) removal: Option<(u64, u64)>,
    /// Entries below this index were removed from the engine.
    pub(crate) stored_first: u64,
    /// Rough bytes of log since the last cut.
    pub(crate) log_bytes: u64,
    /// The commit index has moved since the raft state was last written.
    hard_state_dirty: bool,
    /// Unapplied entries that cut the region.
    splits: OpenSplits,
    /// What this leader's own open split leads to.
    carry: Option<Box<Carry>>,
    /// Callers who want it cut and wait for PD.
    asks: Vec<SplitAsk>,
    last_ask: u64,
    /// A split has made this peer with the KV write of this number, and it has not yet
    /// written anything itself.
    born_by: Option<u64>,
    /// When the last membership change was applied.
    conf_changed_at: Option<MonoTime>,
    /// Bytes and keys written since the last heartbeat to PD.
    pub(crate) written: (u64, u64),
    pub(crate) size: RegionSize,
    /// Members of which PD was told last that they wait for a snapshot.
    told_pending: usize,
}

/// See [`Peer::seen`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    is_leader: bool,
    term: u64,
    leader: u64,
}

/// What a new peer starts from.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) region: Region,
    pub(crate) replica: Replica,
    pub(crate) local: LocalState,
    pub(crate) applied: ApplyState,
    pub(crate) last_term: u64,
}

/// The members as raft is told of them; a planted bug has it take some for others.
fn known_members<'a, H: Hooks>(region: &'a Region, hooks: &H) -> Cow<'a, Region> {
    let mut known = Cow::Borrowed(region);
    if hooks.planted(Bug::JointHalfForgotten) {
        for peer in &mut known.to_mut().peers {
            let votes = peer.role.votes_after();
            peer.role = if votes { PeerRole::Voter } else { PeerRole::Learner };
        }
    }
    if hooks.planted(Bug::LearnersCount) {
        known.to_mut().peers.iter_mut().for_each(|peer| peer.role = PeerRole::Voter);
    }
    known
}

impl<R: RaftEngine> Peer<R> {
    pub(crate) fn new<K: KvEngine, H: Hooks>(
        ctx: &mut Context<K, R, H>,
        birth: Birth,
    ) -> Result<Self, FatalError> {
        let Birth { region, replica, local, applied, last_term } = birth;
        let known = known_members(&region, &ctx.hooks);
        let storage =
            PeerStorage::new(ctx.raft.clone(), &known, &local, applied.truncated, last_term);
        let mut group = RaftGroup::new(
            &ctx.config,
            storage,
            region.id,
            replica.id,
            applied.applied,
            &ctx.logger,
        )?;
        let mut max_lease = ctx.config.raft_store_max_leader_lease;
        if ctx.hooks.planted(Bug::LeaseTooLong) {
            max_lease *= 3;
        }
        if ctx.hooks.planted(Bug::ProofsAsTheyCome) {
            group.take_proofs_as_they_come();
        }
        let splits = OpenSplits::new(ctx.hooks.planted(Bug::LeaseOverSplit));
        Ok(Self {
            view: ctx.views.open(region.id),
            region: Arc::new(region),
            checked: Checked::new(ctx.now),
            replica,
            incarnation: ctx.meta.next_incarnation(),
            last_applying: applied.applied,
            applying: VecDeque::new(),
            group,
            going_away: false,
            quarantined: false,
            generated: Vec::new(),
            intake: None,
            applied,
            has_applier: false,
            seen: Seen::default(),
            told_role: None,
            goes_for: Cause::NotListed,
            lease: Lease::new(max_lease),
            reads: ReadQueue::default(),
            next_read: 1,
            proposals: VecDeque::new(),
            proposed_at: VecDeque::new(),
            view_generation: 0,
            view_is_open: false,
            replicas_read: false,
            is_behind: false,
            heard: BTreeMap::new(),
            short_of_room: BTreeMap::new(),
            known: BTreeMap::new(),
            spoken_to: Epoch::default(),
            leader_heard_at: ctx.now,
            removal: None,
            stored_first: applied.truncated.index + 1,
            log_bytes: 0,
            hard_state_dirty: false,
            splits,
            carry: None,
            asks: Vec::new(),
            last_ask: 0,
            born_by: None,
            conf_changed_at: None,
            written: (0, 0),
            size: RegionSize::default(),
            told_pending: 0,
        })
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn region_id(&self) -> RegionId {
        self.region.id
    }

    pub(crate) fn is_initialized(&self) -> bool {
        self.region.is_initialized()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.group.is_leader()
    }

    pub(crate) fn term(&self) -> u64 {
        self.group.term()
    }

    /// The leader, if it is known and can be named.
    pub(crate) fn leader(&self) -> Option<Replica> {
        PeerId::new(self.group.leader()).and_then(|id| self.replica_of(id))
    }

    /// Whether raft may be ticked or campaign: no snapshot is being taken in.
    pub(crate) fn is_active(&self) -> bool {
        !self.going_away && !self.quarantined && self.intake.is_none()
    }

    /// Entries given to apply that have not come back.
    pub(crate) fn apply_lag(&self) -> u64 {
        self.last_applying.saturating_sub(self.applied.applied)
    }

    /// Whether everything given to apply has come back.
    pub(crate) fn is_drained(&self) -> bool {
        self.last_applying == self.applied.applied
    }

    /// Whether the leader has applied an entry of its own term.
    pub(crate) fn applied_own_term(&self) -> bool {
        self.applied.applied_term == self.term()
    }

    pub(crate) fn not_leader(&self) -> RegionError {
        let leader = self.leader().filter(|leader| leader.id != self.replica.id);
        RegionError::NotLeader { region: self.region_id(), leader }
    }

    /// Replaces the region after a change that was applied. The view goes first (H41).
    pub(crate) fn set_region(&mut self, region: Region) {
        self.withdraw_view();
        if let Some(own) = region.peer(self.replica.id) {
            self.replica = *own;
        }
        self.region = Arc::new(region);
    }

    /// Notes who sent a message, so that answers find it before the region lists it.
    pub(crate) fn note_sender(&mut self, sender: Replica, disk: DiskUsage, now: MonoTime) {
        self.note_disk(sender.id, disk);
        if self.region.peer(sender.id).is_none() {
            self.known.insert(sender.id, sender);
        }
        if self.is_leader() {
            self.heard.insert(sender.id, now);
        } else if self.group.leader() == sender.id.get() && self.is_initialized() {
            self.leader_heard_at = now;
        }
    }

    /// Notes that a leader counted this peer a member as of `epoch`.
    pub(crate) fn note_spoken_to(&mut self, epoch: Epoch) {
        self.spoken_to.conf_ver = self.spoken_to.conf_ver.max(epoch.conf_ver);
        self.spoken_to.version = self.spoken_to.version.max(epoch.version);
    }

    /// The newest epoch in which this peer is known to be a member: whoever says otherwise
    /// must know of a newer one. An uninitialised peer has nothing but its leader's word.
    pub(crate) fn member_as_of(&self) -> Epoch {
        let own = self.region.epoch;
        Epoch {
            conf_ver: own.conf_ver.max(self.spoken_to.conf_ver),
            version: own.version.max(self.spoken_to.version),
        }
    }

    pub(crate) fn forget_member(&mut self, id: PeerId) {
        self.heard.remove(&id);
        self.short_of_room.remove(&id);
        self.known.remove(&id);
    }

    pub(crate) fn replica_of(&self, id: PeerId) -> Option<Replica> {
        self.region.peer(id).or_else(|| self.known.get(&id)).copied()
    }

    /// What this leader knows of its members.
    pub(crate) fn members(&self, now: MonoTime, heard_within: std::time::Duration) -> Vec<Member> {
        let (incoming, outgoing) = self.group.voters();
        let mut members: Vec<Member> = self
            .group
            .progress()
            .filter_map(|(id, progress)| {
                let peer = PeerId::new(id)?;
                let heard = self.heard.get(&peer).is_some_and(|at| now.since(*at) < heard_within);
                Some(Member {
                    id: peer,
                    incoming: incoming.contains(&id),
                    outgoing: outgoing.contains(&id),
                    matched: progress.matched,
                    in_snapshot: progress.in_snapshot,
                    heard: heard || peer == self.replica.id,
                })
            })
            .collect();
        members.sort_by_key(|member| member.id);
        members
    }

    /// Raft counts votes by its own list of members (I7).
    ///
    /// # Panics
    /// If it is not the region's: whatever was counted would be wrong.
    pub(crate) fn require_same_members(&self) {
        let region = self.region();
        assert!(
            self.group.agrees_with(region),
            "region {}: raft's voters {:?} are not those of {:?}",
            region.id,
            self.group.voters(),
            region.peers
        );
    }

    /// Takes note of a change of role, term or leader. To be called after anything that may
    /// have changed them, before anything else looks at lease, reads or view.
    pub(crate) fn sync_role<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        self.sync_splits();
        self.sync_behind();
        self.tell_role(ctx);
        let seen =
            Seen { is_leader: self.is_leader(), term: self.term(), leader: self.group.leader() };
        if seen == self.seen {
            return;
        }
        let before = std::mem::replace(&mut self.seen, seen);
        if (before.is_leader, before.term) != (seen.is_leader, seen.term) {
            self.withdraw_view();
            self.lease.reset();
            self.proposed_at.clear();
            self.replicas_read = false;
            self.carry = None;
            self.sync_behind();
            self.heard.clear();
            if seen.is_leader {
                self.become_leader(ctx);
            } else {
                ctx.attention.led.remove(&self.region_id());
            }
        }
        let term = self.term();
        for (reply, _) in self.reads.take_all() {
            // raft has forgotten the questions it had asked, and a confirmed read would have
            // to wait for an apply that may take long on a peer that lost touch (H40).
            ctx.refuse(reply, term, RegionError::StaleCommand);
        }
    }

    fn become_leader<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        ctx.metrics.elections_won += 1;
        // What another leader wrote while this one followed is not known by size.
        self.size.forget();
        let region = self.region_id();
        let attention = &mut ctx.attention;
        attention.led.insert(region);
        attention.splits.insert(region);
        attention.logs.insert(region);
        attention.joint.insert(region);
        attention.checks.insert((self.checked.at, region));
        // Down detection starts from here, neither early nor late (H76).
        let others = self.region.peers.iter().filter(|peer| peer.id != self.replica.id);
        self.heard = others.map(|peer| (peer.id, ctx.now)).collect();
        // Harmless before the first own entry is applied: lease reads need that too.
        self.renew_lease(ctx.now);
        ctx.effects.pd.push(crate::PdRequest::RegionHeartbeat(self.heartbeat(ctx)));
    }

    /// Renews the lease from messages that left at `sent` and were confirmed.
    fn renew_lease(&mut self, sent: MonoTime) {
        if self.has_committed_split() {
            return;
        }
        self.lease.renew(sent);
        match self.lease.bound() {
            Some(bound) if self.view_is_open => self.view.extend(bound),
            _ => self.publish_view(),
        }
    }

    /// Publishes what readers on other threads may rely on, if anything.
    pub(crate) fn publish_view(&mut self) {
        if self.view_is_open || !self.is_leader() || !self.applied_own_term() || !self.is_active() {
            return;
        }
        if self.has_committed_split() {
            return;
        }
        let Some(lease_until) = self.lease.bound() else {
            return;
        };
        self.view_generation += 1;
        self.view_is_open = true;
        self.view.publish(ViewState {
            generation: self.view_generation,
            region: Arc::clone(&self.region),
            peer: self.replica,
            term: self.term(),
            lease_until,
        });
    }

    pub(crate) fn withdraw_view(&mut self) {
        if self.view_is_open {
            self.view.withdraw();
            self.view_is_open = false;
        }
    }

    /// Takes the view down for good.
    pub(crate) fn close_view<K, H>(&mut self, ctx: &Context<K, R, H>) {
        self.view_is_open = false;
        ctx.views.close(self.region_id(), &self.view);
    }

    /// Puts raft's messages into their envelopes and hands them out.
    pub(crate) fn send<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        messages: Vec<Message>,
    ) {
        if !messages.is_empty() {
            let leads = self.is_leader();
            ctx.hooks.reach(if leads {
                Point::BeforeLeaderSend
            } else {
                Point::BeforeFollowerSend
            });
        }
        for message in messages {
            let kind = message.get_msg_type();
            if kind == MessageType::MsgAppend
                && let Some(first) = message.entries.first()
            {
                assert_eq!(first.index, message.index + 1, "append with a hole (R38)");
            }
            if kind == MessageType::MsgTimeoutNow && !ctx.hooks.planted(Bug::LeaseOverTransfer) {
                self.withdraw_view();
                self.lease.suspend();
            }
            let Some(to) = PeerId::new(message.to).and_then(|id| self.replica_of(id)) else {
                // Only this message is lost, not those behind it (6.9).
                tracing::debug!(region = %self.region_id(), to = message.to, "unknown target");
                continue;
            };
            // It would be dropped there. Empty ones go: their answers tell when there is room.
            if self.is_full(to.id) && !message.entries.is_empty() {
                continue;
            }
            let first_contact =
                matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote)
                    || (kind == MessageType::MsgHeartbeat && message.commit == 0);
            if kind == MessageType::MsgSnapshot {
                ctx.metrics.snapshots_sent += 1;
                ctx.attention.sending.insert(self.region_id());
            }
            let mut envelope =
                RaftMessage::new(self.region_id(), self.replica, to, self.region.epoch, message)
                    .with_disk_usage(ctx.disk);
            if first_contact && self.is_initialized() {
                envelope =
                    envelope.with_range(self.region.start_key.clone(), self.region.end_key.clone());
            }
            ctx.metrics.sent_messages += 1;
            ctx.metrics.sent.count(kind.into());
            ctx.effects.messages.push(envelope);
        }
    }

    /// One tick of raft.
    pub(crate) fn tick<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        let was_asking = self.group.is_candidate();
        if self.group.tick() {
            ctx.mark(self.region_id());
        }
        if !was_asking && self.group.is_candidate() {
            ctx.metrics.campaigns += 1;
        }
        self.sync_role(ctx);
        self.repeat_reads(ctx);
    }

    /// Gives back the budget of entries that apply holds no more.
    pub(crate) fn release_backlog<K, H>(&mut self, ctx: &mut Context<K, R, H>, applied: u64) {
        while let Some((last, bytes)) = self.applying.front().copied()
            && last <= applied
        {
            self.applying.pop_front();
            ctx.apply_backlog_bytes = ctx.apply_backlog_bytes.saturating_sub(bytes);
        }
    }

    /// Answers everybody who waits, except for what apply has been told of.
    pub(crate) fn answer_all<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        error: &RegionError,
    ) {
        let term = self.term();
        let proposals = std::mem::take(&mut self.proposals).into_iter().map(|p| p.reply);
        let mut waiting = self.reads.take_all();
        if ctx.hooks.planted(Bug::ReadersForgotten) {
            waiting.clear();
        }
        let reads = waiting.into_iter().map(|(reply, _)| reply);
        let asks = std::mem::take(&mut self.asks).into_iter().filter_map(|ask| ask.reply);
        for reply in proposals.chain(reads).chain(asks) {
            ctx.refuse(reply, term, error.clone());
        }
    }
}

impl<R: RaftEngine> Peer<R> {
    /// Whether a stepped snapshot has to wait for writes on their way or for apply.
    pub(crate) fn waits_with_snapshot(&self) -> bool {
        self.group.pending_snapshot().is_some()
            && (self.group.has_in_flight() || !self.is_drained())
    }
}
