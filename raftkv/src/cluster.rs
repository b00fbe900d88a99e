//! Stores of one process with their PD and transport; any of them can lose its power and
//! come back.

use std::{
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine_traits::{LogStats, RaftEngine as _};
use parking_lot::{Mutex, RwLock};
use pd_client::{
    PdClient, RegionRoute,
    mock::{MockPd, PdConfig},
};
use raftstore_core::{
    Config,
    runtime::{Node, NodeOptions, PdRetry, StartError},
};
use raftstore_proto::{ClusterId, Command, PeerRole, RegionError, Response, StoreId};
use transport_traits::{ChannelConfig, ChannelHub, HubError, Transport};

use crate::{
    client::{Answer, Stores},
    machine::{Disks, Machine, MachineError},
    recall::{Recall, RecallError},
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
        }
        counts
    }
}

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

/// What is known of the one region of a demo.
pub(crate) struct Leading {
    /// The leader's position among the stores.
    pub(crate) slot: usize,
    /// Up to where its log is committed.
    pub(crate) committed: u64,
    /// How many voters the region has.
    pub(crate) voters: usize,
    /// How many members.
    pub(crate) members: usize,
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
    /// Starts a store on each machine. A region shall have `replicas` voters. Of each file of
    /// a store `swept_pages_per_second` are compared with what was written to them.
    pub(crate) fn start(
        machines: Vec<M>,
        replicas: usize,
        config: Config,
        swept_pages_per_second: u64,
    ) -> Result<Self, ClusterError> {
        let pd_config = PdConfig { max_replicas: replicas, ..PdConfig::default() };
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
        recall.tell(&this.pd).map_err(|source| ClusterError::Recall { number: 0, source })?;
        for (slot, disks) in this.slots.iter().zip(opened) {
            this.run(slot, disks)?;
        }
        Ok(this)
    }

    fn run(&self, slot: &Slot<M>, disks: Disks<M::Kv, M::Log>) -> Result<(), ClusterError> {
        let Disks { kv, log, snaps, files, checked_files } = disks;
        let (hub, snaps_sent) = (self.hub.clone(), Arc::clone(&snaps));
        let options = NodeOptions {
            config: self.config.clone(),
            cluster: CLUSTER,
            address: format!("store-{}", slot.number),
            labels: Vec::new(),
            kv: kv.clone(),
            raft: log.clone(),
            snaps,
            pd: Arc::new(self.pd.clone()) as Arc<dyn PdClient>,
            pd_retry: PdRetry::default(),
            connect: Box::new(move |store, inbox| {
                let transport = hub.register(store, inbox, snaps_sent)?;
                Ok(Box::new(transport) as Box<dyn Transport>)
            }),
            disk: None,
            split_policy: None,
            on_fatal: None,
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

    /// Cuts the power of a store: what it had not synced is gone.
    pub(crate) fn cut(&self, slot: usize) {
        let slot = &self.slots[slot];
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
    pub(crate) fn restart(&self, slot: usize) -> Result<(), ClusterError> {
        let slot = &self.slots[slot];
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

    /// The region and who leads it, if somebody does.
    pub(crate) fn leading(&self) -> Option<Leading> {
        self.slots.iter().enumerate().find_map(|(at, slot)| {
            let handle = slot.running.read().as_ref()?.node.handle();
            let leader = handle.peers(ASK).into_iter().find(|peer| peer.is_leader)?;
            let peers = &leader.region.peers;
            let voters = peers.iter().filter(|peer| peer.role == PeerRole::Voter).count();
            let members = peers.len();
            Some(Leading { slot: at, committed: leader.committed, voters, members })
        })
    }

    /// Waits until the region has so many voters, and nobody else is a member.
    pub(crate) fn wait_for_replicas(
        &self,
        replicas: usize,
        patience: Duration,
    ) -> Result<(), ClusterError> {
        self.wait("three replicas of the first region", patience, || {
            self.leading().is_some_and(|it| it.voters == replicas && it.members == replicas)
        })
    }

    /// Waits until a store has applied what is committed now.
    pub(crate) fn wait_for_caught_up(
        &self,
        slot: usize,
        patience: Duration,
    ) -> Result<(), ClusterError> {
        let mut goal = None;
        self.wait("the catching up of the store that was cut", patience, || {
            if goal.is_none() {
                goal = self.leading().map(|it| it.committed);
            }
            let Some(goal) = goal else { return false };
            let handle = self.slots[slot].running.read().as_ref().map(|it| it.node.handle());
            handle.is_some_and(|it| it.peers(ASK).iter().any(|peer| peer.applied.applied >= goal))
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

    /// The data engines of the stores that hold the region, with their numbers.
    pub(crate) fn replicas(&self) -> Vec<(u64, M::Kv)> {
        let members: Vec<StoreId> = self
            .locate(&Bytes::new())
            .map(|route| route.region.peers.iter().map(|peer| peer.store).collect())
            .unwrap_or_default();
        self.slots
            .iter()
            .filter(|slot| slot.store.read().is_some_and(|store| members.contains(&store)))
            .filter_map(|slot| Some((slot.number, slot.running.read().as_ref()?.kv.clone())))
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
    fn send(&self, store: StoreId, command: Command, answer: Answer) {
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
