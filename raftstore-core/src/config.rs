//! What can be set about a store, which values are allowed, and the defaults.
//!
//! One table (`items.rs`) says for each item its kind, default and range; the rules that
//! bind several items are in [`Config::validate`]. Files are TOML with the items' names in
//! kebab case: durations as text (`"100ms"`, `"10s"`, `"1h30m"`), sizes as text or as a
//! number of bytes (`"96MiB"`, `8388608`). An item that is not set has its default; an
//! item that does not exist is an error.

use std::{fmt, ops::RangeInclusive, time::Duration};

use raftstore_proto::guard;

use self::text::{show_duration, show_size};

mod items;
mod mismatch;
mod text;

pub use items::Config;
pub use mismatch::OnMismatch;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Room a message needs besides its entries: address, epoch, the range's keys.
const MESSAGE_HEADROOM: u64 = 64 * KIB;

/// What is wrong with a configuration. Every variant names the item to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is no TOML.
    #[error("configuration is not TOML: {detail}")]
    Syntax {
        /// Where and why, from the parser.
        detail: String,
    },
    /// There is no such item.
    #[error("unknown item {item}")]
    UnknownItem {
        /// Its name as given.
        item: String,
    },
    /// The value is of another kind than the item.
    #[error("{item} = {value}: expected {expected}")]
    BadValue {
        /// The item.
        item: String,
        /// Its value as given.
        value: String,
        /// What a value looks like.
        expected: &'static str,
    },
    /// The value is outside what is allowed.
    #[error("{item} = {value}: allowed is {allowed}")]
    OutOfRange {
        /// The item.
        item: String,
        /// Its value.
        value: String,
        /// The allowed range.
        allowed: String,
    },
    /// Two items do not go together.
    #[error("{item} = {value} does not go with {other} = {other_value}: {rule}")]
    Contradiction {
        /// The item that breaks the rule.
        item: String,
        /// Its value.
        value: String,
        /// The item that sets the bound.
        other: String,
        /// Its value.
        other_value: String,
        /// The rule.
        rule: &'static str,
    },
}

