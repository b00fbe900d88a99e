//! A few stores in one thread. Nothing happens by itself: a [`Node`] keeps what its store
//! asks for until the test has it done, a [`Cluster`] keeps the messages between them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use engine_traits::{
    Durability, KvEngine, RaftEngine, RaftLogBatch, Reader,
    mem::{MemEngine, MemRaftLog},
};
use raft::eraftpb;
use raftstore_proto::{
    AdminCommand, Body, Cf, ChangeKind, Command, Entry, EntryFlags, Epoch, Header, LocalState,
    Operation, OperationResponse, Peer as Replica, PeerChange, PeerId, RaftMessage, Region,
    RegionError, RegionId, RegionState, Response, ResponseBody, StoreId, wire,
};
use transport_traits::{MemSnapStore, SnapDirection, SnapKey, SnapStore, SnapshotStatus};

use super::super::{
    PeerStatus, Store, StoreOptions, bootstrap::put_new_region, start::initial_local_state,
};
use crate::{
    Config, Dropped, Effects, Event, KvNumbers, MonoTime, NoHooks, PdRequest, Ready, ReplyId,
    StoreMeta, Task, TaskDone, Writes,
    apply::{ApplyEvent, ApplyTask, ApplyWorker, SnapBuild},
    keys,
    observe::Observers,
    snap::{
        RegionWorker,
        format::{Encoder, SnapHeader},
    },
    view::Views,
};

pub(super) const R1: RegionId = RegionId::must(1);
pub(super) const R2: RegionId = RegionId::must(2);

/// Index and term behind which every seeded log begins.
pub(super) const SEEDED: u64 = 5;

pub(super) type TestStore = Store<MemEngine, MemRaftLog>;
type TestWrites = Writes<MemEngine, MemRaftLog>;
type Build = SnapBuild<<MemEngine as KvEngine>::Snapshot>;

/// The peer of region `region` on `store`: 101 is the one of region 1 on store 1.
pub(super) fn voter(region: RegionId, store: u64) -> Replica {
    Replica::voter(PeerId::must(100 * region.get() + store), StoreId::must(store))
}

/// A region on these stores. Its start is as given, so that several can lie side by side.
pub(super) fn region(id: RegionId, start: &str, end: &str, stores: &[u64]) -> Region {
    Region {
        id,
        start_key: Bytes::copy_from_slice(start.as_bytes()),
        end_key: Bytes::copy_from_slice(end.as_bytes()),
        epoch: Epoch { conf_ver: stores.len() as u64, version: 1 },
        peers: stores.iter().map(|store| voter(id, *store)).collect(),
    }
}

/// Ticks of one second, elections after ten to twenty of them, no duty but raft's own.
pub(super) fn config() -> Config {
    Config {
        raft_log_gc_tick_interval: Duration::ZERO,
        pd_heartbeat_tick_interval: Duration::ZERO,
        pd_store_heartbeat_tick_interval: Duration::ZERO,
        ..Config::default()
    }
}

/// One store, and everything it has asked for that was not yet done.
pub(super) struct Node {
    pub(super) store: TestStore,
    pub(super) id: u64,
    pub(super) now: MonoTime,
    pub(super) kv: MemEngine,
    pub(super) raft: MemRaftLog,
    pub(super) meta: Arc<StoreMeta>,
    pub(super) views: Arc<Views>,
    pub(super) snaps: MemSnapStore,
    worker: ApplyWorker<MemEngine>,
    region_worker: RegionWorker<MemEngine, NoHooks>,
    /// Rounds not yet carried out.
    pub(super) writes: VecDeque<TestWrites>,
    pub(super) applies: Vec<ApplyTask>,
    pub(super) builds: VecDeque<Build>,
    pub(super) tasks: VecDeque<Task>,
    /// What has left.
    pub(super) out: Vec<RaftMessage>,
    pub(super) answers: Vec<(ReplyId, Response)>,
    pub(super) pd: Vec<PdRequest>,
    next_reply: u64,
}

