//! Decides what breaks, when, and when it is mended.

use raftstore_proto::{
    AdminCommand, Body, Command, Header, Peer, PeerId, Region, RegionId, StoreId,
};

use crate::{
    churn::Churn,
    counters::Sometimes,
    disk::{Crash, DiskFault},
    network::Weather,
    plan::{Pace, PdWeather},
    queue::{MILLI, Nanos, SECOND},
    world::{CutPoint, Step, World},
};

/// A kind of fault that comes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Crash,
    Blackout,
    CleanStop,
    Disk,
    Pause,
    Partition,
    OneWay,
    PdAbsence,
    Transfer,
    Churn,
    Split,
    ClockJump,
}

/// A step of the faults.
#[derive(Debug)]
pub(crate) enum FaultStep {
    /// The next one of its kind is due.
    Due(FaultKind),
    /// Links are mended.
    Mend(Vec<(u64, u64)>),
    /// A store that should have died at a chosen step has not met it.
    CutAnyway { store: u64, life: u64 },
}

impl World {
    /// Lets faults begin, as often as the plan says.
    pub fn start_faults(&mut self) {
        self.faults_on = true;
        if !self.plan.clocks.bounded {
            self.counters.hit(Sometimes::UnsafeClocks);
        }
        for kind in [
            FaultKind::Crash,
            FaultKind::Blackout,
            FaultKind::CleanStop,
            FaultKind::Disk,
            FaultKind::Pause,
            FaultKind::Partition,
            FaultKind::OneWay,
            FaultKind::PdAbsence,
            FaultKind::Transfer,
            FaultKind::Churn,
            FaultKind::Split,
            FaultKind::ClockJump,
        ] {
            self.schedule_fault(kind);
        }
    }

    fn schedule_fault(&mut self, kind: FaultKind) {
        let rates = self.plan.faults;
        let mean = match kind {
            FaultKind::Crash => rates.crash,
            FaultKind::Blackout => rates.blackout,
            FaultKind::CleanStop => rates.clean_stop,
            FaultKind::Disk => rates.disk,
            FaultKind::Pause => rates.pause,
            FaultKind::Partition => rates.partition,
            FaultKind::OneWay => rates.one_way,
            FaultKind::PdAbsence => rates.pd_absence,
            FaultKind::Transfer => rates.transfer,
            FaultKind::Churn => rates.churn,
            FaultKind::Split => rates.split,
            FaultKind::ClockJump => self.plan.clocks.jumps,
        };
        // Within one lease no clock jumps twice.
        let least = if kind == FaultKind::ClockJump { SECOND } else { 50 * MILLI };
        if let Some(mean) = mean {
            let delay = least + self.fault_rng.exponential(mean);
            self.after(delay, Step::Fault(FaultStep::Due(kind)));
        }
    }

    /// Ends all faults: links are mended, stores run, PD is there.
    pub fn heal(&mut self) {
        self.faults_on = false;
        self.transcript.event(self.now, 0, 0, format_args!("all faults end"));
        self.network.mend_all();
        self.network.weather = Weather::FAIR;
        self.plan.pace = Pace::FAST;
        self.plan.pd_weather = PdWeather::FAIR;
        self.pd.absent_until = 0;
        let stores: Vec<u64> = self.nodes.keys().copied().collect();
        for store in stores {
            if let Some(node) = self.nodes.get_mut(&store) {
                node.cut = None;
                node.disk_fault_armed = false;
                node.paused_until = 0;
                if !self.plan.clocks.bounded {
                    node.steady(self.now);
                }
                node.disk.disarm();
            }
            self.start_store(store);
        }
    }

    pub(crate) fn fault_step(&mut self, fault: FaultStep) {
        match fault {
            FaultStep::Mend(links) => {
                self.transcript.event(self.now, 0, 0, format_args!("mended {links:?}"));
                for (from, to) in links {
                    self.network.mend(from, to);
                }
            }
            FaultStep::CutAnyway { store, life } => {
                let Some(node) = self.nodes.get(&store) else { return };
                if let (Some((_, crash)), true) = (node.cut, node.life == life) {
                    self.crash_store(store, crash);
                    self.restart_later(store);
                }
            }
            FaultStep::Due(kind) => {
                if self.faults_on {
                    self.schedule_fault(kind);
                    self.strike(kind);
                }
            }
        }
    }

