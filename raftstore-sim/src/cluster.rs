//! The words in which scenarios are written: build a cluster, do something to it, wait in
//! simulated time until something is true.
#![expect(clippy::panic, reason = "scenarios are tests, and a test fails by panicking")]

mod commands;
mod seeds;

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use engine_traits::Reader;
use raftstore_core::Event;
use raftstore_core::keys;
use raftstore_proto::{
    AdminCommand, AdminResponse, Body, Cf, ChangeKind, Command, Operation, Peer, PeerChange,
    PeerId, PeerRole, RaftMessage, Region, RegionError, RegionId, Response, ResponseBody, StoreId,
};
use transport_traits::{SnapKey, SnapshotStatus};

use crate::{
    disk::Crash,
    network::{Action, Envelope, FilterId, Match},
    plan::Plan,
    queue::{MILLI, Nanos, SECOND},
    transcript::Transcript,
    world::World,
};

/// How long a scenario waits for anything, in simulated time, unless it says otherwise.
pub const PATIENCE: Nanos = 60 * SECOND;
/// How many lines of the timeline are shown when a scenario fails.
const TAIL: usize = 80;

pub use self::{
    commands::{admin_command, get, header, put, value_in},
    seeds::{scenario_plan, under_seeds},
};

/// A cluster in the hands of a test. Every wait ends in simulated time; a violated
/// invariant ends the test.
#[derive(Debug)]
pub struct Cluster {
    /// The world it lives in.
    pub world: World,
}

impl Deref for Cluster {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Cluster {
    /// Three stores, one region on all of them, leader on store 1.
    #[must_use]
    pub fn three() -> Self {
        Self::of(3)
    }

    /// `stores` stores, one region on all of them, leader on store 1.
    #[must_use]
    pub fn of(stores: u64) -> Self {
        let mut cluster = Self::started(scenario_plan(stores, stores));
        cluster.lead(1, 1);
        cluster
    }

    /// The cluster of `plan`, seeded and started.
    #[must_use]
    pub fn started(plan: Plan) -> Self {
        Self::started_with(plan, |_| {})
    }

