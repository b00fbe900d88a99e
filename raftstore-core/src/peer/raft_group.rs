//! The only file that names `RawNode`: raft behind the guards it needs when its writes are
//! pipelined.
//!
//! Several readies of one node may be on their way to the disk. Each is reported to raft
//! when its round's proof comes, in order, and only then are its late messages released
//! (R22, R33). Three rules hold back more: a leader's messages wait while its term and
//! vote are not durable (R34); all proofs wait while an index is on its way twice (R35);
//! nothing is ticked or fetched while a snapshot is being taken in (R9, W7).

mod elections;
mod members;

use std::collections::VecDeque;

use engine_traits::RaftEngine;
use raft::{
    Error as RaftError, RawNode, ReadState, SnapshotStatus, StateRole,
    eraftpb::{Message, MessageType, Snapshot},
};
use raftstore_proto::{Entry, EntryFlags, HardState, PeerId, RegionError, RegionId, Truncated};

use super::storage::PeerStorage;
use crate::{Config, FatalError, observe};

/// A ready on its way to the disk.
#[derive(Debug)]
struct InFlight {
    number: u64,
    /// The round that writes it; `None` while its write is parked (W6).
    round: Option<u64>,
    durable: bool,
    first_index: Option<u64>,
    last_index: Option<u64>,
    term: u64,
    vote: u64,
    late: Vec<Message>,
}

/// What one ready asks for.
#[derive(Debug)]
pub(crate) struct Collected {
    /// Entries to append. They replace what is stored from their first index on.
    pub(crate) entries: Vec<Entry>,
    /// A snapshot to take in.
    pub(crate) snapshot: Option<Snapshot>,
    /// Whether entries, a snapshot, a term or a vote must be made durable.
    pub(crate) must_write: bool,
    /// Whether the raft state has changed, if only by its commit index.
    pub(crate) state_changed: bool,
    /// To be applied. Durable here already.
    pub(crate) committed: Vec<Entry>,
    /// May leave at once.
    pub(crate) early: Vec<Message>,
    /// Role and leader, if they changed.
    pub(crate) role: Option<Role>,
    /// Reads that a quorum has confirmed.
    pub(crate) read_states: Vec<ReadState>,
    number: u64,
    late: Vec<Message>,
}

impl Collected {
    /// Takes the messages that would have to wait, without waiting.
    pub(crate) fn take_late(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.late)
    }
}

/// What a peer is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) is_leader: bool,
    pub(crate) leader: u64,
}

/// One incarnation of one replica in its raft group.
pub(crate) struct RaftGroup<R: RaftEngine> {
    raw: RawNode<PeerStorage<R>>,
    region: RegionId,
    seed: u64,
    election_ticks: usize,
    /// Ticks that asked to campaign since the peer last led (R41).
    attempts: u64,
    in_flight: VecDeque<InFlight>,
    /// No proof is reported to raft before that of this ready (R35).
    withhold_until: u64,
    /// Proofs that were held back since this was last asked.
    withheld: u64,
    /// No proof is held back: a planted bug.
    never_withholds: bool,
    /// A snapshot's ready was fetched and is not yet installed.
    taking_snapshot: bool,
    /// Whatever is collected next is written, even if raft would not ask for it.
    write_due: bool,
    eager_commit: bool,
}

