//! Decides which threads a node has, and the order in which they end.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::Receiver;
use engine_traits::{KvEngine, RaftEngine};
use parking_lot::Mutex;
use raftstore_proto::StoreId;
use transport_traits::{SnapStore, Transport};

use super::{
    apply_pool::{ApplyPool, ApplyThread},
    fail_points::FailPoints,
    handle::NodeHandle,
    hash::{HashThread, RangeAsk},
    observing::ObserversOn,
    pd::PdThread,
    shared::{LaneInlets, LaneInput, Shared},
    store_loop::{Outlets, StoreLoop},
    workers::{BuildThread, CheckThread, CompactThread, RegionThread, SyncThread},
    writer::Writer,
};
use crate::{
    Config, FatalError, Store, StoreMeta,
    consistency::HashWorker,
    snap::RegionWorker,
    split_check::{CheckWorker, SplitPolicy},
};

/// Threads that apply committed entries.
const APPLY_THREADS: u16 = 2;
/// Threads that build region snapshots.
const BUILD_THREADS: usize = 2;

/// A running store. Dropped, it is stopped.
#[derive(Debug)]
pub struct Node<K: KvEngine> {
    handle: NodeHandle<K>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Told when it has ended.
    observers: ObserversOn,
}

/// What the threads of a node are made from.
pub(super) struct Parts<K: KvEngine, R: RaftEngine> {
    pub(super) config: Arc<Config>,
    pub(super) kv: K,
    pub(super) raft: R,
    pub(super) meta: Arc<StoreMeta>,
    pub(super) snaps: Arc<dyn SnapStore>,
    /// Questions about what was hashed.
    pub(super) asks: Receiver<RangeAsk>,
    pub(super) lanes: Vec<(Store<K, R, FailPoints>, LaneInlets)>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) split_policy: Arc<dyn SplitPolicy>,
    pub(super) observers: ObserversOn,
    /// Makes the PD thread from the requests of the lanes.
    pub(super) pd: Box<dyn FnOnce(Receiver<crate::PdRequest>) -> PdThread>,
}