impl Node {
    /// Store `id` with these regions on it, opened at moment zero.
    pub(super) fn new(id: u64, config: Config, regions: &[Region]) -> Self {
        Self::observed(id, config, regions, Observers::default())
    }

    /// The same with observers.
    pub(super) fn observed(
        id: u64,
        config: Config,
        regions: &[Region],
        observers: Observers,
    ) -> Self {
        let (kv, raft) = (MemEngine::default(), MemRaftLog::default());
        let mut records = kv.write_batch();
        let mut logs = raft.log_batch();
        for region in regions {
            let own = region.peer_on(StoreId::must(id)).expect("the region is on the store");
            put_new_region(region, &mut records);
            logs.put_raft_state(region.id, &initial_local_state(own.id));
        }
        kv.write(records, Durability::Synced).unwrap();
        raft.write(logs, Durability::Synced).unwrap();
        config.validate().expect("a test's configuration is valid");
        Self::open(id, config, kv, raft, MemSnapStore::new(u64::MAX), observers)
    }

    fn open(
        id: u64,
        config: Config,
        kv: MemEngine,
        raft: MemRaftLog,
        snaps: MemSnapStore,
        observers: Observers,
    ) -> Self {
        let (meta, views) = (Arc::<StoreMeta>::default(), Arc::<Views>::default());
        let received = snaps.list().unwrap().into_iter();
        let received = received
            .filter(|(direction, ..)| *direction == SnapDirection::Received)
            .map(|(_, key, size_bytes)| (key, size_bytes));
        let options = StoreOptions {
            config: Arc::new(config),
            store: StoreId::must(id),
            kv: kv.clone(),
            raft: raft.clone(),
            meta: Arc::clone(&meta),
            views: Arc::clone(&views),
            received: received.collect(),
            hooks: NoHooks,
            observers: observers.clone(),
        };
        let store = TestStore::open(options, MonoTime::ZERO).unwrap().remove(0);
        let batch_bytes = 1 << 20;
        let in_worker: Arc<dyn SnapStore> = Arc::new(snaps.clone());
        Self {
            store,
            id,
            now: MonoTime::ZERO,
            worker: ApplyWorker::new(kv.clone(), NoHooks).with_observers(observers),
            region_worker: RegionWorker::new(kv.clone(), in_worker, NoHooks, batch_bytes),
            kv,
            raft,
            meta,
            views,
            snaps,
            writes: VecDeque::new(),
            applies: Vec::new(),
            builds: VecDeque::new(),
            tasks: VecDeque::new(),
            out: Vec::new(),
            answers: Vec::new(),
            pd: Vec::new(),
            next_reply: 0,
        }
    }

    fn numbers(&self) -> &KvNumbers {
        &self.meta.numbers
    }

    fn keep(&mut self, effects: Effects) {
        let Effects { messages, answers, apply, tasks, pd, .. } = effects;
        self.out.extend(messages);
        self.answers.extend(answers);
        self.applies.extend(apply);
        self.tasks.extend(tasks);
        self.pd.extend(pd);
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.store.handle(self.now, event).unwrap();
    }

    /// Asks for rounds until there are none. Nothing of them is carried out.
    pub(super) fn turn(&mut self) {
        while let Some(Ready { early, writes }) = self.store.ready().unwrap() {
            self.keep(early);
            self.writes.extend(writes);
        }
    }

    /// An event, and the turn after it.
    pub(super) fn take(&mut self, event: Event) {
        self.handle(event);
        self.turn();
    }

    /// Carries out the oldest round and asks for the next ones.
    pub(super) fn persist_one(&mut self) {
        let round = self.writes.pop_front().expect("a round waits");
        let proofs =
            Writes::commit_group(vec![round], &self.kv, &self.raft, self.numbers(), &NoHooks);
        for proof in proofs.unwrap() {
            let late = self.store.on_persisted(self.now, proof).unwrap();
            self.keep(late);
        }
        self.turn();
    }

    /// Carries out rounds until none waits.
    pub(super) fn persist(&mut self) {
        self.turn();
        while !self.writes.is_empty() {
            self.persist_one();
        }
    }

