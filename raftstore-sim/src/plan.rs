//! Draws from a seed what kind of run it is: the cluster, its configuration, and which
//! faults there are at all.
//!
//! Most faults are off in most runs. A run with everything on spends its time recovering
//! and never reaches the states that need a quiet moment; a run with two or three faults
//! goes deep (swarm testing).

use std::{sync::Arc, time::Duration};

use raftstore_core::{Bug, Config};

use crate::{
    network::Weather,
    queue::{MICRO, MILLI, Nanos, SECOND},
    rng::Rng,
};

mod bugs;

/// How long the steps of a store take, on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the first event in a lane's queue to the turn that takes it.
    pub turn: Nanos,
    /// A write of the writer.
    pub write: Nanos,
    /// Thousandths of the writes that take a hundred times as long.
    pub slow_writes: u32,
    /// A run of the apply worker.
    pub apply: Nanos,
    /// A slice of the region worker, or building a region snapshot.
    pub region_work: Nanos,
    /// A sync of the data engine.
    pub kv_sync: Nanos,
}

impl Pace {
    /// A good device.
    pub const FAST: Self = Self {
        turn: 50 * MICRO,
        write: 500 * MICRO,
        slow_writes: 0,
        apply: 200 * MICRO,
        region_work: MILLI,
        kv_sync: 2 * MILLI,
    };
}

/// How often faults happen: the mean time between two of a kind; `None` for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// A store dies.
    pub crash: Option<Nanos>,
    /// Thousandths of the crashes that are power losses.
    pub power_loss: u32,
    /// Thousandths of the crashes that strike at a chosen step of the store's work.
    pub at_step: u32,
    /// All stores lose power.
    pub blackout: Option<Nanos>,
    /// A store is stopped in order.
    pub clean_stop: Option<Nanos>,
    /// An engine call fails.
    pub disk: Option<Nanos>,
    /// A store stops working for a while, and goes on.
    pub pause: Option<Nanos>,
    /// The stores are split in two sides.
    pub partition: Option<Nanos>,
    /// One link is cut in one direction.
    pub one_way: Option<Nanos>,
    /// PD does not answer.
    pub pd_absence: Option<Nanos>,
    /// A leader is asked to hand over.
    pub transfer: Option<Nanos>,
    /// A member is added or removed.
    pub churn: Option<Nanos>,
    /// A region is asked to be cut.
    pub split: Option<Nanos>,
}

/// How far stores' clocks can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Largest deviation of a clock's speed, in millionths.
    pub drift_ppm: u64,
    /// Mean time between two jumps of a clock; `None` for never.
    pub jumps: Option<Nanos>,
    /// Largest jump, in either direction.
    pub jump: Nanos,
    /// Whether leases are shorter than all that can make up for. If not, reads that rest on
    /// a lease may see anything, and only those that ask a quorum are judged.
    pub bounded: bool,
}

impl Clocks {
    /// All clocks go alike.
    pub const PERFECT: Self = Self { drift_ppm: 0, jumps: None, jump: 0, bounded: true };
}

/// How PD behaves while it is there; probabilities in thousandths per answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PdWeather {
    /// How long a question and an answer take, on average, beyond the least.
    pub mean_delay: Nanos,
    /// Is given once more, up to ten seconds later.
    pub repeat: u32,
    /// Takes up to ten seconds.
    pub late: u32,
}

impl PdWeather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self { mean_delay: 500 * MICRO, repeat: 0, late: 0 };
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Writes per second and region.
    pub writes_per_second: u64,
    /// Reads per second and region.
    pub reads_per_second: u64,
    /// Keys per region that are never deleted.
    pub keys: u64,
    /// Keys per region of the second workload, with deletes; 0 for none.
    pub deletable_keys: u64,
    /// Longest value, in bytes.
    pub value_bytes: u64,
}

