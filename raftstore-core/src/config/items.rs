//! The table of items: name, kind, default, range.

use std::time::Duration;

use super::{
    ConfigError, KIB, MIB, OnMismatch, TIB, bad_value, entry_size_max, in_range,
    text::{DURATION_SHAPE, SIZE_SHAPE, parse_duration, parse_size, show_duration, show_size},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const OFF: Duration = Duration::ZERO;

/// Largest number of things that are counted one by one.
const MANY: u64 = 1 << 40;

/// How an item of one kind is read from a file, and shown.
macro_rules! kind {
    (duration, $item:expr, $value:expr) => {
        match $value {
            toml::Value::String(text) => parse_duration(text),
            toml::Value::Integer(0) => Some(Duration::ZERO),
            _ => None,
        }
        .ok_or_else(|| bad_value($item, $value, DURATION_SHAPE))
    };
    (size, $item:expr, $value:expr) => {
        match $value {
            toml::Value::String(text) => parse_size(text),
            toml::Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            _ => None,
        }
        .ok_or_else(|| bad_value($item, $value, SIZE_SHAPE))
    };
    (count, $item:expr, $value:expr) => {
        $value
            .as_integer()
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| bad_value($item, $value, "a whole number, not negative"))
    };
    (flag, $item:expr, $value:expr) => {
        $value.as_bool().ok_or_else(|| bad_value($item, $value, "true or false"))
    };
    (reaction, $item:expr, $value:expr) => {
        $value
            .as_str()
            .and_then(OnMismatch::from_name)
            .ok_or_else(|| bad_value($item, $value, OnMismatch::NAMES))
    };
    (text, $item:expr, $value:expr) => {
        $value.as_str().map(str::to_owned).ok_or_else(|| bad_value($item, $value, "text"))
    };
    (seed, $item:expr, $value:expr) => {
        $value
            .as_integer()
            .map(i64::cast_unsigned)
            .ok_or_else(|| bad_value($item, $value, "a whole number"))
    };
    (number duration, $value:expr) => {
        $value.as_nanos()
    };
    (number $kind:ident, $value:expr) => {
        u128::try_from(*$value).expect("not negative")
    };
    (show duration, $value:expr) => {
        show_duration(*$value)
    };
    (show size, $value:expr) => {
        show_size(*$value)
    };
    (show count, $value:expr) => {
        $value.to_string()
    };
}

