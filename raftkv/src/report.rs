//! The outcome of a demo, as a table for people and as JSON for programs.

use std::{fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;

use crate::regions::RegionMap;

/// Latencies in nanoseconds.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let hour = 3_600_000_000_000;
        Self(Histogram::new_with_bounds(1, hour, 3).expect("the bounds and digits are allowed"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    fn at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }
}

/// Reads of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadBack {
    /// Keys read.
    pub(crate) keys: u64,
    /// Keys whose value was not what was acknowledged.
    pub(crate) missing: u64,
    /// How long it took.
    pub(crate) time: Duration,
}

/// What became of the regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    /// Times a region was cut off from another.
    pub(crate) splits: u64,
    /// Members that came, became voters, or went.
    pub(crate) membership_changes: u64,
    /// The regions right before the outage; `None` if there was none.
    pub(crate) before: Option<RegionMap>,
    /// The regions at the end.
    pub(crate) end: RegionMap,
}

/// Everything a demo has to tell.
pub(crate) struct Report {
    pub(crate) engine: &'static str,
    pub(crate) stores: u64,
    pub(crate) in_flight: usize,
    pub(crate) old: ReadBack,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) retries: u64,
    pub(crate) load_time: Duration,
    /// From the cut of the leading store until it had caught up; `None` if none was cut.
    pub(crate) outage: Option<Duration>,
    /// The longest pause between two acknowledgements after the cut.
    pub(crate) pause: Option<Duration>,
    /// Acknowledged outside the outage, and in what time.
    pub(crate) quiet: (u64, Duration),
    pub(crate) latencies: Latencies,
    pub(crate) quiet_latencies: Latencies,
    /// Syncs of the raft logs of all stores outside the outage.
    pub(crate) log_syncs: u64,
    pub(crate) sync_latency: Option<Duration>,
    pub(crate) elections: u64,
    pub(crate) snapshots: u64,
    pub(crate) log_entries: u64,
    /// Files checked as a whole at an open after an unclean stop.
    pub(crate) checked_files: u64,
    /// Pages compared with what was written, while the stores ran.
    pub(crate) swept_pages: u64,
    pub(crate) damaged_pages: u64,
    pub(crate) transfers: u64,
    pub(crate) regions: Regions,
    pub(crate) lease_reads: ReadBack,
    pub(crate) index_reads: ReadBack,
    pub(crate) replicas_equal: bool,
    pub(crate) disk_bytes: Vec<u64>,
    pub(crate) peak_memory_bytes: Option<u64>,
}

impl Report {
    /// Whether nothing acknowledged is missing or damaged and all replicas are equal.
    pub(crate) const fn is_good(&self) -> bool {
        self.missing() == 0 && self.replicas_equal && self.damaged_pages == 0
    }

    const fn missing(&self) -> u64 {
        self.old.missing + self.lease_reads.missing + self.index_reads.missing
    }

    fn syncs_per_1000(&self) -> f64 {
        per(self.log_syncs as f64 * 1000.0, self.quiet.0 as f64)
    }

    fn rate(&self) -> f64 {
        per(self.records as f64, self.load_time.as_secs_f64())
    }

    fn quiet_rate(&self) -> f64 {
        per(self.quiet.0 as f64, self.quiet.1.as_secs_f64())
    }

