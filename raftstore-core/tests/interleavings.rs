//! Every order in which threads can meet in what they share: the two files that have locks
//! or counters are compiled here a second time, over the primitives of a model checker.

#[expect(dead_code, unreachable_pub, reason = "the store's other half is not here")]
#[path = "../src/meta.rs"]
mod meta;
#[expect(dead_code, unreachable_pub, reason = "the store's other half is not here")]
#[path = "../src/view.rs"]
mod view;

use std::sync::Arc;

use bytes::Bytes;
use raftstore_core::MonoTime;
use raftstore_proto::{Epoch, Peer, PeerId, Region, RegionId, StoreId};

use self::{
    meta::{KvNumbers, StoreMeta},
    view::{View, ViewState, Views},
};

/// What `meta.rs` and `view.rs` find under `crate::sync`. Inside of a model the checker's
/// primitives, outside of one, where their own tests run, the plain ones.
mod sync {
    use std::{
        cell::Cell,
        ops::{Deref, DerefMut},
    };

    pub(crate) use std::sync::atomic::Ordering;

    thread_local! {
        static IN_MODEL: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `body` in every order of its threads, memory that lags behind included.
    pub(crate) fn every_order(body: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        // The checker's threads all run on the thread that calls it.
        IN_MODEL.set(true);
        model.check(body);
        IN_MODEL.set(false);
    }

    pub(crate) enum AtomicU64 {
        Model(loom::sync::atomic::AtomicU64),
        Plain(std::sync::atomic::AtomicU64),
    }

    impl Default for AtomicU64 {
        fn default() -> Self {
            if IN_MODEL.get() {
                Self::Model(Default::default())
            } else {
                Self::Plain(Default::default())
            }
        }
    }

    impl std::fmt::Debug for AtomicU64 {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("AtomicU64")
        }
    }

    impl AtomicU64 {
        pub(crate) fn load(&self, order: Ordering) -> u64 {
            match self {
                Self::Model(it) => it.load(order),
                Self::Plain(it) => it.load(order),
            }
        }

        pub(crate) fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
            match self {
                Self::Model(it) => it.fetch_add(more, order),
                Self::Plain(it) => it.fetch_add(more, order),
            }
        }

        pub(crate) fn fetch_max(&self, other: u64, order: Ordering) -> u64 {
            match self {
                Self::Model(it) => it.fetch_max(other, order),
                Self::Plain(it) => it.fetch_max(other, order),
            }
        }
    }

    pub(crate) enum AtomicBool {
        Model(loom::sync::atomic::AtomicBool),
        Plain(std::sync::atomic::AtomicBool),
    }

    impl Default for AtomicBool {
        fn default() -> Self {
            if IN_MODEL.get() {
                Self::Model(Default::default())
            } else {
                Self::Plain(Default::default())
            }
        }
    }

    impl std::fmt::Debug for AtomicBool {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("AtomicBool")
        }
    }

    impl AtomicBool {
        pub(crate) fn load(&self, order: Ordering) -> bool {
            match self {
                Self::Model(it) => it.load(order),
                Self::Plain(it) => it.load(order),
            }
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            match self {
                Self::Model(it) => it.store(value, order),
                Self::Plain(it) => it.store(value, order),
            }
        }
    }

    /// A guard of either kind, seen as what it guards.
    pub(crate) enum Guard<M, P> {
        Model(M),
        Plain(P),
    }

    impl<T, M: Deref<Target = T>, P: Deref<Target = T>> Deref for Guard<M, P> {
        type Target = T;

        fn deref(&self) -> &T {
            match self {
                Self::Model(it) => it,
                Self::Plain(it) => it,
            }
        }
    }

    impl<T, M: DerefMut<Target = T>, P: DerefMut<Target = T>> DerefMut for Guard<M, P> {
        fn deref_mut(&mut self) -> &mut T {
            match self {
                Self::Model(it) => it,
                Self::Plain(it) => it,
            }
        }
    }

    pub(crate) enum Mutex<T> {
        Model(loom::sync::Mutex<T>),
        Plain(parking_lot::Mutex<T>),
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            if IN_MODEL.get() {
                Self::Model(loom::sync::Mutex::new(T::default()))
            } else {
                Self::Plain(Default::default())
            }
        }
    }

    impl<T> std::fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Mutex")
        }
    }

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> impl DerefMut<Target = T> + '_ {
            match self {
                Self::Model(it) => Guard::Model(it.lock().expect("no thread has panicked")),
                Self::Plain(it) => Guard::Plain(it.lock()),
            }
        }
    }

    pub(crate) enum RwLock<T> {
        Model(loom::sync::RwLock<T>),
        Plain(parking_lot::RwLock<T>),
    }

    impl<T: Default> Default for RwLock<T> {
        fn default() -> Self {
            if IN_MODEL.get() {
                Self::Model(loom::sync::RwLock::new(T::default()))
            } else {
                Self::Plain(Default::default())
            }
        }
    }

    impl<T> std::fmt::Debug for RwLock<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("RwLock")
        }
    }

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> impl Deref<Target = T> + '_ {
            match self {
                Self::Model(it) => Guard::Model(it.read().expect("no thread has panicked")),
                Self::Plain(it) => Guard::Plain(it.read()),
            }
        }

        pub(crate) fn write(&self) -> impl DerefMut<Target = T> + '_ {
            match self {
                Self::Model(it) => Guard::Model(it.write().expect("no thread has panicked")),
                Self::Plain(it) => Guard::Plain(it.write()),
            }
        }
    }
}

