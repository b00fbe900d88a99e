//! Stores of one process with their PD and transport; any of them can lose its power and
//! come back.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine_traits::{KvEngine, LogStats, RaftEngine as _};
use parking_lot::{Mutex, RwLock};
use pd_client::{
    RegionRoute,
    mock::{MockPd, PdConfig},
};
use raftstore_core::{
    Config, PeerPhase, PeerStatus,
    runtime::{Callback, Node, NodeOptions, PdRetry, StartError, client::Stores},
};
use raftstore_proto::{ClusterId, Command, RegionError, RegionId, Response, StoreId};
use transport_traits::{ChannelConfig, ChannelHub, HubError};

use crate::{
    machine::{Disks, Machine, MachineError},
    recall::{Recall, RecallError},
    regions::{RegionMap, RegionView},
    sweep::Sweeper,
};

/// The one cluster there is in this process.
const CLUSTER: ClusterId = ClusterId::must(1);

/// How long a lane may take to tell its counters.
const ASK: Duration = Duration::from_secs(5);

/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);

/// Why the cluster does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The disks of a store cannot be used.
    #[error("store {number}: {source}")]
    Machine {
        /// Which store, from 1.
        number: u64,
        /// Why.
        source: MachineError,
    },
    /// What the stores hold does not make a cluster.
    #[error("store {number} holds records that cannot be used: {source}: name another --dir")]
    Recall {
        /// Which store, from 1; 0 for all together.
        number: u64,
        /// Why.
        source: RecallError,
    },
    /// A store does not start.
    #[error("store {number} does not start: {}: name another --dir, or report this", Chain(.source))]
    Start {
        /// Which store, from 1.
        number: u64,
        /// Why.
        source: Box<StartError>,
    },
    /// No threads for the transport.
    #[error("the transport does not start: {}: check the limits on threads", Chain(.0))]
    Hub(#[from] HubError),
    /// Something awaited did not happen.
    #[error("{what} did not happen within {} s: the machine may be too slow, or this is a bug", waited.as_secs())]
    Late {
        /// What was awaited.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// A store has stopped by itself.
    #[error("store {number} has stopped: {why}: check its disk")]
    Stopped {
        /// Which store, from 1.
        number: u64,
        /// What it said.
        why: String,
    },
    /// A file of a store is not what was written.
    #[error("store {number}: {what}: check its disk, and restore the file")]
    Damaged {
        /// Which store, from 1.
        number: u64,
        /// Which page of which file.
        what: String,
    },
}

/// An error with all its causes, in one line.
struct Chain<'a, E>(&'a E);

impl<E: std::error::Error> fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// What the stores have done together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Syncs of raft logs.
    pub(crate) log_syncs: u64,
    /// Elections won.
    pub(crate) elections: u64,
    /// Region snapshots installed.
    pub(crate) snapshots: u64,
    /// Entries appended to raft logs.
    pub(crate) log_entries: u64,
    /// Pages of files compared with what was written to them, while stores ran.
    pub(crate) swept_pages: u64,
    /// Those that were something else.
    pub(crate) damaged_pages: u64,
    /// Files that were checked as a whole when they were opened.
    pub(crate) checked_files: u64,
    /// Leader transfers set in motion.
    pub(crate) transfers: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.log_syncs += other.log_syncs;
        self.elections += other.elections;
        self.snapshots += other.snapshots;
        self.log_entries += other.log_entries;
        self.swept_pages += other.swept_pages;
        self.damaged_pages += other.damaged_pages;
        self.checked_files += other.checked_files;
        self.transfers += other.transfers;
    }
}

/// A store that runs.
struct Running<M: Machine> {
    node: Node<M::Kv>,
    kv: M::Kv,
    log: M::Log,
    sweeper: Sweeper,
    checked_files: u64,
}

