//! Counters of one lane, as plain fields. A runtime exports them.

use std::collections::BTreeMap;

use crate::Dropped;

/// What a lane has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// Rounds with something to write.
    pub rounds: u64,
    /// Rounds that had to be durable before their proof.
    pub synced_rounds: u64,
    /// Entries given to the raft log.
    pub appended_entries: u64,
    /// Messages given to the transport.
    pub sent_messages: u64,
    /// Messages taken in.
    pub received_messages: u64,
    /// Messages not acted on, by reason.
    pub dropped: BTreeMap<Dropped, u64>,
    /// Proposals accepted into a log.
    pub proposals: u64,
    /// Reads served under the lease.
    pub lease_reads: u64,
    /// Reads that asked a quorum.
    pub index_reads: u64,
    /// Questions for reads of several regions at once.
    pub snapshot_batches: u64,
    /// Reads asked for in them.
    pub batched_reads: u64,
    /// Reads that a replica which does not lead has asked its leader about.
    pub replica_reads: u64,
    /// Times a peer of this lane became leader.
    pub elections_won: u64,
    /// Times a peer of this lane asked for votes.
    pub campaigns: u64,
    /// Region snapshots asked to be built.
    pub snapshots_asked: u64,
    /// Region snapshots handed to the transport.
    pub snapshots_sent: u64,
    /// Region snapshots taken in.
    pub snapshots_accepted: u64,
    /// Region snapshots installed.
    pub snapshots_installed: u64,
    /// Raft-side writes that waited for a KV number.
    pub parked_writes: u64,
    /// Peers created from a message.
    pub peers_created: u64,
    /// Peers destroyed.
    pub peers_destroyed: u64,
    /// Membership changes applied.
    pub conf_changes: u64,
    /// Looks at regions that may be too large.
    pub split_checks: u64,
    /// Looks that found where to cut.
    pub split_checks_hit: u64,
    /// Ranges compacted for their deleted keys.
    pub compactions: u64,
    /// Times the lock family was compacted.
    pub lock_compactions: u64,
    /// Generated region snapshots that nobody fetched in time.
    pub snapshots_expired: u64,
    /// Rounds that took as long as an election timeout.
    pub slow_rounds: u64,
    /// Splits applied.
    pub splits: u64,
    /// Peers that splits have made.
    pub split_born: u64,
    /// Peers among them that replaced one which waited for its data.
    pub split_replaced: u64,
    /// Peers that a split did not make here, because something newer of the region is known.
    pub split_skipped: u64,
    /// Reads that came while a split was committed and not yet applied.
    pub reads_behind_split: u64,
    /// Region snapshots refused because another region holds a part of their range.
    pub snapshots_overlapping: u64,
    /// First messages of regions not yet here that were kept.
    pub first_messages_kept: u64,
    /// First messages taken up again.
    pub first_messages_replayed: u64,
    /// Log cuts applied.
    pub log_cuts: u64,
    /// Leader transfers set in motion.
    pub transfers: u64,
    /// Proofs held back because an index was on its way twice (R35).
    pub withheld_proofs: u64,
    /// Replicas taken out of service by a failed checksum.
    pub quarantined: u64,
    /// Peers visited by ticks.
    pub ticked_peers: u64,
    /// Bytes of keys and values applied.
    pub applied_bytes: u64,
    /// Keys applied.
    pub applied_keys: u64,
}

impl StoreMetrics {
    pub(crate) fn count_dropped(&mut self, reason: Dropped) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}
