//! Stores under real threads: few tests, each waiting for events with a generous deadline.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests against real clocks, whose deadlines only bound how long they wait"
)]

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine_traits::{
    Cf, Direction, Range, Reader,
    mem::{MemEngine, MemRaftLog},
};
use pd_client::{
    OrderAction, PdClient, SplitPolicy,
    mock::{MockPd, PdConfig},
};
use raftstore_core::{
    Config, FatalSource,
    consistency::{RangeHash, RangeHashError},
    keys,
    observe::{AppliedBatch, Observer, Observers, RegionChange, RegionEvent, Role, RoleChange},
    runtime::{Node, NodeHandle, NodeOptions, PdRetry, Reply, StartError},
};
use raftstore_proto::{
    Body, ClusterId, Command, Header, Operation, OperationResponse, Peer, PeerRole, Region,
    RegionError, RegionId, Response, ResponseBody, StoreId,
};
use transport_traits::{ChannelConfig, ChannelHub, MemSnapStore};

const CLUSTER: ClusterId = ClusterId::must(77);
const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until `look` gives something.
fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        back_off();
    }
}

/// What a client does between two attempts.
fn back_off() {
    let pause = crossbeam_channel::after(Duration::from_millis(5));
    pause.recv().expect("the timer rings");
}

fn config(lanes: u16) -> Config {
    Config {
        raft_base_tick_interval: Duration::from_millis(20),
        raft_heartbeat_ticks: 2,
        raft_election_timeout_ticks: 10,
        raft_store_max_leader_lease: Duration::from_millis(180),
        pd_heartbeat_tick_interval: Duration::from_millis(40),
        pd_store_heartbeat_tick_interval: Duration::from_millis(40),
        kv_sync_interval: Duration::from_millis(20),
        consistency_check_interval: Duration::from_millis(100),
        lanes,
        ..Config::default()
    }
}

/// What outlives a node: its devices.
#[derive(Clone)]
struct Machine {
    kv: MemEngine,
    raft: MemRaftLog,
    snaps: MemSnapStore,
}

impl Machine {
    fn new() -> Self {
        let (kv, raft) = (MemEngine::new(), MemRaftLog::new());
        Self { kv, raft, snaps: MemSnapStore::new(1 << 30) }
    }

    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        let mut rows = Vec::new();
        let mut cursor = self
            .kv
            .cursor(Cf::Default, Range::new(&keys::DATA_MIN, &keys::DATA_MAX), Direction::Forward)
            .unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        rows
    }

    fn options(
        &self,
        hub: &ChannelHub,
        pd: Arc<dyn PdClient>,
        config: Config,
    ) -> NodeOptions<MemEngine, MemRaftLog> {
        let (kv, raft) = (self.kv.clone(), self.raft.clone());
        NodeOptions {
            config,
            snaps: Arc::new(self.snaps.clone()),
            pd_retry: PdRetry { attempts: 5, pause: Duration::from_millis(1) },
            ..NodeOptions::new(CLUSTER, "in process", kv, raft, pd, hub.connect())
        }
    }
}

struct Cluster {
    pd: MockPd,
    hub: ChannelHub,
    lanes: u16,
    machines: Vec<Machine>,
    nodes: Vec<Option<Node<MemEngine>>>,
}

impl Cluster {
    fn new(stores: usize, lanes: u16) -> Self {
        let pd = MockPd::new(CLUSTER, PdConfig::default());
        let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
        let machines = vec![(); stores].into_iter().map(|()| Machine::new()).collect();
        let nodes = (0..stores).map(|_| None).collect();
        let mut cluster = Self { pd, hub, lanes, machines, nodes };
        for number in 0..stores {
            cluster.start(number);
        }
        cluster
    }

    fn start(&mut self, number: usize) {
        let pd = Arc::new(self.pd.clone());
        let mut options = self.machines[number].options(&self.hub, pd, config(self.lanes));
        options.address = format!("machine {number}");
        self.nodes[number] = Some(Node::start(options).unwrap());
    }

    fn handle(&self, store: StoreId) -> Option<NodeHandle<MemEngine>> {
        self.nodes.iter().flatten().find(|node| node.store() == store).map(Node::handle)
    }