    fn strike(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::Crash => self.strike_crash(),
            FaultKind::Blackout => {
                self.counters.hit(Sometimes::Blackouts);
                let stores: Vec<u64> = self.nodes.keys().copied().collect();
                for store in stores {
                    if self.nodes[&store].is_up() {
                        self.crash_store(store, Crash::PowerLoss);
                        self.restart_later(store);
                    }
                }
            }
            FaultKind::CleanStop => {
                if let Some(store) = self.random_up() {
                    self.begin_stop(store, true);
                }
            }
            FaultKind::Disk => {
                if let Some(store) = self.random_up() {
                    let fault = *self.fault_rng.pick(&DiskFault::ALL);
                    self.arm_disk_fault(store, fault);
                }
            }
            FaultKind::Pause => {
                if let Some(store) = self.random_up() {
                    let span = self.fault_rng.between(100 * MILLI, 4 * SECOND);
                    self.pause(store, span);
                }
            }
            FaultKind::Partition => self.strike_partition(),
            FaultKind::OneWay => {
                self.counters.hit(Sometimes::OneWayCuts);
                let stores: Vec<u64> = self.nodes.keys().copied().collect();
                let from = *self.fault_rng.pick(&stores);
                let to = *self.fault_rng.pick(&stores);
                self.cut_for_a_while(vec![(from, to)]);
            }
            FaultKind::PdAbsence => {
                self.counters.hit(Sometimes::PdAbsences);
                self.pd.absent_until = self.now + self.fault_rng.between(SECOND, 10 * SECOND);
            }
            FaultKind::Transfer => self.strike_transfer(),
            FaultKind::Churn => self.strike_churn(),
            FaultKind::Split => self.strike_split(),
            FaultKind::ClockJump => self.strike_clock(),
        }
    }

    fn random_up(&mut self) -> Option<u64> {
        let up: Vec<u64> =
            self.nodes.values().filter(|node| node.is_up()).map(|node| node.id).collect();
        (!up.is_empty()).then(|| *self.fault_rng.pick(&up))
    }

    fn strike_crash(&mut self) {
        let rates = self.plan.faults;
        let crash =
            if self.fault_rng.chance(rates.power_loss) { Crash::PowerLoss } else { Crash::Kill };
        let Some(store) = self.random_up() else { return };
        if self.fault_rng.chance(rates.at_step) {
            let point = *self.fault_rng.pick(&CutPoint::ALL);
            self.cut_at(store, point, crash);
            let life = self.nodes[&store].life;
            self.after(2 * SECOND, Step::Fault(FaultStep::CutAnyway { store, life }));
        } else {
            self.crash_store(store, crash);
            self.restart_later(store);
        }
    }

    /// Lets a store die when it next comes to `point`.
    pub fn cut_at(&mut self, store: u64, point: CutPoint, crash: Crash) {
        if let Some(node) = self.nodes.get_mut(&store) {
            node.cut = Some((point, crash));
        }
    }

    /// Makes a coming call of a store's engines fail.
    pub fn arm_disk_fault(&mut self, store: u64, fault: DiskFault) {
        self.transcript.event(self.now, store, 0, format_args!("disk will fail: {fault:?}"));
        if let Some(node) = self.nodes.get_mut(&store) {
            node.disk.arm(fault);
            node.disk_fault_armed = true;
        }
    }

    /// Lets a store do nothing for a while.
    pub fn pause(&mut self, store: u64, span: Nanos) {
        self.counters.hit(Sometimes::Pauses);
        let until = self.now + span;
        self.transcript.event(self.now, store, 0, format_args!("pauses {} ms", span / MILLI));
        if let Some(node) = self.nodes.get_mut(&store) {
            node.paused_until = until;
        }
    }

    fn strike_clock(&mut self) {
        self.counters.hit(Sometimes::ClockJumps);
        let stores: Vec<u64> = self.nodes.keys().copied().collect();
        let store = *self.fault_rng.pick(&stores);
        let most = self.plan.clocks.jump;
        let by = i64::try_from(self.fault_rng.below(2 * most + 1)).unwrap_or(0)
            - i64::try_from(most).unwrap_or(0);
        self.transcript.event(self.now, store, 0, format_args!("clock jumps {by} ns"));
        if let Some(node) = self.nodes.get_mut(&store) {
            node.jump(self.now, by);
        }
    }

    fn strike_partition(&mut self) {
        self.counters.hit(Sometimes::Partitions);
        let mut stores: Vec<u64> = self.nodes.keys().copied().collect();
        self.fault_rng.shuffle(&mut stores);
        let border = 1 + self.fault_rng.index(stores.len() - 1);
        let (left, right) = stores.split_at(border);
        let mut links = Vec::new();
        for a in left {
            for b in right {
                links.push((*a, *b));
                links.push((*b, *a));
            }
        }
        self.cut_for_a_while(links);
    }

    fn cut_for_a_while(&mut self, links: Vec<(u64, u64)>) {
        self.transcript.event(self.now, 0, 0, format_args!("cut {links:?}"));
        for (from, to) in &links {
            self.network.cut(*from, *to);
        }
        let span = self.fault_rng.between(300 * MILLI, 6 * SECOND);
        self.after(span, Step::Fault(FaultStep::Mend(links)));
    }

    fn random_led_region(&mut self) -> Option<(u64, Region, Peer)> {
        let regions: Vec<u64> = self.regions().into_keys().collect();
        if regions.is_empty() {
            return None;
        }
        // The youngest region has the most to lose.
        let region = match regions.last() {
            Some(youngest) if self.fault_rng.chance(200) => *youngest,
            _ => *self.fault_rng.pick(&regions),
        };
        let store = self.leader_store(region)?;
        let status = self.peer_status(store, region)?;
        Some((store, status.region, status.peer))
    }

    fn strike_transfer(&mut self) {
        let Some((store, region, leader)) = self.random_led_region() else { return };
        let to = *self.fault_rng.pick(&region.peers);
        self.ask_admin(store, &region, leader, AdminCommand::TransferLeader(to));
    }

    fn strike_churn(&mut self) {
        let Some((store, region, leader)) = self.random_led_region() else { return };
        let free: Vec<StoreId> = self
            .nodes
            .keys()
            .map(|store| StoreId::must(*store))
            .filter(|store| region.peer_on(*store).is_none())
            .collect();
        let pd = &mut self.pd;
        let mut churn = Churn {
            region: &region,
            leader,
            free,
            rng: &mut self.fault_rng,
            new_id: &mut || PeerId::must(pd.alloc_id()),
        };
        let Some(admin) = churn.draw() else { return };
        self.ask_admin(store, &region, leader, admin);
    }

    /// Puts an admin command to a leader; nobody looks at the answer.
    pub(crate) fn ask_admin(
        &mut self,
        store: u64,
        region: &Region,
        leader: Peer,
        admin: AdminCommand,
    ) {
        self.transcript.event(self.now, store, region.id.get(), format_args!("asked {admin:?}"));
        let header = Header {
            region: region.id,
            peer: leader,
            epoch: Some(region.epoch),
            term: 0,
            read_quorum: false,
            replica_read: false,
        };
        self.ask(store, Command { header, body: Body::Admin(admin) });
    }

    /// The running store with the leader of the highest term of `region`.
    #[must_use]
    pub fn leader_store(&self, region: u64) -> Option<u64> {
        let region = RegionId::new(region)?;
        self.nodes
            .keys()
            .filter_map(|store| {
                let status = self.peer_status(*store, region.get())?;
                status.is_leader.then_some((status.term, *store))
            })
            .max()
            .map(|(_, store)| store)
    }
}