    /// Executes what waits, and keeps the results from the store.
    pub(super) fn apply_unheard(&mut self) -> Vec<ApplyEvent> {
        let tasks = std::mem::take(&mut self.applies);
        let outcome = self.worker.run(tasks, &self.meta).unwrap();
        self.answers.extend(outcome.answers);
        self.builds.extend(outcome.builds);
        outcome.events
    }

    /// Executes what waits.
    pub(super) fn apply(&mut self) {
        let events = self.apply_unheard();
        if !events.is_empty() {
            self.take(Event::Applied(events));
        }
    }

    /// Makes the data engine durable, whoever asked.
    pub(super) fn sync(&mut self) {
        self.tasks.retain(|task| !matches!(task, Task::SyncKv));
        let sample = self.numbers().written();
        self.kv.sync().unwrap();
        self.numbers().publish_durable(sample);
        self.take(Event::KvDurable(sample));
    }

    /// Builds the oldest region snapshot that waits, and keeps the result from the store.
    pub(super) fn build_unheard(&mut self) -> TaskDone {
        let job = self.builds.pop_front().expect("a snapshot waits to be built");
        let built = job.build(&self.snaps, 4 << 10).ok();
        TaskDone::Built { region: job.region.id, incarnation: job.incarnation, built }
    }

