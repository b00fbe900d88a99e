//! What an idle region costs in memory, everything of the store's own included.
#![expect(unsafe_code, reason = "a global allocator that counts cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use engine_traits::mem::{MemEngine, MemRaftLog};
use raftstore_core::{
    Config, Effects, Event, MonoTime, NoHooks, Ready, Store, StoreMeta, StoreOptions, Task,
    TaskDone, Writes, apply::ApplyWorker, observe::Observers, read::Views,
};
use raftstore_proto::{Epoch, Peer, PeerId, RaftMessage, Region, RegionId, StoreId};

/// Passes everything on to the system's allocator and counts the bytes alive.
struct Counting;

static ALIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the
// contract; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about both is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type TestStore = Store<MemEngine, MemRaftLog>;

/// Carries out everything a store asks for, at once and in order; messages are kept.
struct Driver {
    store: TestStore,
    kv: MemEngine,
    raft: MemRaftLog,
    meta: Arc<StoreMeta>,
    apply: ApplyWorker<MemEngine>,
    now: MonoTime,
    out: Vec<RaftMessage>,
}

impl Driver {
    /// Store `id` over what its engines hold, opened.
    fn new(id: u64, kv: MemEngine, raft: MemRaftLog) -> Self {
        let meta = Arc::<StoreMeta>::default();
        let options = StoreOptions {
            config: Arc::new(Config::default()),
            store: StoreId::must(id),
            kv: kv.clone(),
            raft: raft.clone(),
            meta: Arc::clone(&meta),
            views: Arc::<Views>::default(),
            received: Vec::new(),
            hooks: NoHooks,
            observers: Observers::default(),
        };
        let store =
            TestStore::open(options, MonoTime::ZERO).expect("the records are whole").remove(0);
        let apply = ApplyWorker::new(kv.clone(), NoHooks);
        let mut this = Self { store, kv, raft, meta, apply, now: MonoTime::ZERO, out: Vec::new() };
        this.settle();
        this
    }

    fn handle(&mut self, event: Event) {
        self.store.handle(self.now, event).expect("the engines do not fail");
        self.settle();
    }

    fn tick(&mut self, tick: u64) {
        self.now = MonoTime::from_millis(tick * 1_000);
        self.handle(Event::Tick);
    }

    fn settle(&mut self) {
        while let Some(Ready { early, writes }) =
            self.store.ready().expect("the engines do not fail")
        {
            self.perform(early);
            if let Some(writes) = writes {
                let numbers = &self.meta.numbers;
                let proofs =
                    Writes::commit_group(vec![writes], &self.kv, &self.raft, numbers, &NoHooks);
                for proof in proofs.expect("the engines do not fail") {
                    let late = self.store.on_persisted(self.now, proof).expect("a round of ours");
                    self.perform(late);
                }
            }
        }
    }

    fn perform(&mut self, effects: Effects) {
        self.out.extend(effects.messages);
        if !effects.apply.is_empty() {
            let outcome =
                self.apply.run(effects.apply, &self.meta).expect("the engines do not fail");
            self.store.handle(self.now, Event::Applied(outcome.events)).expect("its own results");
        }
        // Looks at sizes find nothing to cut.
        for task in effects.tasks {
            if let Task::CheckSplit { region, incarnation, goal } = task {
                let done = TaskDone::SplitChecked {
                    region: region.id,
                    incarnation,
                    version: region.epoch.version,
                    goal,
                    size_bytes: 0,
                    keys: Vec::new(),
                };
                self.store.handle(self.now, Event::TaskDone(done)).expect("a look of its own");
            }
        }
    }

    fn leaders(&self) -> u64 {
        self.store.inspect().iter().filter(|peer| peer.is_leader).count() as u64
    }
}

