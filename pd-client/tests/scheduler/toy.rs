//! A cluster of the simplest kind that does what PD orders: no logs, no data, only
//! members, leaders, health, sizes and flows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pd_client::{
    Order, OrderAction, PeerDown, RegionHeartbeat, StoreInfo, StoreLifecycle, StoreStats,
    mock::{PdConfig, PdCore},
};
use raftstore_proto::{
    ChangeKind, ClusterId, Epoch, Peer, PeerChange, PeerId, PeerRole, Region, RegionId, StoreId,
};

/// Time that passes in a round.
pub(crate) const ROUND_MS: u64 = 10_000;

/// Rounds a new replica needs to receive its snapshot.
const SNAPSHOT_ROUNDS: u32 = 3;

/// Capacity of every store, unless it is changed.
const CAPACITY: u64 = 1 << 40;

/// Limits that suit a toy: everything happens within some rounds.
pub(crate) fn config() -> PdConfig {
    PdConfig {
        max_store_down_ms: 6 * ROUND_MS,
        store_silent_ms: 3 * ROUND_MS,
        operator_timeout_ms: 30 * ROUND_MS,
        transfer_timeout_ms: 6 * ROUND_MS,
        hot_rest_ms: 10 * ROUND_MS,
        // Room enough for tests in which all regions begin on one store.
        snapshots_per_store_max: 16,
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

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("smaller than len")]
    }
}

pub(crate) struct ToyRegion {
    pub(crate) region: Region,
    pub(crate) leader: Peer,
    pub(crate) term: u64,
    /// What is reported as its size.
    pub(crate) size: u64,
    /// Bytes written to it in a round.
    pub(crate) written: u64,
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
    pub(crate) capacity: BTreeMap<StoreId, u64>,
    pub(crate) regions: BTreeMap<RegionId, ToyRegion>,
    pub(crate) damaged: BTreeSet<PeerId>,
    /// Counts everything that makes a replica worse than PD was told.
    pub(crate) failures: u64,
    /// Orders that changed something.
    pub(crate) executed: Vec<Order>,
    /// Most replicas that were being filled on, and from, one store at a time.
    pub(crate) filled_max: (u64, u64),
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

/// A store of a zone, each on a host of its own.
pub(crate) fn in_zone(id: u64, zone: u64) -> StoreInfo {
    let label = |key: &str, value: u64| (key.to_owned(), format!("{key}-{value}"));
    StoreInfo { labels: vec![label("host", id), label("zone", zone)], ..info(id) }
}

/// The key that starts region number `number`; the first starts before every key.
fn boundary(number: u64) -> Bytes {
    if number == 0 { Bytes::new() } else { format!("k{number:04}").into() }
}

impl Toy {
    /// `stores` stores, and `regions` regions with one voter each, on the first store.
    pub(crate) fn new(config: PdConfig, stores: u64, regions: u64) -> Self {
        Self::placed(config, stores, regions, |number, id| {
            vec![Peer::voter(PeerId::must(id + number), store(1))]
        })
    }

    /// `stores` stores, and `regions` regions with the members that `place` gives for each
    /// number, from an id on that nobody has; the first of them leads.
    pub(crate) fn placed(
        config: PdConfig,
        stores: u64,
        regions: u64,
        mut place: impl FnMut(u64, u64) -> Vec<Peer>,
    ) -> Self {
        let mut core = PdCore::new(ClusterId::must(7), config);
        let mut toy_regions = BTreeMap::new();
        for number in 0..regions {
            let id = RegionId::must(1000 + number);
            let end_key = if number + 1 == regions { Bytes::new() } else { boundary(number + 1) };
            let region = Region {
                id,
                start_key: boundary(number),
                end_key,
                epoch: Epoch { conf_ver: 1, version: 1 },
                peers: place(number, 5000),
            };
            let toy = ToyRegion {
                leader: region.peers[0],
                region,
                term: 5,
                size: 0,
                written: 0,
                pending: BTreeMap::new(),
                missed_since: BTreeMap::new(),
            };
            toy_regions.insert(id, toy);
        }
        core.seed(toy_regions.values().map(|toy| toy.region.clone()).collect())
            .expect("the regions do not overlap");
        let mut toy = Self {
            core,
            now_ms: 0,
            up: BTreeMap::new(),
            capacity: BTreeMap::new(),
            regions: toy_regions,
            damaged: BTreeSet::new(),
            failures: 0,
            executed: Vec::new(),
            filled_max: (0, 0),
        };
        for id in 1..=stores {
            toy.join(info(id));
        }
        toy
    }