    fn number_of(&self, store: StoreId) -> usize {
        let at = |node: &Option<Node<MemEngine>>| node.as_ref().is_some_and(|n| n.store() == store);
        self.nodes.iter().position(at).expect("the store runs")
    }

    fn route(&self, key: &[u8]) -> Option<(Region, Peer)> {
        let route = self.pd.with_core(|core, _| core.region_by_key(key))?;
        Some((route.region, route.leader?))
    }

    /// Sends to the leader that PD knows; `None` if there is none, or its store is down.
    fn send(&self, key: &[u8], operation: Operation, read_quorum: bool) -> Option<Reply> {
        let (region, leader) = self.route(key)?;
        let handle = self.handle(leader.store)?;
        let epoch = Some(region.epoch);
        let header = Header {
            region: region.id,
            peer: leader,
            epoch,
            term: 0,
            read_quorum,
            replica_read: false,
        };
        Some(handle.command(Command { header, body: Body::Operations(vec![operation]) }))
    }

    /// Sends until it succeeds.
    fn execute(&self, key: &[u8], operation: &Operation, quorum: bool) -> OperationResponse {
        let response = wait_until("an answer that is no refusal", || {
            let reply = self.send(key, operation.clone(), quorum)?;
            reply.wait_for(DEADLINE).expect("every caller is answered").body.ok()
        });
        match response {
            ResponseBody::Operations(mut operations) => operations.remove(0),
            other => panic!("not an answer to an operation: {other:?}"),
        }
    }

    fn put(&self, number: usize) {
        let (key, value) = (key(number), value(number));
        let put = Operation::Put { cf: Cf::Default, key: key.clone(), value };
        assert_eq!(self.execute(&key, &put, false), OperationResponse::Put);
    }

    fn get(&self, number: usize, quorum: bool) -> Option<Bytes> {
        let key = key(number);
        let get = Operation::Get { cf: Cf::Default, key: key.clone() };
        match self.execute(&key, &get, quorum) {
            OperationResponse::Get(value) => value,
            other => panic!("not an answer to a get: {other:?}"),
        }
    }

    fn wait_for_voters(&self, count: usize) {
        wait_until("the replicas PD wants", || {
            let (region, _) = self.route(b"")?;
            let voters = region.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
            (voters.count() == count).then_some(())
        });
    }

    fn wait_for_equal_rows(&self, count: usize) {
        wait_until("equal replicas", || {
            let rows = self.machines[0].rows();
            let equal = self.machines.iter().all(|machine| machine.rows() == rows);
            (rows.len() == count && equal).then_some(())
        });
    }

    fn leader(&self) -> StoreId {
        self.put(0);
        wait_until("a leader", || self.route(b"")).1.store
    }
}

fn key(number: usize) -> Bytes {
    format!("key {number:04}").into()
}

fn value(number: usize) -> Bytes {
    format!("value of {number:04}").into()
}

/// Snapshots of regions, alone and in batches, from this thread under the lease and through
/// the lanes, and from nodes that do not lead.
fn read_by_snapshots(cluster: &Cluster) {
    cluster.put(7);
    let expected = Some(value(7));
    wait_until("a snapshot of each way", || {
        let (region, leader) = cluster.route(&key(7))?;
        let epoch = Some(region.epoch);
        let header = |peer, read_quorum| Header {
            region: region.id,
            peer,
            epoch,
            term: 0,
            read_quorum,
            replica_read: false,
        };
        let handle = cluster.handle(leader.store)?;
        let mut unknown = header(leader, false);
        unknown.region = RegionId::must(region.id.get() + 1_000);
        for quorum in [false, true] {
            let reply = handle.snapshot(header(leader, quorum));
            let shot = reply.wait_for(DEADLINE).expect("everybody is answered").ok()?;
            assert_eq!(shot.get(Cf::Default, &key(7)).unwrap(), expected);
        }
        let headers = vec![header(leader, true), unknown.clone(), header(leader, false), unknown];
        let results = handle.batch_snapshot(headers).wait_for(DEADLINE).expect("answered");
        let [None, Some(Err(missing)), Some(Ok(shot)), Some(Err(_))] = results.as_slice() else {
            return None;
        };
        assert!(matches!(missing, RegionError::RegionNotFound { .. }), "{missing}");
        assert_eq!(shot.get(Cf::Default, &key(7)).unwrap(), expected);
        let follower = region.peers.iter().find(|peer| peer.id != leader.id)?;
        let reply = cluster.handle(follower.store)?.snapshot(header(*follower, false));
        let refused = reply.wait_for(DEADLINE).expect("everybody is answered").err()?;
        assert!(matches!(refused, RegionError::NotLeader { .. }), "{refused}");
        assert_eq!(handle.batch_snapshot(Vec::new()).wait().len(), 0);
        Some(())
    });
}

