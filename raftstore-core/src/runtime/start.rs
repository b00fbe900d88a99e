//! Decides in which order a node comes to life: who it is, what it has, where PD and its
//! peers find it, and only then its threads.

use std::{io, sync::Arc, thread, time::Duration};

use engine_traits::{KvEngine, RaftEngine};
use pd_client::{PdClient, StoreInfo, StoreLifecycle};
use raftstore_proto::{ClusterId, StoreId};
use transport_traits::{
    BoxError, Connect, Inbox, MemSnapStore, SnapDirection, SnapError, SnapKey, SnapStore,
};

use super::{
    clock::MonoClock,
    counters::Counters,
    executor::block_on,
    fail_points::FailPoints,
    failure::{Failure, OnFatal},
    figures::{DiskProbe, figures},
    handle::NodeHandle,
    node::{Node, Parts},
    observing::{ObserversOn, guarded},
    pd::PdThread,
    router::Router,
    shared::Shared,
    timings::Timings,
};
use crate::{
    Config, ConfigError, FatalError, Store, StoreMeta,
    observe::Observers,
    read::{LocalReader, Views},
    split_check::{SizeAndKeys, SplitPolicy},
    store::{
        StoreOptions,
        bootstrap::{Bootstrap, BootstrapAnswer, BootstrapError, BootstrapStep},
    },
};

/// How patient a start is with a PD that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PdRetry {
    /// How often a question is asked.
    pub attempts: u32,
    /// Pause between two of them.
    pub pause: Duration,
}

impl Default for PdRetry {
    /// Three minutes: longer than a PD takes to elect a leader or to be restarted.
    fn default() -> Self {
        Self { attempts: 60, pause: Duration::from_secs(3) }
    }
}

/// What a node is made of.
pub struct NodeOptions<K, R> {
    /// The settings.
    pub config: Config,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Where its peers reach it.
    pub address: String,
    /// Placement labels, as key and value.
    pub labels: Vec<(String, String)>,
    /// The data engine.
    pub kv: K,
    /// The raft logs.
    pub raft: R,
    /// Region snapshots at rest.
    pub snaps: Arc<dyn SnapStore>,
    /// The placement driver.
    pub pd: Arc<dyn PdClient>,
    /// Patience with it while starting.
    pub pd_retry: PdRetry,
    /// The way to other stores.
    pub connect: Connect,
    /// Looks at the store's device, for PD and for `reserve-space`; without it there is no
    /// limit but `capacity`.
    pub disk: Option<DiskProbe>,
    /// Decides where regions are cut by themselves; without it, those that are larger than
    /// `region-max-size` or `region-max-keys` are.
    pub split_policy: Option<Arc<dyn SplitPolicy>>,
    /// Who else is told of what the store does, and asked before it does.
    pub observers: Observers,
    /// Told when the store must stop. [`Node::wait_fatal`] tells it too.
    pub on_fatal: Option<OnFatal>,
}

impl<K, R> NodeOptions<K, R> {
    /// A node with the settings of production, reached at `address`, whose region snapshots
    /// are kept in memory, 1 GiB of them: a node with more in a region than that needs a
    /// [`FileSnapStore`](super::FileSnapStore).
    pub fn new(
        cluster: ClusterId,
        address: impl Into<String>,
        kv: K,
        raft: R,
        pd: Arc<dyn PdClient>,
        connect: Connect,
    ) -> Self {
        Self {
            config: Config::default(),
            cluster,
            address: address.into(),
            labels: Vec::new(),
            kv,
            raft,
            snaps: Arc::new(MemSnapStore::new(1 << 30)),
            pd,
            pd_retry: PdRetry::default(),
            connect,
            disk: None,
            split_policy: None,
            observers: Observers::default(),
            on_fatal: None,
        }
    }
}

