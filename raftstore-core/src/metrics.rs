//! Counters of one lane, as plain fields. A runtime exports them.

mod histogram;
mod sent;

use std::collections::BTreeMap;

pub use self::{
    histogram::{BUCKETS, Bytes, Counts, Histogram, Micros},
    sent::Sent,
};
use crate::Dropped;

/// Counters with their descriptions, so that whoever exports them need not repeat either.
macro_rules! store_metrics {
    ($($(#[doc = $doc:literal])+ $field:ident,)*) => {
        /// What a lane has done since it was opened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct StoreMetrics {
            $($(#[doc = $doc])+ pub $field: u64,)*
            /// Messages not acted on, by reason.
            pub dropped: BTreeMap<Dropped, u64>,
            /// Messages given to the transport, by kind.
            pub sent: Sent,
            /// Sizes of proposals.
            pub proposal_bytes: Bytes,
            /// From the proposal of an entry until it was committed.
            pub commit_micros: Micros,
            /// Entries by which the slowest member of a led region lags, at each look at a log
            /// that has grown.
            pub log_lag: Counts,
            /// Regions with data here, as of the last report to PD.
            pub regions: u64,
            /// Regions led here, as of the last report to PD.
            pub leaders: u64,
        }

        impl StoreMetrics {
            /// Every counter: its name, what it counts, its value.
            #[must_use]
            pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), concat!($($doc),+), self.$field),)*]
            }

            /// Adds the figures of another lane.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                for (reason, count) in &other.dropped {
                    *self.dropped.entry(*reason).or_default() += count;
                }
                self.sent.merge(&other.sent);
                self.proposal_bytes.merge(&other.proposal_bytes);
                self.commit_micros.merge(&other.commit_micros);
                self.log_lag.merge(&other.log_lag);
                self.regions += other.regions;
                self.leaders += other.leaders;
            }
        }
    };
}

store_metrics! {
    /// Rounds with something to write.
    rounds,
    /// Rounds that had to be durable before their proof.
    synced_rounds,
    /// Entries given to the raft log.
    appended_entries,
    /// Messages given to the transport.
    sent_messages,
    /// Messages taken in.
    received_messages,
    /// Proposals accepted into a log.
    proposals,
    /// Reads served under the lease.
    lease_reads,
    /// Reads that asked a quorum.
    index_reads,
    /// Questions for reads of several regions at once.
    snapshot_batches,
    /// Reads asked for in them.
    batched_reads,
    /// Reads that a replica which does not lead has asked its leader about.
    replica_reads,
    /// Times a peer of this lane became leader.
    elections_won,
    /// Times a peer of this lane asked for votes.
    campaigns,
    /// Region snapshots asked to be built.
    snapshots_asked,
    /// Region snapshots handed to the transport.
    snapshots_sent,
    /// Region snapshots taken in.
    snapshots_accepted,
    /// Region snapshots installed.
    snapshots_installed,
    /// Raft-side writes that waited for a KV number.
    parked_writes,
    /// Peers created from a message.
    peers_created,
    /// Peers destroyed.
    peers_destroyed,
    /// Membership changes applied.
    conf_changes,
    /// Looks at regions that may be too large.
    split_checks,
    /// Looks that found where to cut.
    split_checks_hit,
    /// Ranges compacted for their deleted keys.
    compactions,
    /// Times the lock family was compacted.
    lock_compactions,
    /// Generated region snapshots that nobody fetched in time.
    snapshots_expired,
    /// Rounds that took as long as an election timeout.
    slow_rounds,
    /// Splits applied.
    splits,
    /// Peers that splits have made.
    split_born,
    /// Peers among them that replaced one which waited for its data.
    split_replaced,
    /// Peers that a split did not make here, because something newer of the region is known.
    split_skipped,
    /// Writes proposed behind a split of their region, for the part that keeps its id.
    writes_behind_split,
    /// Reads that came while a split was committed and not yet applied.
    reads_behind_split,
    /// Region snapshots refused because another region holds a part of their range.
    snapshots_overlapping,
    /// First messages of regions not yet here that were kept.
    first_messages_kept,
    /// First messages taken up again.
    first_messages_replayed,
    /// Log cuts applied.
    log_cuts,
    /// Leader transfers set in motion.
    transfers,
    /// Proofs held back because an index was on its way twice (R35).
    withheld_proofs,
    /// Replicas taken out of service by a failed checksum.
    quarantined,
    /// Peers visited by ticks of raft.
    ticked_peers,
    /// Peers visited by the other duties that come round, reports to PD excepted: those that
    /// were noted as worth it.
    duty_visits,
    /// Reports on regions to PD that were due.
    region_reports,
    /// Comparisons of replicas begun by leaders of this lane.
    hash_rounds,
    /// Regions hashed.
    hashes_computed,
    /// Regions that could not be hashed.
    hashes_failed,
    /// Replicas found equal to another one.
    hashes_matched,
    /// Hashes that were never compared: their other half did not come in time.
    hashes_missed,
    /// Replicas found different from another one (H75).
    hashes_differing,
    /// Bytes of keys and values applied.
    applied_bytes,
    /// Keys applied.
    applied_keys,
}

impl StoreMetrics {
    pub(crate) fn count_dropped(&mut self, reason: Dropped) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_added_up() {
        let mut sum = StoreMetrics { rounds: 2, ..StoreMetrics::default() };
        let mut other = StoreMetrics { rounds: 3, leaders: 1, ..StoreMetrics::default() };
        other.count_dropped(Dropped::BadIds);
        sum.merge(&other);
        sum.merge(&other);
        assert_eq!((sum.rounds, sum.leaders, sum.dropped[&Dropped::BadIds]), (8, 2, 2));
        let (name, help, value) = sum.counters()[0];
        assert_eq!((name, help, value), ("rounds", " Rounds with something to write.", 8));
    }
}