    /// The same, with something done to the world before any store is started.
    #[must_use]
    pub fn started_with(plan: Plan, prepare: impl FnOnce(&mut World)) -> Self {
        let mut world = World::new(plan, Transcript::readable());
        world.seed_cluster();
        prepare(&mut world);
        world.start_all();
        let mut cluster = Self { world };
        for region in 1..=cluster.world.plan.regions {
            cluster.wait_leader(region);
        }
        cluster
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// If an invariant is violated meanwhile.
    pub fn pass(&mut self, span: Nanos) {
        let until = self.world.now + span;
        self.world.run_until(until);
        self.require_sound();
    }

    /// Fails the test if an invariant was violated.
    ///
    /// # Panics
    /// If one was.
    pub fn require_sound(&mut self) {
        if let Some((at, violation)) = self.world.violation().cloned() {
            let tail = self.tail();
            panic!("at {} ms: {violation}\n{tail}", at / MILLI);
        }
    }

    fn tail(&mut self) -> String {
        let lines = self.world.transcript.take_lines();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    pub fn wait(&mut self, what: &str, condition: impl FnMut(&mut World) -> bool) {
        self.wait_within(PATIENCE, what, condition);
    }

    /// Waits until `condition` holds, for at most `span`.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_within(
        &mut self,
        span: Nanos,
        what: &str,
        mut condition: impl FnMut(&mut World) -> bool,
    ) {
        let deadline = self.world.now + span;
        while !condition(&mut self.world) {
            if self.world.now >= deadline {
                let tail = self.tail();
                panic!("waited {} ms in vain: {what}\n{tail}", span / MILLI);
            }
            self.pass(10 * MILLI);
        }
    }

    /// Whether `condition` holds all the time for `span`.
    pub fn stays(&mut self, span: Nanos, mut condition: impl FnMut(&mut World) -> bool) -> bool {
        let deadline = self.world.now + span;
        while self.world.now < deadline {
            if !condition(&mut self.world) {
                return false;
            }
            self.pass(10 * MILLI);
        }
        true
    }

    /// Waits for a leader that has applied an entry of its term; gives its store.
    pub fn wait_leader(&mut self, region: u64) -> u64 {
        self.wait(&format!("a leader of region {region}"), |world| {
            world.leader_store(region).is_some_and(|store| {
                world
                    .peer_status(store, region)
                    .is_some_and(|status| status.applied.applied_term == status.term)
            })
        });
        self.world.leader_store(region).expect("just seen")
    }

    /// Moves leadership of a region to a store.
    pub fn lead(&mut self, region: u64, store: u64) {
        let mut asked = 0;
        self.wait(&format!("store {store} to lead region {region}"), |world| {
            let Some(leader) = world.leader_store(region) else { return false };
            let ready = world
                .peer_status(leader, region)
                .is_some_and(|status| status.applied.applied_term == status.term);
            if leader == store || !ready {
                return leader == store && ready;
            }
            if world.now >= asked {
                asked = world.now + 500 * MILLI;
                if let (Some(known), Some(from)) =
                    (world.newest_region(region), world.peer_status(leader, region))
                    && let Some(to) = known.peer_on(StoreId::must(store))
                {
                    let admin = AdminCommand::TransferLeader(*to);
                    let command = admin_command(&known, from.peer, admin);
                    world.ask(leader, command);
                }
            }
            false
        });
    }

    /// The region as its best informed replica knows it.
    ///
    /// # Panics
    /// If no running store knows it.
    #[must_use]
    pub fn region(&self, region: u64) -> Region {
        self.world.newest_region(region).expect("a running store knows the region")
    }

    /// The region that holds `key`, as far as running stores know; 1 if none knows it.
    #[must_use]
    pub fn region_of(&self, key: &str) -> u64 {
        self.world.region_holding(key.as_bytes()).map_or(1, |region| region.id.get())
    }

    /// Puts a command to a store and waits for the answer; `None` if the store died first,
    /// or did not answer within ten seconds.
    pub fn call(&mut self, store: u64, command: Command) -> Option<Response> {
        self.call_within(10 * SECOND, store, command)
    }

    /// As [`Cluster::call`], with another limit.
    pub fn call_within(&mut self, span: Nanos, store: u64, command: Command) -> Option<Response> {
        let reply = self.world.ask(store, command)?;
        let deadline = self.world.now + span;
        while self.world.answer_to(reply).is_none() && self.world.now < deadline {
            self.pass(MILLI);
        }
        self.world.answer_to(reply).cloned()
    }

    /// A command to the leader of the region, tried again until it is answered with
    /// success or with something final.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn on_leader(
        &mut self,
        region: u64,
        body: &Body,
        read_quorum: bool,
    ) -> Result<ResponseBody, RegionError> {
        let deadline = self.world.now + PATIENCE;
        let mut last = None;
        while self.world.now < deadline {
            let leader = self.wait_leader(region);
            let known = self.region(region);
            if let Some(peer) = known.peer_on(StoreId::must(leader)) {
                let mut command = Command { header: header(&known, *peer), body: body.clone() };
                command.header.read_quorum = read_quorum;
                match self.call(leader, command) {
                    Some(Response { body: Ok(body), .. }) => return Ok(body),
                    Some(Response { body: Err(error), .. }) if is_final(&error) => {
                        return Err(error);
                    }
                    other => last = other,
                }
            }
            self.pass(50 * MILLI);
        }
        let tail = self.tail();
        panic!("no answer from region {region}, last {last:?}\n{tail}");
    }

    /// Stores a value and waits for the acknowledgement.
    ///
    /// # Panics
    /// If it is not acknowledged.
    pub fn must_put(&mut self, key: &str, value: &str) {
        let region = self.region_of(key);
        let body = Body::Operations(vec![put(key, value)]);
        let result = self.on_leader(region, &body, false);
        assert!(result.is_ok(), "put {key}: {result:?}");
    }

    /// Removes a key and waits for the acknowledgement.
    ///
    /// # Panics
    /// If it is not acknowledged.
    pub fn must_delete(&mut self, key: &str) {
        let region = self.region_of(key);
        let body = Body::Operations(vec![Operation::Delete {
            cf: Cf::Default,
            key: Bytes::from(key.to_owned()),
        }]);
        let result = self.on_leader(region, &body, false);
        assert!(result.is_ok(), "delete {key}: {result:?}");
    }

    /// Reads through the leader.
    ///
    /// # Panics
    /// If it is refused for good.
    pub fn get(&mut self, key: &str) -> Option<String> {
        self.read(key, false)
    }

    /// Reads through a quorum.
    ///
    /// # Panics
    /// If it is refused for good.
    pub fn get_quorum(&mut self, key: &str) -> Option<String> {
        self.read(key, true)
    }

    fn read(&mut self, key: &str, quorum: bool) -> Option<String> {
        let region = self.region_of(key);
        match self.on_leader(region, &Body::Operations(vec![get(key)]), quorum) {
            Ok(ResponseBody::Operations(results)) => value_in(&results),
            other => panic!("get {key}: {other:?}"),
        }
    }

    /// What the data engine of a store holds under a user key, past raft.
    ///
    /// # Panics
    /// If the engine cannot be read.
    #[must_use]
    pub fn on_disk(&self, store: u64, key: &str) -> Option<String> {
        on_disk(&self.world, store, key)
    }