    /// Hands the region worker its tasks without letting it work.
    pub(super) fn hand_to_region_worker(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            match task {
                Task::SyncKv => self.tasks.push_back(task),
                Task::Install { .. }
                | Task::CancelInstall { .. }
                | Task::DeleteRange { .. }
                | Task::DeleteSnapshot { .. } => self.region_worker.push(task),
                // Duties that no test here is about.
                Task::CheckSplit { .. } | Task::Compact { .. } | Task::CollectSnapshots { .. } => {}
            }
        }
    }

    /// Has the region worker do everything it was given, and keeps the results.
    pub(super) fn work_on_regions(&mut self) -> Vec<TaskDone> {
        self.hand_to_region_worker();
        let mut done = Vec::new();
        while !self.region_worker.is_idle() {
            done.extend(self.region_worker.step(&self.meta.numbers).unwrap().done);
        }
        done
    }

    fn wants_sync(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::SyncKv))
    }

    /// Does everything that was asked for, until nothing is left but to send.
    pub(super) fn settle(&mut self) {
        loop {
            self.persist();
            if !self.applies.is_empty() {
                self.apply();
            } else if !self.builds.is_empty() {
                let done = self.build_unheard();
                self.take(Event::TaskDone(done));
            } else if self.wants_sync() {
                self.sync();
            } else if !(self.tasks.is_empty() && self.region_worker.is_idle()) {
                for done in self.work_on_regions() {
                    self.take(Event::TaskDone(done));
                }
            } else {
                return;
            }
        }
    }

    /// Lets `ticks` base ticks pass, one at a time, and collects what they ask for.
    pub(super) fn tick(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now = self.now + Duration::from_secs(1);
            self.take(Event::Tick);
        }
    }

    /// Moves the clock so far that votes are given again after the start (H35).
    pub(super) fn pass_start(&mut self) {
        self.now = self.now.max(MonoTime::from_millis(10_000));
    }

    /// A message from another store, as raft of this version would send it.
    pub(super) fn receive(&mut self, message: RaftMessage) {
        self.take(Event::Message { message: Box::new(message), snapshot: None });
    }

    pub(super) fn status(&self, region: RegionId) -> PeerStatus {
        self.store.inspect_region(region).expect("the region has a peer here")
    }

    pub(super) fn dropped(&self, reason: Dropped) -> u64 {
        self.store.metrics().dropped.get(&reason).copied().unwrap_or(0)
    }

    pub(super) fn record(&self, region: RegionId) -> Option<RegionState> {
        let bytes = self.kv.get(Cf::Raft, &keys::region_state_key(region)).unwrap()?;
        Some(wire::record::decode_region_state(region, &bytes).unwrap())
    }

    pub(super) fn raft_record(&self, region: RegionId) -> Option<LocalState> {
        self.raft.raft_state(region).unwrap()
    }

    pub(super) fn data(&self, key: &str) -> Option<Bytes> {
        self.kv.get(Cf::Default, &keys::data_key(key.as_bytes())).unwrap()
    }

    /// A command to this store's peer as it knows its region now.
    pub(super) fn command(&self, region: RegionId, body: Body) -> Command {
        let status = self.status(region);
        let header = Header {
            region,
            peer: status.peer,
            epoch: Some(status.region.epoch),
            term: 0,
            read_quorum: false,
            replica_read: false,
        };
        Command { header, body }
    }

    /// Gives the store a command, without a turn.
    pub(super) fn ask_command(&mut self, command: Command) -> ReplyId {
        self.next_reply += 1;
        let reply = ReplyId(1_000 * self.id + self.next_reply);
        self.handle(Event::Command { reply, command });
        reply
    }

    /// Gives the store a command, and a turn.
    pub(super) fn ask(&mut self, region: RegionId, body: Body) -> ReplyId {
        let command = self.command(region, body);
        let reply = self.ask_command(command);
        self.turn();
        reply
    }

    pub(super) fn put(&mut self, region: RegionId, key: &str, value: &str) -> ReplyId {
        let operation = Operation::Put {
            cf: Cf::Default,
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        self.ask(region, Body::Operations(vec![operation]))
    }

    /// A read that a quorum has to confirm, without a turn.
    pub(super) fn read_with_quorum(&mut self, region: RegionId, key: &str) -> ReplyId {
        let mut command = self.command(region, get(key));
        command.header.read_quorum = true;
        self.ask_command(command)
    }

    pub(super) fn change(&mut self, region: RegionId, change: PeerChange) -> ReplyId {
        self.ask(region, Body::Admin(AdminCommand::ChangePeer(change)))
    }

    /// What a caller was told, if anything yet.
    pub(super) fn answer(&self, reply: ReplyId) -> Option<&Result<ResponseBody, RegionError>> {
        let mut to_it = self.answers.iter().filter(|(to, _)| *to == reply);
        let found = to_it.next().map(|(_, response)| &response.body);
        assert!(to_it.next().is_none(), "{reply:?} was answered twice");
        found
    }

    /// The value a read was answered with.
    pub(super) fn value(&self, reply: ReplyId) -> Option<Bytes> {
        match self.answer(reply) {
            Some(Ok(ResponseBody::Operations(answers))) => match answers.as_slice() {
                [OperationResponse::Get(value)] => value.clone(),
                other => panic!("not one value: {other:?}"),
            },
            other => panic!("not the answer to a read: {other:?}"),
        }
    }

    pub(super) fn refusal(&self, reply: ReplyId) -> &RegionError {
        match self.answer(reply) {
            Some(Err(error)) => error,
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// Takes what has left, by kind of raft message.
    pub(super) fn sent(&mut self) -> Vec<eraftpb::MessageType> {
        std::mem::take(&mut self.out).iter().map(|message| message.raft().msg_type).collect()
    }
}

pub(super) fn get(key: &str) -> Body {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Body::Operations(vec![Operation::Get { cf: Cf::Default, key }])
}

pub(super) fn removing(peer: Replica) -> PeerChange {
    PeerChange { kind: ChangeKind::RemoveNode, peer }
}

/// A raft message of `kind` in `term` from one peer of the region to another.
pub(super) fn message(
    region: &Region,
    (from, to): (Replica, Replica),
    kind: eraftpb::MessageType,
    term: u64,
) -> RaftMessage {
    let mut raft = eraftpb::Message::default();
    raft.set_msg_type(kind);
    (raft.from, raft.to, raft.term) = (from.id.get(), to.id.get(), term);
    RaftMessage::new(region.id, from, to, region.epoch, raft)
}

/// An entry with the checksum its proposer would have made.
pub(super) fn entry(region: RegionId, index: u64, term: u64, data: Vec<u8>) -> eraftpb::Entry {
    let context = Entry::context_for(region, index, term, EntryFlags::default(), &data);
    eraftpb::Entry {
        index,
        term,
        context: context.into(),
        data: data.into(),
        ..eraftpb::Entry::default()
    }
}

/// Appends entries of `term` that write nothing, behind `(index, term)`, up to `last`.
pub(super) fn append(
    region: &Region,
    ends: (Replica, Replica),
    term: u64,
    behind: (u64, u64),
    last: u64,
    commit: u64,
) -> RaftMessage {
    let mut message = message(region, ends, eraftpb::MessageType::MsgAppend, term);
    let raft = message.raft_mut();
    (raft.index, raft.log_term, raft.commit) = (behind.0, behind.1, commit);
    let idle = Command {
        header: Header {
            region: region.id,
            peer: ends.0,
            epoch: Some(region.epoch),
            term: 0,
            read_quorum: false,
            replica_read: false,
        },
        body: Body::Operations(Vec::new()),
    };
    for index in behind.0 + 1..=last {
        raft.entries.push(entry(region.id, index, term, wire::encode_command(&idle)));
    }
    message
}

/// A few stores, and the messages between them.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    /// On their way, oldest first.
    pub(super) wire: Vec<RaftMessage>,
}

pub(super) fn everything(_: &RaftMessage) -> bool {
    true
}

impl Cluster {
    /// Stores 1 to `stores`, each with its peers of `regions`, long after their start.
    pub(super) fn new(stores: u64, regions: &[Region]) -> Self {
        Self::with(config(), stores, regions)
    }

    pub(super) fn with(config: Config, stores: u64, regions: &[Region]) -> Self {
        let node = |id: u64| {
            let store = StoreId::must(id);
            let here = regions.iter().filter(|region| region.peer_on(store).is_some());
            let mut node = Node::new(id, config.clone(), &here.cloned().collect::<Vec<_>>());
            node.pass_start();
            node.settle();
            node
        };
        let mut cluster = Self { nodes: (1..=stores).map(node).collect(), wire: Vec::new() };
        cluster.settle();
        cluster
    }

    /// The store with this id.
    pub(super) fn on(&mut self, store: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == store).expect("there is such a store")
    }

    /// Puts what the stores have sent on the wire.
    pub(super) fn post(&mut self) {
        for node in &mut self.nodes {
            self.wire.append(&mut node.out);
        }
    }

    /// Delivers the oldest message that `passes`; gives whether there was one. Others stay.
    pub(super) fn deliver_one(&mut self, passes: impl Fn(&RaftMessage) -> bool) -> bool {
        self.post();
        let Some(at) = self.wire.iter().position(passes) else {
            return false;
        };
        let message = self.wire.remove(at);
        let (from, to) = (message.from_peer().unwrap(), message.to_peer().unwrap());
        let region = message.region().unwrap();
        let key = message.snapshot().map(|snapshot| {
            let meta = snapshot.get_metadata();
            SnapKey { region, term: meta.term, index: meta.index }
        });
        let bytes = key.map(|key| (key, read_all(&self.on(from.store.get()).snaps, key)));
        if !self.nodes.iter().any(|node| node.id == to.store.get()) {
            return true;
        }
        let target = self.on(to.store.get());
        let snapshot = bytes.map(|(key, bytes)| {
            let mut writer = target.snaps.create(SnapDirection::Received, key).unwrap();
            writer.write(&bytes).unwrap();
            (key, writer.finish().unwrap())
        });
        target.take(Event::Message { message: Box::new(message), snapshot });
        if key.is_some() {
            let status = SnapshotStatus::Finished;
            self.on(from.store.get()).take(Event::SnapshotStatus { region, to: to.id, status });
        }
        true
    }

    /// Everybody does what was asked and hears what was said, until all is quiet, but for
    /// messages that do not pass; those stay on the wire.
    pub(super) fn settle_but(&mut self, passes: impl Fn(&RaftMessage) -> bool) {
        loop {
            for node in &mut self.nodes {
                node.settle();
            }
            if !self.deliver_one(&passes) {
                return;
            }
        }
    }

    pub(super) fn settle(&mut self) {
        self.settle_but(everything);
    }

    /// Has `store` campaign for `region` and win, with everything delivered.
    pub(super) fn elect(&mut self, store: u64, region: RegionId) {
        for _ in 0..60 {
            self.on(store).tick(1);
            self.settle();
            if self.on(store).status(region).is_leader {
                return;
            }
        }
        panic!("store {store} was not elected for region {region}");
    }

    /// The same moment for everybody, without ticks.
    pub(super) fn pass(&mut self, by: Duration) {
        let now = self.nodes.iter().map(|node| node.now).max().unwrap_or_default() + by;
        for node in &mut self.nodes {
            node.now = now;
        }
    }
}