/// Everything a run is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it comes from.
    pub seed: u64,
    /// Stores.
    pub stores: u64,
    /// Regions the key space is cut into.
    pub regions: u64,
    /// Replicas per region at the start.
    pub replicas: u64,
    /// Configuration of every store.
    pub config: Arc<Config>,
    /// Apply workers per store.
    pub apply_workers: usize,
    /// Clocks.
    pub clocks: Clocks,
    /// Network.
    pub weather: Weather,
    /// Stores.
    pub pace: Pace,
    /// Faults.
    pub faults: FaultRates,
    /// Clients.
    pub load: Load,
    /// Whether PD schedules by itself.
    pub pd_schedules: bool,
    /// PD.
    pub pd_weather: PdWeather,
    /// How long a store is down, on average.
    pub restart_after: Nanos,
    /// Length of the phase with faults.
    pub safety: Nanos,
    /// Bug planted in the core.
    pub bug: Option<Bug>,
}

/// A base tick in the simulator.
pub const TICK: Nanos = 100 * MILLI;

impl Plan {
    /// A quiet cluster for scenario tests: `stores` stores with one region over all keys on
    /// the first `replicas` of them, no faults, no clients, PD silent.
    #[must_use]
    pub fn quiet(seed: u64, stores: u64, replicas: u64) -> Self {
        Self {
            seed,
            stores,
            regions: 1,
            replicas,
            config: Arc::new(base_config(seed)),
            apply_workers: 1,
            clocks: Clocks::PERFECT,
            weather: Weather::FAIR,
            pace: Pace::FAST,
            faults: FaultRates::default(),
            load: Load {
                writes_per_second: 0,
                reads_per_second: 0,
                keys: 0,
                deletable_keys: 0,
                value_bytes: 0,
            },
            pd_schedules: false,
            pd_weather: PdWeather::FAIR,
            restart_after: SECOND,
            safety: 0,
            bug: None,
        }
    }

    /// As [`Plan::quiet`], with paces, delays and lanes that `seed` has drawn: other orders
    /// of the same events, and nothing that a scenario does not ask for.
    #[must_use]
    pub fn fair(seed: u64, stores: u64, replicas: u64) -> Self {
        let mut plan = Self::quiet(seed, stores, replicas);
        let mut rng = Rng::fork(seed, "fair");
        plan.weather.mean_delay = *rng.pick(&[200 * MICRO, 500 * MICRO, 2 * MILLI]);
        plan.pace = Pace {
            turn: *rng.pick(&[20 * MICRO, 50 * MICRO, 500 * MICRO]),
            write: *rng.pick(&[100 * MICRO, 500 * MICRO, 3 * MILLI]),
            slow_writes: 0,
            apply: *rng.pick(&[100 * MICRO, MILLI]),
            region_work: *rng.pick(&[500 * MICRO, 5 * MILLI]),
            kv_sync: *rng.pick(&[MILLI, 10 * MILLI]),
        };
        let mut config = (*plan.config).clone();
        config.lanes = *rng.pick(&[1, 3]);
        plan.config = Arc::new(config);
        plan
    }

    /// The run of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::fork(seed, "plan");
        let stores = rng.between(3, 5);
        let mut config = base_config(seed);
        config.lanes = if rng.chance(400) { 3 } else { 1 };
        draw_config(&mut config, &mut rng);
        config.right_derive_when_split = Rng::fork(seed, "derive").chance(500);
        // Left as soon as it is entered, or long enough to live with.
        let joint = *Rng::fork(seed, "joint").pick(&[1, 300, 3_000]);
        config.leave_joint_after = Duration::from_millis(joint);
        draw_comparisons(&mut config, &mut Rng::fork(seed, "hashes"));
        let faults = draw_faults(&mut rng);
        Self {
            seed,
            stores,
            regions: *rng.pick(&[1, 2, 4, 8, 8, 8]),
            replicas: 3,
            config: Arc::new(config),
            apply_workers: if rng.chance(300) { 2 } else { 1 },
            clocks: draw_clocks(&mut rng),
            weather: draw_weather(&mut rng),
            pace: draw_pace(&mut rng),
            faults,
            load: Load {
                writes_per_second: 10,
                reads_per_second: 10,
                keys: rng.between(2, 12),
                deletable_keys: if rng.chance(500) { 3 } else { 0 },
                value_bytes: *rng.pick(&[32, 256, 2048]),
            },
            pd_schedules: rng.chance(300),
            pd_weather: draw_pd(&mut rng),
            restart_after: SECOND,
            safety: rng.between(8, 30) * SECOND,
            bug: None,
        }
    }

    /// The measured run: five stores, eight regions, ten writes per second and region, a
    /// tick of 100 ms, no faults.
    #[must_use]
    pub fn bench(seed: u64) -> Self {
        Self {
            regions: 8,
            load: Load {
                writes_per_second: 10,
                reads_per_second: 10,
                keys: 8,
                deletable_keys: 0,
                value_bytes: 256,
            },
            safety: 60 * SECOND,
            ..Self::quiet(seed, 5, 3)
        }
    }
}