impl<R: RaftEngine> std::fmt::Debug for RaftGroup<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftGroup")
            .field("region", &self.region)
            .field("peer", &self.raw.raft.id)
            .field("term", &self.raw.raft.term)
            .field("state", &self.raw.raft.state)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl<R: RaftEngine> RaftGroup<R> {
    /// Builds raft over what is stored. `applied` is the last entry in the data.
    pub(crate) fn new(
        config: &Config,
        storage: PeerStorage<R>,
        region: RegionId,
        peer: PeerId,
        applied: u64,
        logger: &slog::Logger,
    ) -> Result<Self, FatalError> {
        let raft_config = raft::Config {
            id: peer.get(),
            election_tick: config.raft_election_timeout_ticks,
            heartbeat_tick: config.raft_heartbeat_ticks,
            applied,
            max_size_per_msg: config.raft_max_size_per_msg,
            max_inflight_msgs: config.raft_max_inflight_msgs,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            max_committed_size_per_ready: config.max_committed_size_per_ready,
            max_uncommitted_size: config.max_uncommitted_bytes,
            // batch_append builds appends with a wrong previous index (R38).
            batch_append: false,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&raft_config, storage, logger).map_err(|source| FatalError {
            doing: "building a raft group",
            region: Some(region),
            source: source.into(),
        })?;
        Ok(Self {
            raw,
            region,
            seed: config.seed,
            election_ticks: config.raft_election_timeout_ticks,
            attempts: 0,
            in_flight: VecDeque::new(),
            withhold_until: 0,
            withheld: 0,
            never_withholds: false,
            taking_snapshot: false,
            write_due: false,
            eager_commit: false,
        })
    }

    pub(crate) fn storage(&self) -> &PeerStorage<R> {
        self.raw.store()
    }

    pub(crate) fn storage_mut(&mut self) -> &mut PeerStorage<R> {
        self.raw.mut_store()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(crate) fn role(&self) -> observe::Role {
        match self.raw.raft.state {
            StateRole::Follower => observe::Role::Follower,
            StateRole::PreCandidate => observe::Role::PreCandidate,
            StateRole::Candidate => observe::Role::Candidate,
            StateRole::Leader => observe::Role::Leader,
        }
    }

    pub(crate) fn is_candidate(&self) -> bool {
        matches!(self.raw.raft.state, StateRole::Candidate | StateRole::PreCandidate)
    }

    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(crate) fn leader(&self) -> u64 {
        self.raw.raft.leader_id
    }

    /// raft's own commit index, which may be ahead of what was handed out to apply.
    pub(crate) fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    pub(crate) fn lead_transferee(&self) -> Option<u64> {
        self.raw.raft.lead_transferee
    }

    pub(crate) fn has_pending_conf(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.taking_snapshot && self.raw.has_ready()
    }

    /// Whether writes of this incarnation are on their way.
    pub(crate) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A snapshot that was stepped and not yet fetched: (index, term).
    pub(crate) fn pending_snapshot(&self) -> Option<(u64, u64)> {
        let snapshot = self.raw.snap()?;
        let meta = snapshot.get_metadata();
        (!snapshot.is_empty()).then_some((meta.index, meta.term))
    }

    /// First index raft can serve, an unfetched snapshot included (R36).
    pub(crate) fn first_index(&self) -> u64 {
        self.raw.raft.raft_log.first_index()
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok()
    }

    /// Steps a message of another peer.
    pub(crate) fn step(&mut self, message: Message) -> Result<(), RaftError> {
        let from = message.from;
        let rejected = message.get_msg_type() == MessageType::MsgAppendResponse && message.reject;
        self.raw.step(message)?;
        if rejected && self.is_leader() {
            // A rejected probe can leave next at or below match (R32).
            if let Some(progress) = self.raw.raft.mut_prs().get_mut(from)
                && progress.next_idx <= progress.matched
            {
                progress.next_idx = progress.matched + 1;
            }
        }
        Ok(())
    }

    /// Has the first write of a split-born peer made, and everything held until it is
    /// durable (R26).
    pub(crate) fn hold_until_first_write(&mut self) {
        self.write_due = true;
        // No term is this: what leaves must wait (R34).
        self.storage_mut().persisted_term = 0;
    }

    /// Whether followers hear of a commit at once, or with whatever is sent next.
    pub(crate) fn set_eager_commit(&mut self, eager: bool) {
        if self.eager_commit != eager {
            self.eager_commit = eager;
            self.raw.skip_bcast_commit(!eager);
        }
    }

    /// Proposes an entry. Gives its index and term.
    ///
    /// # Errors
    /// What to tell the caller; the entry is then not in the log.
    pub(crate) fn propose(
        &mut self,
        data: Vec<u8>,
        flags: EntryFlags,
    ) -> Result<(u64, u64), RegionError> {
        // A follower would forward it, and it might be executed after it was refused (R11).
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        let (index, term) = (self.last_index() + 1, self.term());
        let context = Entry::context_for(self.region, index, term, flags, &data);
        let result = self.raw.propose(context, data);
        self.proposed(result, index, term)
    }

    fn proposed(
        &mut self,
        result: Result<(), RaftError>,
        index: u64,
        term: u64,
    ) -> Result<(u64, u64), RegionError> {
        match result {
            Ok(()) if self.last_index() == index && self.term() == term => Ok((index, term)),
            Ok(()) => Err(self.not_leader()),
            Err(RaftError::ProposalDropped) if self.lead_transferee().is_none() => {
                Err(RegionError::ServerIsBusy {
                    reason: raftstore_proto::BusyReason::Uncommitted,
                    backoff_ms: 100,
                })
            }
            Err(_) => Err(self.not_leader()),
        }
    }

    fn not_leader(&self) -> RegionError {
        RegionError::NotLeader { region: self.region, leader: None }
    }

    /// Asks a quorum to confirm leadership for the read `context`, or the leader to do so.
    /// Gives whether raft took it up: it drops the question without a word while it has not
    /// committed an entry of its term, or knows no leader.
    pub(crate) fn read_index(&mut self, context: &[u8]) -> bool {
        if !self.is_leader() {
            let knows_leader = self.leader() != 0;
            if knows_leader {
                self.raw.read_index(context.to_vec());
            }
            return knows_leader;
        }
        let before = (self.raw.raft.pending_read_count(), self.raw.raft.ready_read_count());
        self.raw.read_index(context.to_vec());
        before != (self.raw.raft.pending_read_count(), self.raw.raft.ready_read_count())
    }

    pub(crate) fn transfer_leader(&mut self, to: PeerId) {
        if self.is_leader() {
            self.raw.transfer_leader(to.get());
        }
    }

    /// Sends heartbeats now, if this peer leads: a member that was just added is created by
    /// its first one.
    pub(crate) fn ping(&mut self) {
        self.raw.ping();
    }

    /// Turns to the members that the log cannot serve any more: their snapshot is made.
    pub(crate) fn send_to_lagging(&mut self) {
        if !self.is_leader() {
            return;
        }
        let first = self.first_index();
        let own = self.raw.raft.id;
        let mut lagging: Vec<u64> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(id, progress)| **id != own && progress.next_idx < first)
            .map(|(id, _)| *id)
            .collect();
        lagging.sort_unstable();
        for id in lagging {
            self.raw.raft.send_append(id);
        }
    }

    pub(crate) fn report_unreachable(&mut self, peer: PeerId) {
        self.raw.report_unreachable(peer.get());
    }

    pub(crate) fn report_snapshot(&mut self, peer: PeerId, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(peer.get(), status);
    }

    /// Stops leading, if it leads.
    pub(crate) fn step_down(&mut self) {
        if self.is_leader() {
            let term = self.term();
            self.raw.raft.become_follower(term, 0);
        }
    }

    /// Tells raft that the data contains every entry up to `applied`.
    pub(crate) fn advance_apply(&mut self, applied: u64) {
        if applied > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(applied);
        }
    }

    /// Takes what raft wants done, and stages what has to be written. The caller either
    /// gives it to a round with [`RaftGroup::launch`], or, for a snapshot, parks it.
    pub(crate) fn collect(&mut self) -> Option<Collected> {
        if !self.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let number = ready.number();
        let role = ready.ss().map(|soft| Role {
            is_leader: soft.raft_state == StateRole::Leader,
            leader: soft.leader_id,
        });
        let entries: Vec<Entry> = ready.take_entries().into_iter().map(Entry::from_raft).collect();
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let hard_state =
            ready.hs().map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit });
        let must_write = ready.must_sync() || std::mem::take(&mut self.write_due);
        let committed = ready.take_committed_entries().into_iter().map(Entry::from_raft).collect();
        let read_states = ready.take_read_states();
        let from_leader = !ready.messages().is_empty();
        let messages =
            if from_leader { ready.take_messages() } else { ready.take_persisted_messages() };

        let replaced_from =
            if snapshot.is_some() { Some(0) } else { entries.first().map(Entry::index) };
        if let Some(from) = replaced_from
            && self
                .in_flight
                .iter()
                .any(|earlier| earlier.last_index.is_some_and(|last| last >= from))
        {
            self.withhold_until = number;
        }
        if let Some(hard_state) = hard_state {
            self.storage_mut().hard_state = hard_state;
        }
        self.taking_snapshot = snapshot.is_some();
        // What has to be written must be readable before raft hears that it was taken (R19).
        if let Some(snapshot) = &snapshot {
            let meta = snapshot.get_metadata();
            let at = Truncated { index: meta.index, term: meta.term };
            self.storage_mut().stage_snapshot(at, meta.get_conf_state().clone());
        }
        self.storage_mut().stage_entries(&entries);
        self.raw.advance_append_async(ready);
        let storage = self.storage();
        let term_is_durable = storage.persisted_term == storage.hard_state.term
            && storage.persisted_vote == storage.hard_state.vote;
        let waits = must_write || self.has_in_flight();
        let (early, late) = match (from_leader, waits) {
            (true, _) if term_is_durable => (messages, Vec::new()),
            (false, false) => (messages, Vec::new()),
            _ => (Vec::new(), messages),
        };
        Some(Collected {
            entries,
            snapshot,
            must_write,
            state_changed: hard_state.is_some(),
            committed,
            early,
            role,
            read_states,
            number,
            late,
        })
    }

    /// Notes which round writes what was collected; `None` parks it.
    pub(crate) fn launch(&mut self, collected: &mut Collected, round: Option<u64>) {
        let late = std::mem::take(&mut collected.late);
        if !collected.must_write && self.in_flight.is_empty() {
            debug_assert!(late.is_empty(), "nothing to wait for");
            self.raw.on_persist_ready(collected.number);
            return;
        }
        let round = if collected.must_write {
            round
        } else {
            self.in_flight.back().and_then(|last| last.round)
        };
        let hard_state = self.storage().hard_state;
        self.in_flight.push_back(InFlight {
            number: collected.number,
            round,
            durable: false,
            first_index: collected.entries.first().map(Entry::index),
            last_index: collected.entries.last().map(Entry::index),
            term: hard_state.term,
            vote: hard_state.vote,
            late,
        });
    }

    /// The parked write has joined `round`.
    pub(crate) fn unpark(&mut self, round: u64) {
        for parked in self.in_flight.iter_mut().filter(|ready| ready.round.is_none()) {
            parked.round = Some(round);
        }
    }

    /// Everything up to `round` is durable. Reports it to raft as far as the rules allow,
    /// then gives the messages that waited for it.
    pub(crate) fn on_round_durable(&mut self, round: u64) -> Vec<Message> {
        for ready in &mut self.in_flight {
            if ready.round.is_some_and(|its| its <= round) {
                ready.durable = true;
            }
        }
        let count = self.in_flight.iter().take_while(|ready| ready.durable).count();
        let Some(last) = count.checked_sub(1).and_then(|last| self.in_flight.get(last)) else {
            return Vec::new();
        };
        let number = last.number;
        if number < self.withhold_until && !self.never_withholds {
            self.withheld += 1;
            return Vec::new();
        }
        let mut messages = Vec::new();
        for ready in self.in_flight.drain(..count) {
            let storage = self.raw.mut_store();
            storage.persisted_term = ready.term;
            storage.persisted_vote = ready.vote;
            messages.extend(ready.late);
        }
        let staged_from = self.in_flight.iter().filter_map(|ready| ready.first_index).min();
        let storage = self.raw.mut_store();
        storage.persisted_index = match staged_from {
            Some(first) => first - 1,
            None => storage.last_index,
        };
        self.raw.on_persist_ready(number);
        messages
    }

    /// How many proofs were held back since the last call (R35).
    pub(crate) const fn take_withheld(&mut self) -> u64 {
        std::mem::replace(&mut self.withheld, 0)
    }

    pub(crate) const fn take_proofs_as_they_come(&mut self) {
        self.never_withholds = true;
    }

    /// The snapshot taken in is durable in raft's eyes; its data is being installed.
    pub(crate) fn snapshot_persisted(&mut self) {
        let index = self.storage().truncated.index;
        self.advance_apply(index);
    }

    /// The snapshot is installed: raft goes on.
    pub(crate) fn snapshot_installed(&mut self) {
        self.taking_snapshot = false;
    }

    /// Keeps raft still until the snapshot that was being installed at start is in.
    pub(crate) fn resume_taking_snapshot(&mut self) {
        self.taking_snapshot = true;
    }
}

#[cfg(test)]
mod tests;
