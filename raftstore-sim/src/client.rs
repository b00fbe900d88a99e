//! The clients of a simulated cluster: concurrent, stubborn, and honest about what they
//! do not know.
//!
//! Every value is written once in a run, so that what a read saw names the write it saw. A
//! refused write is tried again with the same value; one whose outcome is unknown never.
//!
//! Clients work on *tables*: the keys that begin with one letter. Which regions hold them is
//! for the routes to know.

mod by_hand;
mod routes;
mod swaps;

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_core::{Event, ReplyId};
use raftstore_proto::{
    AdminResponse, Body, Cf, Command, CompareAndSwap, Header, Operation, OperationResponse, Peer,
    Region, RegionError, Response, ResponseBody, StoreId,
};

use self::routes::{Route, Routes};
use crate::{
    counters::Sometimes,
    invariants::Violation,
    oracle::{Action, OperationId, Outcome, Value},
    plan::Plan,
    queue::{MILLI, Nanos, SECOND},
    rng::Rng,
    world::{Step, World},
};

/// How long a client waits for one call, all tries together.
const PATIENCE: Nanos = 4 * SECOND;
/// Calls of one table that may be open at the same time.
const OPEN_CALLS: usize = 24;

/// A key before those of all tables.
const BEFORE_TABLES: &[u8] = b"A";

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write,
    Delete,
    StoreRead,
    QuorumRead,
    LocalRead,
    ReplicaRead,
}

impl Kind {
    const fn is_read(self) -> bool {
        matches!(self, Self::StoreRead | Self::QuorumRead | Self::LocalRead | Self::ReplicaRead)
    }
}

/// The one operation of a call.
#[derive(Clone, Debug)]
enum What {
    Get(Bytes),
    Put(Bytes, Bytes),
    Delete(Bytes),
    /// A write if the key holds what the client thinks it does.
    Swap(Box<CompareAndSwap>),
    /// All keys of a range. Where regions meet inside it, the call is cut in two.
    DeleteRange(Bytes, Bytes),
}

impl What {
    /// The key that decides which region is asked.
    const fn key(&self) -> &Bytes {
        match self {
            Self::Get(key) | Self::Put(key, _) | Self::Delete(key) | Self::DeleteRange(key, _) => {
                key
            }
            Self::Swap(swap) => &swap.key,
        }
    }

    fn operation(&self) -> Operation {
        let cf = Cf::Default;
        match self.clone() {
            Self::Get(key) => Operation::Get { cf, key },
            Self::Put(key, value) => Operation::Put { cf, key, value },
            Self::Delete(key) => Operation::Delete { cf, key },
            Self::Swap(swap) => Operation::CompareAndSwap(swap),
            Self::DeleteRange(start_key, end_key) => {
                Operation::DeleteRange { cf, start_key, end_key }
            }
        }
    }
}

#[derive(Debug)]
struct Call {
    table: u64,
    kind: Kind,
    what: What,
    recorded: Vec<OperationId>,
    /// The reply waited for, while one is.
    reply: Option<u64>,
    /// When the client loses patience.
    deadline: Nanos,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    rng: Rng,
    calls: BTreeMap<u64, Call>,
    waiting: BTreeMap<u64, u64>,
    routes: Routes,
    /// What was last sent for a key.
    sent: BTreeMap<Bytes, Bytes>,
    next_call: u64,
    pub(crate) on: bool,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rng: Rng::fork(plan.seed, "clients"),
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            routes: Routes::default(),
            sent: BTreeMap::new(),
            next_call: 0,
            on: false,
        }
    }
}

/// The letter all keys of a table begin with.
pub(crate) fn letter(table: u64) -> char {
    char::from(b'a' + u8::try_from(table - 1).unwrap_or(25))
}

/// The table of a key; 0 for a key of none.
fn table_of(key: &[u8]) -> u64 {
    match key.first() {
        Some(letter @ b'a'..=b'z') => u64::from(letter - b'a') + 1,
        _ => 0,
    }
}

/// Where table number `table` begins; empty for the first.
#[must_use]
pub fn start_key(table: u64) -> Bytes {
    if table == 1 { Bytes::new() } else { Bytes::from(letter(table).to_string()) }
}

