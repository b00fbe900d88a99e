//! What the in-process PD aims for, and how fast it may go there.

use crate::{Error, Result};

/// More replicas would make every write wait for a crowd.
const REPLICAS_MAX: usize = 32;
/// Levels of placement that can be told apart.
pub(super) const LABELS_MAX: usize = 5;
/// A difference of one cannot be made smaller.
const TOLERANCE_MIN: u64 = 2;
/// Below it, regions that are all written to alike would be hot.
const HOT_FACTOR_MIN: u64 = 2;

/// Aims and limits of a [`PdCore`](super::PdCore). The defaults suit production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PdConfig {
    /// Voters each region shall have, 1 to 32.
    pub max_replicas: usize,
    /// Whether PD makes orders by itself; without, only what it is told to do is ordered.
    pub schedule: bool,
    /// Whether leaders are spread evenly over stores.
    pub balance_leaders: bool,
    /// Whether replicas are spread evenly over stores.
    pub balance_regions: bool,
    /// Whether regions that are written to much more than others are spread apart.
    pub spread_hot_regions: bool,
    /// Keys of store labels that say where a store is, the widest place first, such as zone,
    /// rack, host; at most 5. Replicas of a region are kept apart in the widest place they
    /// can be. A store without a label is in the same place as all others without.
    pub location_labels: Vec<String>,
    /// Whether a replica is replaced through a joint configuration: the new one begins to
    /// vote in the same step in which the old one ceases to. Every store must know how.
    pub joint_replacement: bool,
    /// How many more leaders, or replicas of average size, a store must have than another
    /// before one is moved. Below 2 the move would make the mirror image of what it found,
    /// and so on for ever.
    pub balance_tolerance: u64,
    /// What a region weighs besides its data, in bytes: many empty regions are a load too.
    pub region_base_bytes: u64,
    /// A region is not hot below so many bytes written per second.
    pub hot_bytes_per_second_min: u64,
    /// How many times the average a region must be written to before it is hot. At least 2.
    pub hot_factor: u64,
    /// Over how long a time writes are averaged, in ms.
    pub flow_window_ms: u64,
    /// How long a hot region is left alone after it was moved, in ms.
    pub hot_rest_ms: u64,
    /// How long a replica must have been missed before it is replaced, in ms.
    pub max_store_down_ms: u64,
    /// After how long without its heartbeat a store gets nothing new and its replicas no
    /// longer count as healthy, in ms.
    pub store_silent_ms: u64,
    /// How long a step of an operator may take, in ms.
    pub operator_timeout_ms: u64,
    /// How long a transfer of leadership may take, in ms.
    pub transfer_timeout_ms: u64,
    /// Operators that may move things to or from a store at a time for the sake of balance.
    pub operators_per_store_max: usize,
    /// Operators that may bring replicas to a store, or have it send them, at a time to
    /// repair regions.
    pub repairs_per_store_max: usize,
    /// Snapshots a store may be receiving and installing and still be given a replica, and
    /// as many may it be sending.
    pub snapshots_per_store_max: u64,
    /// Part of a store's capacity that must be available for it to be given a replica.
    pub min_available_percent: u64,
    /// Part of a store's capacity below which replicas are moved away from it. Smaller than
    /// `min_available_percent`, or what leaves would come back.
    pub low_space_percent: u64,
    /// Operators that have ended and are remembered.
    pub history_max: usize,
}

impl Default for PdConfig {
    fn default() -> Self {
        Self {
            max_replicas: 3,
            schedule: true,
            balance_leaders: true,
            balance_regions: true,
            spread_hot_regions: true,
            location_labels: Vec::new(),
            joint_replacement: false,
            balance_tolerance: 2,
            region_base_bytes: 16 << 20,
            hot_bytes_per_second_min: 128 << 10,
            hot_factor: 4,
            flow_window_ms: 5 * 60 * 1000,
            hot_rest_ms: 5 * 60 * 1000,
            max_store_down_ms: 30 * 60 * 1000,
            store_silent_ms: 30 * 1000,
            operator_timeout_ms: 10 * 60 * 1000,
            transfer_timeout_ms: 3 * 60 * 1000,
            operators_per_store_max: 4,
            repairs_per_store_max: 8,
            snapshots_per_store_max: 3,
            min_available_percent: 10,
            low_space_percent: 5,
            history_max: 1000,
        }
    }
}

impl PdConfig {
    /// One that gives out nothing but forced orders.
    #[must_use]
    pub fn manual() -> Self {
        Self { schedule: false, ..Self::default() }
    }

