//! Reads that wait for a quorum to confirm the leader (read index).

use std::collections::VecDeque;

use raftstore_proto::Command;

use crate::{MonoTime, ReplyId};

/// Reads that share one confirmation.
#[derive(Debug)]
pub(crate) struct PendingRead {
    pub(crate) id: u64,
    /// When the confirmation was asked for.
    pub(crate) issued: MonoTime,
    /// The index the data must have reached; `None` until confirmed.
    pub(crate) index: Option<u64>,
    pub(crate) waiting: Vec<(ReplyId, Command)>,
}

/// All reads of one peer, in the order of their questions.
#[derive(Debug, Default)]
pub(crate) struct ReadQueue {
    reads: VecDeque<PendingRead>,
    /// Came since the last question.
    unasked: Vec<(ReplyId, Command)>,
}

impl ReadQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.unasked.is_empty()
    }

    /// A read that needs a question to be asked for it.
    pub(crate) fn ask(&mut self, reply: ReplyId, command: Command) {
        self.unasked.push((reply, command));
    }

    /// The reads that came since the last question.
    pub(crate) fn take_unasked(&mut self) -> Vec<(ReplyId, Command)> {
        std::mem::take(&mut self.unasked)
    }

    /// Has reads wait for the confirmation of a question asked before they came. Gives
    /// whether there is one. For a planted bug.
    pub(crate) fn join(&mut self, reads: &[(ReplyId, Command)]) -> bool {
        match self.reads.back_mut().filter(|read| read.index.is_none()) {
            Some(last) => {
                last.waiting.extend_from_slice(reads);
                true
            }
            None => false,
        }
    }

    pub(crate) fn push(&mut self, read: PendingRead) {
        self.reads.push_back(read);
    }

    /// A quorum has confirmed question `id`, and with it all earlier ones. Gives when it
    /// was asked.
    pub(crate) fn confirm(&mut self, id: u64, index: u64) -> Option<MonoTime> {
        let mut issued = None;
        for read in self.reads.iter_mut().take_while(|read| read.id <= id) {
            if read.index.is_none() {
                read.index = Some(index);
            }
            if read.id == id {
                issued = Some(read.issued);
            }
        }
        issued
    }

    /// The oldest read if it is confirmed and the data has come far enough.
    pub(crate) fn pop_ready(&mut self, applied: u64) -> Option<PendingRead> {
        let ready = self.reads.front()?.index.is_some_and(|index| index <= applied);
        if ready { self.reads.pop_front() } else { None }
    }

    /// Has those reads asked for again whose question is old and unanswered. Gives whether
    /// there are any.
    pub(crate) fn repeat(&mut self, is_old: impl Fn(MonoTime) -> bool) -> bool {
        if !self.reads.iter().any(|read| read.index.is_none() && is_old(read.issued)) {
            return false;
        }
        for read in std::mem::take(&mut self.reads) {
            if read.index.is_none() && is_old(read.issued) {
                self.unasked.extend(read.waiting);
            } else {
                self.reads.push_back(read);
            }
        }
        true
    }

    /// Takes out everything.
    pub(crate) fn take_all(&mut self) -> Vec<(ReplyId, Command)> {
        let asked = std::mem::take(&mut self.reads).into_iter().flat_map(|read| read.waiting);
        asked.chain(std::mem::take(&mut self.unasked)).collect()
    }
}
