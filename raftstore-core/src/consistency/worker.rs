//! Decides what is hashed next, in slices: first whoever asks for a range of what is kept,
//! then the regions in the order in which their snapshots were taken.
//!
//! Every job holds a snapshot of the engine, which costs space there (H75). So only a few
//! jobs may wait, the others are refused and count as failed; and what was hashed last is
//! kept only until the next job ends or the driver says so.

use std::{collections::VecDeque, fmt};

use engine_traits::Snapshot;
use raftstore_proto::{Cf, Region, RegionId};

use crate::{
    event::TaskDone,
    hash::{RangeHash, RowWalk},
};

/// Jobs that may wait. Each leader checks one region at a time, so a store meets about one
/// job per store of the cluster at once; with half of it checks fail in clusters of a
/// dozen, with double it old snapshots pile up behind a slow disk.
const WAITING_MAX: usize = 16;

/// A region to be hashed as of one moment.
pub struct HashJob<S> {
    /// Range, epoch and members as of `index`.
    pub region: Region,
    /// The incarnation that asked.
    pub incarnation: u64,
    /// The entry that asked.
    pub index: u64,
    /// The engine right behind that entry.
    pub snapshot: S,
}

impl<S> fmt::Debug for HashJob<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashJob")
            .field("region", &self.region.id)
            .field("incarnation", &self.incarnation)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl<S> HashJob<S> {
    fn failed(&self) -> TaskDone {
        let (region, incarnation, index) = (self.region.id, self.incarnation, self.index);
        TaskDone::Hashed { region, incarnation, index, hash: None }
    }
}

/// A question about part of what was hashed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuestion {
    /// Comes back with the answer.
    pub ticket: u64,
    /// The region.
    pub region: RegionId,
    /// The index at which it was hashed.
    pub index: u64,
    /// Which family.
    pub cf: Cf,
    /// First user key. What is outside of the region counts as empty.
    pub start: Vec<u8>,
    /// End user key, exclusive; empty is after every key.
    pub end: Vec<u8>,
}

/// Why a range was not hashed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RangeHashError {
    /// It was hashed too long ago, or never: compute a new hash and ask for its index.
    #[error("the state of region {region} at index {index} is not kept")]
    NotKept {
        /// The region asked for.
        region: RegionId,
        /// The index asked for.
        index: u64,
    },
    /// Fix the question.
    #[error("{cf} is not a column family for user data")]
    NotUserData {
        /// The family asked for.
        cf: Cf,
    },
    /// The engine cannot be read.
    #[error("the range cannot be read")]
    Engine(#[source] engine_traits::Error),
    /// Ask the other replica alone: this store has stopped.
    #[error("the store is stopping")]
    Stopping,
}

/// What one slice of work brought.
#[derive(Debug, Default)]
pub struct HashSlice {
    /// A job that ended.
    pub done: Option<TaskDone>,
    /// A question that was answered, by its ticket.
    pub answer: Option<(u64, Result<RangeHash, RangeHashError>)>,
}

/// Hashes regions, slice by slice.
pub struct HashWorker<S: Snapshot> {
    slice_bytes: u64,
    waiting: VecDeque<HashJob<S>>,
    hashing: Option<(HashJob<S>, RowWalk)>,
    /// The last job that ended well.
    kept: Option<HashJob<S>>,
    questions: VecDeque<RangeQuestion>,
    answering: Option<(RangeQuestion, RowWalk)>,
}

impl<S: Snapshot> fmt::Debug for HashWorker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashWorker")
            .field("waiting", &self.waiting)
            .field("hashing", &self.hashing.as_ref().map(|(job, _)| job))
            .field("kept", &self.kept)
            .field("questions", &self.questions)
            .finish_non_exhaustive()
    }
}

impl<S: Snapshot> HashWorker<S> {
    /// A worker with nothing to do, which reads about `slice_bytes` in one slice.
    #[must_use]
    pub const fn new(slice_bytes: u64) -> Self {
        Self {
            slice_bytes,
            waiting: VecDeque::new(),
            hashing: None,
            kept: None,
            questions: VecDeque::new(),
            answering: None,
        }
    }