/// Replicas are compared all the while; what was hashed last can be asked about.
fn compare_replicas(cluster: &Cluster) {
    wait_until("a hash on two stores to be asked about", || {
        let (region, _) = cluster.route(b"")?;
        let hashes = cluster.nodes.iter().flatten().filter_map(|node| {
            let handle = node.handle();
            let matched =
                handle.lane_metrics(DEADLINE).iter().map(|lane| lane.hashes_matched).sum();
            let peer =
                handle.peers(DEADLINE).into_iter().find(|peer| peer.region.id == region.id)?;
            let ask = handle.range_hash(region.id, peer.hash_index, Cf::Default, Range::ALL);
            let hash = ask.wait_for(DEADLINE).expect("everybody is answered").ok()?;
            Some((peer.hash_index, hash, matched))
        });
        let hashes: Vec<(u64, RangeHash, u64)> = hashes.collect();
        let compared = hashes.iter().all(|(.., matched)| *matched > 0);
        let [(one, hash, _), (other, same, _), ..] = hashes.as_slice() else { return None };
        if one != other || !compared {
            return None;
        }
        assert_eq!(hash, same, "replicas at the same index");
        (hash.rows >= 100).then_some(())
    });
}

/// The life of a small cluster: it is founded, grows, serves, loses its leader with all
/// that was not synced, goes on, gets the store back, and ends.
fn life_of_a_cluster(lanes: u16) {
    let mut cluster = Cluster::new(3, lanes);
    cluster.wait_for_voters(3);
    let many: Vec<_> = (0..100).map(|number| (number, cluster.try_put(number))).collect();
    for (number, reply) in many {
        let answer = reply.map(|reply| reply.wait_for(DEADLINE).expect("everybody is answered"));
        if answer.is_none_or(|answer| answer.body.is_err()) {
            cluster.put(number);
        }
    }
    for number in (0..100).step_by(7) {
        assert_eq!(cluster.get(number, false), Some(value(number)), "lease read");
        assert_eq!(cluster.get(number, true), Some(value(number)), "read index");
    }
    cluster.wait_for_equal_rows(100);
    read_by_snapshots(&cluster);
    compare_replicas(&cluster);

    // H63: the leader's log fails. It answers who waits, and nobody hears from it again.
    let leader = cluster.leader();
    let number = cluster.number_of(leader);
    let node = cluster.nodes[number].take().unwrap();
    let handle = node.handle();
    cluster.machines[number].raft.faults().fail_sync(1);
    let (region, peer) = cluster.route(b"").unwrap();
    let doomed = handle.command(put_command(&region, peer, 1000));
    let fatal = node.wait_fatal(Some(DEADLINE)).expect("a failed sync is fatal");
    assert!(matches!(fatal.source, FatalSource::Engine(_)), "{fatal}");
    let answer = doomed.wait_for(DEADLINE).expect("everybody is answered");
    assert_eq!(answer.body, Err(RegionError::Stopping));
    everything_is_refused(&handle, &region, peer);
    assert!(node.stop().is_err());
    everything_is_refused(&handle, &region, peer);
    assert_eq!(handle.waiting(), 0);

    // The others go on without it.
    for number in 100..150 {
        cluster.put(number);
    }
    let machine = &mut cluster.machines[number];
    machine.kv.crash(0);
    machine.raft.crash(0);
    machine.raft.faults().clear();
    (machine.kv, machine.raft) = (machine.kv.reopen(), machine.raft.reopen());
    cluster.start(number);
    cluster.put(150);
    wait_until("the returned store to catch up", || {
        let rows = cluster.machines[number].rows();
        let found = |number| {
            rows.iter().any(|(k, v)| **k == *keys::data_key(&key(number)) && *v == value(number))
        };
        (0..151).all(found).then_some(())
    });

    // A leader that reaches nobody: whoever waits for it is answered when it is stopped.
    let leader = cluster.leader();
    let number = cluster.number_of(leader);
    let node = cluster.nodes[number].take().unwrap();
    for other in cluster.nodes.iter_mut().filter_map(Option::take) {
        other.stop().unwrap();
    }
    let (region, peer) = cluster.route(b"").unwrap();
    let handle = node.handle();
    let replies: Vec<_> =
        (0..10).map(|number| handle.command(put_command(&region, peer, 2000 + number))).collect();
    node.stop().unwrap();
    for reply in replies {
        let answer = reply.wait_for(DEADLINE).expect("everybody is answered");
        assert!(answer.body.is_err(), "nobody can have acknowledged this");
    }
    assert_eq!(handle.waiting(), 0);
    assert_eq!(handle.fatal().map(|error| error.to_string()), None);
    cluster.hub.close();
}

