//! The clients of a simulated cluster: concurrent, stubborn, and honest about what they
//! do not know.
//!
//! Every value is written once in a run, so that what a read saw names the write it saw. A
//! refused write is tried again with the same value; one whose outcome is unknown never.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_core::{Event, ReplyId};
use raftstore_proto::{
    Body, Cf, Command, Epoch, Header, Operation, OperationResponse, Peer, Region, RegionError,
    RegionId, Response, ResponseBody, StoreId,
};

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
/// Calls of one region that may be open at the same time.
const OPEN_CALLS: usize = 24;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write,
    Delete,
    StoreRead,
    QuorumRead,
    LocalRead,
}

impl Kind {
    const fn is_read(self) -> bool {
        matches!(self, Self::StoreRead | Self::QuorumRead | Self::LocalRead)
    }
}

#[derive(Debug)]
struct Call {
    region: u64,
    kind: Kind,
    operations: Vec<Operation>,
    recorded: Vec<OperationId>,
    /// The reply waited for, while one is.
    reply: Option<u64>,
}

/// What clients believe about a region.
#[derive(Clone, Debug)]
struct Route {
    epoch: Epoch,
    peers: Vec<Peer>,
    leader: Peer,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    rng: Rng,
    calls: BTreeMap<u64, Call>,
    waiting: BTreeMap<u64, u64>,
    routes: BTreeMap<u64, Route>,
    next_call: u64,
    pub(crate) on: bool,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rng: Rng::fork(plan.seed, "clients"),
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            routes: BTreeMap::new(),
            next_call: 0,
            on: false,
        }
    }
}

/// The letter all keys of a region begin with.
fn letter(region: u64) -> char {
    char::from(b'a' + u8::try_from(region - 1).unwrap_or(25))
}

