//! Clients in one thread, each with one write under way at a time, that follow regions as
//! they are cut and led by others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::Bound,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use engine_traits::KvEngine;
use raftstore_core::runtime::NodeHandle;
use raftstore_proto::{
    Body, Cf, Command, Header, Operation, Peer, Region, RegionError, RegionId, Response, StoreId,
};

/// How long a client stays away after a refusal that names nobody better.
const BACK_OFF: Duration = Duration::from_micros(500);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Whose.
    pub client: usize,
    /// The region that took it.
    pub region: RegionId,
    /// When it was sent first.
    pub sent: Instant,
    /// When the answer came.
    pub at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Load<K: KvEngine> {
    handles: Vec<NodeHandle<K>>,
    /// Regions by where they start, with whom to ask.
    routes: BTreeMap<Bytes, (Region, Peer)>,
    value: Bytes,
    clients: Vec<Client>,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    /// Clients that stay away, by when they come back.
    away: BinaryHeap<Reverse<(Instant, usize)>>,
    /// A client's writes begin at least so far apart; zero for as fast as they are answered.
    pub pace: Duration,
    /// Refusals so far.
    pub refusals: u64,
}

#[derive(Debug)]
struct Client {
    key: Bytes,
    sent: Instant,
}

#[derive(Debug)]
struct Answer {
    client: usize,
    region: RegionId,
    at: Instant,
    response: Response,
}

impl<K: KvEngine> Load<K> {
    /// Clients that write `value`, first to the keys given. `handles` are the stores from 1 on;
    /// `regions` cover every key, and are asked for at the store of their first peer.
    #[must_use]
    pub fn new(
        handles: Vec<NodeHandle<K>>,
        regions: &[Region],
        keys: Vec<Bytes>,
        value: Bytes,
    ) -> Self {
        let (sender, answers) = crossbeam_channel::unbounded();
        let routes = regions
            .iter()
            .map(|region| (region.start_key.clone(), (region.clone(), region.peers[0])))
            .collect();
        let now = Instant::now();
        let away = (0..keys.len()).map(|client| Reverse((now, client))).collect();
        let clients = keys.into_iter().map(|key| Client { key, sent: now }).collect();
        Self {
            handles,
            routes,
            value,
            clients,
            sender,
            answers,
            away,
            pace: Duration::ZERO,
            refusals: 0,
        }
    }

    /// What `client` writes from its next request on.
    pub fn set_key(&mut self, client: usize, key: Bytes) {
        self.clients[client].key = key;
    }

    /// The region that holds `key` and its leader, as far as is known.
    ///
    /// # Panics
    /// If no region does.
    #[must_use]
    pub fn route(&self, key: &Bytes) -> (Region, Peer) {
        let upto = (Bound::Unbounded, Bound::Included(key.clone()));
        let route = self.routes.range(upto).next_back();
        route.expect("regions cover every key").1.clone()
    }

    /// How many clients there are.
    #[must_use]
    pub const fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The handle of a store.
    #[must_use]
    pub fn handle(&self, store: StoreId) -> &NodeHandle<K> {
        let place = usize::try_from(store.get() - 1).unwrap_or(usize::MAX);
        &self.handles[place]
    }

    /// Has clients write until `until`, or until `take` says that it has seen enough.
    pub fn run(&mut self, until: Instant, mut take: impl FnMut(Acknowledged) -> bool) {
        self.run_with(until, |ack, _| take(ack));
    }

    /// The same; `take` may choose the key that the client writes next.
    pub fn run_with(
        &mut self,
        until: Instant,
        mut take: impl FnMut(Acknowledged, &mut Bytes) -> bool,
    ) {
        loop {
            let now = Instant::now();
            if now >= until {
                return;
            }
            while self.away.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                if let Some(Reverse((_, client))) = self.away.pop() {
                    self.send(client);
                }
            }
            let next = self.away.peek().map_or(until, |Reverse((at, _))| until.min(*at));
            let answer = match self.answers.recv_deadline(next) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (client, region, at) = (answer.client, answer.region, answer.at);
            match answer.response.body {
                Ok(_) => {
                    let of = &mut self.clients[client];
                    let due = of.sent + self.pace;
                    let ack = Acknowledged { client, region, sent: of.sent, at };
                    let enough = take(ack, &mut of.key);
                    of.sent = at.max(due);
                    if due <= at {
                        self.send(client);
                    } else {
                        self.away.push(Reverse((due, client)));
                    }
                    if enough {
                        return;
                    }
                }
                Err(error) => {
                    self.refusals += 1;
                    if self.learn(region, error) {
                        self.send(client);
                    } else {
                        self.away.push(Reverse((Instant::now() + BACK_OFF, client)));
                    }
                }
            }
        }
    }

    /// Takes from a refusal what it says about routes. Gives whether it is worth asking again
    /// at once.
    fn learn(&mut self, region: RegionId, error: RegionError) -> bool {
        match error {
            RegionError::NotLeader { leader: Some(leader), .. } => {
                let route = self.routes.values_mut().find(|(known, _)| known.id == region);
                route.is_some_and(|(_, asked)| std::mem::replace(asked, leader) != leader)
            }
            RegionError::EpochNotMatch { current } => {
                let asked = self.routes.values().find(|(known, _)| known.id == region);
                let store = asked.map(|(_, peer)| peer.store);
                for region in current {
                    self.add(region, store);
                }
                true
            }
            RegionError::NotLeader { leader: None, .. } => {
                // Somebody else may know.
                if let Some((known, asked)) =
                    self.routes.values_mut().find(|(known, _)| known.id == region)
                {
                    let at = known.peers.iter().position(|peer| peer.id == asked.id);
                    let next = at.map_or(0, |at| (at + 1) % known.peers.len());
                    *asked = known.peers[next];
                }
                false
            }
            _ => false,
        }
    }

    /// A region as it is now. A part that was cut off is asked for where the whole was; what
    /// is not known to be of another region yet is still asked for by the former name, and so
    /// found out.
    fn add(&mut self, region: Region, store: Option<StoreId>) {
        let same = self.routes.iter().filter(|(_, (known, _))| known.id == region.id);
        let former: Vec<(Bytes, Region, Peer)> =
            same.map(|(start, (known, asked))| (start.clone(), known.clone(), *asked)).collect();
        if former.iter().any(|(_, known, _)| known.epoch.version >= region.epoch.version) {
            return;
        }
        for (start, known, asked) in former {
            if region.contains(&start) {
                self.routes.remove(&start);
                if region.end_key != known.end_key {
                    self.routes.insert(region.end_key.clone(), (known, asked));
                }
            }
        }
        let asked = store.and_then(|store| region.peer_on(store)).unwrap_or(&region.peers[0]);
        self.routes.insert(region.start_key.clone(), (region.clone(), *asked));
    }

    fn send(&self, client: usize) {
        let key = self.clients[client].key.clone();
        let (region, peer) = self.route(&key);
        let put = Operation::Put { cf: Cf::Default, key, value: self.value.clone() };
        let header = Header {
            region: region.id,
            peer,
            epoch: Some(region.epoch),
            term: 0,
            read_quorum: false,
            replica_read: false,
        };
        let command = Command { header, body: Body::Operations(vec![put]) };
        let (sender, region) = (self.sender.clone(), region.id);
        let answer = move |response| {
            // A load that has ended wants no answers.
            let _ = sender.send(Answer { client, region, at: Instant::now(), response });
        };
        self.handle(peer.store).command_with(command, Box::new(answer));
    }
}
