//! Reads: on the leader under the lease at once, else after a quorum has confirmed it; on
//! other replicas after the leader has told how far the data must have come.
//!
//! Another replica's question travels to the leader and is answered with the leader's commit
//! index, confirmed by a quorum. Question and answer may be lost, so it is asked again; the
//! name it goes by is its peer's and its incarnation's own.

use std::sync::Arc;

use engine_traits::{KvEngine, RaftEngine, Reader};
use raftstore_proto::{Body, Command, Header, Operation, RegionError, Response};

use super::{Peer, reads::PendingRead};
use crate::{
    FatalError, MonoTime, ReplyId,
    command::{CONDITION_NOT_ALONE, check_epoch, execute_reads},
    context::Context,
    event::Moment,
    hooks::{Bug, Hooks},
};

/// Ticks after which a replica asks its leader again.
const READ_PATIENCE_TICKS: u32 = 3;

impl<R: RaftEngine> Peer<R> {
    /// Takes on a validated read.
    pub(crate) fn read<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: ReplyId,
        command: Command,
    ) -> Result<(), FatalError> {
        let leased = self.may_read_now(ctx, &command.header);
        if leased && self.is_behind {
            // The lease speaks for this moment; the data has to follow.
            let (id, index) = (self.next_read, self.group.committed());
            self.next_read += 1;
            ctx.metrics.lease_reads += 1;
            let waiting = vec![(reply, command)];
            self.reads.push(PendingRead { id, issued: ctx.now, index: Some(index), waiting });
            return Ok(());
        }
        if leased {
            ctx.metrics.lease_reads += 1;
            return self.answer_read(ctx, reply, &command);
        }
        self.read_by_index(ctx, reply, command);
        Ok(())
    }

    /// Whether the lease allows a validated read without asking anybody.
    fn may_read_now<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        header: &Header,
    ) -> bool {
        let leased = self.lease.covers(ctx.now) || ctx.hooks.planted(Bug::LeaseUnchecked);
        let split_ahead = self.has_committed_split();
        ctx.metrics.reads_behind_split += u64::from(split_ahead);
        let unasked = header.read_quorum && ctx.hooks.planted(Bug::QuorumUnasked);
        let allowed = unasked || (!header.read_quorum && leased && !split_ahead);
        allowed && self.is_leader() && self.applied_own_term()
    }

    /// Answers one command of a batch of reads, from the batch's one moment; `None` if a
    /// quorum would have to be asked.
    pub(crate) fn read_in_batch<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        command: &Command,
        moment: &mut Option<Moment>,
    ) -> Result<Option<Response>, FatalError> {
        if let Body::Status(question) = &command.body {
            return Ok(Some(self.status(*question)));
        }
        let checked =
            self.validate(&command.header, &command.body).and_then(|()| match &command.body {
                Body::Operations(operations) if Self::classify(operations)? => Ok(()),
                _ => Err(RegionError::InvalidCommand { why: "only reads come in batches" }),
            });
        if let Err(error) = checked {
            return Ok(Some(Response::error(self.term(), error)));
        }
        if !self.may_read_now(ctx, &command.header) || self.is_behind {
            return Ok(None);
        }
        ctx.metrics.lease_reads += 1;
        let moment = match moment {
            Some(moment) => moment,
            None => moment.insert(self.take_moment(ctx)?),
        };
        self.execute_read(command, &*moment.0).map(Some)
    }

    /// Another replica is about to be told an index to read at.
    pub(crate) fn note_replica_read(&mut self) {
        self.replicas_read = true;
        self.sync_behind();
    }

    /// Tells readers beside the store's thread whether the data lacks entries that replicas
    /// may have shown to somebody. To be called after whatever moves the commit index or the
    /// applied one, and before a message leaves.
    pub(super) fn sync_behind(&mut self) {
        let is_behind = self.replicas_read && self.applied.applied < self.group.committed();
        if is_behind != self.is_behind {
            self.is_behind = is_behind;
            self.view.set_behind(is_behind);
        }
    }

    /// Executes a read against the data as it is, and answers it.
    fn answer_read<K: KvEngine, H: Hooks>(
        &self,
        ctx: &mut Context<K, R, H>,
        reply: ReplyId,
        command: &Command,
    ) -> Result<(), FatalError> {
        let operations = match &command.body {
            Body::Operations(operations) => operations.as_slice(),
            Body::Admin(_) | Body::Status(_) => &[],
        };
        if ctx.hooks.planted(Bug::ReadsAcrossSplit) {
            let failed = FatalError::engine("reading", Some(self.region_id()));
            let mut all = self.region().clone();
            (all.start_key, all.end_key) = Default::default();
            let response = execute_reads(&ctx.kv, &all, operations, self.term()).map_err(failed)?;
            ctx.answer(reply, response);
            return Ok(());
        }
        let is_snap = operations.contains(&Operation::Snap);
        // Several keys are read as of one moment, and who asks for a snapshot gets the
        // engine's together with the region's bounds: taken later, it could show a range
        // that has meanwhile gone to somebody else (H41).
        let response = if is_snap || operations.len() > 1 {
            let moment = self.take_moment(ctx)?;
            let response = self.execute_read(command, &*moment.0)?;
            if is_snap && response.body.is_ok() {
                ctx.effects.moments.push((reply, moment));
            }
            response
        } else {
            self.execute_read(command, &ctx.kv)?
        };
        ctx.answer(reply, response);
        Ok(())
    }

    fn take_moment<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
    ) -> Result<Moment, FatalError> {
        let taken = ctx.kv.snapshot();
        let failed = FatalError::engine("reading", Some(self.region_id()));
        taken.map(|snapshot| Moment(Arc::new(snapshot))).map_err(failed)
    }

    /// Executes a read against one state of the data, after checking the epoch once more.
    fn execute_read(&self, command: &Command, reader: &dyn Reader) -> Result<Response, FatalError> {
        let term = self.term();
        if let Err(error) = check_epoch(&command.header, &command.body, self.region()) {
            return Ok(Response::error(term, error));
        }
        let Body::Operations(operations) = &command.body else {
            let error = RegionError::InvalidCommand { why: "not a read" };
            return Ok(Response::error(term, error));
        };
        execute_reads(reader, self.region(), operations, term)
            .map_err(FatalError::engine("reading", Some(self.region_id())))
    }

    fn read_by_index<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: ReplyId,
        command: Command,
    ) {
        if self.is_leader() {
            ctx.metrics.index_reads += 1;
        } else {
            ctx.metrics.replica_reads += 1;
        }
        self.reads.ask(reply, command);
        ctx.mark(self.region_id());
    }

    /// Asks a quorum on behalf of all reads that came since the last question. It is asked
    /// after the last of them came, so it proves leadership for each without any clock.
    pub(super) fn issue_reads<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        if self.has_committed_split() {
            // Until it is applied nobody knows which part of the range is ours (H36).
            return;
        }
        let waiting = self.reads.take_unasked();
        if waiting.is_empty() {
            return;
        }
        if ctx.hooks.planted(Bug::ReadIndexJoined) && self.reads.join(&waiting) {
            return;
        }
        let id = self.next_read;
        self.next_read += 1;
        if self.group.read_index(&self.read_name(id)) {
            let issued = ctx.now;
            self.reads.push(PendingRead { id, issued, index: None, waiting });
            return;
        }
        // A leader that has not committed in its term yet, or a replica that knows none: raft
        // drops the question.
        let error = if self.is_leader() { RegionError::ReadNotReady } else { self.not_leader() };
        let term = self.term();
        for (reply, _) in waiting {
            ctx.refuse(reply, term, error.clone());
        }
    }

    /// What a question goes by. Questions of all replicas meet at the leader.
    fn read_name(&self, id: u64) -> [u8; 24] {
        let mut name = [0; 24];
        name[..8].copy_from_slice(&self.replica.id.get().to_be_bytes());
        name[8..16].copy_from_slice(&self.incarnation.to_be_bytes());
        name[16..].copy_from_slice(&id.to_be_bytes());
        name
    }

    /// Asks the leader again on behalf of reads it has not answered in time.
    pub(super) fn repeat_reads<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        if self.is_leader() {
            return;
        }
        let patience = ctx.config.raft_base_tick_interval * READ_PATIENCE_TICKS;
        if self.reads.repeat(|issued| ctx.now.since(issued) >= patience) {
            ctx.mark(self.region_id());
        }
    }

    /// raft says that a quorum has confirmed question `id` when the log was at `index`.
    pub(super) fn on_read_state(&mut self, context: &[u8], index: u64) {
        let Ok(name) = <[u8; 24]>::try_from(context) else {
            return;
        };
        let mut number = [0; 8];
        number.copy_from_slice(&name[16..]);
        let id = u64::from_be_bytes(number);
        if name != self.read_name(id) {
            return;
        }
        if let Some(issued) = self.reads.confirm(id, index)
            && self.is_leader()
        {
            self.renew_lease(issued);
        }
    }

    /// Serves the confirmed reads that the data has caught up with.
    pub(crate) fn serve_reads<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
    ) -> Result<(), FatalError> {
        if self.reads.is_empty() {
            return Ok(());
        }
        let early = ctx.hooks.planted(Bug::ReadBeforeApplied);
        // A replica that does not lead serves what it asked its leader for. While data is being
        // replaced nobody serves.
        let may_serve = self.is_active()
            && (!self.is_leader() || self.applied_own_term())
            && !self.has_committed_split();
        if !may_serve && !early {
            return Ok(());
        }
        let applied = if early { u64::MAX } else { self.applied.applied };
        while let Some(read) = self.reads.pop_ready(applied) {
            for (reply, command) in read.waiting {
                self.answer_read(ctx, reply, &command)?;
            }
        }
        Ok(())
    }

    /// The moment before which a proposal's messages cannot have left.
    pub(super) fn note_proposed(&mut self, index: u64, now: MonoTime) {
        self.proposed_at.push_back((index, now));
    }

    /// Renews the lease from the newest proposal of this term that is committed.
    pub(super) fn renew_from_commit<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        let committed = self.group.committed();
        let mut newest = None;
        while let Some((index, at)) = self.proposed_at.front().copied()
            && index <= committed
        {
            self.proposed_at.pop_front();
            let waited = ctx.now.since(at);
            ctx.metrics.commit_micros.record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
            tracing::trace!(region = %self.region_id(), index, ?waited, "commit");
            newest = Some(at);
        }
        if let Some(at) = newest
            && self.is_leader()
        {
            self.renew_lease(at);
        }
    }

    /// Whether the command reads without writing.
    pub(super) fn classify(operations: &[Operation]) -> Result<bool, RegionError> {
        let reads = operations.iter().filter(|operation| operation.is_read()).count();
        let writes = operations.iter().filter(|operation| operation.is_write()).count();
        if reads + writes < operations.len() {
            return Err(RegionError::InvalidCommand { why: "invalid operation" });
        }
        if reads > 0 && writes > 0 {
            return Err(RegionError::InvalidCommand { why: "read and write cannot be mixed" });
        }
        if operations.len() > 1 && operations.iter().any(Operation::is_conditional) {
            return Err(RegionError::InvalidCommand { why: CONDITION_NOT_ALONE });
        }
        Ok(writes == 0)
    }
}
