//! PD as a value: what it answers to each question, and which order each report earns.
//!
//! There is no clock, no thread and no chance in it: `now_ms` is an argument, maps are
//! ordered, ids are counted. Stepped with the same calls it gives the same answers.

use std::collections::BTreeMap;

use raftstore_proto::{ClusterId, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use super::{
    check,
    config::PdConfig,
    directory::{Directory, RegionRecord, StoreLoad},
    flow::{Flow, Threshold},
    operators::Operators,
    scheduler::Group,
    stores::{StoreRecord, Stores},
};
use crate::{
    Error, OperatorState, Order, RegionHeartbeat, RegionRoute, Result, StoreInfo, StoreLifecycle,
    StoreStats,
};

mod driver;
mod memory;

/// Most new regions one split may ask ids for.
const SPLIT_COUNT_MAX: usize = 4096;

/// What the scheduler has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PdCounters {
    /// Operators begun.
    pub started: u64,
    /// Operators whose last effect was seen.
    pub finished: u64,
    /// Operators given up because the region changed otherwise, or another took their place.
    pub cancelled: u64,
    /// Operators given up because a step took too long.
    pub timed_out: u64,
    /// Reports refused because something newer was known.
    pub stale_reports: u64,
    /// Reports refused because they make no sense, or come from stores that are unknown or
    /// buried.
    pub invalid_reports: u64,
    /// Membership changes seen in reports on regions that were known.
    pub membership_changes: u64,
}

/// A placement driver without clock, threads or network.
#[derive(Clone, Debug)]
pub struct PdCore {
    cluster: ClusterId,
    config: PdConfig,
    /// Invariant: larger than every id given out or seen.
    next_id: u64,
    /// Up to here ids may be given out without being saved first.
    id_limit: u64,
    /// Whether a store or the first region is not saved yet.
    must_save: bool,
    is_bootstrapped: bool,
    stores: Stores,
    directory: Directory,
    operators: Operators,
    avoided: BTreeMap<(RegionId, StoreId), u64>,
    resting: BTreeMap<RegionId, u64>,
    groups: BTreeMap<String, Group>,
    counters: PdCounters,
    /// The latest moment anybody told.
    latest_ms: u64,
}

impl PdCore {
    /// A PD for an empty cluster. Where `config` makes no sense, the nearest value that does
    /// is taken; [`PdConfig::validate`] tells.
    #[must_use]
    pub fn new(cluster: ClusterId, config: PdConfig) -> Self {
        Self {
            cluster,
            config: config.clamped(),
            next_id: 1,
            id_limit: 0,
            must_save: true,
            is_bootstrapped: false,
            stores: Stores::default(),
            directory: Directory::default(),
            operators: Operators::default(),
            avoided: BTreeMap::new(),
            resting: BTreeMap::new(),
            groups: BTreeMap::new(),
            counters: PdCounters::default(),
            latest_ms: 0,
        }
    }

    /// The cluster served.
    #[must_use]
    pub const fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// The present aims.
    #[must_use]
    pub const fn config(&self) -> &PdConfig {
        &self.config
    }

    /// Changes the aims, as in [`PdCore::new`]. Operators under way go on.
    pub fn set_config(&mut self, config: PdConfig) {
        self.config = config.clamped();
    }

    /// What the scheduler has done so far.
    #[must_use]
    pub const fn counters(&self) -> PdCounters {
        self.counters
    }

    /// A number nobody was given before.
    pub const fn alloc_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Never gives out `id`, which somebody already uses.
    fn observe_id(&mut self, id: u64) {
        self.next_id = self.next_id.max(id.saturating_add(1));
    }

    fn observe_region(&mut self, region: &Region) {
        self.observe_id(region.id.get());
        for peer in &region.peers {
            self.observe_id(peer.id.get());
            self.observe_id(peer.store.get());
        }
    }

    /// Whether there is a first region.
    #[must_use]
    pub const fn is_bootstrapped(&self) -> bool {
        self.is_bootstrapped
    }

    /// Makes `region` on `store` the first. A store that is told `AlreadyBootstrapped`
    /// compares [`PdCore::region_by_key`] of the empty key with its own region to find out
    /// whether it was itself the first.
    ///
    /// # Errors
    /// `AlreadyBootstrapped`, also for the same request again; `Invalid` for a region that
    /// cannot be a first one; what [`PdCore::put_store`] says.
    pub fn bootstrap(&mut self, now_ms: u64, store: StoreInfo, region: Region) -> Result<()> {
        if self.is_bootstrapped {
            return Err(Error::AlreadyBootstrapped);
        }
        let covers_all = region.start_key.is_empty() && region.end_key.is_empty();
        let is_alone = matches!(region.peers.as_slice(), [peer]
            if peer.store == store.id && peer.role == PeerRole::Voter);
        if !covers_all || !is_alone {
            return Err(Error::Invalid("the first region is one voter that holds every key"));
        }
        check::region(&region)?;
        self.admit_store(now_ms, store)?;
        self.seed(vec![region])
    }

