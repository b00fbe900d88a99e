//! One test per rule of execution, against the reference engine.

use bytes::Bytes;
use engine_traits::{Reader, mem::MemEngine};
use protobuf::Message;
use raft::eraftpb;
use raftstore_proto::{
    AdminCommand, AdminResponse, ApplyState, Body, ChangeKind, Command, CompareAndSwap, EntryFlags,
    Epoch, Header, Operation, OperationResponse, Peer, PeerChange, PeerId, PeerRole, RegionPhase,
    RegionState, ResponseBody, StoreId, Truncated,
    wire::{self, record},
};

use super::*;
use crate::apply::{ApplyMetrics, ExecResult};

mod answers;
mod commands;
mod conditions;
mod hashes;
mod lifecycle;
mod membership;
mod observed;

const R1: RegionId = RegionId::must(1);
const R2: RegionId = RegionId::must(2);
const INCARNATION: u64 = 7;
const TERM: u64 = 6;
const EPOCH: Epoch = Epoch { conf_ver: 2, version: 3 };
const OWN: Peer = Peer::voter(PeerId::must(11), StoreId::must(1));
const OTHER: Peer = Peer::voter(PeerId::must(12), StoreId::must(2));

/// Turns on one bug.
#[derive(Clone, Copy, Debug)]
struct Planted(Bug);

impl Hooks for Planted {
    fn planted(&self, bug: Bug) -> bool {
        self.0 == bug
    }
}

/// A worker with the regions 1 `[b, m)` and 2 `[m, )`, both applied up to 5.
struct Fixture<H: Hooks = NoHooks> {
    kv: MemEngine,
    meta: StoreMeta,
    worker: ApplyWorker<MemEngine, H>,
}

fn region(id: RegionId) -> Region {
    let mut region = Region::uninitialized(id);
    if id == R1 {
        (region.start_key, region.end_key) = ("b".into(), "m".into());
    } else {
        region.start_key = "m".into();
    }
    region.epoch = EPOCH;
    region.peers = vec![OWN, OTHER];
    region
}

fn registration(id: RegionId) -> ApplyWork {
    let truncated = Truncated { index: 5, term: 5 };
    ApplyWork::Register(Box::new(Registration {
        peer: OWN,
        store: OWN.store,
        term: TERM,
        region: region(id),
        state: ApplyState { applied: 5, applied_term: 5, truncated },
    }))
}

fn task(region: RegionId, work: ApplyWork) -> ApplyTask {
    ApplyTask { region, incarnation: INCARNATION, work }
}

fn work(entries: Vec<Entry>, proposals: Vec<Proposal>) -> ApplyWork {
    ApplyWork::Entries { term: TERM, entries, proposals }
}

fn snapshot_at(request_index: u64) -> ApplyWork {
    ApplyWork::Snapshot { request_index, given_up: GivenUp::default() }
}

/// A caller whose token is 1000 x term + index.
fn waits(index: u64, term: u64) -> Proposal {
    Proposal { index, term, reply: ReplyId(1_000 * term + index) }
}

const fn reply(index: u64) -> ReplyId {
    ReplyId(1_000 * TERM + index)
}

impl Fixture {
    fn new() -> Self {
        Self::with(NoHooks)
    }
}

impl<H: Hooks> Fixture<H> {
    fn with(hooks: H) -> Self {
        let kv = MemEngine::new();
        let worker = ApplyWorker::new(kv.clone(), hooks);
        let mut fixture = Self { kv, meta: StoreMeta::default(), worker };
        let registered = fixture.run(vec![task(R1, registration(R1)), task(R2, registration(R2))]);
        assert!(registered.answers.is_empty() && registered.events.is_empty());
        assert_eq!(fixture.meta.numbers.written(), 0, "nothing to write");
        fixture
    }

    fn run(&mut self, tasks: Vec<ApplyTask>) -> ApplyOutcome<MemEngine> {
        self.worker.run(tasks, &self.meta).expect("the engine does not fail")
    }

    /// Executes entries of region 1, each awaited by a caller.
    fn execute(&mut self, entries: Vec<Entry>) -> ApplyOutcome<MemEngine> {
        let proposals = entries.iter().map(|entry| waits(entry.index(), entry.term())).collect();
        self.run(vec![task(R1, work(entries, proposals))])
    }

    fn data(&self, key: &str) -> Option<Bytes> {
        self.kv.get(Cf::Default, &keys::data_key(key.as_bytes())).unwrap()
    }

    fn stored_state(&self, region: RegionId) -> Option<ApplyState> {
        let record = self.kv.get(Cf::Raft, &keys::apply_state_key(region)).unwrap()?;
        Some(record::decode_apply_state(region, &record).unwrap())
    }