/// Production defaults with time scaled from a tick of one second to one of 100 ms.
fn base_config(seed: u64) -> Config {
    Config {
        raft_base_tick_interval: Duration::from_nanos(TICK),
        // The rule allows nine ticks; 2% less leaves room for the drift of two clocks.
        raft_store_max_leader_lease: Duration::from_millis(880),
        raft_log_gc_tick_interval: Duration::from_secs(1),
        pd_heartbeat_tick_interval: Duration::from_secs(2),
        pd_store_heartbeat_tick_interval: Duration::from_secs(2),
        max_peer_down_duration: Duration::from_secs(20),
        max_leader_missing_duration: Duration::from_secs(8),
        split_region_check_tick_interval: Duration::ZERO,
        lock_cf_compact_interval: Duration::ZERO,
        snap_mgr_gc_tick_interval: Duration::ZERO,
        kv_sync_interval: Duration::from_millis(200),
        leave_joint_after: Duration::from_millis(100),
        seed,
        ..Config::default()
    }
}

/// Replicas that differ stop their store, which is a violation.
fn draw_comparisons(config: &mut Config, rng: &mut Rng) {
    config.consistency_check_interval = Duration::from_secs(*rng.pick(&[0, 0, 1, 3]));
    config.consistency_slice = *rng.pick(&[4 << 10, 1 << 20]);
}

fn draw_config(config: &mut Config, rng: &mut Rng) {
    config.raft_log_gc_threshold = *rng.pick(&[1, 5, 50]);
    config.raft_log_gc_count_limit = *rng.pick(&[20, 100, 10_000]);
    config.raft_max_inflight_msgs = *rng.pick(&[1, 4, 256]);
    config.raft_max_size_per_msg = *rng.pick(&[1, 512, 1 << 20]);
    config.max_committed_size_per_ready = *rng.pick(&[1, 1024, 4 << 20]);
    config.max_rounds_in_flight = *rng.pick(&[1, 2, 64]);
    config.peer_entry_cache_count = *rng.pick(&[1, 16, 1_024]);
    config.snap_apply_batch_size = *rng.pick(&[1, 4096, 10 << 20]);
    config.snapshot_chunk_bytes = *rng.pick(&[4096, 1 << 20]);
    config.kv_sync_interval = Duration::from_millis(*rng.pick(&[1, 100, 100, 2_000]));
    if rng.chance(100) {
        // Budgets of a few entries, so that stores are busy.
        let bytes = 4 << 10;
        config.raft_entry_max_size = bytes;
        config.raft_max_size_per_msg = config.raft_max_size_per_msg.min(bytes);
        config.max_in_flight_bytes = bytes;
        config.max_uncommitted_bytes = bytes;
        config.apply_backlog_bytes = bytes;
    }
    if rng.chance(150) {
        config.raft_store_max_leader_lease = Duration::ZERO;
    }
}

fn draw_weather(rng: &mut Rng) -> Weather {
    let mut weather = Weather {
        mean_delay: *rng.pick(&[200 * MICRO, 500 * MICRO, 5 * MILLI, 40 * MILLI]),
        mean_snapshot_delay: *rng.pick(&[5 * MILLI, 100 * MILLI, SECOND, 4 * SECOND]),
        ..Weather::FAIR
    };
    if rng.chance(400) {
        weather.loss = *rng.pick(&[5, 50, 200]);
    }
    if rng.chance(300) {
        weather.duplicate = *rng.pick(&[5, 100]);
    }
    if rng.chance(300) {
        weather.reorder = *rng.pick(&[10, 200]);
    }
    if rng.chance(300) {
        weather.late = *rng.pick(&[1, 20]);
    }
    if rng.chance(300) {
        weather.very_late = *rng.pick(&[1, 10]);
    }
    if rng.chance(300) {
        weather.snapshot_loss = *rng.pick(&[100, 500]);
    }
    if rng.chance(150) {
        weather.entry_damage = *rng.pick(&[5, 50]);
    }
    if rng.chance(200) {
        weather.snapshot_damage = *rng.pick(&[100, 400]);
    }
    weather
}

