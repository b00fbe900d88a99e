//! Whole stores: many clients, many regions, one pair of engines.

use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_traits::{KvEngine, RaftEngine};
use raftstore_core::Config;
use tempfile::TempDir;
use transport_traits::BoxError;

use crate::{
    KvFactory, LogFactory, Numbers, VALUE_BYTES,
    cluster::{Cluster, row_of_regions},
    load::Load,
    percentiles::Percentiles,
    process::{memory_kib, written_bytes},
    temporary_folder,
};

/// Stores that replicate each region.
pub(super) const STORES: u64 = 3;

/// Time before the measurement.
const WARM_UP: Duration = Duration::from_secs(2);

/// Numbers of keys in a region.
const STEP: u64 = 1 << 32;

/// Keys that a client writes in turn.
const KEYS: u64 = 1_000;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct StoreWork {
    /// Clients, each with one write under way.
    pub clients: usize,
    /// Regions, each on all stores.
    pub regions: u64,
    /// How long it is measured.
    pub seconds: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct StoreFigures {
    /// Acknowledged writes per second.
    pub writes: f64,
    /// Time of a write.
    pub latency: Percentiles,
    /// Syncs of raft logs, of all stores, per write.
    pub log_syncs: f64,
    /// Syncs of data engines, of all stores, per write.
    pub kv_syncs: f64,
    /// Bytes given to the disk per byte of keys and values acknowledged, and per replica.
    pub amplification: f64,
    /// Memory of the process at the end, in KiB.
    pub memory_kib: u64,
}

/// Engines of some stores, and where their files are.
pub(super) struct Engines<K: KvFactory, L: LogFactory> {
    /// In the order of stores.
    pub(super) engines: Vec<(K::Engine, L::Engine)>,
    /// The folders of data and of logs.
    pub(super) folders: Vec<TempDir>,
}

impl<K: KvFactory, L: LogFactory> Engines<K, L> {
    /// Empty engines for so many stores.
    ///
    /// # Errors
    /// If an engine cannot be opened.
    pub(super) fn make(stores: u64) -> Result<Self, BoxError> {
        let (mut engines, mut folders) = (Vec::new(), Vec::new());
        for _ in 0..stores {
            let folder = temporary_folder();
            engines.push((K::open(folder.path())?, L::open(folder.path())?));
            folders.push(folder);
        }
        Ok(Self { engines, folders })
    }
}

impl<K: KvFactory, L: LogFactory> std::fmt::Debug for Engines<K, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").field("folders", &self.folders).finish_non_exhaustive()
    }
}

/// Settings for stores in one process.
#[must_use]
pub(super) fn config() -> Config {
    Config {
        raft_base_tick_interval: Duration::from_millis(100),
        raft_store_max_leader_lease: Duration::from_millis(900),
        ..Config::default()
    }
}

fn key(region: u64, number: u64) -> Bytes {
    crate::key(region * STEP + number)
}

/// Loads three stores with writes of [`VALUE_BYTES`] to 16-byte keys.
///
/// # Errors
/// If an engine fails or a store does not start.
pub fn store<K: KvFactory, L: LogFactory>(work: StoreWork) -> Result<StoreFigures, BoxError> {
    let made = Engines::<K, L>::make(STORES)?;
    let regions = row_of_regions(work.regions, STORES, |number| key(number, 0));
    let kept = made.engines.clone();
    let cluster = Cluster::start(&config(), made.engines, &regions)?;
    let key_of = |client: u64, turn: u64| {
        key(client % work.regions, 1 + client / work.regions * KEYS + turn % KEYS)
    };
    let clients = work.clients as u64;
    let keys = (0..clients).map(|client| key_of(client, 0)).collect();
    let value = Numbers::new(1).bytes(VALUE_BYTES);
    let mut load = Load::new(cluster.handles.clone(), &regions, keys, value);
    let mut turns = vec![0; work.clients];
    load.run_with(Instant::now() + WARM_UP, |ack, key| {
        turns[ack.client] += 1;
        *key = key_of(ack.client as u64, turns[ack.client]);
        false
    });
    let syncs = || {
        let of = |(kv, raft): &(K::Engine, L::Engine)| (kv.stats().syncs, raft.stats().syncs);
        kept.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let (written, synced) = (written_bytes()?, syncs());
    let mut latency = Percentiles::default();
    let begun = Instant::now();
    load.run_with(begun + Duration::from_secs(work.seconds), |ack, key| {
        latency.add(ack.at - ack.sent);
        turns[ack.client] += 1;
        *key = key_of(ack.client as u64, turns[ack.client]);
        false
    });
    let seconds = begun.elapsed().as_secs_f64();
    let count = latency.count().max(1) as f64;
    let (kv, log) = syncs();
    let acknowledged = count * (VALUE_BYTES + crate::KEY_BYTES) as f64;
    let figures = StoreFigures {
        writes: count / seconds,
        log_syncs: (log - synced.1) as f64 / count,
        kv_syncs: (kv - synced.0) as f64 / count,
        amplification: (written_bytes()? - written) as f64 / acknowledged / STORES as f64,
        memory_kib: memory_kib()?,
        latency,
    };
    cluster.stop();
    drop(made.folders);
    Ok(figures)
}