/// All keys that the clients of `plan` use, in order.
#[must_use]
pub fn workload_keys(plan: &Plan) -> Vec<Bytes> {
    let mut keys: Vec<Bytes> = (1..=plan.regions)
        .flat_map(|table| {
            let kept = (0..plan.load.keys.max(1)).map(move |at| ('r', at));
            let deletable = (0..plan.load.deletable_keys).map(move |at| ('x', at));
            kept.chain(deletable)
                .map(move |(family, at)| Bytes::from(format!("{}{family}{at}", letter(table))))
        })
        .collect();
    keys.sort_unstable();
    keys
}

/// Whether a key lies where whole ranges are deleted.
fn is_deletable(key: &[u8]) -> bool {
    matches!(key, [b'a'..=b'z', b'x', ..])
}

/// The bytes stored for a value.
#[must_use]
pub fn value_bytes(value: Value, padding: usize) -> Bytes {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(8 + padding, b'.');
    Bytes::from(bytes)
}

/// The value that is stored as these bytes; 0 for none, and for bytes that no client wrote.
#[must_use]
pub fn value_of(bytes: Option<&Bytes>) -> Value {
    bytes
        .and_then(|bytes| bytes.get(..8))
        .and_then(|head| head.try_into().ok())
        .map_or(0, Value::from_be_bytes)
}

impl World {
    /// Lets clients begin.
    pub fn start_clients(&mut self) {
        self.clients.on = true;
        for table in 1..=self.plan.regions {
            let delay = self.clients.rng.below(100 * MILLI);
            self.after(delay, Step::Client { table });
        }
    }

    /// Lets clients finish what they have begun, and begin nothing.
    pub const fn stop_clients(&mut self) {
        self.clients.on = false;
    }