/// H28: what a store that has failed or ended is asked, it answers at once.
fn everything_is_refused(handle: &NodeHandle<MemEngine>, region: &Region, peer: Peer) {
    let late = put_command(region, peer, 1001);
    assert_eq!(handle.command(late.clone()).wait().body, Err(RegionError::Stopping));
    let snapshot = handle.snapshot(late.header.clone()).wait();
    assert_eq!(snapshot.unwrap_err(), RegionError::Stopping);
    let batch = handle.batch_snapshot(vec![late.header]).wait();
    assert!(matches!(batch.as_slice(), [Some(Err(RegionError::Stopping))]), "{batch:?}");
    let hash = handle.range_hash(region.id, 1, Cf::Default, Range::ALL);
    let hash = hash.wait_for(DEADLINE).expect("everybody is answered");
    assert!(matches!(hash, Err(RangeHashError::Stopping)), "{hash:?}");
}

fn put_command(region: &Region, peer: Peer, number: usize) -> Command {
    let epoch = Some(region.epoch);
    let header =
        Header { region: region.id, peer, epoch, term: 0, read_quorum: false, replica_read: false };
    let (key, value) = (key(number), value(number));
    let body = Body::Operations(vec![Operation::Put { cf: Cf::Default, key, value }]);
    Command { header, body }
}

impl Cluster {
    fn try_put(&self, number: usize) -> Option<Reply> {
        let (key, value) = (key(number), value(number));
        let put = Operation::Put { cf: Cf::Default, key: key.clone(), value };
        self.send(&key, put, false)
    }
}

#[test]
fn h63_a_cluster_serves_loses_its_leader_and_recovers() {
    life_of_a_cluster(1);
}

#[test]
fn a_cluster_lives_the_same_with_three_lanes() {
    life_of_a_cluster(3);
}

#[test]
fn h63_a_panic_of_any_thread_stops_the_store() {
    let machine = Machine::new();
    let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
    let pd = MockPd::new(CLUSTER, PdConfig::default());
    let mut options = machine.options(&hub, Arc::new(pd), config(1));
    // The PD thread looks at the device for every report of the store.
    let (spring, sprung) = crossbeam_channel::bounded(1);
    options.disk = Some(Box::new(move || {
        assert!(sprung.try_recv().is_err(), "the trap is sprung");
        Err(io::Error::other("not yet"))
    }));
    let (told, fatal) = crossbeam_channel::unbounded();
    options.on_fatal = Some(Box::new(move |error| told.send(error.to_string()).unwrap()));
    let node = Node::start(options).unwrap();
    spring.send(()).unwrap();
    let error = node.wait_fatal(Some(DEADLINE)).expect("a panic is fatal");
    let FatalSource::Panic { worker, message } = &error.source else { panic!("{error}") };
    assert_eq!(*worker, "pd");
    assert!(message.contains("the trap is sprung"), "{message}");
    assert_eq!(fatal.recv_timeout(DEADLINE).unwrap(), error.to_string());
    let handle = node.handle();
    assert!(node.stop().is_err());
    assert!(fatal.try_recv().is_err(), "told once");
    assert!(handle.fatal().is_some());
    hub.close();
}

/// Counts what it is told; panics where it is told to.
#[derive(Default)]
struct Witness {
    panics_in: &'static str,
    told: Mutex<Vec<&'static str>>,
}