    /// Makes regions known that exist already, as if the cluster had been bootstrapped
    /// with them.
    ///
    /// # Errors
    /// `Invalid` for a region that cannot be, `Stale` for regions that overlap.
    pub fn seed(&mut self, regions: Vec<Region>) -> Result<()> {
        for region in regions {
            check::region(&region)?;
            self.observe_region(&region);
            self.directory.update(RegionRecord::unled(region))?;
        }
        self.is_bootstrapped = true;
        self.must_save = true;
        Ok(())
    }

    const fn check_bootstrapped(&self) -> Result<()> {
        if self.is_bootstrapped { Ok(()) } else { Err(Error::NotBootstrapped) }
    }

    /// Makes a store known, or updates its address and labels. A store that is being
    /// emptied stays so.
    ///
    /// # Errors
    /// `NotBootstrapped`; `StoreNotFound` if it was buried; `DuplicateAddress`.
    pub fn put_store(&mut self, now_ms: u64, info: StoreInfo) -> Result<()> {
        self.check_bootstrapped()?;
        self.admit_store(now_ms, info)
    }

    fn admit_store(&mut self, now_ms: u64, info: StoreInfo) -> Result<()> {
        check::id(info.id.get())?;
        let id = info.id;
        self.must_save |= self.stores.admit(now_ms, info)?;
        self.observe_id(id.get());
        Ok(())
    }

    /// Empties a store, takes it back, or buries it.
    ///
    /// # Errors
    /// `StoreNotFound`; `Invalid` to bury one that still has replicas.
    pub fn set_lifecycle(&mut self, store: StoreId, lifecycle: StoreLifecycle) -> Result<()> {
        self.stores.living(store)?;
        let is_empty = self.directory.load(store).regions == 0;
        if lifecycle == StoreLifecycle::Tombstone && !is_empty {
            return Err(Error::Invalid("a store with replicas cannot be buried"));
        }
        self.must_save = true;
        self.stores.set_lifecycle(store, lifecycle)
    }

    /// What is known of a store.
    ///
    /// # Errors
    /// `StoreNotFound` if nothing is, or it was buried.
    pub fn store(&self, id: StoreId) -> Result<&StoreRecord> {
        self.stores.living(id)
    }

    /// Every store there ever was, by id.
    pub fn stores(&self) -> impl Iterator<Item = &StoreRecord> {
        self.stores.iter()
    }

    /// What a store carries.
    #[must_use]
    pub fn store_load(&self, store: StoreId) -> StoreLoad {
        self.directory.load(store)
    }

    /// Every region known, by id.
    pub fn regions(&self) -> impl Iterator<Item = &RegionRecord> {
        self.directory.iter()
    }

    /// All that is known of a region.
    #[must_use]
    pub fn region(&self, id: RegionId) -> Option<&RegionRecord> {
        self.directory.get(id)
    }

    /// All that is known of the region that holds `key`.
    #[must_use]
    pub fn region_at(&self, key: &[u8]) -> Option<&RegionRecord> {
        self.directory.by_key(key)
    }

    /// All that is known of the region that ends where the one that holds `key` begins.
    #[must_use]
    pub fn region_before(&self, key: &[u8]) -> Option<&RegionRecord> {
        let start = self.directory.by_key(key)?.region.start_key.clone();
        self.directory.ending_at(&start)
    }

    /// Regions in key order, from the one that holds `start`, or the next after it.
    pub fn regions_from(&self, start: &[u8]) -> impl Iterator<Item = &RegionRecord> {
        self.directory.scan(start)
    }

    /// The region that holds `key`.
    #[must_use]
    pub fn region_by_key(&self, key: &[u8]) -> Option<RegionRoute> {
        self.directory.by_key(key).map(RegionRecord::route)
    }

    /// The region of this id.
    #[must_use]
    pub fn region_by_id(&self, id: RegionId) -> Option<RegionRoute> {
        self.directory.get(id).map(RegionRecord::route)
    }

    /// At most `limit` regions in key order that share keys with `[start, end)`; an empty
    /// `end` is after every key.
    #[must_use]
    pub fn scan_regions(&self, start: &[u8], end: &[u8], limit: usize) -> Vec<RegionRoute> {
        self.directory
            .scan(start)
            .take_while(|record| end.is_empty() || record.region.start_key.as_ref() < end)
            .take(limit)
            .map(RegionRecord::route)
            .collect()
    }

    /// Takes a store's report.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StoreNotFound`.
    pub fn store_heartbeat(&mut self, now_ms: u64, stats: StoreStats) -> Result<()> {
        self.check_bootstrapped()?;
        let outcome = self.stores.report(now_ms, stats);
        self.note(&outcome);
        self.sweep(now_ms);
        outcome
    }

    /// Gives up operators of regions that do not report any more: they hold slots. Those
    /// that do report find out themselves, and learn from it.
    fn sweep(&mut self, now_ms: u64) {
        self.latest_ms = self.latest_ms.max(now_ms);
        let long_ago = now_ms.saturating_sub(self.config.operator_timeout_ms);
        let silent: Vec<RegionId> = self
            .operators
            .iter()
            .filter(|operator| operator.is_overdue(long_ago))
            .map(|operator| operator.region)
            .collect();
        for region in silent {
            self.end(now_ms, region, OperatorState::TimedOut);
        }
        self.avoided.retain(|_, until_ms| now_ms < *until_ms);
        self.resting.retain(|_, until_ms| now_ms < *until_ms);
        let long_unused = 10 * self.config.operator_timeout_ms;
        self.groups.retain(|_, group| now_ms.saturating_sub(group.used_ms) < long_unused);
    }

