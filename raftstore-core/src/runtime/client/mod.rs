//! A client of the cluster: finds the leader of a key's region, keeps many requests in
//! flight, and tries again on every answer that says so until a deadline.
//!
//! One thread owns a [`Client`] and calls [`Client::submit`] and [`Client::next`] in turn, or
//! [`Client::put`] and its like, which wait. An attempt is followed by another only once it
//! was answered, so that attempts of one request never overtake each other; two requests in
//! flight may.

mod local;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pd_client::RegionRoute;
use raftstore_proto::{
    Body, Cf, Command, Epoch, Header, Operation, OperationResponse, Peer, PeerRole, Region,
    RegionError, RegionId, Response, ResponseBody, StoreId,
};

pub use local::LocalStores;

use super::Callback;

/// What a client needs of a cluster.
pub trait Stores {
    /// Hands a command to a store. `answer` is called exactly once, on any thread; a store
    /// that is not there answers [`RegionError::Stopping`].
    fn send(&self, store: StoreId, command: Command, answer: Callback);

    /// The region that holds `key`, as far as PD knows.
    fn locate(&self, key: &Bytes) -> Option<RegionRoute>;
}

impl<S: Stores + ?Sized> Stores for &S {
    fn send(&self, store: StoreId, command: Command, answer: Callback) {
        (**self).send(store, command, answer);
    }

    fn locate(&self, key: &Bytes) -> Option<RegionRoute> {
        (**self).locate(key)
    }
}

/// Names a request for the caller.
pub type Ticket = u64;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Store a value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Remove a value.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Read a value.
    Get {
        /// The key.
        key: Bytes,
        /// Ask a quorum, even where the lease would do.
        read_quorum: bool,
    },
}

impl Request {
    const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Get { key, .. } => key,
        }
    }

    fn operation(&self) -> Operation {
        match self {
            Self::Put { key, value } => {
                Operation::Put { cf: Cf::Default, key: key.clone(), value: value.clone() }
            }
            Self::Delete { key } => Operation::Delete { cf: Cf::Default, key: key.clone() },
            Self::Get { key, .. } => Operation::Get { cf: Cf::Default, key: key.clone() },
        }
    }
}

/// Why a request was given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Trying again would not help.
    #[error("refused: {0}")]
    Refused(RegionError),
    /// No final answer before the deadline.
    #[error("no success within {} s, last answer: {last}", waited.as_secs())]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// The last answer, in words.
        last: String,
    },
    /// An answer that does not fit the question.
    #[error("the answer does not fit the request")]
    Mismatch,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Done {
    /// Which.
    pub ticket: Ticket,
    /// From its submission to its last answer.
    pub latency: Duration,
    /// How often it was sent.
    pub attempts: u32,
    /// The value read, if any; always `None` for writes.
    pub result: Result<Option<Bytes>, ClientError>,
}

struct Pending {
    ticket: Ticket,
    request: Request,
    submitted: Instant,
    attempts: u32,
    /// Who the current attempt went to.
    asked: Option<Asked>,
    last: Option<RegionError>,
}

/// The route that an attempt took. What its answer says about routes counts only while that
/// route is still the one in use: of many answers of one kind the first is enough.
#[derive(Clone, Copy)]
struct Asked {
    peer: Peer,
    region: RegionId,
    epoch: Epoch,
}

/// What is remembered of the key space.
#[derive(Default)]
struct Routes(BTreeMap<Bytes, Route>);

struct Route {
    region: Region,
    /// Who to ask, as a position among the region's peers.
    ask: usize,
    /// How many were asked in turn, because nobody said who leads.
    turns: usize,
}

impl Route {
    /// A route to the region's replica on `store`, if it has one that may lead.
    fn new(region: Region, store: Option<StoreId>) -> Self {
        let mut this = Self { region, ask: 0, turns: 0 };
        let on_store = |peer: &Peer| Some(peer.store) == store;
        this.ask = this.region.peers.iter().position(on_store).unwrap_or_default();
        if !this.can_lead() {
            this.go_on();
        }
        this
    }

    fn point_at(&mut self, leader: &Peer) -> bool {
        let at = self.region.peers.iter().position(|peer| peer.is_same_replica(leader));
        self.ask = at.unwrap_or(self.ask);
        at.is_some()
    }

    fn peer(&self) -> Option<Peer> {
        self.region.peers.get(self.ask).copied()
    }

