//! Reads on the leader: under the lease at once, else after a quorum has confirmed it.

use engine_traits::{KvEngine, RaftEngine, Reader};
use raftstore_proto::{Body, Command, Operation, RegionError, Response};

use super::{Peer, reads::PendingRead};
use crate::{
    FatalError, MonoTime, ReplyId,
    command::{check_epoch, execute_reads},
    context::Context,
    hooks::{Bug, Hooks},
};

impl<R: RaftEngine> Peer<R> {
    /// Takes on a validated read.
    pub(crate) fn read<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: ReplyId,
        command: Command,
    ) -> Result<(), FatalError> {
        let leased = self.lease.covers(ctx.now) || ctx.hooks.planted(Bug::LeaseUnchecked);
        let split_ahead = self.has_committed_split();
        ctx.metrics.reads_behind_split += u64::from(split_ahead);
        let leased = leased && !split_ahead;
        if !command.header.read_quorum && leased && self.applied_own_term() {
            ctx.metrics.lease_reads += 1;
            let response = self.execute_read(ctx, &command)?;
            ctx.answer(reply, response);
            return Ok(());
        }
        self.read_by_index(ctx, reply, command);
        Ok(())
    }

    /// Executes a read against the data as it is, after checking the epoch once more.
    fn execute_read<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
        command: &Command,
    ) -> Result<Response, FatalError> {
        let term = self.term();
        if let Err(error) = check_epoch(&command.header, &command.body, self.region()) {
            return Ok(Response::error(term, error));
        }
        let Body::Operations(operations) = &command.body else {
            let error = RegionError::InvalidCommand { why: "not a read" };
            return Ok(Response::error(term, error));
        };
        let failed = FatalError::engine("reading", Some(self.region_id()));
        if operations.len() <= 1 {
            let reader: &dyn Reader = &ctx.kv;
            return execute_reads(reader, self.region(), operations, term).map_err(failed);
        }
        // Several keys are read as of one moment.
        match ctx.kv.snapshot() {
            Ok(snapshot) => {
                execute_reads(&snapshot, self.region(), operations, term).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn read_by_index<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: ReplyId,
        command: Command,
    ) {
        ctx.metrics.index_reads += 1;
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
        let id = self.next_read;
        self.next_read += 1;
        if self.is_leader() && self.group.read_index(id) {
            let issued = ctx.now;
            self.reads.push(PendingRead { id, issued, index: None, waiting });
            return;
        }
        // The leader has not committed in its term yet: raft drops the question.
        let term = self.term();
        for (reply, _) in waiting {
            ctx.refuse(reply, term, RegionError::ReadNotReady);
        }
    }

    /// raft says that a quorum has confirmed question `id` when the log was at `index`.
    pub(super) fn on_read_state(&mut self, context: &[u8], index: u64) {
        let Ok(id) = <[u8; 8]>::try_from(context) else {
            return;
        };
        if let Some(issued) = self.reads.confirm(u64::from_be_bytes(id), index) {
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
        let may_serve = self.is_leader() && self.applied_own_term() && !self.has_committed_split();
        if !may_serve && !early {
            return Ok(());
        }
        let applied = if early { u64::MAX } else { self.applied.applied };
        while let Some(read) = self.reads.pop_ready(applied) {
            for (reply, command) in read.waiting {
                let response = self.execute_read(ctx, &command)?;
                ctx.answer(reply, response);
            }
        }
        Ok(())
    }

    /// The moment before which a proposal's messages cannot have left.
    pub(super) fn note_proposed(&mut self, index: u64, now: MonoTime) {
        self.proposed_at.push_back((index, now));
    }

    /// Renews the lease from the newest proposal of this term that is committed.
    pub(super) fn renew_from_commit(&mut self) {
        let committed = self.group.committed();
        let mut newest = None;
        while let Some((index, at)) = self.proposed_at.front().copied()
            && index <= committed
        {
            self.proposed_at.pop_front();
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
        Ok(writes == 0)
    }
}
