//! PD as a value: what it answers to each question, and which order each report earns.
//!
//! There is no clock, no thread and no chance in it: `now_ms` is an argument, maps are
//! ordered, ids are counted. Stepped with the same calls it gives the same answers.

use std::collections::{BTreeMap, BTreeSet};

use raftstore_proto::{ClusterId, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use super::{
    config::PdConfig,
    directory::{Directory, RegionRecord, StoreLoad},
    operator::{Operator, OperatorReason, Progress, Step},
    scheduler::{self, Plan, View},
};
use crate::{
    Error, Order, OrderAction, RegionHeartbeat, RegionRoute, Result, StoreInfo, StoreLifecycle,
    StoreStats,
};

/// Most new regions one split may ask ids for.
const SPLIT_COUNT_MAX: usize = 4096;

/// What PD knows of a store.
#[derive(Clone, Debug)]
pub struct StoreRecord {
    /// What it said of itself when it started, and what became of it.
    pub info: StoreInfo,
    /// Its last report.
    pub stats: Option<StoreStats>,
    /// When it was last heard of.
    pub heard_ms: u64,
    /// Regions whose replica on it was damaged when it last reported.
    pub damaged_regions: BTreeSet<RegionId>,
}

/// What the scheduler has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PdCounters {
    /// Operators begun.
    pub started: u64,
    /// Operators whose last effect was seen.
    pub finished: u64,
    /// Operators given up because the region changed otherwise.
    pub cancelled: u64,
    /// Operators given up because a step took too long.
    pub timed_out: u64,
    /// Reports refused because something newer was known.
    pub stale_reports: u64,
}

/// A placement driver without clock, threads or network.
#[derive(Clone, Debug)]
pub struct PdCore {
    cluster: ClusterId,
    config: PdConfig,
    /// Invariant: larger than every id given out or seen.
    next_id: u64,
    is_bootstrapped: bool,
    stores: BTreeMap<StoreId, StoreRecord>,
    directory: Directory,
    operators: BTreeMap<RegionId, Operator>,
    avoided: BTreeMap<(RegionId, StoreId), u64>,
    counters: PdCounters,
}