    fn stored_region(&self, region: RegionId) -> Option<RegionState> {
        let record = self.kv.get(Cf::Raft, &keys::region_state_key(region)).unwrap()?;
        Some(record::decode_region_state(region, &record).unwrap())
    }
}

fn header(epoch: Option<Epoch>) -> Header {
    Header { region: R1, peer: OWN, epoch, term: 0, read_quorum: false, replica_read: false }
}

fn command(body: Body) -> Command {
    Command { header: header(Some(EPOCH)), body }
}

fn put_in(cf: Cf, key: &'static str, value: &'static str) -> Operation {
    Operation::Put { cf, key: key.into(), value: value.into() }
}

fn put(key: &'static str, value: &'static str) -> Operation {
    put_in(Cf::Default, key, value)
}

fn delete(key: &'static str) -> Operation {
    Operation::Delete { cf: Cf::Default, key: key.into() }
}

fn delete_range(start: &'static str, end: &'static str) -> Operation {
    Operation::DeleteRange { cf: Cf::Default, start_key: start.into(), end_key: end.into() }
}

fn swap(key: &'static str, expected: Option<&'static str>, new: Option<&'static str>) -> Operation {
    let (expected, new) = (expected.map(Bytes::from), new.map(Bytes::from));
    let swap = CompareAndSwap { cf: Cf::Default, key: key.into(), expected, new };
    Operation::CompareAndSwap(Box::new(swap))
}

fn operations(operations: Vec<Operation>) -> Command {
    command(Body::Operations(operations))
}

fn seal(region: RegionId, mut raw: eraftpb::Entry) -> Entry {
    let conf_change = raw.entry_type != eraftpb::EntryType::EntryNormal;
    let flags = EntryFlags { conf_change, ..EntryFlags::default() };
    if !raw.data.is_empty() {
        raw.context = Entry::context_for(region, raw.index, raw.term, flags, &raw.data).into();
    }
    Entry::from_raft(raw)
}

fn raw(index: u64, term: u64, data: Vec<u8>) -> eraftpb::Entry {
    eraftpb::Entry { index, term, data: data.into(), ..Default::default() }
}

fn entry_of(region: RegionId, index: u64, command: &Command) -> Entry {
    seal(region, raw(index, TERM, wire::encode_command(command)))
}

fn entry(index: u64, command: &Command) -> Entry {
    entry_of(R1, index, command)
}

/// An entry that says that it depends on data.
fn conditional(index: u64, command: &Command) -> Entry {
    let mut raw = raw(index, TERM, wire::encode_command(command));
    let flags = EntryFlags { conditional: true, ..EntryFlags::NONE };
    raw.context = Entry::context_for(R1, index, TERM, flags, &raw.data).into();
    Entry::from_raft(raw)
}

fn empty(index: u64, term: u64) -> Entry {
    seal(R1, raw(index, term, Vec::new()))
}

fn conf_change(index: u64, command: &Command) -> Entry {
    let change =
        eraftpb::ConfChange { context: wire::encode_command(command).into(), ..Default::default() };
    let mut raw = raw(index, TERM, change.write_to_bytes().unwrap());
    raw.entry_type = eraftpb::EntryType::EntryConfChange;
    seal(R1, raw)
}

fn conf_change_v2(index: u64, command: &Command) -> Entry {
    let context = wire::encode_command(command).into();
    let change = eraftpb::ConfChangeV2 { context, ..Default::default() };
    let mut raw = raw(index, TERM, change.write_to_bytes().unwrap());
    raw.entry_type = eraftpb::EntryType::EntryConfChangeV2;
    seal(R1, raw)
}

fn change_peer(kind: ChangeKind, peer: Peer) -> Command {
    command(Body::Admin(AdminCommand::ChangePeer(PeerChange { kind, peer })))
}

/// The only result of a run.
fn applied(outcome: &ApplyOutcome<MemEngine>) -> &ApplyResult {
    match outcome.events.as_slice() {
        [ApplyEvent::Applied(result)] => result,
        other => panic!("not one result: {other:?}"),
    }
}

/// The only answer in a list.
fn answer(answers: &[(ReplyId, Response)], index: u64) -> &Result<ResponseBody, RegionError> {
    match answers {
        [(to, response)] if *to == reply(index) && response.term == TERM => &response.body,
        other => panic!("not one answer to {index}: {other:?}"),
    }
}

fn ok(answers: Vec<OperationResponse>) -> Result<ResponseBody, RegionError> {
    Ok(ResponseBody::Operations(answers))
}