/// Region `id` of `last`, with a voter on stores 1 to `stores`.
fn region(id: u64, last: u64, stores: u64) -> Region {
    let key = |id: u64| if id > last { Bytes::new() } else { id.to_be_bytes().to_vec().into() };
    Region {
        id: RegionId::must(id),
        start_key: if id == 1 { Bytes::new() } else { key(id) },
        end_key: key(id + 1),
        epoch: Epoch { conf_ver: stores, version: 1 },
        peers: (1..=stores)
            .map(|store| Peer::voter(PeerId::must(id + 1_000_000 * store), StoreId::must(store)))
            .collect(),
    }
}

fn seeded(id: u64, regions: &[Region]) -> (MemEngine, MemRaftLog) {
    let (kv, raft) = (MemEngine::default(), MemRaftLog::default());
    raftstore_core::seed::seed_regions(&kv, &raft, regions, StoreId::must(id))
        .expect("the engines do not fail");
    (kv, raft)
}

/// There is one count of bytes for all, so one test measures after the other.
#[test]
fn idle_regions_cost_little() {
    let (alone, of_three) = (bytes_of_an_idle_region(), bytes_of_a_replica_of_many());
    println!("{alone} bytes per idle region, {of_three} per replica of three");
    assert!(alone < 12 << 10, "{alone} bytes per idle region");
    assert!(of_three < 15 << 10, "{of_three} bytes per replica");
}

fn bytes_of_an_idle_region() -> u64 {
    const REGIONS: u64 = 100_000;
    let regions: Vec<Region> = (1..=REGIONS).map(|id| region(id, REGIONS, 1)).collect();
    let (kv, raft) = seeded(1, &regions);
    let before = ALIVE.load(Ordering::Relaxed);
    let mut driver = Driver::new(1, kv, raft);
    for tick in 1..=30 {
        driver.tick(tick);
    }
    assert_eq!(driver.leaders(), REGIONS, "every region of one replica leads itself");
    (ALIVE.load(Ordering::Relaxed) - before) as u64 / REGIONS
}

/// Delivers what the stores have sent until all is quiet.
fn deliver(stores: &mut [Driver]) {
    let mut wire = VecDeque::new();
    loop {
        for driver in &mut *stores {
            wire.extend(driver.out.drain(..));
        }
        let Some(message) = wire.pop_front() else { return };
        let to = message.to_peer().expect("it names its receiver").store.get();
        let to = usize::try_from(to - 1).expect("few stores");
        stores[to].handle(Event::Message { message: Box::new(message), snapshot: None });
    }
}

/// Three stores elect the leaders of thousands of regions from their ticks alone; no duty
/// visits them once they are idle. The bytes include those of the engines.
fn bytes_of_a_replica_of_many() -> u64 {
    const REGIONS: u64 = 2_000;
    let before = ALIVE.load(Ordering::Relaxed);
    let regions: Vec<Region> = (1..=REGIONS).map(|id| region(id, REGIONS, 3)).collect();
    let mut stores: Vec<Driver> = (1..=3)
        .map(|id| {
            let (kv, raft) = seeded(id, &regions);
            Driver::new(id, kv, raft)
        })
        .collect();
    let mut tick = 0;
    let mut live = |stores: &mut [Driver], ticks: u64| {
        for _ in 0..ticks {
            tick += 1;
            stores.iter_mut().for_each(|driver| driver.tick(tick));
            deliver(stores);
        }
    };
    live(&mut stores, 60);
    let leaders: u64 = stores.iter().map(Driver::leaders).sum();
    assert_eq!(leaders, REGIONS, "each region has a leader");
    let each = (ALIVE.load(Ordering::Relaxed) - before) as u64 / (3 * REGIONS);
    let figures = |stores: &[Driver]| -> (u64, u64) {
        let metrics = || stores.iter().map(|driver| driver.store.metrics());
        (metrics().map(|it| it.duty_visits).sum(), metrics().map(|it| it.rounds).sum())
    };
    let settled = figures(&stores);
    live(&mut stores, 30);
    assert_eq!(figures(&stores), settled, "idle regions were visited or written");
    each
}