impl<K: KvEngine> Node<K> {
    /// Starts the threads, those that serve before those that are served.
    pub(super) fn spawn<R: RaftEngine>(
        handle: NodeHandle<K>,
        shared: Arc<Shared>,
        parts: Parts<K, R>,
    ) -> io::Result<Self> {
        let Parts { config, kv, raft, meta, snaps, asks, lanes, transport, .. } = parts;
        // From here on dropping this value ends whatever has been started.
        let mut node = Self { handle, shared, threads: Vec::new(), observers: parts.observers };
        let (writer_inlet, rounds) = crossbeam_channel::unbounded();
        let (region_inlet, tasks) = crossbeam_channel::unbounded();
        let (check_inlet, checks) = crossbeam_channel::unbounded();
        let (compact_inlet, compactions) = crossbeam_channel::unbounded();
        let (sync_inlet, wanted) = crossbeam_channel::unbounded();
        let (build_inlet, builds) = crossbeam_channel::unbounded();
        let (hash_inlet, jobs) = crossbeam_channel::unbounded();
        let (pd_inlet, requests) = crossbeam_channel::unbounded();
        let (apply, apply_ends) = ApplyPool::new(APPLY_THREADS);
        let shared = || Arc::clone(&node.shared);

        let mut bodies: Vec<(&'static str, Body)> = Vec::new();
        let pd = (parts.pd)(requests);
        bodies.push(("pd", Box::new(move || pd.run())));
        for _ in 0..BUILD_THREADS {
            let (builds, snaps) = (builds.clone(), Arc::clone(&snaps));
            let chunk_bytes = usize::try_from(config.snapshot_chunk_bytes).unwrap_or(usize::MAX);
            let thread = BuildThread::<K> { builds, snaps, chunk_bytes, shared: shared() };
            bodies.push(("build", Box::new(move || thread.run())));
        }
        let worker = CheckWorker::new(kv.clone(), parts.split_policy);
        let thread = CheckThread { worker, tasks: checks, shared: shared() };
        bodies.push(("split-check", Box::new(move || thread.run())));
        let thread = CompactThread { kv: kv.clone(), tasks: compactions, shared: shared() };
        bodies.push(("compact", Box::new(move || thread.run())));
        let interval = config.kv_sync_interval;
        let thread = SyncThread {
            kv: kv.clone(),
            meta: Arc::clone(&meta),
            wanted,
            interval,
            shared: shared(),
        };
        bodies.push(("sync", Box::new(move || thread.run())));
        let batch_bytes = usize::try_from(config.snap_apply_batch_size).unwrap_or(usize::MAX);
        let worker = RegionWorker::new(kv.clone(), snaps, FailPoints, batch_bytes);
        let thread = RegionThread { worker, meta: Arc::clone(&meta), tasks, shared: shared() };
        bodies.push(("region", Box::new(move || thread.run())));
        let worker = HashWorker::new(config.consistency_slice);
        let thread = HashThread::<K>::new(worker, jobs, asks, config.consistency_keep, shared());
        bodies.push(("hash", Box::new(move || thread.run())));
        for tasks in apply_ends {
            let (kv, meta) = (kv.clone(), Arc::clone(&meta));
            let (builds, hashes) = (build_inlet.clone(), hash_inlet.clone());
            let (observers, shared) = (node.observers.get(), shared());
            let thread = ApplyThread { kv, meta, observers, tasks, builds, hashes, shared };
            bodies.push(("apply", Box::new(move || thread.run())));
        }
        let thread = Writer { kv, raft, meta, rounds, shared: shared() };
        bodies.push(("writer", Box::new(move || thread.run())));
        let outlets = Outlets {
            writer: writer_inlet,
            apply,
            region: region_inlet,
            check: check_inlet,
            compact: compact_inlet,
            sync: sync_inlet,
            pd: pd_inlet,
            transport: Arc::new(Mutex::new(transport)),
        };
        for (store, inlets) in lanes {
            let config = Arc::clone(&config);
            let lane = StoreLoop::new(store, inlets, outlets.clone(), shared(), config);
            bodies.push(("lane", Box::new(move || lane.run())));
        }
        for (name, body) in bodies {
            node.spawn_thread(name, body)?;
        }
        Ok(node)
    }

    fn spawn_thread(&mut self, name: &'static str, body: Body) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let full_name = format!("{name}-{}", self.handle.store());
        let thread = thread::Builder::new()
            .name(full_name)
            .spawn(move || shared.failure.guard(name, body))?;
        self.threads.push(thread);
        Ok(())
    }

    /// A way to speak to the node.
    #[must_use]
    pub fn handle(&self) -> NodeHandle<K> {
        self.handle.clone()
    }

    /// The store's id.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.handle.store()
    }

    /// Waits until the store fails, which gives the error, or `timeout` is over.
    #[must_use]
    pub fn wait_fatal(&self, timeout: Option<Duration>) -> Option<Arc<FatalError>> {
        self.shared.failure.wait(timeout)
    }

    /// Stops: takes nothing more, lets the disk finish what is on its way, ends the threads,
    /// answers who still waits, lets go of the engines. Must not be called on a thread of
    /// the node itself (in a callback, say).
    ///
    /// # Errors
    /// The error that had stopped the store before.
    pub fn stop(mut self) -> Result<(), Arc<FatalError>> {
        self.end();
        self.shared.failure.error().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        for link in &self.shared.lanes {
            let _ = link.significant.send(LaneInput::Stop);
        }
        // Lanes were started last and end first; the ends of their channels end the rest.
        for thread in self.threads.drain(..).rev() {
            // The body catches panics, so there is nothing to learn from the result.
            let _ = thread.join();
        }
        self.shared.router.close();
        self.handle.close_reader();
        self.shared.failure.over();
        self.observers.stop();
    }
}

type Body = Box<dyn FnOnce() -> Result<(), FatalError> + Send>;

impl<K: KvEngine> Drop for Node<K> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.end();
        }
    }
}
