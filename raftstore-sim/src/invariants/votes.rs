//! A peer votes once per term, whatever happens to its store (Raft dissertation 3.4).

use std::collections::BTreeMap;

use raftstore_proto::{MessageKind, RaftMessage};

use super::Violation;

/// Who voted for whom: by region, voter and term.
#[derive(Debug, Default)]
pub struct Votes {
    cast: BTreeMap<(u64, u64, u64), u64>,
}

impl Votes {
    /// Looks at a message that leaves a store. A vote asked for is a vote for oneself.
    ///
    /// # Errors
    /// If the sender voted for somebody else in that term.
    pub fn check(&mut self, message: &RaftMessage) -> Result<(), Violation> {
        let raft = message.raft();
        let candidate = match message.kind() {
            Some(MessageKind::RequestVote) => raft.from,
            Some(MessageKind::RequestVoteResponse) if !raft.reject => raft.to,
            _ => return Ok(()),
        };
        let region = message.region().map_or(0, |region| region.get());
        match self.cast.insert((region, raft.from, raft.term), candidate) {
            Some(other) if other != candidate => Err(Violation::new(
                "one vote per term",
                format!(
                    "peer {} of region {region} votes for {candidate} in term {} after {other}",
                    raft.from, raft.term
                ),
            )),
            _ => Ok(()),
        }
    }
}