    /// Takes a job. Too many of them would hold too much of the engine: then it is refused,
    /// and gives how it ended.
    #[must_use = "a refused job has ended, which its store waits for"]
    pub fn push(&mut self, job: HashJob<S>) -> Option<TaskDone> {
        if self.waiting.len() >= WAITING_MAX {
            tracing::warn!(region = %job.region.id, "region not hashed, others wait");
            return Some(job.failed());
        }
        self.waiting.push_back(job);
        None
    }

    /// Takes a question. It is answered before any further job.
    pub fn ask(&mut self, question: RangeQuestion) {
        self.questions.push_back(question);
    }

    /// Lets go of what was hashed last.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// Whether something is kept for questions.
    #[must_use]
    pub const fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.hashing.is_none()
            && self.questions.is_empty()
            && self.answering.is_none()
    }

    /// Does one slice of work.
    pub fn step(&mut self) -> HashSlice {
        let answer = self.answer_slice();
        if answer.is_some() || self.answering.is_some() {
            return HashSlice { done: None, answer };
        }
        HashSlice { done: self.hash_slice(), answer: None }
    }

    fn hash_slice(&mut self) -> Option<TaskDone> {
        let (job, mut walk) = match self.hashing.take() {
            Some(begun) => begun,
            None => {
                let job = self.waiting.pop_front()?;
                let walk = RowWalk::region(&job.region);
                (job, walk)
            }
        };
        match walk.advance(&job.snapshot, self.slice_bytes) {
            Ok(false) => {
                self.hashing = Some((job, walk));
                None
            }
            Ok(true) => {
                let hash = Some(walk.region_hash());
                let (region, incarnation, index) = (job.region.id, job.incarnation, job.index);
                self.kept = Some(job);
                Some(TaskDone::Hashed { region, incarnation, index, hash })
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(region = %job.region.id, %error, cause, "region not hashed");
                Some(job.failed())
            }
        }
    }

    fn answer_slice(&mut self) -> Option<(u64, Result<RangeHash, RangeHashError>)> {
        let (question, mut walk) = match self.answering.take() {
            Some(begun) => begun,
            None => {
                let question = self.questions.pop_front()?;
                match self.begin(&question) {
                    Ok(walk) => (question, walk),
                    Err(error) => return Some((question.ticket, Err(error))),
                }
            }
        };
        // Only a job that ends replaces what is kept, and none does while a question is
        // being answered; the driver may have let go of it, though.
        let Some(kept) = self.kept.as_ref() else {
            let (region, index) = (question.region, question.index);
            return Some((question.ticket, Err(RangeHashError::NotKept { region, index })));
        };
        match walk.advance(&kept.snapshot, self.slice_bytes) {
            Ok(false) => {
                self.answering = Some((question, walk));
                None
            }
            Ok(true) => Some((question.ticket, Ok(walk.range_hash()))),
            Err(error) => Some((question.ticket, Err(RangeHashError::Engine(error)))),
        }
    }

    fn begin(&self, question: &RangeQuestion) -> Result<RowWalk, RangeHashError> {
        let RangeQuestion { region, index, cf, start, end, .. } = question;
        let (region, index, cf) = (*region, *index, *cf);
        if !cf.is_data() {
            return Err(RangeHashError::NotUserData { cf });
        }
        let kept = self
            .kept
            .as_ref()
            .filter(|kept| kept.region.id == region && kept.index == index)
            .ok_or(RangeHashError::NotKept { region, index })?;
        let bounds = &kept.region;
        let start = start.as_slice().max(&bounds.start_key);
        let end = match (end.is_empty(), bounds.end_key.is_empty()) {
            (true, _) => &bounds.end_key,
            (false, true) => end.as_slice(),
            (false, false) => end.as_slice().min(&bounds.end_key),
        };
        Ok(RowWalk::range(cf, start, end))
    }
}

#[cfg(test)]
mod tests;