impl PdCore {
    /// A PD for an empty cluster.
    #[must_use]
    pub fn new(cluster: ClusterId, config: PdConfig) -> Self {
        Self {
            cluster,
            config,
            next_id: 1,
            is_bootstrapped: false,
            stores: BTreeMap::new(),
            directory: Directory::default(),
            operators: BTreeMap::new(),
            avoided: BTreeMap::new(),
            counters: PdCounters::default(),
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

    /// Changes the aims. Operators under way go on.
    pub const fn set_config(&mut self, config: PdConfig) {
        self.config = config;
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
        self.admit_store(now_ms, store)?;
        self.seed(vec![region])
    }

    /// Makes regions known that exist already, as if the cluster had been bootstrapped
    /// with them.
    ///
    /// # Errors
    /// As [`PdCore::report_split`] for regions that overlap.
    pub fn seed(&mut self, regions: Vec<Region>) -> Result<()> {
        for region in regions {
            self.observe_region(&region);
            self.directory.update(RegionRecord::unled(region))?;
        }
        self.is_bootstrapped = true;
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

    fn admit_store(&mut self, now_ms: u64, mut info: StoreInfo) -> Result<()> {
        if info.lifecycle == StoreLifecycle::Tombstone {
            return Err(Error::Invalid("a store does not bury itself"));
        }
        let living = |other: &&StoreRecord| other.info.lifecycle != StoreLifecycle::Tombstone;
        let twin = self
            .stores
            .values()
            .filter(living)
            .find(|other| other.info.id != info.id && other.info.address == info.address);
        if let Some(twin) = twin {
            return Err(Error::DuplicateAddress { address: info.address, other: twin.info.id });
        }
        self.observe_id(info.id.get());
        let Some(known) = self.stores.get_mut(&info.id) else {
            let record = StoreRecord {
                info,
                stats: None,
                heard_ms: now_ms,
                damaged_regions: BTreeSet::new(),
            };
            self.stores.insert(record.info.id, record);
            return Ok(());
        };
        match known.info.lifecycle {
            StoreLifecycle::Tombstone => return Err(Error::StoreNotFound(info.id)),
            StoreLifecycle::Offline => info.lifecycle = StoreLifecycle::Offline,
            StoreLifecycle::Up => {}
        }
        known.info = info;
        known.heard_ms = now_ms;
        Ok(())
    }

    /// Empties a store, takes it back, or buries it.
    ///
    /// # Errors
    /// `StoreNotFound`; `Invalid` to bury one that still has replicas.
    pub fn set_lifecycle(&mut self, store: StoreId, lifecycle: StoreLifecycle) -> Result<()> {
        let is_empty = self.directory.load(store).regions == 0;
        let record = living(self.stores.get_mut(&store), store)?;
        if lifecycle == StoreLifecycle::Tombstone && !is_empty {
            return Err(Error::Invalid("a store with replicas cannot be buried"));
        }
        record.info.lifecycle = lifecycle;
        Ok(())
    }

    /// What is known of a store.
    ///
    /// # Errors
    /// `StoreNotFound` if nothing is, or it was buried.
    pub fn store(&self, id: StoreId) -> Result<&StoreRecord> {
        self.stores
            .get(&id)
            .filter(|record| record.info.lifecycle != StoreLifecycle::Tombstone)
            .ok_or(Error::StoreNotFound(id))
    }

    /// Every store there ever was, by id.
    pub fn stores(&self) -> impl Iterator<Item = &StoreRecord> {
        self.stores.values()
    }

    /// Replicas and leaders on a store.
    #[must_use]
    pub fn store_load(&self, store: StoreId) -> StoreLoad {
        self.directory.load(store)
    }

    /// Every region known, by id.
    pub fn regions(&self) -> impl Iterator<Item = &RegionRecord> {
        self.directory.iter()
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
        let record = living(self.stores.get_mut(&stats.store), stats.store)?;
        record.heard_ms = now_ms;
        record.damaged_regions = stats.damaged_regions.iter().copied().collect();
        record.stats = Some(stats);
        self.sweep(now_ms);
        Ok(())
    }

    /// Gives up operators of regions that do not report any more: they hold slots. Those
    /// that do report find out themselves, and learn from it.
    fn sweep(&mut self, now_ms: u64) {
        let before = self.operators.len();
        let long_ago = now_ms.saturating_sub(self.config.operator_timeout_ms);
        self.operators.retain(|_, operator| !operator.is_overdue(long_ago));
        self.counters.timed_out += (before - self.operators.len()) as u64;
        self.avoided.retain(|_, until_ms| now_ms < *until_ms);
    }

    /// Takes a leader's report and gives the order that follows from it.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` for a region that cannot be; `Stale` if PD knows
    /// something newer: the report changes nothing then.
    pub fn region_heartbeat(
        &mut self,
        now_ms: u64,
        heartbeat: RegionHeartbeat,
    ) -> Result<Option<Order>> {
        self.check_bootstrapped()?;
        check_region(&heartbeat.region)?;
        if !heartbeat.region.peers.iter().any(|peer| peer.is_same_replica(&heartbeat.leader)) {
            return Err(Error::Invalid("the leader is no member of the region"));
        }
        let id = heartbeat.region.id;
        let record = RegionRecord {
            region: heartbeat.region,
            leader: Some(heartbeat.leader),
            term: heartbeat.term,
            down_peers: heartbeat.down_peers,
            pending_peers: heartbeat.pending_peers,
            approximate_size: heartbeat.approximate_size,
        };
        self.update(record)?;
        Ok(self.drive(now_ms, id))
    }

    fn update(&mut self, record: RegionRecord) -> Result<()> {
        let region = record.region.clone();
        match self.directory.update(record) {
            Ok(older) => {
                self.observe_region(&region);
                for id in older {
                    self.counters.cancelled += u64::from(self.operators.remove(&id).is_some());
                }
                Ok(())
            }
            Err(error) => {
                self.counters.stale_reports += 1;
                Err(error)
            }
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
        check_region(region)?;
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
    /// `NotBootstrapped`; `Invalid` if the parts are not neighbours in key order. Parts of
    /// which something newer is known are passed over.
    pub fn report_split(&mut self, regions: Vec<Region>) -> Result<()> {
        self.check_bootstrapped()?;
        for region in &regions {
            check_region(region)?;
        }
        let is_chain =
            |pair: &[Region]| !pair[0].end_key.is_empty() && pair[0].end_key == pair[1].start_key;
        if !regions.windows(2).all(is_chain) {
            return Err(Error::Invalid("the parts of a split are not neighbours"));
        }
        for region in regions {
            let mut record = RegionRecord::unled(region);
            if let Some(known) = self.directory.get(record.region.id) {
                record.term = known.term;
                record.leader =
                    known.leader.filter(|leader| record.region.peer(leader.id).is_some());
                record.down_peers.clone_from(&known.down_peers);
                record.pending_peers.clone_from(&known.pending_peers);
            }
            // A leader's own report may have been faster.
            let _ = self.update(record);
        }
        Ok(())
    }

    /// Asks for `action` in every answer to the region's leader until it is seen to have
    /// happened, in whatever epoch the region is then. It takes the place of what was
    /// under way for the region, and obeys no safety rule: that is the store's test.
    ///
    /// # Errors
    /// `Invalid` if the region is not known.
    pub fn force_order(
        &mut self,
        now_ms: u64,
        region: RegionId,
        action: OrderAction,
    ) -> Result<()> {
        let record = self.directory.get(region).ok_or(Error::Invalid("unknown region"))?;
        let version = record.region.epoch.version;
        let step = Step::Literally { action, version };
        let deadline_ms = now_ms.saturating_add(self.config.operator_timeout_ms);
        let operator = Operator::new(record, OperatorReason::Forced, [step], deadline_ms);
        self.start(operator);
        Ok(())
    }

    /// Gives up what is under way for the region.
    pub fn cancel(&mut self, region: RegionId) {
        self.counters.cancelled += u64::from(self.operators.remove(&region).is_some());
    }

    /// What is under way, by region.
    pub fn operators(&self) -> impl Iterator<Item = (RegionId, OperatorReason)> {
        self.operators.values().map(|operator| (operator.region, operator.reason))
    }

    fn start(&mut self, operator: Operator) {
        self.counters.started += 1;
        let older = self.operators.insert(operator.region, operator);
        self.counters.cancelled += u64::from(older.is_some());
    }

    /// Goes on with what is under way for the region, or begins something.
    fn drive(&mut self, now_ms: u64, id: RegionId) -> Option<Order> {
        if self.operators.contains_key(&id) {
            match self.advance(now_ms, id) {
                Progress::Order(action) => return self.order(id, action),
                Progress::Wait => return None,
                Progress::Done => self.counters.finished += 1,
                Progress::Void => self.counters.cancelled += 1,
                Progress::TimedOut(store) => {
                    self.counters.timed_out += 1;
                    let until_ms = now_ms.saturating_add(self.config.operator_timeout_ms);
                    self.avoided.extend(store.map(|store| ((id, store), until_ms)));
                }
            }
            self.operators.remove(&id);
        }
        let record = self.directory.get(id)?;
        let (reason, plan) = scheduler::plan(&self.view(now_ms), record)?;
        let steps = self.steps(plan);
        let record = self.directory.get(id)?;
        let deadline_ms = now_ms.saturating_add(self.config.operator_timeout_ms);
        self.start(Operator::new(record, reason, steps, deadline_ms));
        match self.advance(now_ms, id) {
            Progress::Order(action) => self.order(id, action),
            _ => None,
        }
    }

    fn advance(&mut self, now_ms: u64, id: RegionId) -> Progress {
        // Taken out, so that its own influence does not count against it.
        let Some(mut operator) = self.operators.remove(&id) else { return Progress::Done };
        let progress = self
            .directory
            .get(id)
            .map_or(Progress::Void, |record| operator.advance(&self.view(now_ms), record));
        self.operators.insert(id, operator);
        progress
    }

    fn view(&self, now_ms: u64) -> View<'_> {
        View {
            now_ms,
            config: &self.config,
            stores: &self.stores,
            directory: &self.directory,
            operators: &self.operators,
            avoided: &self.avoided,
        }
    }

    fn steps(&mut self, plan: Plan) -> Vec<Step> {
        let mut learner = |store: StoreId| Peer::learner(PeerId::must(self.alloc_id()), store);
        match plan {
            Plan::Add(store) => {
                let new = learner(store);
                vec![Step::AddLearner(new), Step::Promote(new)]
            }
            Plan::Promote(new) => vec![Step::Promote(new)],
            Plan::Remove(old) => vec![Step::Remove(old)],
            Plan::Replace(old, store) => {
                let new = learner(store);
                vec![Step::AddLearner(new), Step::Promote(new), Step::Remove(old)]
            }
            Plan::PromoteFor(new, old) => vec![Step::Promote(new), Step::Remove(old)],
            Plan::Transfer(to) => vec![Step::Transfer(to)],
        }
    }

    fn order(&self, id: RegionId, action: OrderAction) -> Option<Order> {
        let record = self.directory.get(id)?;
        Some(Order { region: id, epoch: record.region.epoch, target: record.leader?, action })
    }
}

fn living(record: Option<&mut StoreRecord>, store: StoreId) -> Result<&mut StoreRecord> {
    record
        .filter(|record| record.info.lifecycle != StoreLifecycle::Tombstone)
        .ok_or(Error::StoreNotFound(store))
}

/// Whether there can be such a region.
fn check_region(region: &Region) -> Result<()> {
    if region.peers.is_empty() {
        return Err(Error::Invalid("the region has no members"));
    }
    let ids: BTreeSet<_> = region.peers.iter().map(|peer| peer.id).collect();
    let stores: BTreeSet<_> = region.peers.iter().map(|peer| peer.store).collect();
    if ids.len() != region.peers.len() || stores.len() != region.peers.len() {
        return Err(Error::Invalid("two members share an id or a store"));
    }
    if !region.end_key.is_empty() && region.start_key >= region.end_key {
        return Err(Error::Invalid("the region's range is empty"));
    }
    Ok(())
}
