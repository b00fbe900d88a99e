//! Real processes under a bad network: PD and three nodes, each reached through a proxy that
//! delays, loses, doubles, swaps, swallows and ends; processes are killed, stopped and begun
//! again. Clients write and read meanwhile, and the history of each key must be that of one
//! register. When everything is well again, every client must get on.
//!
//! A short run is a test. `RAFTKV_CHAOS_SECONDS=600 RAFTKV_CHAOS_SEED=7 cargo test --release -p
//! raftkv --test chaos -- --nocapture` is a longer one, of other faults.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod client;
mod frames;
mod nodes;
mod proxy;

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use client::{Client, Shared};
use nodes::{Nodes, PATIENCE, PD};
use proxy::{CLIENTS, End, Link};

/// Nodes of a run.
const NODES: u32 = 3;

/// Clients, each with one request under way.
const CLIENT_COUNT: u32 = 8;

/// Keys they share.
const KEYS: u64 = 24;

/// How long one fault lasts, and how long all is well after it.
const FAULT: Duration = Duration::from_millis(2_500);
const REST: Duration = Duration::from_millis(1_500);

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill(u32),
    Pause(u32),
    Alone(u32),
    OneWay(u32),
    Silent(u32),
    BadLinks,
    Slow(u32),
    Resets,
    PdAlone,
    PdKilled,
}

/// A generator that gives the same faults for the same seed.
struct Lots(u64);

impl Lots {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// The kinds in an order of the seed's, each once before any comes again.
    fn faults(&mut self) -> Vec<Fault> {
        let node = |this: &mut Self| 1 + u32::try_from(this.draw(u64::from(NODES))).unwrap_or(0);
        let mut left = vec![
            Fault::Kill(node(self)),
            Fault::Pause(node(self)),
            Fault::Alone(node(self)),
            Fault::OneWay(node(self)),
            Fault::Silent(node(self)),
            Fault::BadLinks,
            Fault::Slow(node(self)),
            Fault::Resets,
            Fault::PdAlone,
            Fault::PdKilled,
        ];
        let mut order = Vec::new();
        while !left.is_empty() {
            let at = usize::try_from(self.draw(left.len() as u64)).unwrap_or(0);
            order.push(left.swap_remove(at));
        }
        order
    }
}

fn others(node: End) -> impl Iterator<Item = End> {
    (1..=NODES).filter(move |other| *other != node)
}

impl Fault {
    fn begin(self, cluster: &mut Nodes) {
        let network = cluster.network.clone();
        let cut = Link { cut: true, ..Link::default() };
        match self {
            Self::Kill(node) => cluster.nodes[node as usize - 1].kill(),
            Self::Pause(node) => cluster.nodes[node as usize - 1].pause(),
            Self::Alone(node) => others(node).for_each(|other| {
                network.set(node, other, cut);
                network.set(other, node, cut);
            }),
            Self::OneWay(node) => others(node).chain([PD]).for_each(|other| {
                network.set(node, other, Link { silent: true, ..Link::default() });
            }),
            Self::Silent(node) => others(node).for_each(|other| {
                let silent = Link { silent: true, ..Link::default() };
                network.set(node, other, silent);
                network.set(other, node, silent);
            }),
            Self::BadLinks => (1..=NODES).for_each(|node| {
                let bad = Link {
                    delay: Duration::from_millis(10),
                    lost: 50,
                    twice: 50,
                    swapped: 50,
                    ..Link::default()
                };
                others(node).for_each(|other| network.set(node, other, bad));
            }),
            Self::Slow(node) => others(node).chain([CLIENTS]).for_each(|other| {
                let slow =
                    Link { rate: 100_000, delay: Duration::from_millis(50), ..Link::default() };
                network.set(node, other, slow);
                network.set(other, node, slow);
            }),
            Self::Resets => (1..=NODES).for_each(|node| {
                others(node).for_each(|other| network.reset(node, other));
                network.reset(node, PD);
                network.reset(CLIENTS, node);
            }),
            Self::PdAlone => (1..=NODES).chain([CLIENTS]).for_each(|node| {
                network.set(node, PD, cut);
            }),
            Self::PdKilled => cluster.pd.kill(),
        }
    }

    fn end(self, cluster: &mut Nodes) {
        cluster.network.heal();
        match self {
            Self::Kill(node) => {
                let node = &mut cluster.nodes[node as usize - 1];
                node.start().expect("a killed node can be begun again");
                node.await_listening(PATIENCE).expect("a killed node serves again");
            }
            Self::Pause(node) => cluster.nodes[node as usize - 1].resume(),
            Self::PdKilled => {
                cluster.pd.start().expect("PD can be begun again");
                cluster.pd.await_listening(PATIENCE).expect("PD serves again");
            }
            _ => {}
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn the_history_of_every_key_is_that_of_one_register() {
    let seed = setting("RAFTKV_CHAOS_SEED", 1);
    let seconds = Duration::from_secs(setting("RAFTKV_CHAOS_SECONDS", 45));
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Nodes::start(folder.path(), NODES).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let shared = Shared::new();
    let clients: Vec<_> = (0..CLIENT_COUNT)
        .map(|number| {
            let client = Client::new(number, shared.clone(), cluster.pd_address);
            runtime.spawn(client.run(KEYS))
        })
        .collect();
    all_get_on(&shared, &mut cluster);
    // Two regions from the middle of the keys on.
    let until = Instant::now() + PATIENCE;
    while let Err(why) =
        runtime.block_on(client::split(shared.clone(), cluster.pd_address, b"k012"))
    {
        assert!(Instant::now() < until, "the region cannot be cut: {why}");
    }

    let mut lots = Lots(seed);
    let (begun, mut order) = (Instant::now(), Vec::new());
    while begun.elapsed() < seconds {
        let fault = order.pop().unwrap_or_else(|| {
            order = lots.faults();
            order.pop().expect("there are faults")
        });
        eprintln!("seed {seed}, {:.1} s: {fault:?}", begun.elapsed().as_secs_f64());
        fault.begin(&mut cluster);
        thread::sleep(FAULT);
        fault.end(&mut cluster);
        thread::sleep(REST);
        cluster.check().unwrap();
    }
    all_get_on(&shared, &mut cluster);

    shared.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        runtime.block_on(client).expect("no client panics");
    }
    let damage = cluster.network.damage();
    eprintln!(
        "{} writes acknowledged, {} unknown; {damage:?}",
        shared.acknowledged.load(Ordering::Relaxed),
        shared.unknown.load(Ordering::Relaxed),
    );
    let mut history = shared.history.lock().unwrap();
    if let Err(fault) = history.check() {
        panic!("seed {seed}: {fault}");
    }
    assert!(shared.acknowledged.load(Ordering::Relaxed) > 100, "hardly anything was written");
}

/// Waits until every client has had an answer of success.
fn all_get_on(shared: &Shared, cluster: &mut Nodes) {
    shared.alive.lock().unwrap().clear();
    let until = Instant::now() + PATIENCE;
    while (shared.alive.lock().unwrap().len() as u64) < u64::from(CLIENT_COUNT) {
        cluster.check().unwrap();
        let alive = shared.alive.lock().unwrap().len();
        let last = shared.last_failure.lock().unwrap().clone();
        assert!(
            Instant::now() < until,
            "only {alive} of {CLIENT_COUNT} clients get on; the last failure: {last}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
