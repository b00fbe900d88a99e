//! A cluster of the simplest kind that does what PD orders: no logs, no data, only
//! members, leaders and health.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pd_client::{
    Order, OrderAction, PeerDown, RegionHeartbeat, StoreInfo, StoreLifecycle, StoreStats,
    mock::{PdConfig, PdCore},
};
use raftstore_proto::{
    ChangeKind, ClusterId, Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId,
};

/// Time that passes in a round.
pub(crate) const ROUND_MS: u64 = 10_000;

/// Rounds a new replica needs to receive its snapshot.
const SNAPSHOT_ROUNDS: u32 = 3;

/// Limits that suit a toy: everything happens within some rounds.
pub(crate) fn config() -> PdConfig {
    PdConfig {
        max_store_down_ms: 6 * ROUND_MS,
        store_silent_ms: 3 * ROUND_MS,
        operator_timeout_ms: 30 * ROUND_MS,
        ..PdConfig::default()
    }
}

/// Randomness of a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

pub(crate) struct ToyRegion {
    pub(crate) region: Region,
    pub(crate) leader: Peer,
    pub(crate) term: u64,
    /// Rounds until each of these has its snapshot.
    pub(crate) pending: BTreeMap<PeerId, u32>,
    /// Since when the leader misses each of these.
    missed_since: BTreeMap<PeerId, u64>,
}

/// An order on its way, and what was known when PD gave it.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) order: Order,
    pub(crate) failures: u64,
}

pub(crate) struct Toy {
    pub(crate) core: PdCore,
    pub(crate) now_ms: u64,
    pub(crate) up: BTreeMap<StoreId, bool>,
    pub(crate) regions: BTreeMap<RegionId, ToyRegion>,
    pub(crate) damaged: BTreeSet<PeerId>,
    /// Counts everything that makes a replica worse than PD was told.
    pub(crate) failures: u64,
    /// Orders that changed something.
    pub(crate) executed: Vec<Order>,
}

pub(crate) fn store(id: u64) -> StoreId {
    StoreId::must(id)
}

pub(crate) fn info(id: u64) -> StoreInfo {
    StoreInfo {
        id: store(id),
        address: format!("store-{id}"),
        labels: Vec::new(),
        lifecycle: StoreLifecycle::Up,
    }
}

pub(crate) fn stats(id: StoreId) -> StoreStats {
    StoreStats {
        store: id,
        capacity_bytes: 1000,
        available_bytes: 900,
        used_bytes: 100,
        region_count: 0,
        sending_snapshots: 0,
        receiving_snapshots: 0,
        applying_snapshots: 0,
        start_time_seconds: 0,
        is_busy: false,
        written_bytes: 0,
        written_keys: 0,
        damaged_regions: Vec::new(),
    }
}

/// The key that starts region number `number`; the first starts before every key.
fn boundary(number: u64) -> Bytes {
    if number == 0 { Bytes::new() } else { format!("k{number:04}").into() }
}

impl Toy {
    /// `stores` stores, and `regions` regions with one voter each, on the first store.
    pub(crate) fn new(config: PdConfig, stores: u64, regions: u64) -> Self {
        let mut core = PdCore::new(ClusterId::must(7), config);
        let mut toy_regions = BTreeMap::new();
        for number in 0..regions {
            let id = RegionId::must(1000 + number);
            let leader = Peer::voter(PeerId::must(5000 + number), store(1));
            let end_key = if number + 1 == regions { Bytes::new() } else { boundary(number + 1) };
            let region = Region {
                id,
                start_key: boundary(number),
                end_key,
                epoch: Epoch { conf_ver: 1, version: 1 },
                peers: vec![leader],
            };
            let toy = ToyRegion {
                region,
                leader,
                term: 5,
                pending: BTreeMap::new(),
                missed_since: BTreeMap::new(),
            };
            toy_regions.insert(id, toy);
        }
        core.seed(toy_regions.values().map(|toy| toy.region.clone()).collect())
            .expect("the regions do not overlap");
        for id in 1..=stores {
            core.put_store(0, info(id)).expect("addresses differ");
        }
        Self {
            core,
            now_ms: 0,
            up: (1..=stores).map(|id| (store(id), true)).collect(),
            regions: toy_regions,
            damaged: BTreeSet::new(),
            failures: 0,
            executed: Vec::new(),
        }
    }