    /// A store introduces itself.
    pub(crate) fn join(&mut self, info: StoreInfo) {
        self.up.insert(info.id, true);
        self.capacity.entry(info.id).or_insert(CAPACITY);
        self.core.put_store(self.now_ms, info).expect("addresses differ");
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
    fn is_quorum(&self, toy: &ToyRegion, voters: &[Peer]) -> bool {
        voters.iter().filter(|peer| self.is_healthy(toy, peer)).count() > voters.len() / 2
    }

    /// Whether the region could go on with these members.
    pub(crate) fn has_quorum(&self, toy: &ToyRegion, members: &[Peer]) -> bool {
        self.is_quorum(toy, &half(members, PeerRole::DemotingVoter))
            && self.is_quorum(toy, &half(members, PeerRole::IncomingVoter))
    }

    /// Time passes, stores report, leaders are elected and report: gives PD's orders.
    pub(crate) fn report(&mut self) -> Vec<Given> {
        self.now_ms += ROUND_MS;
        let stores: Vec<_> = self.up.keys().copied().filter(|id| self.is_up(*id)).collect();
        for id in stores {
            let stats = self.stats(id);
            self.filled_max.0 = self.filled_max.0.max(stats.receiving_snapshots);
            self.filled_max.1 = self.filled_max.1.max(stats.sending_snapshots);
            // A buried store is told so, and that is that.
            let _ = self.core.store_heartbeat(self.now_ms, stats);
        }
        let ids: Vec<_> = self.regions.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.report_region(id)).collect()
    }

    fn stats(&self, id: StoreId) -> StoreStats {
        let here =
            || self.regions.values().filter_map(move |toy| Some((toy, toy.region.peer_on(id)?)));
        let used_bytes = here().map(|(toy, _)| toy.size).sum();
        let sent =
            |toy: &ToyRegion| if toy.leader.store == id { toy.pending.len() as u64 } else { 0 };
        StoreStats {
            store: id,
            capacity_bytes: self.capacity[&id],
            available_bytes: self.capacity[&id].saturating_sub(used_bytes),
            used_bytes,
            region_count: here().count() as u64,
            sending_snapshots: self.regions.values().map(sent).sum(),
            receiving_snapshots: here()
                .filter(|(toy, peer)| toy.pending.contains_key(&peer.id))
                .count() as u64,
            applying_snapshots: 0,
            start_time_seconds: 0,
            is_busy: false,
            written_bytes: 0,
            written_keys: 0,
            damaged_regions: here()
                .filter(|(_, peer)| self.damaged.contains(&peer.id))
                .map(|(toy, _)| toy.region.id)
                .collect(),
        }
    }

    fn report_region(&mut self, id: RegionId) -> Option<Given> {
        self.elect(id)?;
        self.leave_joint(id);
        // Who was demoted steps down.
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
            written_bytes: toy.written,
            written_keys: 0,
            approximate_size: toy.size,
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
        if !self.has_quorum(toy, &toy.region.peers) {
            return None;
        }
        let may_lead = |peer: &&Peer| peer.role != PeerRole::Learner;
        if !self.is_healthy(toy, &toy.leader) || !may_lead(&&toy.leader) {
            let leader = *toy
                .region
                .peers
                .iter()
                .filter(may_lead)
                .find(|peer| self.is_healthy(toy, peer))?;
            let toy = self.regions.get_mut(&id)?;
            toy.leader = leader;
            toy.term += 1;
            toy.missed_since.clear();
        }
        Some(())
    }

    /// A leader that has told of a joint membership once leaves it.
    fn leave_joint(&mut self, id: RegionId) {
        let Some(toy) = self.regions.get_mut(&id) else { return };
        let known = self.core.region_by_id(id);
        if known.is_none_or(|known| known.region.epoch != toy.region.epoch) {
            return;
        }
        let mut changed = 0;
        for peer in &mut toy.region.peers {
            let role = match peer.role {
                PeerRole::IncomingVoter => PeerRole::Voter,
                PeerRole::DemotingVoter => PeerRole::Learner,
                PeerRole::Voter | PeerRole::Learner => continue,
            };
            peer.role = role;
            changed += 1;
        }
        toy.region.epoch.conf_ver += changed;
        toy.leader = *toy.region.peer(toy.leader.id).expect("the leader stays a member");
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
            OrderAction::ChangePeer(_) | OrderAction::ChangePeerV2(_) => {
                let after = apply(&toy.region, &order.action);
                let leader = after.peer(toy.leader.id).expect("the leader stays a member");
                assert_eq!(leader.role, PeerRole::Voter, "{order:?}: the leader demoted");
                let max = self.core.config().max_replicas;
                let before = voters(&toy.region).len();
                let now = voters(&after).len();
                assert!(now <= max + 1 || now < before, "{order:?}: too many voters");
                assert!(self.has_quorum(toy, &after.peers), "{order:?}: quorum given away");
            }
            other => unreachable!("unknown action {other:?}"),
        }
    }