fn read_all(snaps: &MemSnapStore, key: SnapKey) -> Vec<u8> {
    let mut reader = snaps.open(SnapDirection::Generated, key).unwrap();
    let mut bytes = Vec::new();
    loop {
        let more = reader.read(64 << 10).unwrap();
        if more.is_empty() {
            return bytes;
        }
        bytes.extend_from_slice(&more);
    }
}

/// A raft message with the snapshot of `region` behind `index`, of the sender's `term`.
pub(super) fn snapshot_message(
    region: &Region,
    ends: (Replica, Replica),
    term: u64,
    index: u64,
) -> RaftMessage {
    let mut message = message(region, ends, eraftpb::MessageType::MsgSnapshot, term);
    let snapshot = message.raft_mut().mut_snapshot();
    snapshot.data = wire::encode_snapshot_data(region, 0);
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.mut_conf_state().voters = region.peers.iter().map(|peer| peer.id.get()).collect();
    message
}

impl Node {
    /// Puts the bytes of a region snapshot to rest here, as a transport would. Its rows are
    /// of the default family.
    pub(super) fn lay_down(&self, region: &Region, key: SnapKey, rows: &[(&str, &str)]) -> u64 {
        let writer = self.snaps.create(SnapDirection::Received, key).unwrap();
        let header = SnapHeader { key, region: region.clone() };
        let mut encoder = Encoder::start(writer, &header, 4 << 10).unwrap();
        for (row_key, value) in rows {
            let row_key = keys::data_key(row_key.as_bytes());
            encoder.push(Cf::Default, &row_key, value.as_bytes()).unwrap();
        }
        encoder.finish().unwrap()
    }