impl<K, R> std::fmt::Debug for NodeOptions<K, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOptions")
            .field("cluster", &self.cluster)
            .field("address", &self.address)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// Why a node did not start. Nothing runs then, and what is on disk is as good as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings are not allowed.
    #[error("bad configuration")]
    Config(#[from] ConfigError),
    /// The engines are not those of a store of this cluster.
    #[error("store cannot be identified")]
    Bootstrap(#[from] BootstrapError),
    /// PD refused, or did not answer in time.
    #[error("PD: {doing}")]
    Pd {
        /// What it was asked for.
        doing: &'static str,
        /// What it said last.
        #[source]
        source: pd_client::Error,
    },
    /// What the engines hold cannot be served.
    #[error("store cannot be opened")]
    Open(#[from] FatalError),
    /// The region snapshots cannot be listed.
    #[error("region snapshots cannot be listed")]
    Snapshots(#[from] SnapError),
    /// The transport cannot be connected.
    #[error("transport cannot be connected")]
    Transport(#[source] BoxError),
    /// The system gives no thread.
    #[error("threads cannot be started")]
    Threads(#[from] io::Error),
}

impl<K: KvEngine> Node<K> {
    /// Starts a store: gives it an id and the cluster its first region if there is none yet,
    /// recovers, announces it to PD and runs it. Blocks until it runs.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<R: RaftEngine>(options: NodeOptions<K, R>) -> Result<Self, StartError> {
        let NodeOptions { config, cluster, address, labels, kv, raft, snaps, pd, .. } = options;
        config.validate()?;
        let patience = Patience { pd: &*pd, retry: options.pd_retry };
        let info = |id| StoreInfo {
            id,
            address: address.clone(),
            labels: labels.clone(),
            lifecycle: StoreLifecycle::Up,
        };
        let bootstrap = Bootstrap::new(kv.clone(), raft.clone(), cluster);
        let store = patience.bootstrap(bootstrap, &info)?;
        let config = Arc::new(config);
        let millis = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        // Lives are told apart by when they began; the low bits do.
        let life = u64::try_from(millis).unwrap_or(u64::MAX);
        let (meta, views) = (Arc::new(StoreMeta::of_life(life)), Arc::<Views>::default());
        let clock = MonoClock::start();
        let observers = ObserversOn::start(options.observers)?;
        let store_options = StoreOptions {
            config: Arc::clone(&config),
            store,
            kv: kv.clone(),
            raft: raft.clone(),
            meta: Arc::clone(&meta),
            views: Arc::clone(&views),
            received: received(&*snaps)?,
            hooks: FailPoints,
            observers: observers.get(),
        };
        // Observers are told what is found.
        let stores = guarded("opening the store", || Store::open(store_options, clock.now()))??;
        // Only a store that has recovered is announced.
        patience.ask("announcing the store", || pd.put_store(info(store)))?;

        let (lanes, inlets) = Shared::channels(config.lanes, config.notify_capacity);
        let router = Arc::<Router>::default();
        let failure = Failure::new(Arc::clone(&router), options.on_fatal);
        let counters = Counters::default();
        let timings = Timings::default();
        let shared = Arc::new(Shared { clock, router, failure, counters, timings, lanes });
        let reader = LocalReader::new(views, kv.clone());
        let (asks_inlet, asks) = crossbeam_channel::unbounded();
        let handle =
            NodeHandle::new(store, Arc::clone(&shared), Arc::clone(&snaps), asks_inlet, reader);
        let inbox: Arc<dyn Inbox> = Arc::new(handle.clone());
        let transport =
            (options.connect)(store, inbox, Arc::clone(&snaps)).map_err(StartError::Transport)?;
        let figures =
            figures(kv.clone(), raft.clone(), Arc::clone(&snaps), config.capacity, options.disk);
        let figures = (figures, config.reserve_space);
        let pd_shared = Arc::clone(&shared);
        let pd: Box<dyn FnOnce(_) -> _> =
            Box::new(move |requests| PdThread::new(pd, store, requests, figures, pd_shared));
        let lanes = stores.into_iter().zip(inlets).collect();
        let split_policy =
            options.split_policy.unwrap_or_else(|| Arc::new(SizeAndKeys::of(&config)));
        let parts = Parts {
            config,
            kv,
            raft,
            meta,
            snaps,
            asks,
            lanes,
            transport,
            split_policy,
            observers,
            pd,
        };
        Ok(Self::spawn(handle, shared, parts)?)
    }
}

/// The received snapshots at rest. Those made here go: nobody is being sent one yet.
fn received(snaps: &dyn SnapStore) -> Result<Vec<(SnapKey, u64)>, SnapError> {
    let mut received = Vec::new();
    for (direction, key, size_bytes) in snaps.list()? {
        match direction {
            SnapDirection::Received => received.push((key, size_bytes)),
            SnapDirection::Generated => snaps.delete(direction, key)?,
        }
    }
    Ok(received)
}

/// Asks PD again while it is unavailable.
struct Patience<'a> {
    pd: &'a dyn PdClient,
    retry: PdRetry,
}

impl Patience<'_> {
    /// Carries the machine's questions to PD. Gives whose engines these are.
    fn bootstrap<K: KvEngine, R: RaftEngine>(
        &self,
        mut machine: Bootstrap<K, R>,
        info: &dyn Fn(StoreId) -> StoreInfo,
    ) -> Result<StoreId, StartError> {
        let pd = self.pd;
        let mut unanswered = 0;
        loop {
            let answer = match machine.next()? {
                BootstrapStep::Done { store } => return Ok(store),
                BootstrapStep::IsBootstrapped => {
                    let doing = "asking whether the cluster has a first region";
                    BootstrapAnswer::IsBootstrapped(
                        self.ask(doing, || pd.is_cluster_bootstrapped())?,
                    )
                }
                BootstrapStep::AllocId => {
                    BootstrapAnswer::Id(self.ask("asking for an id", || pd.alloc_id())?)
                }
                BootstrapStep::BootstrapCluster { store, region } => {
                    let offer = || async {
                        match pd.bootstrap_cluster(info(store), region.clone()).await {
                            Ok(()) => Ok(true),
                            Err(pd_client::Error::AlreadyBootstrapped) => Ok(false),
                            Err(error) => Err(error),
                        }
                    };
                    let taken = self.ask("offering the first region", offer)?;
                    BootstrapAnswer::Offered { taken }
                }
                BootstrapStep::RegionByKey { key } => {
                    let doing = "asking for the first region";
                    let route = self.ask(doing, || pd.region_by_key(key.clone()))?;
                    if route.is_none() {
                        // PD knows that there is one, but not yet which.
                        unanswered += 1;
                        if unanswered >= self.retry.attempts {
                            let source = pd_client::Error::NotBootstrapped;
                            return Err(StartError::Pd { doing, source });
                        }
                        thread::sleep(self.retry.pause);
                    }
                    BootstrapAnswer::Region(route.map(|route| route.region))
                }
            };
            machine.answer(answer)?;
        }
    }

    fn ask<T, F: Future<Output = pd_client::Result<T>>>(
        &self,
        doing: &'static str,
        question: impl Fn() -> F,
    ) -> Result<T, StartError> {
        let mut attempt = 1;
        loop {
            match block_on(question()) {
                Ok(answer) => return Ok(answer),
                Err(error @ pd_client::Error::Unavailable { .. })
                    if attempt < self.retry.attempts =>
                {
                    tracing::warn!(doing, attempt, %error, "PD is asked again");
                    attempt += 1;
                    thread::sleep(self.retry.pause);
                }
                Err(source) => return Err(StartError::Pd { doing, source }),
            }
        }
    }
}
