//! What the in-process PD aims for, and how fast it may go there.

/// Aims and limits of a [`PdCore`](super::PdCore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PdConfig {
    /// Voters each region shall have. At least 1.
    pub max_replicas: usize,
    /// Whether PD makes orders by itself; without, only forced orders are given out.
    pub schedule: bool,
    /// Whether leaders are spread evenly over stores.
    pub balance_leaders: bool,
    /// Whether replicas are spread evenly over stores.
    pub balance_regions: bool,
    /// How many more leaders or replicas a store must have than another before one is
    /// moved. Below 2 the move would make the mirror image of what it found, and so on
    /// for ever; smaller values count as 2.
    pub balance_tolerance: u64,
    /// How long a leader must not have heard from a replica before it is replaced, in ms.
    pub max_store_down_ms: u64,
    /// After how long without its heartbeat a store gets nothing new and its replicas no
    /// longer count as healthy, in ms.
    pub store_silent_ms: u64,
    /// How long a step of an operator may take, in ms.
    pub operator_timeout_ms: u64,
    /// Operators that may touch a store at a time.
    pub operators_per_store_max: usize,
    /// Snapshots a store may be receiving and installing and still be given a replica.
    pub snapshots_per_store_max: u64,
    /// Part of a store's capacity that must be available for it to be given a replica.
    pub min_available_percent: u64,
}

impl Default for PdConfig {
    fn default() -> Self {
        Self {
            max_replicas: 3,
            schedule: true,
            balance_leaders: true,
            balance_regions: true,
            balance_tolerance: 2,
            max_store_down_ms: 30 * 60 * 1000,
            store_silent_ms: 30 * 1000,
            operator_timeout_ms: 10 * 60 * 1000,
            operators_per_store_max: 4,
            snapshots_per_store_max: 3,
            min_available_percent: 5,
        }
    }
}

impl PdConfig {
    /// One that gives out nothing but forced orders.
    #[must_use]
    pub fn manual() -> Self {
        Self { schedule: false, ..Self::default() }
    }
}