    /// Tables: of the regions, and one of two columns.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<(&str, String)> = Vec::new();
        rows.push(("cluster", format!("{} stores on {}", self.stores, self.engine)));
        if self.old.keys > 0 {
            rows.push(("records of earlier runs, verified", read_back(&self.old)));
        }
        rows.push(("records acknowledged", grouped(self.records)));
        rows.push(("bytes of keys and values", size(self.bytes)));
        rows.push(("writes sent again", grouped(self.retries)));
        rows.push(("writes/s, whole load", format!("{:.0}", self.rate())));
        rows.push(("writes/s, outage left out", format!("{:.0}", self.quiet_rate())));
        rows.push(("requests in flight", self.in_flight.to_string()));
        rows.push(("latency p50 / p99 / p999", quantiles(&self.latencies)));
        rows.push(("the same, outage left out", quantiles(&self.quiet_latencies)));
        if let Some(latency) = self.sync_latency {
            rows.push(("sync latency of this disk", millis(latency)));
        }
        if let (Some(outage), Some(pause)) = (self.outage, self.pause) {
            rows.push(("outage until caught up", millis(outage)));
            rows.push(("longest pause of writes in it", millis(pause)));
        }
        rows.push(("raft-log syncs per 1,000 writes", format!("{:.1}", self.syncs_per_1000())));
        rows.push(("regions", grouped(self.regions.end.regions().len() as u64)));
        rows.push(("splits", grouped(self.regions.splits)));
        rows.push(("leader transfers", grouped(self.transfers)));
        rows.push(("membership changes", grouped(self.regions.membership_changes)));
        rows.push(("elections", grouped(self.elections)));
        rows.push(("snapshots installed", grouped(self.snapshots)));
        rows.push(("log entries appended", grouped(self.log_entries)));
        rows.push(("read back by lease", read_back(&self.lease_reads)));
        rows.push(("read back by read index", read_back(&self.index_reads)));
        let equal = if self.replicas_equal { "equal" } else { "DIFFERENT" };
        rows.push(("replicas", equal.to_owned()));
        rows.push(("files checked after unclean stops", grouped(self.checked_files)));
        let damaged = match self.damaged_pages {
            0 => "none damaged".to_owned(),
            damaged => format!("{} DAMAGED", grouped(damaged)),
        };
        rows.push(("pages swept", format!("{}, {damaged}", grouped(self.swept_pages))));
        if !self.disk_bytes.is_empty() {
            let sizes: Vec<String> = self.disk_bytes.iter().map(|bytes| size(*bytes)).collect();
            rows.push(("on disk per store", sizes.join(", ")));
        }
        let memory = self.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), size);
        rows.push(("peak memory", memory));
        let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
        let mut out = String::new();
        let mut line = |line: &str| writeln!(out, "{line}").expect("writing to a string");
        if let Some(before) = &self.regions.before {
            line("regions before the power cut");
            line(&before.table());
        }
        line("regions at the end");
        line(&self.regions.end.table());
        for (label, value) in rows {
            line(&format!("{label:<width$}  {value}"));
        }
        out
    }

    /// The same as one JSON object, a field a line. Times are in microseconds.
    pub(crate) fn json(&self) -> String {
        let mut fields: Vec<(&str, String)> = Vec::new();
        let mut number = |name, value: u64| fields.push((name, value.to_string()));
        number("stores", self.stores);
        number("in_flight", self.in_flight as u64);
        number("old_records_verified", self.old.keys - self.old.missing);
        number("records_acknowledged", self.records);
        number("bytes", self.bytes);
        number("retries", self.retries);
        number("load_us", micros(self.load_time));
        number("outage_us", self.outage.map_or(0, micros));
        number("longest_pause_us", self.pause.map_or(0, micros));
        let all = ["p50_us", "p99_us", "p999_us"];
        let quiet = ["quiet_p50_us", "quiet_p99_us", "quiet_p999_us"];
        for (names, latencies) in [(all, &self.latencies), (quiet, &self.quiet_latencies)] {
            for (name, quantile) in names.into_iter().zip([0.5, 0.99, 0.999]) {
                number(name, micros(latencies.at(quantile)));
            }
        }
        number("sync_latency_us", self.sync_latency.map_or(0, micros));
        number("raft_log_syncs", self.log_syncs);
        number("regions", self.regions.end.regions().len() as u64);
        number("splits", self.regions.splits);
        number("leader_transfers", self.transfers);
        number("membership_changes", self.regions.membership_changes);
        number("elections", self.elections);
        number("snapshots_installed", self.snapshots);
        number("log_entries", self.log_entries);
        number("checked_files", self.checked_files);
        number("swept_pages", self.swept_pages);
        number("damaged_pages", self.damaged_pages);
        number("lease_reads", self.lease_reads.keys);
        number("lease_read_us", micros(self.lease_reads.time));
        number("index_reads", self.index_reads.keys);
        number("index_read_us", micros(self.index_reads.time));
        number("missing", self.missing());
        number("peak_memory_bytes", self.peak_memory_bytes.unwrap_or_default());
        fields.push(("engine", format!("\"{}\"", self.engine)));
        fields.push(("replicas_equal", self.replicas_equal.to_string()));
        fields.push(("writes_per_second", format!("{:.1}", self.rate())));
        fields.push(("quiet_writes_per_second", format!("{:.1}", self.quiet_rate())));
        fields.push(("raft_log_syncs_per_1000_writes", format!("{:.2}", self.syncs_per_1000())));
        let disks: Vec<String> = self.disk_bytes.iter().map(u64::to_string).collect();
        fields.push(("disk_bytes", format!("[{}]", disks.join(", "))));
        let before = self.regions.before.as_ref().map(RegionMap::json);
        fields.push(("regions_before_outage", before.unwrap_or_else(|| "[]".to_owned())));
        fields.push(("regions_at_end", self.regions.end.json()));
        let lines: Vec<String> =
            fields.iter().map(|(name, value)| format!("  \"{name}\": {value}")).collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn quantiles(latencies: &Latencies) -> String {
    [0.5, 0.99, 0.999].map(|quantile| millis(latencies.at(quantile))).join(" / ")
}

fn read_back(read: &ReadBack) -> String {
    let rate = per(read.keys as f64, read.time.as_secs_f64());
    let missing = match read.missing {
        0 => "none missing".to_owned(),
        missing => format!("{} MISSING", grouped(missing)),
    };
    format!("{}, {missing}, {rate:.0}/s", grouped(read.keys))
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut latencies = Latencies::new();
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        let read = ReadBack { keys: 1000, missing: 0, time: Duration::from_millis(10) };
        Report {
            engine: "redb",
            stores: 3,
            in_flight: 256,
            old: ReadBack::default(),
            records: 1_234_567,
            bytes: 3 << 20,
            retries: 9,
            load_time: Duration::from_secs(10),
            outage: Some(Duration::from_secs(4)),
            pause: Some(Duration::from_millis(900)),
            quiet: (500_000, Duration::from_secs(5)),
            latencies,
            quiet_latencies: Latencies::new(),
            log_syncs: 10_000,
            sync_latency: None,
            elections: 2,
            snapshots: 1,
            log_entries: 5,
            checked_files: 2,
            swept_pages: 5_120,
            damaged_pages: 0,
            transfers: 4,
            regions: Regions::default(),
            lease_reads: read,
            index_reads: read,
            replicas_equal: true,
            disk_bytes: vec![1, 2, 3],
            peak_memory_bytes: Some(200 << 20),
        }
    }

    #[test]
    fn the_table_shows_rates_and_counts() {
        let table = report().table();
        for part in ["1,234,567", "100000", "20.0", "200.0 MiB", "50.0", "equal", "at the end"] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
    }

    #[test]
    fn the_json_has_a_field_a_line() {
        let json = report().json();
        for line in [
            "\"records_acknowledged\": 1234567,",
            "\"raft_log_syncs_per_1000_writes\": 20.00,",
            "\"leader_transfers\": 4,",
            "\"disk_bytes\": [1, 2, 3],",
            "\"regions_at_end\": []",
        ] {
            assert!(json.lines().any(|found| found.trim() == line), "{line} is not in\n{json}");
        }
    }

    #[test]
    fn anything_missing_or_different_is_bad() {
        assert!(report().is_good());
        let mut bad = report();
        bad.replicas_equal = false;
        assert!(!bad.is_good());
        let mut bad = report();
        bad.index_reads.missing = 1;
        assert!(!bad.is_good());
        let mut bad = report();
        bad.damaged_pages = 1;
        assert!(!bad.is_good());
        assert!(bad.table().contains("1 DAMAGED"));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([grouped(7), grouped(1000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([size(9), size(2048), size(5 << 30)], ["9 B", "2.0 KiB", "5.0 GiB"]);
    }
}