    fn is(&self, asked: &Asked) -> bool {
        self.region.id == asked.region
            && self.region.epoch == asked.epoch
            && self.peer().is_some_and(|peer| peer.is_same_replica(&asked.peer))
    }

    fn can_lead(&self) -> bool {
        self.peer().is_some_and(|peer| peer.role != PeerRole::Learner)
    }

    fn go_on(&mut self) {
        for _ in 0..self.region.peers.len() {
            self.ask = (self.ask + 1) % self.region.peers.len();
            if self.can_lead() {
                return;
            }
        }
    }

    /// Goes on to the next peer that may lead. False if all of them had their turn: the
    /// region's replicas may be others by now, which changes no version that would be told.
    fn rotate(&mut self) -> bool {
        self.go_on();
        self.turns += 1;
        self.turns < self.region.peers.iter().filter(|peer| peer.role != PeerRole::Learner).count()
    }
}

impl Routes {
    fn of(&mut self, key: &[u8]) -> Option<&mut Route> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (_, route) = self.0.range_mut::<[u8], _>(upto).next_back()?;
        route.region.contains(key).then_some(route)
    }

    /// Enters a region, led on `store` perhaps, in the place of all that share a key with it.
    /// Versions of a key's regions only grow: what is older than something known is old news,
    /// and changes nothing.
    fn learn(&mut self, region: Region, store: Option<StoreId>) {
        let (start, end) = (region.start_key.clone(), region.end_key.clone());
        let before = self.0.range(..start.clone()).next_back();
        let within = self.0.range(start.clone()..);
        let shared: Vec<_> = before
            .into_iter()
            .chain(within.take_while(|(from, _)| end.is_empty() || **from < end))
            .filter(|(_, known)| known.region.overlaps(&region))
            .map(|(from, known)| {
                let is_same = known.region.id == region.id;
                let newer = if is_same {
                    region.epoch.is_stale_against(&known.region.epoch)
                } else {
                    region.epoch.version < known.region.epoch.version
                };
                (from.clone(), newer)
            })
            .collect();
        if shared.iter().any(|(_, newer)| *newer) {
            return;
        }
        for (from, _) in shared {
            self.0.remove(&from);
        }
        self.0.insert(start, Route::new(region, store));
    }

    /// The route that an attempt for `key` took, if it is still in use.
    fn taken(&mut self, key: &[u8], asked: Option<&Asked>) -> Option<&mut Route> {
        let asked = asked?;
        self.of(key).filter(|route| route.is(asked))
    }

    /// Goes on from the peer that was asked to the next, or to what PD knows by now.
    fn turn(&mut self, key: &[u8], asked: Option<&Asked>) {
        let Some(route) = self.taken(key, asked) else { return };
        if !route.rotate() {
            let start = route.region.start_key.clone();
            self.0.remove(&start);
        }
    }

    fn forget(&mut self, key: &[u8], asked: Option<&Asked>) {
        if let Some(start) = self.taken(key, asked).map(|route| route.region.start_key.clone()) {
            self.0.remove(&start);
        }
    }
}

/// What to do about an answer.
enum Next {
    /// Send again, at once or after a while.
    Again(Duration),
    /// It is over.
    Over(Result<Option<Bytes>, ClientError>),
}

/// A client of the cluster behind `S`.
pub struct Client<S> {
    stores: S,
    routes: Routes,
    /// Requests by the number of their current attempt.
    pending: BTreeMap<u64, Pending>,
    /// Attempts that wait for their moment.
    waiting: BTreeSet<(Instant, u64)>,
    next_attempt: u64,
    sender: Sender<(u64, Response)>,
    answers: Receiver<(u64, Response)>,
    deadline: Duration,
    /// Requests that ended while [`Client::call`] waited for another.
    ended: VecDeque<Done>,
}

impl<S> std::fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("in_flight", &self.pending.len()).finish_non_exhaustive()
    }
}

/// The ticket of requests that are waited for. It is above all that a caller counts up to.
const WAITED: Ticket = Ticket::MAX;

/// Wait after an answer that only says "not now".
const BACKOFF: Duration = Duration::from_millis(10);

/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(200);

impl<S: Stores> Client<S> {
    /// A client that gives each request so much time.
    #[must_use]
    pub fn new(stores: S, deadline: Duration) -> Self {
        let (sender, answers) = crossbeam_channel::unbounded();
        Self {
            stores,
            routes: Routes::default(),
            pending: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next_attempt: 0,
            sender,
            answers,
            deadline,
            ended: VecDeque::new(),
        }
    }