    /// Takes a leader's report and gives the order that follows from it.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` for a report that cannot be; `StoreNotFound` if the
    /// leader's store is unknown or buried; `Stale` if PD knows something newer. The report
    /// changes nothing then.
    pub fn region_heartbeat(
        &mut self,
        now_ms: u64,
        heartbeat: RegionHeartbeat,
    ) -> Result<Option<Order>> {
        self.check_bootstrapped()?;
        let id = heartbeat.region.id;
        let outcome = self.stores.living(heartbeat.leader.store).map(|_| ()).and_then(|()| {
            let written = heartbeat.written_bytes;
            let mut record = check::heartbeat(now_ms, heartbeat)?;
            record.flow = self.flow(now_ms, &record, written);
            if record.approximate_size == 0 {
                // A new leader does not know yet. What it had before is a better guess.
                let known = self.directory.get(id);
                record.approximate_size = known.map_or(0, |known| known.approximate_size);
            }
            self.update(record)
        });
        self.note(&outcome);
        outcome?;
        self.latest_ms = self.latest_ms.max(now_ms);
        Ok(self.drive(now_ms, id))
    }

    /// The region's flow after a report of `written` bytes.
    fn flow(&self, now_ms: u64, record: &RegionRecord, written: u64) -> Flow {
        let totals = self.directory.totals();
        let average = totals.written / totals.regions.max(1);
        let threshold = Threshold {
            bytes_per_second: average
                .saturating_mul(self.config.hot_factor)
                .max(self.config.hot_bytes_per_second_min),
            window_ms: self.config.flow_window_ms,
        };
        let known = self.directory.get(record.region.id);
        let span_ms = known
            .filter(|known| known.leader.is_some())
            .map_or(threshold.window_ms, |known| now_ms.saturating_sub(known.heard_ms));
        known.map_or_else(Default::default, |known| known.flow).after(written, span_ms, &threshold)
    }

    fn update(&mut self, record: RegionRecord) -> Result<()> {
        let region = record.region.clone();
        let known = self.directory.get(region.id).map(|known| known.region.epoch.conf_ver);
        for older in self.directory.update(record)? {
            self.end(self.latest_ms, older, OperatorState::Cancelled);
        }
        self.observe_region(&region);
        let changes = known.map(|known| region.epoch.conf_ver.saturating_sub(known));
        self.counters.membership_changes += changes.unwrap_or_default();
        Ok(())
    }

    const fn note(&mut self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(Error::Stale) => self.counters.stale_reports += 1,
            Err(_) => self.counters.invalid_reports += 1,
        }
    }

    /// Ids for a split of `region` that makes `count` new ones, each with as many
    /// replicas.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` for a count out of range; `Stale` if PD knows a newer
    /// epoch: ids for its peers could be of the wrong number.
    pub fn ask_split(
        &mut self,
        region: &Region,
        count: usize,
    ) -> Result<Vec<(RegionId, Vec<PeerId>)>> {
        self.check_bootstrapped()?;
        check::region(region)?;
        if count == 0 || count > SPLIT_COUNT_MAX {
            return Err(Error::Invalid("a split makes between 1 and 4096 new regions"));
        }
        let known = self.directory.get(region.id);
        if known.is_some_and(|known| region.epoch.is_stale_against(&known.region.epoch)) {
            return Err(Error::Stale);
        }
        self.observe_region(region);
        let new_ids = |_| {
            let id = RegionId::must(self.alloc_id());
            let peers = region.peers.iter().map(|_| PeerId::must(self.alloc_id())).collect();
            (id, peers)
        };
        Ok((0..count).map(new_ids).collect())
    }

    /// Learns of a finished split before the leaders of its parts report.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` if a part cannot be, or they are not neighbours in key
    /// order. Parts of which something newer is known are passed over.
    pub fn report_split(&mut self, regions: Vec<Region>) -> Result<()> {
        self.check_bootstrapped()?;
        regions.iter().try_for_each(check::region)?;
        check::chain(&regions)?;
        // Until their leaders say more, the parts share what the whole had.
        let whole = regions.iter().find_map(|region| self.directory.get(region.id));
        let size = whole.map_or(0, |whole| whole.approximate_size) / regions.len().max(1) as u64;
        for region in regions {
            let mut record = RegionRecord::unled(region);
            record.approximate_size = size;
            if let Some(known) = self.directory.get(record.region.id) {
                let is_member = |peer: &Peer| record.region.peer(peer.id).is_some();
                record = RegionRecord {
                    leader: known.leader.filter(is_member),
                    region: record.region,
                    approximate_size: size,
                    ..known.clone()
                };
            }
            // A leader's own report may have been faster.
            let outcome = self.update(record);
            self.note(&outcome);
        }
        Ok(())
    }
}
