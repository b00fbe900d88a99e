//! Comparing replicas (9.9): when one is due, and what comes of it.

use bytes::Bytes;
use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{AdminCommand, RegionId};

use super::Store;
use crate::{
    FatalError, FatalSource, OnMismatch,
    hash::RegionHash,
    hooks::Hooks,
    peer::{Origin, Peer, Verdict},
};

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// Begins a comparison of the region whose last one is oldest, unless one is under way
    /// (H77).
    pub(super) fn check_consistency(&mut self) {
        if self.hashing > 0 {
            return;
        }
        while let Some((at, region)) = self.ctx.attention.checks.first().copied() {
            self.ctx.metrics.duty_visits += 1;
            let leads = |peer: &Peer<R>| peer.is_leader() && peer.is_active();
            if self.peers.get(&region).is_some_and(|peer| leads(peer) && peer.checked.at == at) {
                self.ctx.metrics.hash_rounds += 1;
                self.propose_own(region, AdminCommand::ComputeHash);
                return;
            }
            // Whoever leads again is entered again.
            self.ctx.attention.checks.pop_first();
        }
    }

    /// Apply has reached the entry that asks for a hash: it comes with
    /// [`TaskDone::Hashed`](crate::TaskDone).
    pub(super) fn on_hash_begun(&mut self, region: RegionId) {
        self.hashing += 1;
        if let Some(peer) = self.peers.get_mut(&region) {
            let checks = &mut self.ctx.attention.checks;
            checks.remove(&(peer.checked.at, region));
            peer.checked.at = self.ctx.now;
            if peer.is_leader() {
                checks.insert((peer.checked.at, region));
            }
        }
    }

    /// A region of this store was hashed.
    pub(super) fn on_hashed(
        &mut self,
        region: RegionId,
        incarnation: u64,
        index: u64,
        hash: Option<RegionHash>,
    ) -> Result<(), FatalError> {
        self.hashing = self.hashing.saturating_sub(1);
        let Some(hash) = hash else {
            self.ctx.metrics.hashes_failed += 1;
            return Ok(());
        };
        self.ctx.metrics.hashes_computed += 1;
        let known = self.peers.get(&region).is_some_and(|peer| peer.incarnation == incarnation);
        if !known {
            self.ctx.metrics.hashes_missed += 1;
            return Ok(());
        }
        if self.compare(region, index, hash, Origin::Here)? {
            // Only a leader's proposal is taken, so it is the leader's hash that is sent.
            self.propose_own(region, AdminCommand::VerifyHash { index, hash: hash.encode() });
        }
        Ok(())
    }

    /// The log holds a hash that a leader has found.
    pub(super) fn on_verify_hash(
        &mut self,
        region: RegionId,
        index: u64,
        hash: &Bytes,
    ) -> Result<(), FatalError> {
        match RegionHash::decode(hash) {
            Some(hash) => self.compare(region, index, hash, Origin::Leader).map(drop),
            None => {
                // A leader that hashes in another way says nothing about this replica.
                self.ctx.metrics.hashes_missed += 1;
                Ok(())
            }
        }
    }

    /// Takes a hash in. Gives whether its other half is still to come.
    fn compare(
        &mut self,
        region: RegionId,
        index: u64,
        hash: RegionHash,
        origin: Origin,
    ) -> Result<bool, FatalError> {
        let Some(peer) = self.peers.get_mut(&region) else {
            return Ok(false);
        };
        let metrics = &mut self.ctx.metrics;
        match peer.checked.take(index, origin, hash) {
            Verdict::Waits => return Ok(true),
            Verdict::Displaces => {
                metrics.hashes_missed += 1;
                return Ok(true);
            }
            Verdict::TooOld => metrics.hashes_missed += 1,
            Verdict::Repeated => {}
            Verdict::Matches => metrics.hashes_matched += 1,
            Verdict::Differs(other) => {
                metrics.hashes_differing += 1;
                let (here, there) = match origin {
                    Origin::Here => (hash, other),
                    Origin::Leader => (other, hash),
                };
                self.on_difference(region, index, here, there)?;
            }
        }
        Ok(false)
    }

    /// This replica holds other data than the leader's. The embedder has said what is to be
    /// done then (H75).
    fn on_difference(
        &mut self,
        region: RegionId,
        index: u64,
        here: RegionHash,
        there: RegionHash,
    ) -> Result<(), FatalError> {
        tracing::error!(%region, index, %here, %there, "replicas differ");
        match self.ctx.config.consistency_mismatch {
            OnMismatch::Stop => Err(FatalError {
                doing: "comparing replicas",
                region: Some(region),
                source: FatalSource::ReplicasDiffer { index, here, there },
            }),
            OnMismatch::Quarantine => {
                self.quarantine(region, &format!("its data at index {index} is not the leader's"));
                Ok(())
            }
            OnMismatch::Report => Ok(()),
        }
    }
}