    /// Requests that were submitted and not yet given by [`Client::next`].
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len() + self.ended.len()
    }

    /// Stores a value and waits until it is safe.
    ///
    /// # Errors
    /// See [`ClientError`]. After `TimedOut` the value may be there or not, or come later.
    pub fn put(
        &mut self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        self.call(Request::Put { key: key.into(), value: value.into() }).map(drop)
    }

    /// Removes a value, if there is one, and waits until that is safe.
    ///
    /// # Errors
    /// As for [`Client::put`].
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<(), ClientError> {
        self.call(Request::Delete { key: key.into() }).map(drop)
    }

    /// Reads the newest value, under the leader's lease or by asking a quorum.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>, ClientError> {
        self.call(Request::Get { key: key.into(), read_quorum: false })
    }

    /// Sends a request and waits for its end. Others that end meanwhile are kept for
    /// [`Client::next`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call(&mut self, request: Request) -> Result<Option<Bytes>, ClientError> {
        self.submit(WAITED, request);
        loop {
            match self.await_end(self.deadline) {
                Some(done) if done.ticket == WAITED => return done.result,
                Some(done) => self.ended.push_back(done),
                None => {}
            }
        }
    }

    /// Sends a request. The ticket is the caller's, below [`Ticket::MAX`].
    pub fn submit(&mut self, ticket: Ticket, request: Request) {
        let submitted = Instant::now();
        self.attempt(Pending { ticket, request, submitted, attempts: 0, asked: None, last: None });
    }

    /// Waits until a request has ended, `timeout` at most.
    pub fn next(&mut self, timeout: Duration) -> Option<Done> {
        self.ended.pop_front().or_else(|| self.await_end(timeout))
    }

    fn await_end(&mut self, timeout: Duration) -> Option<Done> {
        let until = Instant::now() + timeout;
        loop {
            let now = Instant::now();
            while let Some(&(at, number)) = self.waiting.first()
                && at <= now
            {
                self.waiting.pop_first();
                if let Some(pending) = self.pending.remove(&number) {
                    self.attempt(pending);
                }
            }
            if let Some(done) = self.give_up(now) {
                return Some(done);
            }
            let wake = self.waiting.first().map_or(until, |(at, _)| until.min(*at));
            // Deadlines are looked at now and then; being late by this does not matter.
            let wake = wake.min(now + Duration::from_millis(500));
            match self.answers.recv_timeout(wake.saturating_duration_since(now)) {
                Ok((number, response)) => {
                    if let Some(done) = self.take(number, response) {
                        return Some(done);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if Instant::now() >= until && self.answers.is_empty() {
                return None;
            }
        }
    }

    fn attempt(&mut self, mut pending: Pending) {
        self.next_attempt += 1;
        let number = self.next_attempt;
        pending.attempts += 1;
        let key = pending.request.key();
        if self.routes.of(key).is_none()
            && let Some(RegionRoute { region, leader }) = self.stores.locate(key)
        {
            let tried = usize::try_from(pending.attempts).unwrap_or_default();
            // Where PD does not know who leads, everyone gets a turn.
            let may_lead = region.peers.iter().filter(|peer| peer.role != PeerRole::Learner);
            let in_turn = may_lead.cycle().nth(tried - 1).copied();
            self.routes.learn(region, leader.or(in_turn).map(|peer| peer.store));
        }
        pending.asked = self.routes.of(key).and_then(|route| {
            let (region, epoch) = (route.region.id, route.region.epoch);
            route.peer().map(|peer| Asked { peer, region, epoch })
        });
        let Some(Asked { peer, region, epoch }) = pending.asked else {
            self.waiting.insert((Instant::now() + slower(&pending), number));
            self.pending.insert(number, pending);
            return;
        };
        let read_quorum = matches!(pending.request, Request::Get { read_quorum: true, .. });
        let command = Command {
            header: Header {
                region,
                peer,
                epoch: Some(epoch),
                term: 0,
                read_quorum,
                replica_read: false,
            },
            body: Body::Operations(vec![pending.request.operation()]),
        };
        self.pending.insert(number, pending);
        let sender = self.sender.clone();
        // The client may be gone by then, and with it the interest in the answer.
        let answer = move |response| drop(sender.send((number, response)));
        self.stores.send(peer.store, command, Box::new(answer));
    }

    /// Takes in the answer to an attempt.
    fn take(&mut self, number: u64, response: Response) -> Option<Done> {
        let mut pending = self.pending.remove(&number)?;
        let next = match response.body {
            Ok(body) => Next::Over(value_of(body, &pending.request)),
            Err(error) => {
                let next = self.after(&error, &pending);
                pending.last = Some(error);
                next
            }
        };
        match next {
            Next::Over(result) => Some(finish(pending, result)),
            Next::Again(Duration::ZERO) => {
                self.attempt(pending);
                None
            }
            Next::Again(wait) => {
                self.waiting.insert((Instant::now() + wait, number));
                self.pending.insert(number, pending);
                None
            }
        }
    }

    /// What an error asks for, and what it tells about routes.
    fn after(&mut self, error: &RegionError, pending: &Pending) -> Next {
        let (key, asked) = (pending.request.key(), pending.asked.as_ref());
        let slower = slower(pending);
        match error {
            RegionError::NotLeader { leader, .. } => {
                match leader {
                    Some(leader) => {
                        let route = self.routes.taken(key, asked);
                        if route.is_some_and(|route| !route.point_at(leader)) {
                            self.routes.forget(key, asked);
                        }
                    }
                    None => self.routes.turn(key, asked),
                }
                // Two stores may each name the other for a moment.
                let at_once = leader.is_some() && pending.attempts < 3;
                Next::Again(if at_once { Duration::ZERO } else { slower })
            }
            RegionError::EpochNotMatch { current } => {
                // The parts of a region that was cut are led where it is led, at first.
                let store = asked.map(|asked| asked.peer.store);
                for region in current {
                    self.routes.learn(region.clone(), store);
                }
                // Nothing newer was told than what was asked: PD may know more.
                self.routes.forget(key, asked);
                Next::Again(if pending.attempts < 3 { Duration::ZERO } else { slower })
            }
            RegionError::KeyNotInRegion { region, .. } => {
                self.routes.forget(key, asked);
                self.routes.learn(region.clone(), asked.map(|asked| asked.peer.store));
                Next::Again(slower)
            }
            RegionError::RegionNotFound { .. }
            | RegionError::StoreNotMatch { .. }
            | RegionError::PeerNotMatch { .. } => {
                self.routes.forget(key, asked);
                Next::Again(slower)
            }
            RegionError::Stopping | RegionError::RegionNotInitialized { .. } => {
                self.routes.turn(key, asked);
                Next::Again(slower)
            }
            RegionError::ServerIsBusy { backoff_ms, .. } => {
                Next::Again(Duration::from_millis(*backoff_ms).clamp(BACKOFF, BACKOFF_MAX))
            }
            RegionError::StaleCommand
            | RegionError::NotReady
            | RegionError::ReadNotReady
            | RegionError::PlacementUnavailable
            | RegionError::ConfChangePending => Next::Again(slower),
            other => Next::Over(Err(ClientError::Refused(other.clone()))),
        }
    }

    /// Ends a request whose time is up. Requests keep their order of submission well enough
    /// for looking at the oldest attempt only.
    fn give_up(&mut self, now: Instant) -> Option<Done> {
        let (&number, oldest) = self.pending.first_key_value()?;
        let waited = now.saturating_duration_since(oldest.submitted);
        if waited < self.deadline {
            return None;
        }
        let pending = self.pending.remove(&number)?;
        self.waiting.retain(|(_, waiting)| *waiting != number);
        let last = pending.last.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        Some(finish(pending, Err(ClientError::TimedOut { waited, last })))
    }
}

/// How long to wait before the next attempt, when nothing says how long.
fn slower(pending: &Pending) -> Duration {
    BACKOFF.saturating_mul(pending.attempts).min(BACKOFF_MAX)
}

fn finish(pending: Pending, result: Result<Option<Bytes>, ClientError>) -> Done {
    let latency = pending.submitted.elapsed();
    Done { ticket: pending.ticket, latency, attempts: pending.attempts, result }
}

fn value_of(body: ResponseBody, request: &Request) -> Result<Option<Bytes>, ClientError> {
    let ResponseBody::Operations(mut answers) = body else { return Err(ClientError::Mismatch) };
    match (answers.pop(), request) {
        (Some(OperationResponse::Get(value)), Request::Get { .. }) => Ok(value),
        (Some(OperationResponse::Put), Request::Put { .. })
        | (Some(OperationResponse::Delete), Request::Delete { .. }) => Ok(None),
        _ => Err(ClientError::Mismatch),
    }
}

#[cfg(test)]
mod tests;