    /// Waits until a store's engine holds `value` under `key`.
    pub fn must_eq(&mut self, store: u64, key: &str, value: &str) {
        self.wait(&format!("store {store} to hold {key} = {value}"), |world| {
            on_disk(world, store, key).as_deref() == Some(value)
        });
    }

    /// Waits until a store's engine holds nothing under `key`.
    pub fn must_none(&mut self, store: u64, key: &str) {
        self.wait(&format!("store {store} to hold no {key}"), |world| {
            on_disk(world, store, key).is_none()
        });
    }

    /// One membership change through the leader, whatever comes of it.
    pub fn change(
        &mut self,
        region: u64,
        kind: ChangeKind,
        peer: Peer,
    ) -> Result<ResponseBody, RegionError> {
        let change = PeerChange { kind, peer };
        self.on_leader(region, &Body::Admin(AdminCommand::ChangePeer(change)), false)
    }

    /// Several membership changes in one step through the leader, whatever comes of it; none
    /// leave a joint configuration.
    pub fn change_jointly(
        &mut self,
        region: u64,
        changes: &[(ChangeKind, Peer)],
    ) -> Result<ResponseBody, RegionError> {
        let change = |(kind, peer): &(ChangeKind, Peer)| PeerChange { kind: *kind, peer: *peer };
        let changes = changes.iter().map(change).collect();
        self.on_leader(region, &Body::Admin(AdminCommand::ChangePeerV2(changes)), false)
    }

    /// Enters a joint configuration and waits until the leader has applied it.
    ///
    /// # Panics
    /// If it is refused.
    pub fn must_enter(&mut self, region: u64, changes: &[(ChangeKind, Peer)]) {
        let deadline = self.world.now + PATIENCE;
        loop {
            match self.change_jointly(region, changes) {
                Ok(_) => break,
                // The leader may not know yet that a new member has caught up.
                Err(RegionError::ConfChangeUnsafe { .. }) if self.world.now < deadline => {
                    self.pass(50 * MILLI);
                }
                Err(error) => panic!("entering {changes:?}: {error}"),
            }
        }
        assert!(self.region(region).is_joint(), "not joint: {:?}", self.region(region));
    }

    /// Leaves a joint configuration and waits until the leader has applied it.
    ///
    /// # Panics
    /// If it is refused.
    pub fn must_leave(&mut self, region: u64) {
        let result = self.change_jointly(region, &[]);
        assert!(result.is_ok(), "leaving: {result:?}");
        assert!(!self.region(region).is_joint(), "joint: {:?}", self.region(region));
    }

    /// As [`Cluster::change`], again while the leader holds it for unsafe: members may still
    /// be catching up.
    fn change_when_safe(
        &mut self,
        region: u64,
        kind: ChangeKind,
        peer: Peer,
    ) -> Result<ResponseBody, RegionError> {
        let deadline = self.world.now + PATIENCE;
        loop {
            match self.change(region, kind, peer) {
                Err(RegionError::ConfChangeUnsafe { .. }) if self.world.now < deadline => {
                    self.pass(100 * MILLI);
                }
                result => return result,
            }
        }
    }

    /// Adds a voter and waits until the change is applied.
    ///
    /// # Panics
    /// If it is refused.
    pub fn must_add(&mut self, region: u64, store: u64, peer: u64) {
        let peer = Peer::voter(PeerId::must(peer), StoreId::must(store));
        let result = self.change_when_safe(region, ChangeKind::AddNode, peer);
        assert!(result.is_ok(), "adding {peer:?}: {result:?}");
    }

    /// Adds a learner and waits until the change is applied.
    ///
    /// # Panics
    /// If it is refused.
    pub fn must_add_learner(&mut self, region: u64, store: u64, peer: u64) {
        let peer = Peer::learner(PeerId::must(peer), StoreId::must(store));
        let result = self.change_when_safe(region, ChangeKind::AddLearner, peer);
        assert!(result.is_ok(), "adding {peer:?}: {result:?}");
    }

    /// Removes the peer on a store and waits until the change is applied.
    ///
    /// # Panics
    /// If it is refused, or there is no such peer.
    pub fn must_remove(&mut self, region: u64, store: u64) {
        let known = self.region(region);
        let peer = *known.peer_on(StoreId::must(store)).expect("the store has a member");
        let peer = Peer { role: PeerRole::Voter, ..peer };
        let result = self.change_when_safe(region, ChangeKind::RemoveNode, peer);
        assert!(result.is_ok(), "removing {peer:?}: {result:?}");
    }

