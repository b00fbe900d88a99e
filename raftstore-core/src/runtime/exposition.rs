//! Writes the figures of a node in the text format that Prometheus reads.

use std::fmt::Write as _;

use super::{counters::NodeCounters, timings::Timings};
use crate::metrics::{BUCKETS, Histogram, StoreMetrics};

/// Before every name.
const PREFIX: &str = "raftstore";

/// A text being written.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.trim().replace('\\', "\\\\").replace('\n', " ");
        writeln!(self.0, "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}")
            .expect("writing to a string");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{PREFIX}_{name}{labels} {value}").expect("writing to a string");
    }

    fn single(&mut self, name: &str, help: &str, kind: &str, value: u64) {
        self.head(name, help, kind);
        self.value(name, "", value);
    }

    /// `unit` values make one of what the name says, seconds out of microseconds for instance.
    fn histogram<const BASE: u64>(
        &mut self,
        name: &str,
        help: &str,
        unit: f64,
        values: &Histogram<BASE>,
    ) {
        self.head(name, help, "histogram");
        let mut cumulated = 0;
        for bucket in 0..BUCKETS {
            cumulated += values.counts[bucket];
            let bound = Histogram::<BASE>::bound(bucket) as f64 / unit;
            self.value(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), cumulated);
        }
        self.value(&format!("{name}_bucket"), "{le=\"+Inf\"}", values.total);
        self.value(&format!("{name}_sum"), "", values.sum as f64 / unit);
        self.value(&format!("{name}_count"), "", values.total);
    }
}

/// `SomeReason` as `some_reason`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// All figures of a node. `lanes` are added up.
pub(super) fn exposition(
    lanes: &[StoreMetrics],
    counters: &NodeCounters,
    timings: &Timings,
) -> String {
    let mut store = StoreMetrics::default();
    for lane in lanes {
        store.merge(lane);
    }
    let mut text = Exposition::default();
    for (name, help, value) in store.counters() {
        text.single(&format!("{name}_total"), help, "counter", value);
    }
    for (name, help, value) in counters.named() {
        text.single(&format!("node_{name}_total"), help, "counter", value);
    }
    let name = "raft_dropped_messages_total";
    text.head(name, "Messages not acted on, by reason.", "counter");
    for (reason, count) in &store.dropped {
        let reason = snake(&format!("{reason:?}"));
        text.value(name, &format!("{{reason=\"{reason}\"}}"), count);
    }
    let name = "raft_sent_messages_total";
    text.head(name, "Messages given to the transport, by kind.", "counter");
    for (kind, count) in store.sent.iter() {
        text.value(name, &format!("{{kind=\"{}\"}}", kind.name()), count);
    }
    text.single("regions", "Regions with data on this store.", "gauge", store.regions);
    text.single("leaders", "Regions led by this store.", "gauge", store.leaders);
    text.histogram("proposal_bytes", "Sizes of proposals.", 1.0, &store.proposal_bytes);
    let help = "From the proposal of an entry until it was committed.";
    text.histogram("commit_seconds", help, 1e6, &store.commit_micros);
    let help = "Entries by which the slowest member of a led region lags.";
    text.histogram("log_lag_entries", help, 1.0, &store.log_lag);
    for (name, help, values) in timings.named() {
        text.histogram(&format!("{name}_seconds"), help, 1e6, &values);
    }
    text.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Dropped;

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let mut lane = StoreMetrics { rounds: 3, leaders: 2, ..StoreMetrics::default() };
        lane.dropped.insert(Dropped::WrongStore, 4);
        for _ in 0..5 {
            lane.sent.count(raftstore_proto::MessageKind::Heartbeat);
        }
        lane.proposal_bytes.record(300);
        let timings = Timings::default();
        timings.append.record(Duration::from_micros(700));
        let text = exposition(&[lane.clone(), lane], &NodeCounters::default(), &timings);
        for line in text.lines() {
            let sample = line.rsplit_once(' ').is_some_and(|(name, value)| {
                name.starts_with("raftstore_") && value.parse::<f64>().is_ok()
            });
            assert!(line.starts_with("# HELP ") || line.starts_with("# TYPE ") || sample, "{line}");
        }
        for expected in [
            "raftstore_rounds_total 6",
            "raftstore_raft_dropped_messages_total{reason=\"wrong_store\"} 8",
            "raftstore_raft_sent_messages_total{kind=\"heartbeat\"} 10",
            "raftstore_leaders 4",
            "raftstore_proposal_bytes_bucket{le=\"256\"} 0",
            "raftstore_proposal_bytes_bucket{le=\"512\"} 2",
            "raftstore_proposal_bytes_sum 600",
            "raftstore_append_seconds_bucket{le=\"0.0005\"} 0",
            "raftstore_append_seconds_bucket{le=\"0.001\"} 1",
            "raftstore_append_seconds_count 1",
        ] {
            assert!(text.lines().any(|line| line == expected), "no {expected}");
        }
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "a name is used twice");
    }
}