impl<M: Machine> Running<M> {
    fn counts(&self) -> Counts {
        let LogStats { syncs, .. } = self.log.stats();
        let mut counts = Counts {
            log_syncs: syncs,
            swept_pages: self.sweeper.pages(),
            damaged_pages: self.sweeper.damaged(),
            checked_files: self.checked_files,
            ..Counts::default()
        };
        for lane in self.node.handle().lane_metrics(ASK) {
            counts.elections += lane.elections_won;
            counts.snapshots += lane.snapshots_installed;
            counts.log_entries += lane.appended_entries;
            counts.transfers += lane.transfers;
        }
        counts
    }
}

/// What a store's data looks like at one moment.
pub(crate) type SnapshotOf<M> = <<M as Machine>::Kv as KvEngine>::Snapshot;

/// Room for a store.
struct Slot<M: Machine> {
    /// From 1.
    number: u64,
    machine: Mutex<M>,
    running: RwLock<Option<Running<M>>>,
    /// Who it is; known once it has been started.
    store: RwLock<Option<StoreId>>,
    /// What it did before it was last started.
    past: Mutex<Counts>,
}

/// Stores, their PD, and the ways between them.
pub(crate) struct Cluster<M: Machine> {
    config: Config,
    /// Of each file of a store; 0 for none.
    swept_pages_per_second: u64,
    pd: MockPd,
    hub: ChannelHub,
    slots: Vec<Slot<M>>,
}

impl<M: Machine> Cluster<M> {
    /// Starts a store on each machine. A region shall have `replicas` voters. `run` counts
    /// the clusters there were on these machines, this one included. Of each file of a store
    /// `swept_pages_per_second` are compared with what was written to them.
    pub(crate) fn start(
        machines: Vec<M>,
        replicas: usize,
        run: u64,
        config: Config,
        swept_pages_per_second: u64,
    ) -> Result<Self, ClusterError> {
        let pd_config = PdConfig {
            max_replicas: replicas,
            // A store that was cut comes back: it is not replaced, and nothing is moved there
            // meanwhile.
            store_silent_ms: 2_500,
            operator_timeout_ms: 10_000,
            transfer_timeout_ms: 10_000,
            // Replicas are spread by their number: all regions are written to alike, and what
            // they hold changes while one looks.
            region_base_bytes: 1 << 40,
            spread_hot_regions: false,
            ..PdConfig::default()
        };
        let pd = MockPd::new(CLUSTER, pd_config);
        let hub = ChannelHub::new(ChannelConfig::default())?;
        let slots = machines.into_iter().zip(1..).map(|(machine, number)| Slot {
            number,
            machine: Mutex::new(machine),
            running: RwLock::new(None),
            store: RwLock::new(None),
            past: Mutex::default(),
        });
        let slots = slots.collect();
        let this = Self { config, swept_pages_per_second, pd, hub, slots };
        let mut recall = Recall::default();
        let mut opened = Vec::new();
        for slot in &this.slots {
            let disks = slot.power_on()?;
            recall
                .read(&disks.kv)
                .map_err(|source| ClusterError::Recall { number: slot.number, source })?;
            opened.push(disks);
        }
        recall.tell(&this.pd, run).map_err(|source| ClusterError::Recall { number: 0, source })?;
        for (slot, disks) in this.slots.iter().zip(opened) {
            this.run(slot, disks)?;
        }
        Ok(this)
    }

    fn run(&self, slot: &Slot<M>, disks: Disks<M::Kv, M::Log>) -> Result<(), ClusterError> {
        let Disks { kv, log, snaps, files, checked_files } = disks;
        let address = format!("store-{}", slot.number);
        let pd = Arc::new(self.pd.clone());
        let options = NodeOptions {
            config: self.config.clone(),
            snaps,
            pd_retry: PdRetry::default(),
            ..NodeOptions::new(CLUSTER, address, kv.clone(), log.clone(), pd, self.hub.connect())
        };
        let node = Node::start(options).map_err(|source| {
            let source = Box::new(source);
            ClusterError::Start { number: slot.number, source }
        })?;
        *slot.store.write() = Some(node.store());
        let sweeper = Sweeper::start(files, self.swept_pages_per_second);
        *slot.running.write() = Some(Running { node, kv, log, sweeper, checked_files });
        Ok(())
    }

