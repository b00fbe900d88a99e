//! What a transport counts, and the text that Prometheus reads.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident,)*) => {
        /// What a transport has done so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct GrpcCounters {
            $($(#[doc = $doc])+ pub $field: u64,)*
            /// Calls and messages of others that were refused, by reason.
            pub refused: [u64; Refusal::ALL.len()],
        }

        impl GrpcCounters {
            /// Every counter but the refusals: its name, what it counts, its value.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), concat!($($doc),+), self.$field),)*]
            }
        }

        /// The same, while it is being counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: Counter,)*
            refused: [Counter; Refusal::ALL.len()],
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> GrpcCounters {
                GrpcCounters {
                    $($field: self.$field.get(),)*
                    refused: std::array::from_fn(|at| self.refused[at].get()),
                }
            }
        }
    };
}

counters! {
    /// Messages taken, without those that announce snapshots.
    taken_messages,
    /// Messages not taken because a queue was full.
    full_messages,
    /// Messages not taken because the store cannot be reached.
    unreachable_messages,
    /// Messages not taken because no receiver would accept their length.
    too_large_messages,
    /// Messages lost on their way, as far as that is known.
    lost_messages,
    /// Batches sent.
    sent_batches,
    /// Messages in them.
    sent_messages,
    /// Bytes of messages in them, near enough.
    sent_bytes,
    /// Streams opened to other stores.
    opened_streams,
    /// Attempts to open one that failed.
    failed_connects,
    /// Among them, those that the other store refused.
    refused_connects,
    /// Streams to other stores that broke.
    broken_streams,
    /// Times the resolver was asked where a store is.
    lookups,
    /// Times it did not know.
    failed_lookups,
    /// Streams of other stores accepted.
    accepted_streams,
    /// Streams ended because the same store opened them anew.
    replaced_streams,
    /// Streams ended because they brought nothing.
    idle_streams,
    /// Frames received.
    received_frames,
    /// Messages received and handed over.
    received_messages,
    /// Calls of the store that panicked.
    inbox_panics,
    /// Snapshots delivered to other stores.
    snapshots_sent,
    /// Snapshots not delivered.
    snapshots_send_failed,
    /// Bytes of snapshots sent.
    snapshot_sent_bytes,
    /// Transfers that went on where an earlier attempt had stopped.
    snapshots_resumed,
    /// Snapshots received and handed over.
    snapshots_received,
    /// Attempts of other stores to send one that did not end well.
    snapshots_receive_failed,
    /// Bytes of snapshots received.
    snapshot_received_bytes,
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)*) => {
        /// Why something that another store sent was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name, for metrics and for the other store.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

refusals! {
    /// The caller does not say who it is, or not in a way that is understood.
    Unidentified = "unidentified",
    /// It speaks another version of the protocol.
    Protocol = "protocol",
    /// It belongs to another cluster.
    Cluster = "cluster",
    /// It means another store.
    Store = "store",
    /// Its certificate is not one of a store.
    Certificate = "certificate",
    /// The store is not running, or about to stop.
    NotServing = "not_serving",
    /// Too many streams are open.
    TooManyStreams = "too_many_streams",
    /// The first message did not come in time.
    Slow = "slow",
    /// Bytes that are no message, or that would take too much memory.
    Malformed = "malformed",
    /// A frame that is too long.
    TooLarge = "too_large",
    /// A message that is not from the store that sends it.
    ForgedSender = "forged_sender",
    /// A message for another store.
    Misdirected = "misdirected",
    /// A message that raft sends to itself only.
    Local = "local",
    /// The announcement of a snapshot without the snapshot.
    NoSnapshot = "no_snapshot",
    /// A snapshot, while too many others are being received.
    SnapshotBusy = "snapshot_busy",
    /// A snapshot that is longer than allowed, or than it said.
    SnapshotSize = "snapshot_size",
    /// A snapshot in pieces that do not fit together.
    SnapshotOrder = "snapshot_order",
    /// A snapshot that fails its checksum.
    SnapshotChecksum = "snapshot_checksum",
    /// A snapshot that the medium did not take.
    SnapshotMedium = "snapshot_medium",
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].add(1);
    }
}

impl GrpcCounters {
    /// How often something was refused for this reason.
    #[must_use]
    pub const fn refused_for(&self, why: Refusal) -> u64 {
        self.refused[why as usize]
    }

    /// The counters in the text format that Prometheus reads.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, help: &str| {
            let help = help.trim();
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter")
                .expect("writing to a string");
        };
        for (name, help, value) in self.named() {
            let name = format!("raftstore_grpc_{name}_total");
            head(&mut text, &name, help);
            writeln!(text, "{name} {value}").expect("writing to a string");
        }
        let name = "raftstore_grpc_refused_total";
        head(&mut text, name, "What other stores sent and was refused, by reason.");
        for why in Refusal::ALL {
            let value = self.refused_for(*why);
            writeln!(text, "{name}{{reason=\"{}\"}} {value}", why.name())
                .expect("writing to a string");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_and_no_name_comes_twice() {
        let counters = Counters::default();
        counters.sent_batches.add(3);
        counters.refuse(Refusal::Cluster);
        counters.refuse(Refusal::SnapshotMedium);
        let text = counters.snapshot().exposition();
        let mut names = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ") {
                assert!(!names.contains(&name), "{name} twice");
                names.push(name);
                continue;
            }
            let sample = line.rsplit_once(' ').is_some_and(|(name, value)| {
                name.starts_with("raftstore_grpc_") && value.parse::<u64>().is_ok()
            });
            assert!(line.starts_with("# HELP ") || sample, "{line}");
        }
        for expected in [
            "raftstore_grpc_sent_batches_total 3",
            "raftstore_grpc_refused_total{reason=\"cluster\"} 1",
            "raftstore_grpc_refused_total{reason=\"store\"} 0",
            "raftstore_grpc_refused_total{reason=\"snapshot_medium\"} 1",
        ] {
            assert!(text.lines().any(|line| line == expected), "no {expected}");
        }
    }
}