fn draw_pd(rng: &mut Rng) -> PdWeather {
    let mut weather = PdWeather::FAIR;
    if rng.chance(300) {
        weather.mean_delay = *rng.pick(&[20 * MILLI, SECOND]);
    }
    if rng.chance(300) {
        weather.repeat = *rng.pick(&[50, 500]);
    }
    if rng.chance(300) {
        weather.late = *rng.pick(&[20, 200]);
    }
    weather
}

/// A lease of 880 ms is 20 ms shorter than what voters promise by a perfect clock. Two
/// clocks that part by one hundredth take 9 ms of that, and a jump within a lease another 8.
fn draw_clocks(rng: &mut Rng) -> Clocks {
    let mut clocks = Clocks::PERFECT;
    if rng.chance(50) {
        return Clocks {
            drift_ppm: *rng.pick(&[0, 300_000]),
            jumps: Some(2 * SECOND),
            jump: *rng.pick(&[500 * MILLI, 5 * SECOND]),
            bounded: false,
        };
    }
    if rng.chance(500) {
        clocks.drift_ppm = 5_000;
    }
    if rng.chance(300) {
        clocks.jumps = Some(3 * SECOND);
        clocks.jump = 8 * MILLI;
    }
    clocks
}

fn draw_pace(rng: &mut Rng) -> Pace {
    Pace {
        turn: *rng.pick(&[20 * MICRO, 50 * MICRO, 500 * MICRO, 5 * MILLI]),
        write: *rng.pick(&[100 * MICRO, 500 * MICRO, 5 * MILLI, 30 * MILLI]),
        slow_writes: if rng.chance(200) { *rng.pick(&[1, 20]) } else { 0 },
        apply: *rng.pick(&[100 * MICRO, MILLI, 30 * MILLI]),
        region_work: *rng.pick(&[500 * MICRO, 20 * MILLI, 300 * MILLI]),
        kv_sync: *rng.pick(&[MILLI, 10 * MILLI, 200 * MILLI]),
    }
}

fn draw_faults(rng: &mut Rng) -> FaultRates {
    let mut maybe = |permille: u32, means: [u64; 3]| {
        let on = rng.chance(permille);
        let mean = *rng.pick(&means) * SECOND;
        on.then_some(mean)
    };
    let crash = maybe(500, [1, 4, 10]);
    let blackout = maybe(150, [5, 10, 15]);
    let clean_stop = maybe(150, [4, 8, 15]);
    let disk = maybe(150, [3, 6, 12]);
    let pause = maybe(200, [2, 5, 10]);
    let partition = maybe(350, [3, 6, 12]);
    let one_way = maybe(200, [2, 5, 10]);
    let pd_absence = maybe(200, [3, 6, 12]);
    let transfer = maybe(400, [1, 3, 8]);
    let churn = maybe(450, [1, 3, 8]);
    let split = maybe(500, [1, 2, 5]);
    FaultRates {
        crash,
        power_loss: *rng.pick(&[0, 500, 1000]),
        at_step: *rng.pick(&[0, 500, 900]),
        blackout,
        clean_stop,
        disk,
        pause,
        partition,
        one_way,
        pd_absence,
        transfer,
        churn,
        split,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawn_configuration_is_valid() {
        for seed in 0..500 {
            Plan::draw(seed).config.validate().expect("drawn from valid values");
        }
        Plan::quiet(1, 3, 3).config.validate().expect("valid");
    }

    #[test]
    fn faults_are_mixed() {
        let plans: Vec<Plan> = (0..300).map(Plan::draw).collect();
        assert!(
            plans.iter().any(|plan| plan.faults.crash.is_none() && plan.faults.churn.is_some())
        );
        assert!(plans.iter().any(|plan| plan.faults.partition.is_some()));
        assert!(plans.iter().any(|plan| plan.config.lanes == 3));
        assert!(
            plans.iter().any(|plan| plan.stores == 3) && plans.iter().any(|plan| plan.stores == 5)
        );
    }
}