/// Where region number `region` of `regions` begins; empty for the first.
#[must_use]
pub fn start_key(region: u64) -> Bytes {
    if region == 1 { Bytes::new() } else { Bytes::from(letter(region).to_string()) }
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
        for region in 1..=self.plan.regions {
            let delay = self.clients.rng.below(100 * MILLI);
            self.after(delay, Step::Client { region });
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

    pub(crate) fn client_wakes(&mut self, region: u64) {
        if !self.clients.on {
            return;
        }
        let load = self.plan.load;
        let rate = (load.writes_per_second + load.reads_per_second).max(1);
        let next = self.clients.rng.exponential(SECOND / rate);
        self.after(next, Step::Client { region });
        let open = self.clients.calls.values().filter(|call| call.region == region).count();
        if open >= OPEN_CALLS {
            return;
        }
        let rng = &mut self.clients.rng;
        let is_write = rng.below(rate) < load.writes_per_second;
        let deletable = load.deletable_keys > 0 && rng.chance(150);
        let count = if deletable { load.deletable_keys } else { load.keys.max(1) };
        let family = if deletable { 'x' } else { 'r' };
        let key = format!("{}{family}{}", letter(region), rng.below(count));
        if !is_write {
            let kind = *rng.pick(&[Kind::StoreRead, Kind::QuorumRead, Kind::LocalRead]);
            self.begin_read(region, kind, &key);
        } else if deletable && rng.chance(400) {
            let whole = rng.chance(300);
            self.begin_delete(region, &key, whole.then_some(count));
        } else {
            let padding = usize::try_from(rng.below(load.value_bytes.max(1))).unwrap_or(0);
            self.begin_write(region, &key, padding);
        }
    }

    fn begin_read(&mut self, region: u64, kind: Kind, key: &str) {
        let operations = vec![Operation::Get { cf: Cf::Default, key: Bytes::from(key.to_owned()) }];
        self.begin(region, kind, operations, &[(key.to_owned(), Action::Read(0))]);
    }

    fn begin_write(&mut self, region: u64, key: &str, padding: usize) {
        let value = (region << 40) | (self.clients.next_call + 1);
        let operations = vec![Operation::Put {
            cf: Cf::Default,
            key: Bytes::from(key.to_owned()),
            value: value_bytes(value, padding),
        }];
        self.begin(region, Kind::Write, operations, &[(key.to_owned(), Action::Write(value))]);
    }

    /// Deletes one key, or all `whole` deletable keys of the region at once.
    fn begin_delete(&mut self, region: u64, key: &str, whole: Option<u64>) {
        let Some(count) = whole else {
            let key_bytes = Bytes::from(key.to_owned());
            let operations = vec![Operation::Delete { cf: Cf::Default, key: key_bytes }];
            return self.begin(
                region,
                Kind::Delete,
                operations,
                &[(key.to_owned(), Action::Delete)],
            );
        };
        let letter = letter(region);
        let operations = vec![Operation::DeleteRange {
            cf: Cf::Default,
            start_key: Bytes::from(format!("{letter}x")),
            end_key: Bytes::from(format!("{letter}y")),
        }];
        let recorded: Vec<_> =
            (0..count).map(|number| (format!("{letter}x{number}"), Action::Delete)).collect();
        self.begin(region, Kind::Delete, operations, &recorded);
    }

    fn begin(
        &mut self,
        region: u64,
        kind: Kind,
        operations: Vec<Operation>,
        recorded: &[(String, Action)],
    ) {
        self.clients.next_call += 1;
        let number = self.clients.next_call;
        let client = u32::try_from(number % 1_000_000).unwrap_or(0);
        let recorded = recorded
            .iter()
            .map(|(key, action)| self.history.begin(key.as_bytes(), client, self.now, *action))
            .collect();
        let call = Call { region, kind, operations, recorded, reply: None };
        self.clients.calls.insert(number, call);
        self.after(PATIENCE, Step::Timeout { call: number });
        self.attempt(number);
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
        let (region, kind) = (call.region, call.kind);
        let operations = call.operations.clone();
        let Some(route) = self.route(region) else { return self.retry_later(number) };
        // Some readers have not heard of the latest leader: a deposed one must refuse them.
        let stale =
            matches!(kind, Kind::StoreRead | Kind::LocalRead) && self.clients.rng.chance(200);
        let peer = if stale { *self.clients.rng.pick(&route.peers) } else { route.leader };
        let store = peer.store.get();
        let header = Header {
            region: RegionId::must(region),
            peer,
            epoch: Some(route.epoch),
            term: 0,
            read_quorum: kind == Kind::QuorumRead,
        };
        let command = Command { header, body: Body::Operations(operations) };
        if kind == Kind::LocalRead
            && let Some(response) = self.local_read(store, &command)
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
                self.guess_other(region);
                self.retry_later(number);
            }
        }
    }

    /// Reads beside the store's thread; `None` if that is not possible now.
    fn local_read(&self, store: u64, command: &Command) -> Option<Response> {
        let node = self.nodes.get(&store)?;
        let running = node.running.as_ref()?;
        if node.paused_until > self.now {
            return None;
        }
        running.reader.read(command, || node.clock(self.now)).ok().flatten()
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
        let (region, kind) = (call.region, call.kind);
        match response.body {
            Ok(ResponseBody::Operations(results)) => self.finish_ok(number, &results),
            Ok(_) => self.fail(Violation::new(
                "answers fit questions",
                format!("an answer to {kind:?} is of another kind"),
            )),
            Err(error) => {
                self.learn(region, &error);
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
        self.counters.hit(match call.kind {
            Kind::Write => Sometimes::WritesAcknowledged,
            Kind::Delete => Sometimes::Deletes,
            Kind::QuorumRead => Sometimes::QuorumReads,
            Kind::StoreRead | Kind::LocalRead => Sometimes::StoreReads,
        });
        for id in &call.recorded {
            match results.first() {
                Some(OperationResponse::Get(value)) => {
                    self.history.end_read(id, value_of(value.as_ref()), self.now);
                }
                _ => self.history.end(id, Outcome::Done(self.now)),
            }
        }
    }

    fn route(&mut self, region: u64) -> Option<Route> {
        if !self.clients.routes.contains_key(&region) {
            let known = self.newest_region(region)?;
            let leader = *self.clients.rng.pick(&known.peers);
            self.clients.routes.insert(region, route_of(&known, leader));
        }
        self.clients.routes.get(&region).cloned()
    }

    /// The region as the best informed running store knows it.
    pub(crate) fn newest_region(&self, region: u64) -> Option<Region> {
        self.nodes
            .keys()
            .filter_map(|store| self.peer_status(*store, region))
            .map(|status| status.region)
            .filter(Region::is_initialized)
            .max_by_key(|region| (region.epoch.version, region.epoch.conf_ver))
    }

    fn guess_other_of(&mut self, number: u64) {
        if let Some(region) = self.clients.calls.get(&number).map(|call| call.region) {
            self.guess_other(region);
        }
    }

    /// The leader is somewhere else, or the members are others.
    fn guess_other(&mut self, region: u64) {
        if self.clients.rng.chance(300) {
            self.clients.routes.remove(&region);
        } else if let Some(route) = self.clients.routes.get_mut(&region) {
            route.leader = *self.clients.rng.pick(&route.peers);
        }
    }

    /// Takes in what a refusal says about the region.
    fn learn(&mut self, region: u64, error: &RegionError) {
        match error {
            RegionError::NotLeader { leader: Some(leader), .. } => {
                if let Some(route) = self.clients.routes.get_mut(&region) {
                    route.leader = *leader;
                }
            }
            RegionError::EpochNotMatch { current } => match current.first() {
                Some(known) if known.is_initialized() => {
                    let leader = *self.clients.rng.pick(&known.peers);
                    self.clients.routes.insert(region, route_of(known, leader));
                }
                _ => self.guess_other(region),
            },
            RegionError::ServerIsBusy { .. } => self.counters.hit(Sometimes::Busy),
            _ => self.guess_other(region),
        }
    }

    /// Puts a command to a store by hand. The answer is found with [`World::answer_to`].
    pub fn ask(&mut self, store: u64, command: Command) -> Option<u64> {
        let reply = self.put_question(store, command)?;
        self.direct.insert(reply, None);
        Some(reply)
    }

    /// The answer to a command put by hand, once it is there.
    #[must_use]
    pub fn answer_to(&self, reply: u64) -> Option<&Response> {
        self.direct.get(&reply).and_then(Option::as_ref)
    }

    /// Reads every key of the history once more through a quorum. The answers are part of
    /// the history.
    pub(crate) fn read_everything(&mut self) {
        let keys: Vec<String> =
            self.history.keys().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
        for key in keys {
            let region = u64::from(key.as_bytes()[0] - b'a') + 1;
            self.begin_read(region, Kind::QuorumRead, &key);
        }
    }

    /// Writes one key of every region. Gives the history's names of the writes.
    pub(crate) fn probe(&mut self) -> Vec<OperationId> {
        let mut ids = Vec::new();
        for region in 1..=self.plan.regions {
            self.begin_write(region, &format!("{}r0", letter(region)), 8);
            let call = self.clients.next_call;
            ids.extend(
                self.clients.calls.get(&call).and_then(|call| call.recorded.first().cloned()),
            );
        }
        ids
    }
}

fn route_of(region: &Region, leader: Peer) -> Route {
    Route { epoch: region.epoch, peers: region.peers.clone(), leader }
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