    /// What a store does with an order: checks epoch and leader, then obeys.
    pub(crate) fn execute(&mut self, given: &Given) {
        let order = &given.order;
        let Some(toy) = self.regions.get(&order.region) else { return };
        let is_void = order.epoch != toy.region.epoch || order.target != toy.leader;
        let had_quorum = self.has_quorum(toy, &toy.region.peers);
        if is_void || !had_quorum {
            return;
        }
        if let OrderAction::TransferLeader(peer) = &order.action {
            if peer.id == toy.leader.id || !self.is_healthy(toy, peer) {
                return;
            }
            let toy = self.regions.get_mut(&order.region).expect("looked up above");
            toy.leader = *toy.region.peer(peer.id).expect("a member shall lead");
            toy.term += 1;
            self.executed.push(order.clone());
            return;
        }
        let mut after = apply(&toy.region, &order.action);
        if after.peers == toy.region.peers {
            return;
        }
        after.epoch.conf_ver += match &order.action {
            OrderAction::ChangePeerV2(changes) => changes.len() as u64,
            _ => 1,
        };
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
            let is_safe = self.has_quorum(toy, &toy.region.peers);
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
            "no rest after {limit} rounds: {:?} {:?}, last {:#?}",
            self.core.counters(),
            self.core.operators().collect::<Vec<_>>(),
            self.core.history().rev().take(20).collect::<Vec<_>>(),
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
        toy.size /= 2;
        toy.written /= 2;
        let leader = *right.peer_on(toy.leader.store).expect("the parts have the same stores");
        let carry = |old: &PeerId| {
            let old = toy.region.peer(*old)?;
            Some(right.peer_on(old.store)?.id)
        };
        let pending = toy.pending.iter().filter_map(|(id, n)| Some((carry(id)?, *n))).collect();
        let parts = vec![toy.region.clone(), right.clone()];
        let part = ToyRegion {
            region: right,
            leader,
            term: 5,
            size: toy.size,
            written: toy.written,
            pending,
            missed_since: BTreeMap::new(),
        };
        self.regions.insert(new_id, part);
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

    /// Largest difference of a count between stores.
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

    /// What was done, in short: `+3` learner on 3, `^3` promoted, `-3` removed, `>3` leads,
    /// `x3-4` 3 votes in place of 4.
    pub(crate) fn deeds(&self) -> Vec<String> {
        self.executed.iter().map(|order| short(&order.action)).collect()
    }
}

fn short(action: &OrderAction) -> String {
    let on = |changes: &[PeerChange]| {
        let stores: Vec<_> = changes.iter().map(|change| change.peer.store.to_string()).collect();
        stores.join("-")
    };
    match action {
        OrderAction::ChangePeer(change) => {
            let sign = match change.kind {
                ChangeKind::AddLearner => '+',
                ChangeKind::AddNode => '^',
                ChangeKind::RemoveNode => '-',
            };
            format!("{sign}{}", change.peer.store)
        }
        OrderAction::ChangePeerV2(changes) => format!("x{}", on(changes)),
        OrderAction::TransferLeader(peer) => format!(">{}", peer.store),
        other => unreachable!("unknown action {other:?}"),
    }
}

pub(crate) fn voters(region: &Region) -> Vec<Peer> {
    region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).copied().collect()
}

/// Those that vote in one half of a joint membership: voters, and who has `also`.
fn half(members: &[Peer], also: PeerRole) -> Vec<Peer> {
    let votes = |peer: &&Peer| peer.role == PeerRole::Voter || peer.role == also;
    members.iter().filter(votes).copied().collect()
}

/// The members after an order was carried out; several changes begin a joint membership.
fn apply(region: &Region, action: &OrderAction) -> Region {
    let mut after = region.clone();
    let changes = match action {
        OrderAction::ChangePeer(change) => std::slice::from_ref(change),
        OrderAction::ChangePeerV2(changes) => changes.as_slice(),
        _ => return after,
    };
    let is_joint = changes.len() > 1;
    for change in changes {
        let known = after.peers.iter_mut().find(|peer| peer.id == change.peer.id);
        let role = match change.kind {
            ChangeKind::RemoveNode => {
                after.peers.retain(|peer| peer.id != change.peer.id);
                continue;
            }
            ChangeKind::AddNode if is_joint => PeerRole::IncomingVoter,
            ChangeKind::AddNode => PeerRole::Voter,
            ChangeKind::AddLearner => {
                let votes = known.as_ref().is_some_and(|peer| peer.role == PeerRole::Voter);
                assert!(is_joint || !votes, "a voter is demoted through a joint membership only");
                if votes { PeerRole::DemotingVoter } else { PeerRole::Learner }
            }
        };
        match known {
            Some(known) => known.role = role,
            None => {
                assert!(after.peer_on(change.peer.store).is_none(), "two members on one store");
                after.peers.push(Peer { role, ..change.peer });
            }
        }
    }
    after
}