    /// The store of this number.
    fn slot(&self, number: u64) -> &Slot<M> {
        let at = usize::try_from(number).unwrap_or_default().wrapping_sub(1);
        self.slots.get(at).expect("stores are counted from 1")
    }

    /// Cuts the power of a store: what it had not synced is gone.
    pub(crate) fn cut(&self, number: u64) {
        let slot = self.slot(number);
        let running = {
            // Figures move from one place to the other in one step for `counts`.
            let mut place = slot.running.write();
            let Some(running) = place.take() else { return };
            *slot.past.lock() += running.counts();
            running
        };
        let Running { node, kv, log, sweeper, .. } = running;
        // It would call the cut a damage.
        drop(sweeper);
        slot.machine.lock().cut_power();
        self.hub.unregister(node.store());
        // It ends with the engine's error, which is what a cut looks like from inside.
        drop(node.stop());
        drop((kv, log));
    }

    /// Starts a store again from what is on its disks.
    pub(crate) fn restart(&self, number: u64) -> Result<(), ClusterError> {
        let slot = self.slot(number);
        let disks = slot.power_on()?;
        self.run(slot, disks)
    }

    /// Ends all stores cleanly.
    pub(crate) fn stop(self) -> Result<(), ClusterError> {
        let mut result = Ok(());
        for slot in &self.slots {
            let Some(running) = slot.running.write().take() else { continue };
            self.hub.unregister(running.node.store());
            if let Err(error) = running.node.stop() {
                let why = Chain(&*error).to_string();
                result = Err(ClusterError::Stopped { number: slot.number, why });
            }
        }
        self.hub.close();
        result
    }

