//! A batch: operations that are given to raft-engine when they are written, since what it must
//! be told depends on the stored logs.

use engine_traits::RaftLogBatch;
use raft_proto::eraftpb;
use raftstore_proto::{Entry, LocalState, RegionId};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Consecutive entries, at least one.
    Append(Vec<eraftpb::Entry>),
    TruncatePrefix(u64),
    PutRaftState(LocalState),
    Clear,
}

/// Changes that one record makes.
#[derive(Clone, Debug, Default)]
pub struct RaftLogWrites {
    ops: Vec<(RegionId, Op)>,
    size_bytes: usize,
    /// Why the batch must be refused, if its maker broke an append's shape.
    defect: Option<String>,
}

impl RaftLogWrites {
    /// The operations in the order added, or why they must not be carried out.
    pub(crate) fn into_ops(self) -> Result<Vec<(RegionId, Op)>, String> {
        match self.defect {
            Some(defect) => Err(defect),
            None => Ok(self.ops),
        }
    }
}

/// What is wrong with the indexes of an append, if anything.
fn defect(region: RegionId, entries: &[Entry]) -> Option<String> {
    let gap =
        entries.windows(2).find(|pair| Some(pair[1].index()) != pair[0].index().checked_add(1));
    if let Some([before, after]) = gap {
        let (before, after) = (before.index(), after.index());
        return Some(format!(
            "entry {after} follows entry {before} in an append to region {region}"
        ));
    }
    let last = entries.last().is_some_and(|entry| entry.index() == u64::MAX);
    last.then(|| format!("an append to region {region} has an entry at the largest number"))
}

impl RaftLogBatch for RaftLogWrites {
    fn append(&mut self, region: RegionId, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        self.defect = self.defect.take().or_else(|| defect(region, entries));
        self.size_bytes += entries.iter().map(|entry| entry.payload_len() + 24).sum::<usize>();
        let entries = entries.iter().map(|entry| entry.as_raft().clone()).collect();
        self.ops.push((region, Op::Append(entries)));
    }

    fn truncate_prefix(&mut self, region: RegionId, index: u64) {
        self.size_bytes += 24;
        self.ops.push((region, Op::TruncatePrefix(index)));
    }

    fn put_raft_state(&mut self, region: RegionId, state: &LocalState) {
        self.size_bytes += size_of::<LocalState>();
        self.ops.push((region, Op::PutRaftState(*state)));
    }

    fn clear_region(&mut self, region: RegionId) {
        self.size_bytes += 8;
        self.ops.push((region, Op::Clear));
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}