    /// Receives a snapshot with its bytes, and gives the bytes' name.
    pub(super) fn receive_snapshot(
        &mut self,
        region: &Region,
        ends: (Replica, Replica),
        term: u64,
        index: u64,
        rows: &[(&str, &str)],
    ) -> SnapKey {
        let key = SnapKey { region: region.id, term, index };
        let size_bytes = self.lay_down(region, key, rows);
        let message = Box::new(snapshot_message(region, ends, term, index));
        self.take(Event::Message { message, snapshot: Some((key, size_bytes)) });
        key
    }

    /// Whether the removal of these received bytes was asked for.
    pub(super) fn gives_up(&self, key: SnapKey) -> bool {
        self.removes(SnapDirection::Received, key)
    }

    /// The same of bytes that were built here.
    pub(super) fn gives_up_generated(&self, key: SnapKey) -> bool {
        self.removes(SnapDirection::Generated, key)
    }

    fn removes(&self, wanted: SnapDirection, what: SnapKey) -> bool {
        self.tasks.iter().any(|task| {
            matches!(task, Task::DeleteSnapshot { direction, key }
                if *direction == wanted && *key == what)
        })
    }

    /// Builds the peer of `region` here by a first heartbeat of the peer on store `from`.
    pub(super) fn meet(&mut self, region: &Region, from: u64) {
        let (from, to) = (voter(region.id, from), voter(region.id, self.id));
        let hello = message(region, (from, to), eraftpb::MessageType::MsgHeartbeat, 6);
        self.receive(hello);
        self.settle();
        self.out.clear();
        assert_eq!(self.status(region.id).peer, to);
    }
}