macro_rules! items {
    ($($(#[$doc:meta])* $field:ident: $type:ty, $kind:ident = $default:expr $(, $range:expr)?;)*) => {
        /// Everything that can be set about a store.
        ///
        /// *Units*: sizes in bytes. [`Config::default`] suits production; values built by
        /// hand pass [`Config::validate`] before they are used.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Config {
            /// The items' names as in files.
            #[must_use]
            pub fn item_names() -> Vec<String> {
                vec![$(kebab(stringify!($field)),)*]
            }

            /// Sets one item from its value in a file.
            pub(super) fn set(
                &mut self,
                item: &str,
                value: &toml::Value,
            ) -> Result<(), ConfigError> {
                $(if is_named(item, stringify!($field)) {
                    self.$field = kind!($kind, item, value)?;
                    return Ok(());
                })*
                Err(ConfigError::UnknownItem { item: item.to_owned() })
            }

            /// Checks each item by itself.
            pub(super) fn check_ranges(&self) -> Result<(), ConfigError> {
                $($(in_range(
                    &kebab(stringify!($field)),
                    &self.$field,
                    &$range,
                    |value| kind!(show $kind, value),
                )?;)?)*
                Ok(())
            }
        }

        /// Name, kind, least and largest value of every item that has a range.
        #[cfg(test)]
        pub(super) fn ranges() -> Vec<(String, &'static str, u128, u128)> {
            vec![$($((
                kebab(stringify!($field)),
                stringify!($kind),
                kind!(number $kind, $range.start()),
                kind!(number $kind, $range.end()),
            ),)?)*]
        }
    };
}

items! {
    /// Directory of the raft log; empty is `raft` inside the data directory.
    raftdb_path: String, text = String::new();
    /// Bytes the store claims to have; 0 is what the device has.
    capacity: u64, size = 0, 0..=1024 * TIB;
    /// Bytes to keep free: with less than twice as many left a store takes no new data, with
    /// less than that only what frees space. Looked at with each report to PD; zero is off.
    reserve_space: u64, size = 0, 0..=1024 * TIB;

    /// One raft tick. The only tick that cannot be turned off.
    raft_base_tick_interval: Duration, duration = SECOND, MS..=MINUTE;
    /// Base ticks between two heartbeats of a leader.
    raft_heartbeat_ticks: usize, count = 2, 1..=1_000;
    /// Base ticks without a leader before a peer campaigns; drawn from this up to twice
    /// this. The same on every store of a cluster.
    raft_election_timeout_ticks: usize, count = 10, 2..=10_000;
    /// Entries one append message carries, in bytes; a single larger entry goes alone.
    raft_max_size_per_msg: u64, size = MIB, 1..=entry_size_max();
    /// Append messages on their way to one follower.
    raft_max_inflight_msgs: usize, count = 256, 1..=16_384;
    /// Largest proposal.
    raft_entry_max_size: u64, size = 8 * MIB, 1..=entry_size_max();
    /// Largest lease of a leader; zero turns lease reads off.
    raft_store_max_leader_lease: Duration, duration = Duration::from_secs(9), OFF..=HOUR;

    /// Time after which a leader leaves a joint configuration that nobody else has left; zero
    /// leaves that to PD and clients.
    leave_joint_after: Duration, duration = SECOND, OFF..=HOUR;

    /// How often a leader looks for log to cut; zero is off.
    raft_log_gc_tick_interval: Duration, duration = Duration::from_secs(10), OFF..=YEAR;
    /// Entries worth cutting off.
    raft_log_gc_threshold: u64, count = 50, 1..=MANY;
    /// Entries beyond which the log is cut even if a follower needs it.
    raft_log_gc_count_limit: u64, count = 73_728, 1..=MANY;
    /// Log bytes beyond which the log is cut even if a follower needs it.
    raft_log_gc_size_limit: u64, size = 72 * MIB, 1..=1024 * TIB;

    /// How often regions are checked for a split; zero is off.
    split_region_check_tick_interval: Duration, duration = Duration::from_secs(10), OFF..=YEAR;
    /// Size from which a region is split.
    region_max_size: u64, size = 144 * MIB, 2..=1024 * TIB;
    /// Size of the parts.
    region_split_size: u64, size = 96 * MIB, 1..=1024 * TIB;
    /// Keys from which a region is split.
    region_max_keys: u64, count = 1_440_000, 2..=MANY;
    /// Keys of the parts.
    region_split_keys: u64, count = 960_000, 1..=MANY;
    /// Growth that makes a region worth checking.
    region_split_check_diff: u64, size = 6 * MIB, 1..=1024 * TIB;
    /// Whether the right part of a split keeps the region's id.
    right_derive_when_split: bool, flag = true;
    /// How often regions are checked for compaction; zero is off.
    region_compact_check_interval: Duration, duration = OFF, OFF..=YEAR;
    /// Deleted keys that make a region worth compacting.
    region_compact_delete_keys_count: u64, count = 1_000_000, 1..=MANY;

    /// How often a leader reports to PD; zero is off.
    pd_heartbeat_tick_interval: Duration, duration = MINUTE, OFF..=YEAR;
    /// How often the store reports to PD; zero is off.
    pd_store_heartbeat_tick_interval: Duration, duration = Duration::from_secs(10), OFF..=YEAR;
    /// How often region snapshots at rest are looked through; zero is off.
    snap_mgr_gc_tick_interval: Duration, duration = MINUTE, OFF..=YEAR;
    /// Age at which a region snapshot that nobody fetched is removed.
    snap_gc_timeout: Duration, duration = Duration::from_secs(4 * 3_600), MS..=YEAR;
    /// How often the lock family is compacted; zero is off.
    lock_cf_compact_interval: Duration, duration = Duration::from_secs(600), OFF..=YEAR;
    /// Bytes written to the lock family that make it worth compacting.
    lock_cf_compact_bytes_threshold: u64, size = 256 * MIB, 1..=1024 * TIB;
    /// How often a store compares the replicas of one of the regions that it leads, those
    /// first whose last comparison is oldest; zero is off.
    consistency_check_interval: Duration, duration = OFF, OFF..=YEAR;
    /// What a store does that holds other data than another replica.
    consistency_mismatch: OnMismatch, reaction = OnMismatch::Stop;
    /// How long what was hashed last is kept, so that it can be found out where replicas
    /// differ; zero is not at all. The data engine cannot give back the space meanwhile.
    consistency_keep: Duration, duration = MINUTE, OFF..=HOUR;
    /// Bytes hashed between two looks at what else is to be done.
    consistency_slice: u64, size = MIB, 4 * KIB..=TIB;
    /// How often region flow is reported. Kept for files that have it; nothing uses it.
    report_region_flow_interval: Duration, duration = MINUTE, OFF..=YEAR;

    /// Events that may wait for the store.
    notify_capacity: usize, count = 40_960, 1..=1 << 30;
    /// Events taken in one turn.
    messages_per_tick: usize, count = 4_096, 1..=1 << 30;
    /// Silence after which a leader reports a peer as down.
    max_peer_down_duration: Duration, duration = Duration::from_secs(300), MS..=YEAR;
    /// Time without a leader after which a peer asks PD whether it is still a member.
    max_leader_missing_duration: Duration, duration = Duration::from_secs(2 * 3_600), MS..=YEAR;
    /// Bytes per write while a region snapshot is installed.
    snap_apply_batch_size: u64, size = 10 * MIB, 1..=TIB;
    /// Bytes per chunk of a region snapshot.
    snapshot_chunk_bytes: u64, size = MIB, 4 * KIB..=entry_size_max();

    /// Threads that share the store's regions.
    lanes: u16, count = 1, 1..=256;
    /// Rounds of one lane that may wait for the disk.
    max_rounds_in_flight: usize, count = 1_024, 1..=65_536;
    /// Bytes of log writes of one lane that may wait for the disk.
    max_in_flight_bytes: u64, size = 64 * MIB, 1..=TIB;
    /// Bytes of committed entries that may wait to be executed, over all regions.
    apply_backlog_bytes: u64, size = 64 * MIB, 1..=TIB;
    /// How often the data engine is made durable while anything was written.
    kv_sync_interval: Duration, duration = Duration::from_millis(100), MS..=MINUTE;
    /// Written bytes after which the data engine is made durable at once.
    kv_sync_bytes: u64, size = 8 * MIB, 1..=TIB;
    /// Memory for recent log entries, over all regions.
    entry_cache_bytes: u64, size = 128 * MIB, 0..=TIB;
    /// Recent log entries kept per peer. Not fewer than a few appends: followers are
    /// served from here.
    peer_entry_cache_count: usize, count = 1_024, 1..=1 << 30;
    /// Committed entries handed out at once per region, in bytes.
    max_committed_size_per_ready: u64, size = 4 * MIB, 1..=TIB;
    /// Proposed and not yet committed bytes per region.
    max_uncommitted_bytes: u64, size = 64 * MIB, 1..=TIB;
    /// What election timeouts are drawn from, together with the peer's id.
    seed: u64, seed = 0;
}

fn kebab(field: &str) -> String {
    field.replace('_', "-")
}

fn is_named(item: &str, field: &str) -> bool {
    item.len() == field.len()
        && item.bytes().zip(field.bytes()).all(|(a, b)| a == if b == b'_' { b'-' } else { b })
}
