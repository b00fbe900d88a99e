//! Reads of several regions in one question: each answered for itself, all of one moment.
//!
//! Only what the lease allows is answered with data. What would have to ask a quorum is
//! given back unanswered: one slow region must not hold up the others.

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{Command, RegionError, Response};

use super::Store;
use crate::{FatalError, ReplyId, event::Moment, hooks::Hooks};

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    pub(super) fn on_batch_snapshot(
        &mut self,
        reply: ReplyId,
        commands: &[Command],
    ) -> Result<(), FatalError> {
        self.ctx.metrics.snapshot_batches += 1;
        self.ctx.metrics.batched_reads += commands.len() as u64;
        // One engine snapshot for all, taken when the first of them may be read.
        let mut moment = None;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(self.answer_in_batch(command, &mut moment)?);
        }
        self.ctx.effects.moments.extend(moment.map(|moment| (reply, moment)));
        self.ctx.effects.batches.push((reply, answers));
        Ok(())
    }

    fn answer_in_batch(
        &mut self,
        command: &Command,
        moment: &mut Option<Moment>,
    ) -> Result<Option<Response>, FatalError> {
        let region = command.header.region;
        if let Err(error) = self.check_address(&command.header) {
            return Ok(Some(Response::error(0, error)));
        }
        match self.peers.get_mut(&region) {
            Some(peer) => peer.read_in_batch(&mut self.ctx, command, moment),
            None => Ok(Some(Response::error(0, RegionError::RegionNotFound { region }))),
        }
    }
}