impl Config {
    /// Settings for stores that share a process, or a fast network with little between them:
    /// time is scaled down, so that a leader is missed, and PD hears of changes, within a
    /// second or two. On a slow disk or network they cost elections for nothing.
    #[must_use]
    pub fn in_process() -> Self {
        Self {
            raft_base_tick_interval: Duration::from_millis(100),
            raft_store_max_leader_lease: Duration::from_millis(900),
            raft_log_gc_tick_interval: Duration::from_secs(2),
            max_peer_down_duration: Duration::from_secs(2),
            pd_heartbeat_tick_interval: Duration::from_millis(500),
            pd_store_heartbeat_tick_interval: Duration::from_millis(500),
            ..Self::default()
        }
    }

    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// Names the item, its value and what is allowed.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError::Syntax { detail: error.to_string().trim_end().replace('\n', " ") }
        })?;
        let config = Self::from_table(&table)?;
        config.validate()?;
        Ok(config)
    }

    /// Takes the items of an already parsed table, defaults for the rest. Not validated.
    ///
    /// # Errors
    /// Names the unknown item, or the one whose value is of the wrong kind.
    pub fn from_table(table: &toml::Table) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (item, value) in table {
            config.set(item, value)?;
        }
        Ok(config)
    }

    /// Checks every item by itself and all rules between items.
    ///
    /// An election timeout other than 10 ticks is only warned about: it is right if, and
    /// only if, every store of the cluster has it.
    ///
    /// # Errors
    /// The first rule broken, with item, value and allowed range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        self.check_raft_timing()?;
        self.check_sizes()?;
        if self.raft_election_timeout_ticks != 10 {
            tracing::warn!(
                ticks = self.raft_election_timeout_ticks,
                "raft-election-timeout-ticks is not 10 and must be the same on every store"
            );
        }
        Ok(())
    }

    fn check_raft_timing(&self) -> Result<(), ConfigError> {
        let base = ("raft-base-tick-interval", show_duration(self.raft_base_tick_interval));
        let election =
            ("raft-election-timeout-ticks", self.raft_election_timeout_ticks.to_string());
        if self.raft_election_timeout_ticks <= self.raft_heartbeat_ticks {
            return Err(contradiction(
                election,
                ("raft-heartbeat-ticks", self.raft_heartbeat_ticks.to_string()),
                "an election timeout is longer than a heartbeat interval",
            ));
        }
        // H34: voters forget a leader one tick before the full timeout.
        let lease_max = times(self.raft_base_tick_interval, self.raft_election_timeout_ticks - 1);
        if self.raft_store_max_leader_lease > lease_max {
            return Err(contradiction(
                ("raft-store-max-leader-lease", show_duration(self.raft_store_max_leader_lease)),
                base,
                "a lease lasts at most base tick x (election ticks - 1)",
            ));
        }
        if self.max_leader_missing_duration < self.election_timeout() * 2 {
            return Err(contradiction(
                ("max-leader-missing-duration", show_duration(self.max_leader_missing_duration)),
                base,
                "a leader is missed after two election timeouts at the earliest",
            ));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        // H69: at equality a region could be cut at an empty key.
        if self.region_max_size <= self.region_split_size {
            return Err(contradiction(
                ("region-max-size", show_size(self.region_max_size)),
                ("region-split-size", show_size(self.region_split_size)),
                "a region is larger than its parts before it is split",
            ));
        }
        if self.region_max_keys <= self.region_split_keys {
            return Err(contradiction(
                ("region-max-keys", self.region_max_keys.to_string()),
                ("region-split-keys", self.region_split_keys.to_string()),
                "a region has more keys than its parts before it is split",
            ));
        }
        if self.max_uncommitted_bytes < self.raft_max_size_per_msg {
            return Err(contradiction(
                ("max-uncommitted-bytes", show_size(self.max_uncommitted_bytes)),
                ("raft-max-size-per-msg", show_size(self.raft_max_size_per_msg)),
                "what one message may carry may wait to be committed",
            ));
        }
        let entry = self.raft_entry_max_size;
        for (item, bytes) in [
            ("max-in-flight-bytes", self.max_in_flight_bytes),
            ("max-uncommitted-bytes", self.max_uncommitted_bytes),
            ("apply-backlog-bytes", self.apply_backlog_bytes),
        ] {
            if bytes < entry {
                return Err(contradiction(
                    (item, show_size(bytes)),
                    ("raft-entry-max-size", show_size(entry)),
                    "one entry of the largest size fits",
                ));
            }
        }
        Ok(())
    }

    /// The shortest time without a leader after which a peer campaigns.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        times(self.raft_base_tick_interval, self.raft_election_timeout_ticks)
    }

    /// How many base ticks `interval` takes, rounded up; 0 if it is zero, which is "off".
    ///
    /// # Panics
    /// If the base tick is zero, which no validated configuration has.
    #[must_use]
    pub fn ticks(&self, interval: Duration) -> u64 {
        let base = self.raft_base_tick_interval.as_nanos();
        assert!(base > 0, "the base tick is never zero");
        u64::try_from(interval.as_nanos().div_ceil(base)).unwrap_or(u64::MAX)
    }
}

impl<'de> serde::Deserialize<'de> for Config {
    /// Reads the items of a table, for a configuration that holds this one. Validated.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        let config = Self::from_table(&table).map_err(serde::de::Error::custom)?;
        config.validate().map_err(serde::de::Error::custom)?;
        Ok(config)
    }
}

fn times(tick: Duration, count: usize) -> Duration {
    tick.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Longest entry that, alone in a message, still passes the receiver's limit.
pub(crate) fn entry_size_max() -> u64 {
    guard::Limits::default().message_bytes as u64 - MESSAGE_HEADROOM
}

fn contradiction(
    (item, value): (&str, String),
    (other, other_value): (&str, String),
    rule: &'static str,
) -> ConfigError {
    ConfigError::Contradiction {
        item: item.to_owned(),
        value,
        other: other.to_owned(),
        other_value,
        rule,
    }
}

fn in_range<T: PartialOrd>(
    item: &str,
    value: &T,
    allowed: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), ConfigError> {
    if allowed.contains(value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        item: item.to_owned(),
        value: show(value),
        allowed: format!("{} to {}", show(allowed.start()), show(allowed.end())),
    })
}

fn bad_value(item: &str, value: impl fmt::Display, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { item: item.to_owned(), value: value.to_string(), expected }
}

#[cfg(test)]
mod tests;