const R1: RegionId = RegionId::must(1);
const R2: RegionId = RegionId::must(2);

fn region(id: RegionId, start: &'static str, end: &'static str) -> Region {
    Region {
        id,
        start_key: Bytes::from_static(start.as_bytes()),
        end_key: Bytes::from_static(end.as_bytes()),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(10 + id.get()), StoreId::must(1))],
    }
}

/// W4: a sync takes its sample before it begins, so what it publishes is covered by it. The
/// engine is played by one cell: what it holds when it is synced is what a crash leaves.
#[test]
fn w4_what_is_published_as_durable_was_synced() {
    use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
    sync::every_order(|| {
        let numbers = Arc::new(KvNumbers::default());
        // Relaxed, so that only the numbers order anything.
        let (engine, disk) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let writer = {
            let (numbers, engine) = (Arc::clone(&numbers), Arc::clone(&engine));
            loom::thread::spawn(move || {
                for value in 1..=2 {
                    engine.store(value, Relaxed);
                    assert_eq!(numbers.next_written(), value);
                }
            })
        };
        let syncer = {
            let (numbers, disk) = (Arc::clone(&numbers), Arc::clone(&disk));
            loom::thread::spawn(move || {
                let sample = numbers.written();
                disk.store(engine.load(Relaxed), Relaxed);
                numbers.publish_durable(sample);
            })
        };
        let durable = numbers.durable();
        let held = disk.load(Relaxed);
        assert!(held >= durable, "write {durable} is called durable, the disk holds {held}");
        writer.join().unwrap();
        syncer.join().unwrap();
    });
}

/// W4: of two syncs that end in the other order than they began the earlier takes nothing
/// back, and every write has a number of its own.
#[test]
fn w4_numbers_are_unique_and_durability_never_goes_back() {
    sync::every_order(|| {
        let numbers = Arc::new(KvNumbers::default());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let numbers = Arc::clone(&numbers);
                loom::thread::spawn(move || {
                    let own = numbers.next_written();
                    let sample = numbers.written();
                    assert!(sample >= own);
                    numbers.publish_durable(sample);
                    assert!(numbers.durable() >= sample);
                    own
                })
            })
            .collect();
        let mut given: Vec<u64> =
            threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        given.sort_unstable();
        assert_eq!(given, [1, 2]);
        assert_eq!(numbers.durable(), 2);
    });
}

/// R20: no two raft nodes of a store have the same number, on whichever lanes they live.
#[test]
fn r20_incarnations_are_unique_over_lanes() {
    sync::every_order(|| {
        let meta = Arc::new(StoreMeta::default());
        let other = Arc::clone(&meta);
        let there = loom::thread::spawn(move || other.next_incarnation());
        let here = meta.next_incarnation();
        assert_ne!(there.join().unwrap(), here);
    });
}

/// H17, H18: of two overlapping snapshots that two lanes admit at the same time one is
/// refused, so that neither registration can meet the other.
#[test]
fn h17_two_lanes_never_admit_the_same_range() {
    sync::every_order(|| {
        let meta = Arc::new(StoreMeta::default());
        let lane = |region: Region| {
            let meta = Arc::clone(&meta);
            loom::thread::spawn(move || {
                let admitted = meta.admit_snapshot(&region).is_ok();
                if admitted {
                    meta.register(&region);
                }
                admitted
            })
        };
        let left = lane(region(R1, "a", "m"));
        let right = lane(region(R2, "k", "z"));
        let admitted = [left.join().unwrap(), right.join().unwrap()];
        assert_eq!(admitted.iter().filter(|it| **it).count(), 1, "{admitted:?}");
        assert_eq!(meta.regions().len(), 1);
    });
}