    /// Asks the leader to cut a region, whatever comes of it.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn split(&mut self, region: u64, keys: &[&str]) -> Result<Vec<Region>, RegionError> {
        let leader = self.wait_leader(region);
        let known = self.region(region);
        let keys = keys.iter().map(|key| Bytes::from((*key).to_owned())).collect();
        let reply = self.world.ask_split(leader, known.id, known.epoch, keys);
        let reply = reply.expect("the leader's store runs");
        self.wait("the answer to a split", |world| world.answer_to(reply).is_some());
        match self.world.answer_to(reply).cloned().expect("just seen").body {
            Ok(ResponseBody::Admin(AdminResponse::Split(parts))) => Ok(parts),
            Ok(other) => panic!("a split was answered with {other:?}"),
            Err(error) => Err(error),
        }
    }

    /// Cuts a region; gives the parts in key order.
    ///
    /// # Panics
    /// If it is refused.
    pub fn must_split(&mut self, region: u64, keys: &[&str]) -> Vec<Region> {
        self.split(region, keys).expect("the region is cut")
    }

    /// Stores a value through a region, whatever comes of it.
    pub fn put_to(
        &mut self,
        region: u64,
        key: &str,
        value: &str,
    ) -> Result<ResponseBody, RegionError> {
        self.on_leader(region, &Body::Operations(vec![put(key, value)]), false)
    }

    /// Waits until a store has no peer of a region.
    pub fn wait_gone(&mut self, region: u64, store: u64) {
        self.wait(&format!("region {region} to leave store {store}"), |world| {
            world.peer_status(store, region).is_none()
        });
    }

    /// Kills a store; it does not come back by itself.
    pub fn kill(&mut self, store: u64) {
        self.world.crash_store(store, Crash::Kill);
        self.require_sound();
    }

    /// Cuts the power of a store; it does not come back by itself.
    pub fn power_loss(&mut self, store: u64) {
        self.world.crash_store(store, Crash::PowerLoss);
        self.require_sound();
    }

    /// Starts a store.
    pub fn start(&mut self, store: u64) {
        self.world.start_store(store);
        self.require_sound();
    }

    /// Cuts all links of a store.
    pub fn isolate(&mut self, store: u64) {
        let others: Vec<u64> =
            self.world.nodes.keys().copied().filter(|other| *other != store).collect();
        for other in others {
            self.world.network.cut(store, other);
            self.world.network.cut(other, store);
        }
    }

    /// Splits the stores in two sides.
    pub fn partition(&mut self, left: &[u64], right: &[u64]) {
        for a in left {
            for b in right {
                self.world.network.cut(*a, *b);
                self.world.network.cut(*b, *a);
            }
        }
    }

    /// Mends all links.
    pub fn mend(&mut self) {
        self.world.network.mend_all();
    }

    /// Adds a filter to the network.
    pub fn filter(&mut self, takes: Match, action: Action) -> FilterId {
        self.world.network.add_filter(takes, action)
    }

    /// Sends a message that was held, perhaps not for the first time.
    pub fn deliver(&mut self, envelope: Envelope) {
        self.world.send_envelope(envelope);
    }

    /// Gives a message to a store as if it had just come from the network, perhaps with the
    /// bytes of a region snapshot at rest.
    pub fn receive(&mut self, store: u64, message: RaftMessage, snapshot: Option<(SnapKey, u64)>) {
        let message = Box::new(message);
        self.world.event_arrives(store, Event::Message { message, snapshot });
    }

    /// Tells a store that the transfer of a snapshot has failed.
    pub fn report_snapshot_failed(&mut self, store: u64, region: RegionId, to: PeerId) {
        let status = SnapshotStatus::Failed;
        self.world.event_arrives(store, Event::SnapshotStatus { region, to, status });
    }

    /// Removes a filter and delivers what it held, in order.
    pub fn release(&mut self, filter: FilterId) {
        for envelope in self.world.network.remove_filter(filter) {
            self.world.send_envelope(envelope);
        }
    }
}

fn on_disk(world: &World, store: u64, key: &str) -> Option<String> {
    world.nodes[&store]
        .disk
        .kv
        .get(Cf::Default, &keys::data_key(key.as_bytes()))
        .expect("the engine can be read")
        .map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// Whether trying again is no use.
const fn is_final(error: &RegionError) -> bool {
    matches!(
        error,
        RegionError::InvalidCommand { .. }
            | RegionError::EntryTooLarge { .. }
            | RegionError::DiskFull { .. }
            | RegionError::KeyNotInRegion { .. }
            | RegionError::ConfChangeRejected { .. }
            | RegionError::ConfChangeUnsafe { .. }
            | RegionError::MissingEpoch
            | RegionError::Refused { .. }
            | RegionError::Unsupported { .. }
    )
}