    /// How many calls are open.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.clients.calls.len()
    }

    pub(crate) fn client_wakes(&mut self, table: u64) {
        if !self.clients.on {
            return;
        }
        let load = self.plan.load;
        let rate = (load.writes_per_second + load.reads_per_second).max(1);
        let next = self.clients.rng.exponential(SECOND / rate);
        self.after(next, Step::Client { table });
        let open = self.clients.calls.values().filter(|call| call.table == table).count();
        if open >= OPEN_CALLS {
            return;
        }
        let rng = &mut self.clients.rng;
        let is_write = rng.below(rate) < load.writes_per_second;
        let deletable = load.deletable_keys > 0 && rng.chance(150);
        let count = if deletable { load.deletable_keys } else { load.keys.max(1) };
        let family = if deletable { 'x' } else { 'r' };
        let key = Bytes::from(format!("{}{family}{}", letter(table), rng.below(count)));
        if !is_write {
            let kind =
                *rng.pick(&[Kind::StoreRead, Kind::QuorumRead, Kind::LocalRead, Kind::ReplicaRead]);
            self.begin_read(kind, key);
        } else if deletable && rng.chance(400) {
            if rng.chance(300) {
                self.begin_delete_all(table, count);
            } else {
                self.begin(Kind::Delete, What::Delete(key.clone()), &[(key, Action::Delete)]);
            }
        } else {
            let padding = usize::try_from(rng.below(load.value_bytes.max(1))).unwrap_or(0);
            self.begin_put_or_swap(key, padding);
        }
    }

    fn begin_read(&mut self, kind: Kind, key: Bytes) -> u64 {
        self.begin(kind, What::Get(key.clone()), &[(key, Action::Read(0))])
    }

    fn begin_write(&mut self, key: Bytes, padding: usize) -> u64 {
        let value = (table_of(&key) << 40) | (self.clients.next_call + 1);
        let bytes = value_bytes(value, padding);
        self.clients.sent.insert(key.clone(), bytes.clone());
        let what = What::Put(key.clone(), bytes);
        self.begin(Kind::Write, what, &[(key, Action::Write(value))])
    }

    /// Deletes all `count` deletable keys of the table at once.
    fn begin_delete_all(&mut self, table: u64, count: u64) {
        let letter = letter(table);
        let range = What::DeleteRange(format!("{letter}x").into(), format!("{letter}y").into());
        let recorded: Vec<_> = (0..count)
            .map(|number| (Bytes::from(format!("{letter}x{number}")), Action::Delete))
            .collect();
        self.begin(Kind::Delete, range, &recorded);
    }

    fn begin(&mut self, kind: Kind, what: What, recorded: &[(Bytes, Action)]) -> u64 {
        let client = u32::try_from((self.clients.next_call + 1) % 1_000_000).unwrap_or(0);
        let recorded = recorded
            .iter()
            .map(|(key, action)| self.history.begin(key, client, self.now, *action))
            .collect();
        let deadline = self.now + PATIENCE;
        let table = table_of(what.key());
        self.enter(Call { table, kind, what, recorded, reply: None, deadline })
    }

    fn enter(&mut self, call: Call) -> u64 {
        self.clients.next_call += 1;
        let number = self.clients.next_call;
        self.queue.schedule(call.deadline, Step::Timeout { call: number });
        self.clients.calls.insert(number, call);
        self.attempt(number);
        number
    }

    pub(crate) fn client_retry(&mut self, call: u64) {
        if self.clients.calls.get(&call).is_some_and(|call| call.reply.is_none()) {
            self.attempt(call);
        }
    }

    fn retry_later(&mut self, call: u64) {
        let delay = 5 * MILLI + self.clients.rng.below(60 * MILLI);
        self.after(delay, Step::Retry { call });
    }

    fn attempt(&mut self, number: u64) {
        let Some(call) = self.clients.calls.get(&number) else { return };
        let (key, kind) = (call.what.key().clone(), call.kind);
        let Some(route) = self.route(&key) else { return self.retry_later(number) };
        let Some(operation) = self.fit(number, &route) else { return };
        // Some readers have not heard of the latest leader: a deposed one must refuse them.
        let stale =
            matches!(kind, Kind::StoreRead | Kind::LocalRead) && self.clients.rng.chance(200);
        let anybody = stale || kind == Kind::ReplicaRead;
        let peer = if anybody { *self.clients.rng.pick(&route.region.peers) } else { route.leader };
        let store = peer.store.get();
        let header = Header {
            region: route.region.id,
            peer,
            epoch: Some(route.region.epoch),
            term: 0,
            read_quorum: kind == Kind::QuorumRead,
            replica_read: kind == Kind::ReplicaRead,
        };
        let command = Command { header, body: Body::Operations(vec![operation]) };
        if kind == Kind::LocalRead
            && let Some(response) = self.read_beside(store, &command)
        {
            self.counters.hit(Sometimes::LocalReads);
            return self.finish(number, response);
        }
        match self.put_question(store, command) {
            Some(reply) => {
                self.clients.waiting.insert(reply, number);
                if let Some(call) = self.clients.calls.get_mut(&number) {
                    call.reply = Some(reply);
                }
            }
            None => {
                self.guess_other(&key);
                self.retry_later(number);
            }
        }
    }

    /// The operation of a call as one region can carry it out. What is beyond the region
    /// becomes a call of its own.
    fn fit(&mut self, number: u64, route: &Route) -> Option<Operation> {
        let call = self.clients.calls.get_mut(&number)?;
        let border = &route.region.end_key;
        if let What::DeleteRange(_, end) = &mut call.what
            && !border.is_empty()
            && *border < *end
        {
            let rest = What::DeleteRange(border.clone(), std::mem::replace(end, border.clone()));
            let (recorded, beyond) =
                call.recorded.drain(..).partition(|(key, _)| key.as_slice() < border.as_ref());
            call.recorded = recorded;
            let (table, kind, deadline) = (call.table, call.kind, call.deadline);
            let beyond = Call { table, kind, what: rest, recorded: beyond, reply: None, deadline };
            self.counters.hit(Sometimes::CallsCut);
            self.enter(beyond);
        }
        self.clients.calls.get(&number).map(|call| call.what.operation())
    }

    /// Puts a command to a store that runs; gives the reply that will come.
    pub(crate) fn put_question(&mut self, store: u64, command: Command) -> Option<u64> {
        let node = self.nodes.get(&store)?;
        if !node.is_up() {
            return None;
        }
        let reply = self.answers.ask(store, node.life, self.now);
        let region = command.header.region.get();
        self.transcript.event(
            self.now,
            store,
            region,
            format_args!("asked {reply}: {}", question_name(&command)),
        );
        self.event_arrives(store, Event::Command { reply: ReplyId(reply), command });
        Some(reply)
    }

    /// A store has answered.
    pub(crate) fn answer(&mut self, store: u64, life: u64, reply: u64, response: Response) {
        if let Err(fault) = self.answers.answered(reply, store, life) {
            return self.fail(Violation::new("every answer exactly once", fault.to_string()));
        }
        if let Ok(ResponseBody::Admin(done)) = &response.body {
            let checked = self.check_done(store, done);
            self.require(checked);
        }
        let outcome = response.body.as_ref().err();
        match outcome {
            None => self.transcript.event(self.now, store, 0, format_args!("answers {reply}: ok")),
            Some(error) => {
                self.transcript.event(self.now, store, 0, format_args!("answers {reply}: {error}"));
            }
        }
        if let Some(waiting) = self.direct.get_mut(&reply) {
            *waiting = Some(response);
            return;
        }
        let Some(number) = self.clients.waiting.remove(&reply) else { return };
        if let Some(call) = self.clients.calls.get_mut(&number) {
            call.reply = None;
            self.finish(number, response);
        }
    }

    /// Whether a store that says it has changed a region knows the region so (H58), unless it
    /// is just ending: then nobody can rely on what it knows.
    fn check_done(&self, store: u64, done: &AdminResponse) -> Result<(), Violation> {
        if self.nodes[&store].is_stopping() {
            return Ok(());
        }
        let changed = match done {
            AdminResponse::ChangePeer(region) => std::slice::from_ref(region),
            AdminResponse::Split(regions) => regions,
            _ => &[],
        };
        for region in changed {
            let known = self.peer_status(store, region.id.get()).map(|status| status.region);
            if let Some(known) = known
                && known.is_initialized()
                && known.epoch.is_stale_against(&region.epoch)
            {
                return Err(Violation::new(
                    "a change is done when it is answered",
                    format!("store {store} answers {region:?} and knows {known:?}"),
                ));
            }
        }
        Ok(())
    }

    /// A store died before it answered.
    pub(crate) fn reply_lost(&mut self, reply: u64) {
        let Some(number) = self.clients.waiting.remove(&reply) else { return };
        let Some(call) = self.clients.calls.get_mut(&number) else { return };
        call.reply = None;
        if call.kind.is_read() {
            self.guess_other_of(number);
            self.retry_later(number);
        } else {
            self.end_unknown(number);
        }
    }

    pub(crate) fn client_timeout(&mut self, number: u64) {
        let Some(call) = self.clients.calls.remove(&number) else { return };
        match call.reply {
            Some(reply) => {
                self.clients.waiting.remove(&reply);
                if !call.kind.is_read() {
                    self.counters.hit(Sometimes::WritesUnknown);
                }
            }
            // Every try was refused, so it never happened.
            None if !call.kind.is_read() => {
                for id in &call.recorded {
                    self.history.end(id, Outcome::Refused);
                }
            }
            None => {}
        }
    }

    fn end_unknown(&mut self, number: u64) {
        self.counters.hit(Sometimes::WritesUnknown);
        self.clients.calls.remove(&number);
    }

    /// A call has come back, with a result or a refusal.
    fn finish(&mut self, number: u64, response: Response) {
        let Some(call) = self.clients.calls.get(&number) else { return };
        let (key, kind) = (call.what.key().clone(), call.kind);
        match response.body {
            Ok(ResponseBody::Operations(results)) => self.finish_ok(number, &results),
            Ok(_) => self.fail(Violation::new(
                "answers fit questions",
                format!("an answer to {kind:?} is of another kind"),
            )),
            Err(error) => {
                self.learn(&key, &error);
                if kind.is_read() || is_certain(&error) {
                    self.retry_later(number);
                } else {
                    self.end_unknown(number);
                }
            }
        }
    }

    fn finish_ok(&mut self, number: u64, results: &[OperationResponse]) {
        let Some(call) = self.clients.calls.remove(&number) else { return };
        if let Some(OperationResponse::CompareAndSwap { swapped, previous }) = results.first() {
            return self.finish_swap(&call, *swapped, previous.as_ref());
        }
        self.counters.hit(match call.kind {
            Kind::Write => Sometimes::WritesAcknowledged,
            Kind::Delete => Sometimes::Deletes,
            Kind::QuorumRead => Sometimes::QuorumReads,
            Kind::ReplicaRead => Sometimes::ReplicaReads,
            Kind::StoreRead | Kind::LocalRead => Sometimes::StoreReads,
        });
        // What rests on a lease is worth as much as the clocks.
        let judged =
            self.plan.clocks.bounded || matches!(call.kind, Kind::QuorumRead | Kind::ReplicaRead);
        for id in &call.recorded {
            match results.first() {
                Some(OperationResponse::Get(_)) if !judged => {}
                Some(OperationResponse::Get(value)) => {
                    self.history.end_read(id, value_of(value.as_ref()), self.now);
                }
                _ => self.history.end(id, Outcome::Done(self.now)),
            }
        }
    }

    fn guess_other_of(&mut self, number: u64) {
        if let Some(key) = self.clients.calls.get(&number).map(|call| call.what.key().clone()) {
            self.guess_other(&key);
        }
    }

    fn guess_other(&mut self, key: &[u8]) {
        self.clients.routes.guess_other(key, &mut self.clients.rng);
    }

    fn learn(&mut self, key: &[u8], error: &RegionError) {
        match error {
            RegionError::ServerIsBusy { .. } => self.counters.hit(Sometimes::Busy),
            RegionError::EpochNotMatch { .. } => self.counters.hit(Sometimes::StaleEpochs),
            _ => {}
        }
        self.clients.routes.take_in(key, error, &mut self.clients.rng);
    }

    /// Reads every key of the history once more through a quorum. The answers are part of
    /// the history.
    pub(crate) fn read_everything(&mut self) {
        let keys: Vec<Bytes> =
            self.history.keys().map(|(key, _)| Bytes::copy_from_slice(key)).collect();
        for key in keys {
            self.begin_read(Kind::QuorumRead, key);
        }
    }

    /// Writes one key of each of these regions; a region that has no key which may be
    /// written is read. Gives each region with the history's name of the call.
    pub(crate) fn probe<'a>(
        &mut self,
        regions: impl Iterator<Item = &'a Region>,
    ) -> Vec<(u64, OperationId)> {
        let keys = workload_keys(&self.plan);
        let mut ids = Vec::new();
        for region in regions {
            let start = &region.start_key;
            let before_all = Bytes::from_static(BEFORE_TABLES);
            let known = keys.iter().find(|key| region.contains(key));
            let may_begin = (!start.is_empty() && !is_deletable(start)).then_some(start);
            let call = match known.or(may_begin) {
                Some(key) => self.begin_write(key.clone(), 8),
                None if region.contains(&before_all) => self.begin_write(before_all, 8),
                None => self.begin_read(Kind::QuorumRead, start.clone()),
            };
            let recorded = self.clients.calls.get(&call).and_then(|call| call.recorded.first());
            ids.extend(recorded.map(|id| (region.id.get(), id.clone())));
        }
        ids
    }
}

/// One word for what a command asks.
const fn question_name(command: &Command) -> &'static str {
    match &command.body {
        Body::Admin(_) => "admin",
        Body::Status(_) => "status",
        Body::Operations(operations) => match operations.as_slice() {
            [Operation::Get { .. }] if command.header.read_quorum => "read by quorum",
            [Operation::Get { .. } | Operation::Snap, ..] => "read",
            [Operation::Delete { .. } | Operation::DeleteRange { .. }, ..] => "delete",
            _ => "write",
        },
    }
}

/// Whether a write refused with this error can never take effect.
const fn is_certain(error: &RegionError) -> bool {
    !matches!(
        error,
        RegionError::StaleCommand
            | RegionError::RegionNotFound { .. }
            | RegionError::Stopping
            | RegionError::Remote { .. }
    )
}

/// The peer of a region that lives on this store, as a voter, for headers made by hand.
#[must_use]
pub fn addressed(region: &Region, store: u64) -> Option<Peer> {
    region.peer_on(StoreId::must(store)).copied()
}