impl Witness {
    fn note(&self, what: &'static str) {
        self.told.lock().unwrap().push(what);
        assert_ne!(self.panics_in, what, "the witness has seen enough");
    }

    fn told(&self) -> Vec<&'static str> {
        self.told.lock().unwrap().clone()
    }
}

impl Observer for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn start(&self) {
        self.note("start");
    }

    fn stop(&self) {
        self.note("stop");
    }

    fn role_changed(&self, change: &RoleChange<'_>) {
        if change.role == Role::Leader {
            self.note("leader");
        }
    }

    fn region_changed(&self, change: &RegionChange<'_>) {
        if matches!(change.event, RegionEvent::Created(_)) {
            self.note("created");
        }
    }

    fn applied(&self, batch: &AppliedBatch<'_>) {
        assert!(!batch.commands.is_empty());
        self.note("applied");
    }
}

/// A store that a witness of its own is given, and its region with the leader.
fn witnessed(
    panics_in: &'static str,
) -> (Arc<Witness>, Result<Node<MemEngine>, StartError>, MockPd) {
    let witness = Arc::new(Witness { panics_in, ..Witness::default() });
    let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
    let pd = MockPd::new(CLUSTER, PdConfig::default());
    let mut options = Machine::new().options(&hub, Arc::new(pd.clone()), config(1));
    options.observers = Observers::default().with(1, Arc::<Witness>::clone(&witness));
    (witness, Node::start(options), pd)
}

#[test]
fn observers_are_told_from_the_start_to_the_stop() {
    let (witness, node, pd) = witnessed("");
    let node = node.unwrap();
    let (region, leader) = wait_until("a leader", || {
        let route = pd.with_core(|core, _| core.region_by_key(b""))?;
        Some((route.region, route.leader?))
    });
    let reply = node.handle().command(put_command(&region, leader, 1));
    assert!(reply.wait_for(DEADLINE).expect("answered").body.is_ok());
    // Told before the caller was answered.
    assert_eq!(witness.told(), ["start", "created", "leader", "applied"]);
    node.stop().unwrap();
    assert_eq!(witness.told(), ["start", "created", "leader", "applied", "stop"]);
}

/// H63: a panic of an observer is one of the thread it was called on.
#[test]
fn h63_a_panic_of_an_observer_stops_the_store() {
    let (witness, node, pd) = witnessed("applied");
    let node = node.unwrap();
    let (region, leader) = wait_until("a leader", || {
        let route = pd.with_core(|core, _| core.region_by_key(b""))?;
        Some((route.region, route.leader?))
    });
    let reply = node.handle().command(put_command(&region, leader, 1));
    let error = node.wait_fatal(Some(DEADLINE)).expect("a panic is fatal");
    let FatalSource::Panic { worker, message } = &error.source else { panic!("{error}") };
    assert_eq!(*worker, "apply");
    assert!(message.contains("the witness has seen enough"), "{message}");
    let answer = reply.wait_for(DEADLINE).expect("everybody is answered").body;
    assert!(matches!(answer, Err(RegionError::Stopping)), "{answer:?}");
    assert!(node.stop().is_err());
    assert_eq!(witness.told().last(), Some(&"stop"));
}

/// On the threads of whoever starts and stops a node, too.
#[test]
fn a_panic_of_an_observer_at_the_start_or_the_end_is_contained() {
    for at in ["start", "created"] {
        let (witness, node, _) = witnessed(at);
        let error = node.unwrap_err();
        let StartError::Open(fatal) = &error else { panic!("{error}") };
        assert!(matches!(fatal.source, FatalSource::Panic { worker: "observer", .. }), "{fatal}");
        assert_eq!(witness.told().last(), Some(&"stop"), "{at}");
    }
    let (witness, node, _) = witnessed("stop");
    node.unwrap().stop().unwrap();
    assert_eq!(witness.told().last(), Some(&"stop"));
}

