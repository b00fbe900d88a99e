//! What an idle region costs in memory, everything of the store's own included.
#![expect(unsafe_code, reason = "a global allocator that counts cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use engine_traits::mem::{MemEngine, MemRaftLog};
use raftstore_core::{
    Config, Effects, Event, MonoTime, NoHooks, Ready, Store, StoreMeta, StoreOptions, Writes,
    apply::ApplyWorker, read::Views,
};
use raftstore_proto::{Epoch, Peer, PeerId, Region, RegionId, StoreId};

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

/// Carries out everything a store asks for, at once and in order.
struct Driver {
    store: TestStore,
    kv: MemEngine,
    raft: MemRaftLog,
    meta: Arc<StoreMeta>,
    apply: ApplyWorker<MemEngine>,
    now: MonoTime,
}

impl Driver {
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
        if !effects.apply.is_empty() {
            let outcome =
                self.apply.run(effects.apply, &self.meta).expect("the engines do not fail");
            self.store.handle(self.now, Event::Applied(outcome.events)).expect("its own results");
        }
    }
}

fn region(id: u64, last: u64) -> Region {
    let key = |id: u64| if id > last { Bytes::new() } else { id.to_be_bytes().to_vec().into() };
    Region {
        id: RegionId::must(id),
        start_key: if id == 1 { Bytes::new() } else { key(id) },
        end_key: key(id + 1),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(id + 1_000_000), StoreId::must(1))],
    }
}

#[test]
fn an_idle_region_stays_under_12_kib() {
    const REGIONS: u64 = 100_000;
    let (kv, raft) = (MemEngine::default(), MemRaftLog::default());
    for id in 1..=REGIONS {
        raftstore_core::seed::seed_region(&kv, &raft, &region(id, REGIONS), StoreId::must(1))
            .unwrap();
    }
    let meta = Arc::<StoreMeta>::default();
    let before = ALIVE.load(Ordering::Relaxed);
    let options = StoreOptions {
        config: Arc::new(Config::default()),
        store: StoreId::must(1),
        kv: kv.clone(),
        raft: raft.clone(),
        meta: Arc::clone(&meta),
        views: Arc::<Views>::default(),
        received: Vec::new(),
        hooks: NoHooks,
    };
    let mut lanes = TestStore::open(options, MonoTime::ZERO).unwrap();
    let apply = ApplyWorker::new(kv.clone(), NoHooks);
    let store = lanes.remove(0);
    let mut driver = Driver { store, kv, raft, meta, apply, now: MonoTime::ZERO };
    driver.settle();
    for tick in 1..=30 {
        driver.now = MonoTime::from_millis(tick * 1_000);
        driver.store.handle(driver.now, Event::Tick).unwrap();
        driver.settle();
    }
    let leaders = driver.store.inspect().iter().filter(|peer| peer.is_leader).count();
    assert_eq!(leaders as u64, REGIONS, "every region of one replica leads itself");
    let each = (ALIVE.load(Ordering::Relaxed) - before) as u64 / REGIONS;
    println!("{each} bytes per idle region");
    assert!(each < 12 << 10, "{each} bytes per idle region");
}