    pub(crate) fn is_up(&self, id: StoreId) -> bool {
        self.up.get(&id) == Some(&true)
    }

    pub(crate) fn kill(&mut self, id: u64) {
        self.up.insert(store(id), false);
        self.failures += 1;
    }

    pub(crate) fn revive(&mut self, id: u64) {
        self.up.insert(store(id), true);
    }

    pub(crate) fn is_healthy(&self, toy: &ToyRegion, peer: &Peer) -> bool {
        self.is_up(peer.store)
            && !toy.pending.contains_key(&peer.id)
            && !self.damaged.contains(&peer.id)
    }

    /// Whether the healthy ones of `voters` are a majority of them.
    pub(crate) fn has_quorum(&self, toy: &ToyRegion, voters: &[Peer]) -> bool {
        voters.iter().filter(|peer| self.is_healthy(toy, peer)).count() > voters.len() / 2
    }

    /// Time passes, stores report, leaders are elected and report: gives PD's orders.
    pub(crate) fn report(&mut self) -> Vec<Given> {
        self.now_ms += ROUND_MS;
        let stores: Vec<_> = self.up.keys().copied().filter(|id| self.is_up(*id)).collect();
        for id in stores {
            let mut stats = stats(id);
            stats.damaged_regions = self
                .regions
                .values()
                .filter(|toy| {
                    toy.region.peer_on(id).is_some_and(|peer| self.damaged.contains(&peer.id))
                })
                .map(|toy| toy.region.id)
                .collect();
            // A buried store is told so, and that is that.
            let _ = self.core.store_heartbeat(self.now_ms, stats);
        }
        let ids: Vec<_> = self.regions.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.report_region(id)).collect()
    }

    fn report_region(&mut self, id: RegionId) -> Option<Given> {
        self.elect(id)?;
        self.pass_time(id);
        let toy = self.regions.get(&id)?;
        let down_peers = toy
            .missed_since
            .iter()
            .filter_map(|(peer, since)| {
                let down_seconds = (self.now_ms - since) / 1000;
                Some(PeerDown { peer: *toy.region.peer(*peer)?, down_seconds })
            })
            .collect();
        let pending_peers =
            toy.pending.keys().filter_map(|peer| toy.region.peer(*peer)).copied().collect();
        let heartbeat = RegionHeartbeat {
            region: toy.region.clone(),
            leader: toy.leader,
            term: toy.term,
            down_peers,
            pending_peers,
            written_bytes: 0,
            written_keys: 0,
            approximate_size: 0,
        };
        let order = self
            .core
            .region_heartbeat(self.now_ms, heartbeat)
            .expect("the only leader's report is never stale")?;
        self.check_order(&order);
        Some(Given { order, failures: self.failures })
    }

    /// Makes sure that a healthy voter leads; `None` if there is no quorum.
    fn elect(&mut self, id: RegionId) -> Option<()> {
        let toy = self.regions.get(&id)?;
        let voters = voters(&toy.region);
        if !self.has_quorum(toy, &voters) {
            return None;
        }
        if !self.is_healthy(toy, &toy.leader) {
            let leader = *voters.iter().find(|peer| self.is_healthy(toy, peer))?;
            let toy = self.regions.get_mut(&id)?;
            toy.leader = leader;
            toy.term += 1;
            toy.missed_since.clear();
        }
        Some(())
    }

    fn pass_time(&mut self, id: RegionId) {
        let Some(toy) = self.regions.get_mut(&id) else { return };
        for peer in &toy.region.peers {
            let is_missed =
                self.up.get(&peer.store) != Some(&true) || self.damaged.contains(&peer.id);
            if is_missed {
                toy.missed_since.entry(peer.id).or_insert(self.now_ms);
            } else {
                toy.missed_since.remove(&peer.id);
                if let Some(rounds) = toy.pending.get_mut(&peer.id) {
                    *rounds = rounds.saturating_sub(1);
                }
            }
        }
        toy.pending.retain(|_, rounds| *rounds > 0);
        let members: BTreeSet<_> = toy.region.peers.iter().map(|peer| peer.id).collect();
        toy.missed_since.retain(|peer, _| members.contains(peer));
    }

    /// What PD must never ask for, given what it was just told.
    fn check_order(&self, order: &Order) {
        let toy = &self.regions[&order.region];
        assert_eq!(order.epoch, toy.region.epoch, "an order is for the epoch reported");
        assert_eq!(order.target, toy.leader, "an order is for the leader that reported");
        match &order.action {
            OrderAction::TransferLeader(peer) => {
                let member = toy.region.peer(peer.id).expect("a member shall lead");
                assert_eq!(member.role, PeerRole::Voter);
                assert!(self.is_healthy(toy, member), "{order:?}: the new leader lags or is dead");
            }
            OrderAction::ChangePeer(_) => {
                let after = apply(&toy.region, &order.action);
                assert!(after.peer(toy.leader.id).is_some(), "{order:?}: the leader removed");
                let max = self.core.config().max_replicas;
                let before = voters(&toy.region).len();
                let now = voters(&after).len();
                assert!(now <= max + 1 || now < before, "{order:?}: too many voters");
                assert!(self.has_quorum(toy, &voters(&after)), "{order:?}: quorum given away");
            }
            other => unreachable!("unknown action {other:?}"),
        }
    }

    /// What a store does with an order: checks epoch and leader, then obeys.
    pub(crate) fn execute(&mut self, given: &Given) {
        let order = &given.order;
        let Some(toy) = self.regions.get(&order.region) else { return };
        let is_void = order.epoch != toy.region.epoch || order.target != toy.leader;
        let had_quorum = self.has_quorum(toy, &voters(&toy.region));
        if is_void || !had_quorum {
            return;
        }
        if let OrderAction::TransferLeader(peer) = &order.action {
            if peer.id == toy.leader.id || !self.is_healthy(toy, peer) {
                return;
            }
            let toy = self.regions.get_mut(&order.region).expect("looked up above");
            toy.leader = *peer;
            toy.term += 1;
            self.executed.push(order.clone());
            return;
        }
        let mut after = apply(&toy.region, &order.action);
        if after.peers == toy.region.peers {
            return;
        }
        after.epoch.conf_ver += 1;
        let toy = self.regions.get_mut(&order.region).expect("looked up above");
        for peer in &after.peers {
            if toy.region.peer(peer.id).is_none() {
                toy.pending.insert(peer.id, SNAPSHOT_ROUNDS);
            }
        }
        toy.pending.retain(|peer, _| after.peer(*peer).is_some());
        toy.region = after;
        toy.leader = *toy.region.peer(toy.leader.id).expect("a leader does not remove itself");
        let toy = &self.regions[&order.region];
        if given.failures == self.failures {
            let is_safe = self.has_quorum(toy, &voters(&toy.region));
            assert!(is_safe, "{order:?} took the quorum away");
        }
        self.executed.push(order.clone());
    }

    /// A round in which every order arrives at once.
    pub(crate) fn round(&mut self) -> usize {
        let orders = self.report();
        for order in &orders {
            self.execute(order);
        }
        orders.len()
    }

    /// Rounds until PD rests, at most `limit`; gives how many.
    #[expect(clippy::panic, reason = "a helper of tests that fails the test")]
    pub(crate) fn run_until_rest(&mut self, limit: usize) -> usize {
        let mut quiet = 0;
        for round in 0..limit {
            let orders = self.round();
            let is_quiet = orders == 0 && self.core.operators().next().is_none();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            // Longer than any limit that PD waits for.
            if quiet > 40 {
                return round - 40;
            }
        }
        panic!(
            "no rest after {limit} rounds: {:?} {:?}",
            self.core.counters(),
            self.core.operators().collect::<Vec<_>>()
        );
    }

    /// Cuts a region in two; its members stay where they are.
    pub(crate) fn split(&mut self, id: RegionId, key: &str) {
        let Some(toy) = self.regions.get_mut(&id) else { return };
        let key = Bytes::copy_from_slice(key.as_bytes());
        if !toy.region.contains(&key) || toy.region.start_key == key {
            return;
        }
        let ids = self.core.ask_split(&toy.region, 1);
        let Ok(Some((new_id, new_peers))) = ids.map(|mut ids| ids.pop()) else { return };
        let mut right = toy.region.clone();
        right.id = new_id;
        right.start_key = key.clone();
        right.epoch.version += 1;
        for (peer, id) in right.peers.iter_mut().zip(new_peers) {
            peer.id = id;
        }
        toy.region.end_key = key;
        toy.region.epoch.version += 1;
        let leader = *right.peer_on(toy.leader.store).expect("the parts have the same stores");
        let carry = |old: &PeerId| {
            let old = toy.region.peer(*old)?;
            Some(right.peer_on(old.store)?.id)
        };
        let pending = toy.pending.iter().filter_map(|(id, n)| Some((carry(id)?, *n))).collect();
        let parts = vec![toy.region.clone(), right.clone()];
        self.regions.insert(
            new_id,
            ToyRegion { region: right, leader, term: 5, pending, missed_since: BTreeMap::new() },
        );
        self.core.report_split(parts).expect("the parts are neighbours");
    }

    /// Every region has `count` healthy voters and nothing else, known to PD.
    pub(crate) fn check_complete(&self, count: usize) {
        for toy in self.regions.values() {
            assert_eq!(voters(&toy.region).len(), count, "{:?}", toy.region);
            assert_eq!(toy.region.peers.len(), count, "{:?}", toy.region);
            assert!(toy.region.peers.iter().all(|peer| self.is_healthy(toy, peer)));
            let known = self.core.region_by_id(toy.region.id).expect("PD knows the region");
            assert_eq!(known.region, toy.region);
        }
    }

    /// Largest difference of a count between stores that are up.
    pub(crate) fn spread(&self, count: impl Fn(&Self, StoreId) -> u64) -> u64 {
        let counts: Vec<_> = self.up.keys().map(|id| count(self, *id)).collect();
        counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
    }

    pub(crate) fn region_spread(&self) -> u64 {
        self.spread(|toy, id| toy.core.store_load(id).regions)
    }

    pub(crate) fn leader_spread(&self) -> u64 {
        self.spread(|toy, id| toy.core.store_load(id).leaders)
    }
}

pub(crate) fn voters(region: &Region) -> Vec<Peer> {
    region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).copied().collect()
}

/// The members after a change.
fn apply(region: &Region, action: &OrderAction) -> Region {
    let mut after = region.clone();
    let OrderAction::ChangePeer(change) = action else { return after };
    let role = match change.kind {
        ChangeKind::RemoveNode => {
            after.peers.retain(|peer| peer.id != change.peer.id);
            return after;
        }
        ChangeKind::AddNode => PeerRole::Voter,
        ChangeKind::AddLearner => PeerRole::Learner,
    };
    match after.peers.iter_mut().find(|peer| peer.id == change.peer.id) {
        Some(known) => known.role = role,
        None => {
            assert!(after.peer_on(change.peer.store).is_none(), "two members on one store");
            after.peers.push(Peer { role, ..change.peer });
        }
    }
    after
}