/// D8: a full queue is an answer, and everybody gets exactly one.
#[test]
fn h28_a_full_queue_answers_at_once() {
    let machine = Machine::new();
    let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
    let pd = MockPd::new(CLUSTER, PdConfig::default());
    let small = Config { notify_capacity: 1, ..config(1) };
    let node = Node::start(machine.options(&hub, Arc::new(pd.clone()), small)).unwrap();
    let handle = node.handle();
    let route = wait_until("a leader", || {
        let route = pd.with_core(|core, _| core.region_by_key(b""))?;
        Some((route.region, route.leader?))
    });
    let (sender, answers) = crossbeam_channel::unbounded();
    let mut sent = 0;
    let mut answered = Vec::new();
    // As fast as this thread can, until the queue has been seen full.
    let deadline = Instant::now() + DEADLINE;
    let is_busy =
        |response: &Response| matches!(response.body, Err(RegionError::ServerIsBusy { .. }));
    while !answered.iter().any(is_busy) {
        assert!(Instant::now() < deadline, "the queue is never full");
        for _ in 0..1000 {
            let sender = sender.clone();
            let callback = Box::new(move |response| sender.send(response).unwrap());
            handle.command_with(put_command(&route.0, route.1, sent), callback);
            sent += 1;
        }
        answered.extend(answers.try_iter());
    }
    node.stop().unwrap();
    drop(sender);
    answered.extend(answers.iter());
    assert_eq!(answered.len(), sent);
    assert_eq!(handle.waiting(), 0);
    hub.close();
}

/// Whoever wants a region split is answered, with PD and without; and PD can want it too.
#[test]
fn h28_a_split_is_answered_whatever_becomes_of_pd() {
    let cluster = Cluster::new(1, 3);
    for number in 0..8 {
        cluster.put(number);
    }
    let split = |at: usize| -> Result<ResponseBody, RegionError> {
        let (region, leader) = cluster.route(&key(at)).expect("PD knows the regions");
        let handle = cluster.handle(leader.store).expect("the store runs");
        let reply = handle.split_region(region.id, region.epoch, vec![key(at)]);
        reply.wait_for(DEADLINE).expect("everybody is answered").body
    };
    cluster.pd.set_available(false);
    let refused = split(2);
    assert!(matches!(refused, Err(RegionError::PlacementUnavailable)), "{refused:?}");
    cluster.pd.set_available(true);
    wait_until("a split with PD's ids", || split(2).ok());
    let regions = || cluster.pd.with_core(|core, _| core.scan_regions(b"", b"", 9));
    wait_until("PD to know both parts", || (regions().len() == 2).then_some(()));
    let (region, _) = wait_until("a leader", || cluster.route(&key(5)));
    let action = OrderAction::SplitRegion { keys: vec![key(5)], policy: SplitPolicy::Keys };
    cluster.pd.force_order(region.id, action).expect("PD knows the region");
    wait_until("the split that PD wants", || (regions().len() == 3).then_some(()));
    for number in 0..8 {
        assert_eq!(cluster.get(number, false), Some(value(number)));
    }
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let hub = ChannelHub::new(ChannelConfig::default()).unwrap();
    let pd = MockPd::new(CLUSTER, PdConfig::default());
    let machine = Machine::new();

    let bad = Config { raft_heartbeat_ticks: 0, ..config(1) };
    let error = Node::start(machine.options(&hub, Arc::new(pd.clone()), bad)).unwrap_err();
    assert!(matches!(error, StartError::Config(_)), "{error}");

    pd.set_available(false);
    let error = Node::start(machine.options(&hub, Arc::new(pd.clone()), config(1))).unwrap_err();
    assert!(matches!(error, StartError::Pd { .. }), "{error}");
    pd.set_available(true);

    let mut options = machine.options(&hub, Arc::new(pd.clone()), config(1));
    options.connect = Box::new(|_, _, _| Err("no way out".into()));
    let error = Node::start(options).unwrap_err();
    assert!(matches!(error, StartError::Transport(_)), "{error}");

    // What was begun is gone on with.
    let node = Node::start(machine.options(&hub, Arc::new(pd.clone()), config(1))).unwrap();
    let store = node.store();
    node.stop().unwrap();
    let node = Node::start(machine.options(&hub, Arc::new(pd), config(1))).unwrap();
    assert_eq!(node.store(), store);
    let mut foreign =
        machine.options(&hub, Arc::new(MockPd::new(CLUSTER, PdConfig::default())), config(1));
    foreign.cluster = ClusterId::must(78);
    assert!(matches!(Node::start(foreign), Err(StartError::Bootstrap(_))));
    drop(node);
    hub.close();
}