    /// Fails if a store has stopped by itself, or one of its files is damaged.
    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        for slot in &self.slots {
            let damage = slot.running.read().as_ref().and_then(|it| it.sweeper.first_damage());
            if let Some(what) = damage {
                return Err(ClusterError::Damaged { number: slot.number, what });
            }
            let fatal = slot.running.read().as_ref().and_then(|it| it.node.handle().fatal());
            if let Some(error) = fatal {
                let why = Chain(&*error).to_string();
                return Err(ClusterError::Stopped { number: slot.number, why });
            }
        }
        Ok(())
    }

    /// What all stores have done, in all their lives.
    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for slot in &self.slots {
            let running = slot.running.read();
            if let Some(running) = &*running {
                all += running.counts();
            }
            all += *slot.past.lock();
        }
        all
    }

    /// Membership changes that leaders have told PD of.
    pub(crate) fn membership_changes(&self) -> u64 {
        self.pd.with_core(|core, _| core.counters().membership_changes)
    }

    /// The peers of a store, by region; none if it does not run.
    fn peers(slot: &Slot<M>) -> Vec<PeerStatus> {
        let handle = slot.running.read().as_ref().map(|it| it.node.handle());
        handle.map(|it| it.peers(ASK)).unwrap_or_default()
    }

    /// The regions as the stores that run have them now, one store looked at after the other.
    pub(crate) fn regions(&self) -> RegionMap {
        let peers: Vec<PeerStatus> = self.slots.iter().flat_map(Self::peers).collect();
        let sizes: BTreeMap<RegionId, u64> = self.pd.with_core(|core, _| {
            core.regions().map(|it| (it.region.id, it.approximate_size)).collect()
        });
        RegionMap::new(peers, &self.numbers(), &sizes)
    }

    /// The number of each store, from 1.
    pub(crate) fn numbers(&self) -> BTreeMap<StoreId, u64> {
        self.slots.iter().filter_map(|slot| Some(((*slot.store.read())?, slot.number))).collect()
    }

    /// Waits until every region has a leader, and so many voters and no other members.
    pub(crate) fn wait_for_replicas(
        &self,
        replicas: usize,
        patience: Duration,
    ) -> Result<RegionMap, ClusterError> {
        let mut map = RegionMap::default();
        self.wait("a leader and all replicas of every region", patience, || {
            map = self.regions();
            map.is_whole() && map.has_voters(replicas)
        })?;
        Ok(map)
    }

    /// Waits until PD has spread leaders and replicas, and nothing has changed for `quiet`.
    pub(crate) fn wait_for_rest(
        &self,
        replicas: usize,
        quiet: Duration,
        patience: Duration,
    ) -> Result<RegionMap, ClusterError> {
        let numbers: Vec<u64> = self.slots.iter().map(|slot| slot.number).collect();
        let mut map = RegionMap::default();
        let mut since = Instant::now();
        self.wait("an even spread of leaders and replicas", patience, || {
            let now = self.regions();
            let at_rest = now.is_whole() && now.has_voters(replicas) && now.is_balanced(&numbers);
            if !at_rest || now.shape() != map.shape() {
                since = Instant::now();
            }
            map = now;
            at_rest && since.elapsed() >= quiet
        })?;
        Ok(map)
    }

    /// Waits until a store has applied, in every region that has a replica on it, what is
    /// committed now.
    pub(crate) fn wait_for_caught_up(
        &self,
        number: u64,
        patience: Duration,
    ) -> Result<(), ClusterError> {
        let slot = self.slot(number);
        let mut goals: Option<BTreeMap<RegionId, u64>> = None;
        self.wait("the catching up of the store that was cut", patience, || {
            let map = self.regions();
            if goals.is_none() && map.is_whole() {
                goals = Some(map.committed().collect());
            }
            let Some(goals) = &mut goals else { return false };
            for peer in Self::peers(slot) {
                let has_come =
                    |goal: &u64| peer.phase == PeerPhase::Normal && peer.applied.applied >= *goal;
                if goals.get(&peer.region.id).is_some_and(has_come) {
                    goals.remove(&peer.region.id);
                }
            }
            // What has left the store meanwhile need not come there.
            let wanted =
                |it: &RegionView| it.stores.contains(&number) && goals.contains_key(&it.region.id);
            map.is_whole() && !map.regions().iter().any(wanted)
        })
    }

    /// Waits for `condition`, and looks after the stores meanwhile.
    pub(crate) fn wait(
        &self,
        what: &'static str,
        patience: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), ClusterError> {
        let begun = Instant::now();
        while !condition() {
            self.check()?;
            let waited = begun.elapsed();
            if waited > patience {
                return Err(ClusterError::Late { what, waited });
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The data of every store that runs, each as of one moment, with the stores' numbers.
    pub(crate) fn snapshots(&self) -> Vec<(u64, engine_traits::Result<SnapshotOf<M>>)> {
        self.slots
            .iter()
            .filter_map(|slot| Some((slot.number, slot.running.read().as_ref()?.kv.snapshot())))
            .collect()
    }
}

impl<M: Machine> Slot<M> {
    fn power_on(&self) -> Result<Disks<M::Kv, M::Log>, ClusterError> {
        let opened = self.machine.lock().power_on();
        opened.map_err(|source| ClusterError::Machine { number: self.number, source })
    }
}

impl<M: Machine> Stores for Cluster<M> {
    fn send(&self, store: StoreId, command: Command, answer: Callback) {
        let slot = self.slots.iter().find(|slot| *slot.store.read() == Some(store));
        let handle = slot.and_then(|slot| Some(slot.running.read().as_ref()?.node.handle()));
        match handle {
            Some(handle) => handle.command_with(command, answer),
            None => answer(Response::error(0, RegionError::Stopping)),
        }
    }

    fn locate(&self, key: &Bytes) -> Option<RegionRoute> {
        self.pd.with_core(|core, _| core.region_by_key(key))
    }
}