/// Whoever looks a key up while its region changes finds the region before or after.
#[test]
fn a_region_that_moves_is_always_found() {
    sync::every_order(|| {
        let meta = Arc::new(StoreMeta::default());
        meta.register(&region(R1, "a", "z"));
        let lane = {
            let meta = Arc::clone(&meta);
            loom::thread::spawn(move || meta.register(&region(R1, "a", "m")))
        };
        let found = meta.region_of(b"b").expect("the key is never anybody's but region 1's");
        assert_eq!(found.id, R1);
        assert!(meta.regions().len() == 1);
        lane.join().unwrap();
        assert!(meta.region_of(b"n").is_none());
    });
}

fn led(generation: u64) -> ViewState {
    let whole = region(R1, "", "");
    ViewState {
        generation,
        peer: whole.peers[0],
        region: Arc::new(whole),
        term: 6,
        lease_until: MonoTime::from_millis(100),
    }
}

/// H40: whoever was told of a commit that the data lacks finds the view closed, for the
/// store closes it before it tells anybody.
#[test]
fn h40_nobody_who_heard_of_a_commit_reads_behind_it() {
    use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
    sync::every_order(|| {
        let view = Arc::new(View::default());
        view.publish(led(1));
        let told = Arc::new(AtomicBool::new(false));
        let store = {
            let (view, told) = (Arc::clone(&view), Arc::clone(&told));
            loom::thread::spawn(move || {
                view.set_behind(true);
                // What is sent goes through a channel, which orders as much.
                told.store(true, loom::sync::atomic::Ordering::Release);
            })
        };
        let heard = told.load(loom::sync::atomic::Ordering::Acquire);
        let open = view.state().is_some();
        assert!(!(heard && open), "a reader that heard of the commit reads without it");
        store.join().unwrap();
        assert!(view.state().is_none());
        view.set_behind(false);
        assert!(view.state().is_some(), "the data has caught up");
        assert!(told.load(Relaxed));
    });
}

/// H41: a reader that finds the same view behind its engine snapshot as before it has read
/// from before any change that the withdrawal of the view announces, and a view that is
/// published anew is another one.
#[test]
fn h41_a_read_between_two_looks_at_the_view_is_good() {
    use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
    sync::every_order(|| {
        let view = Arc::new(View::default());
        view.publish(led(1));
        // Which generation of the data the engine holds.
        let engine = Arc::new(AtomicU64::new(1));
        let store = {
            let (view, engine) = (Arc::clone(&view), Arc::clone(&engine));
            loom::thread::spawn(move || {
                view.extend(MonoTime::from_millis(200));
                view.withdraw();
                engine.store(2, Relaxed);
                view.publish(led(2));
            })
        };
        if let Some(before) = view.state() {
            let snapshot = engine.load(Relaxed);
            let after = view.state();
            if after.is_some_and(|after| after.generation == before.generation) {
                assert_eq!(snapshot, before.generation, "read what the view does not speak of");
            }
        }
        store.join().unwrap();
    });
}

/// READ-16: a reader that got hold of a view may keep it; once the peer has a successor the
/// old view says nothing, and closing it does not take the successor's away.
#[test]
fn a_view_is_closed_for_whoever_holds_it() {
    sync::every_order(|| {
        let views = Arc::new(Views::default());
        let first = views.open(R1);
        first.publish(led(1));
        let store = {
            let (views, first) = (Arc::clone(&views), Arc::clone(&first));
            loom::thread::spawn(move || {
                let second = views.open(R1);
                views.close(R1, &first);
                second.publish(led(2));
            })
        };
        let held = views.get(R1).expect("a peer lives here all the time");
        let seen = held.state().map(|state| state.generation);
        store.join().unwrap();
        assert!(first.state().is_none());
        if seen == Some(1) {
            assert!(held.state().is_none(), "a closed view speaks");
        }
        let now = views.get(R1).expect("the successor's view was taken away");
        assert_eq!(now.state().map(|state| state.generation), Some(2));
    });
}
