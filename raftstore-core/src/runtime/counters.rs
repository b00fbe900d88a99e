//! Decides what a node counts about its own threads. Lanes count their regions' work
//! themselves, see [`StoreMetrics`](crate::StoreMetrics).

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident,)*) => {
        /// What a node has done since it was started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct NodeCounters {
            $($(#[doc = $doc])+ pub $field: u64,)*
        }

        impl NodeCounters {
            /// Every counter: its name, what it counts, its value.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), concat!($($doc),+), self.$field),)*]
            }
        }

        /// The same, while it is being counted.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $field: Counter,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> NodeCounters {
                NodeCounters { $($field: self.$field.get(),)* }
            }
        }
    };
}

counters! {
    /// Commands taken in, local reads included.
    commands,
    /// Reads served without the store thread.
    local_reads,
    /// Commands refused because a queue was full.
    refused_commands,
    /// Messages from other stores lost because a queue was full.
    lost_messages,
    /// Answers given.
    answers,
    /// Writes among them that succeeded.
    acknowledged_writes,
    /// Rounds carried out by the writer.
    rounds,
    /// Groups of rounds, each written with at most one sync.
    groups,
    /// Groups that ended with a sync of the raft log.
    log_syncs,
    /// Bytes given to the raft log.
    log_bytes,
    /// Syncs of the data engine.
    kv_syncs,
    /// Messages given to the transport.
    sent_messages,
    /// Messages the transport did not take.
    unsent_messages,
    /// Region snapshots built.
    snapshots_built,
    /// Region snapshots that could not be built.
    snapshots_failed,
    /// Region snapshots installed.
    snapshots_installed,
    /// Ranges that the data engine was asked to compact.
    compactions,
    /// Bytes of keys and values written while installing.
    installed_bytes,
    /// Regions hashed, to be compared with other replicas.
    regions_hashed,
    /// Questions and reports to PD that were answered.
    pd_answers,
    /// Questions and reports to PD that failed.
    pd_failures,
}

/// One number that threads add to.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