    /// With each value that makes no sense replaced by the nearest that does.
    pub(super) fn clamped(mut self) -> Self {
        self.max_replicas = self.max_replicas.clamp(1, REPLICAS_MAX);
        self.location_labels.retain(|label| !label.is_empty());
        self.location_labels.truncate(LABELS_MAX);
        self.min_available_percent = self.min_available_percent.min(100);
        self.low_space_percent = self.low_space_percent.min(self.min_available_percent);
        self.max_store_down_ms = self.max_store_down_ms.max(self.store_silent_ms);
        let floors = [
            (&mut self.balance_tolerance, TOLERANCE_MIN),
            (&mut self.region_base_bytes, 1),
            (&mut self.hot_factor, HOT_FACTOR_MIN),
            (&mut self.flow_window_ms, 1),
            (&mut self.store_silent_ms, 1),
            (&mut self.max_store_down_ms, 1),
            (&mut self.operator_timeout_ms, 1),
            (&mut self.transfer_timeout_ms, 1),
            (&mut self.snapshots_per_store_max, 1),
        ];
        for (value, floor) in floors {
            *value = (*value).max(floor);
        }
        self.operators_per_store_max = self.operators_per_store_max.max(1);
        self.repairs_per_store_max = self.repairs_per_store_max.max(1);
        self
    }

    /// Looks for values that make no sense. PD itself takes the nearest that does.
    ///
    /// # Errors
    /// `Invalid` with the first of them.
    pub fn validate(&self) -> Result<()> {
        let rules = [
            (
                (1..=REPLICAS_MAX).contains(&self.max_replicas),
                "max_replicas must be between 1 and 32",
            ),
            (self.location_labels.len() <= LABELS_MAX, "location_labels must be at most 5"),
            (
                self.location_labels.iter().all(|label| !label.is_empty()),
                "location_labels must not be empty strings",
            ),
            (self.balance_tolerance >= TOLERANCE_MIN, "balance_tolerance must be at least 2"),
            (self.region_base_bytes > 0, "region_base_bytes must not be 0"),
            (self.hot_factor >= HOT_FACTOR_MIN, "hot_factor must be at least 2"),
            (self.flow_window_ms > 0, "flow_window_ms must not be 0"),
            (
                self.store_silent_ms > 0 && self.max_store_down_ms >= self.store_silent_ms,
                "max_store_down_ms must be at least store_silent_ms, and that not 0",
            ),
            (
                self.operator_timeout_ms > 0 && self.transfer_timeout_ms > 0,
                "time-outs must not be 0",
            ),
            (
                self.operators_per_store_max > 0
                    && self.repairs_per_store_max > 0
                    && self.snapshots_per_store_max > 0,
                "limits per store must not be 0",
            ),
            (
                self.low_space_percent <= self.min_available_percent
                    && self.min_available_percent <= 100,
                "low_space_percent must not exceed min_available_percent, and that not 100",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(Error::Invalid(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        PdConfig::default().validate().expect("the defaults");
        PdConfig::manual().validate().expect("the manual mode");
        assert_eq!(PdConfig::default().clamped(), PdConfig::default());
        type Spoil = fn(&mut PdConfig);
        let wrong: [(Spoil, &str); 12] = [
            (|it| it.max_replicas = 0, "max_replicas"),
            (|it| it.max_replicas = 33, "max_replicas"),
            (|it| it.location_labels = vec!["zone".into(); 6], "location_labels"),
            (|it| it.location_labels = vec![String::new()], "location_labels"),
            (|it| it.balance_tolerance = 1, "balance_tolerance"),
            (|it| it.region_base_bytes = 0, "region_base_bytes"),
            (|it| it.hot_factor = 1, "hot_factor"),
            (|it| it.flow_window_ms = 0, "flow_window_ms"),
            (|it| it.max_store_down_ms = it.store_silent_ms - 1, "max_store_down_ms"),
            (|it| it.transfer_timeout_ms = 0, "time-outs"),
            (|it| it.repairs_per_store_max = 0, "limits per store"),
            (|it| it.low_space_percent = it.min_available_percent + 1, "low_space_percent"),
        ];
        for (spoil, name) in wrong {
            let mut config = PdConfig::default();
            spoil(&mut config);
            let error = config.validate().expect_err(name).to_string();
            assert!(error.contains(name), "{error} does not name {name}");
            config.clamped().validate().expect("made sense of");
        }
    }
}
