//! The placement driver of a simulated world: stepped directly, sometimes away.

use std::collections::BTreeMap;

use pd_client::{
    Order, StoreInfo, StoreLifecycle,
    mock::{PdConfig, PdCore},
};
use raftstore_core::{Event, PdAnswer, PdRequest, StoreReport};
use raftstore_proto::{ClusterId, StoreId};

use crate::{
    counters::Sometimes,
    plan::Plan,
    queue::{MICRO, MILLI, Nanos, SECOND},
    rng::Rng,
    world::{NodeStep, World},
};

/// How late a late answer is, at most.
const LATE: Nanos = 10 * SECOND;

/// Capacity every store claims.
const CAPACITY: u64 = 1 << 40;

/// PD, and when it can be reached.
#[derive(Debug)]
pub struct Pd {
    /// PD itself.
    pub core: PdCore,
    /// Nobody gets an answer before this moment.
    pub absent_until: Nanos,
    /// How often a store has asked whether a peer of its own is still a member.
    pub validations: u64,
    /// What the lanes of each store said in its present life.
    reports: BTreeMap<u64, (u64, StoreReport)>,
}

/// PD's clock.
const fn ms(now: Nanos) -> u64 {
    now / MILLI
}

impl Pd {
    /// A PD for the cluster of `plan`; it knows nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let config = PdConfig {
            schedule: plan.pd_schedules,
            max_replicas: usize::try_from(plan.replicas).unwrap_or(3),
            max_store_down_ms: 20_000,
            store_silent_ms: 5_000,
            operator_timeout_ms: 15_000,
            transfer_timeout_ms: 10_000,
            hot_rest_ms: 15_000,
            joint_replacement: Rng::fork(plan.seed, "pd").chance(500),
            ..PdConfig::default()
        };
        Self {
            core: PdCore::new(ClusterId::must(1), config),
            absent_until: 0,
            validations: 0,
            reports: BTreeMap::new(),
        }
    }

    /// A store has started and says who it is.
    pub fn store_started(&mut self, now: Nanos, store: u64) {
        let info = StoreInfo {
            id: StoreId::must(store),
            address: format!("s{store}"),
            labels: Vec::new(),
            lifecycle: StoreLifecycle::Up,
        };
        // Before the bootstrap nobody may, afterwards nothing speaks against it.
        let _ = self.core.put_store(ms(now), info);
    }

    /// An id that nobody has.
    pub const fn alloc_id(&mut self) -> u64 {
        self.core.alloc_id()
    }
}

impl World {
    /// A store's question or report reaches PD.
    pub(crate) fn pd_step(&mut self, store: u64, life: u64, request: PdRequest) {
        if self.pd.absent_until > self.now {
            // Somebody waits for an answer to this one, so the client gives up in time.
            if let PdRequest::AskSplit { ask, region, .. } = request {
                let answer = PdAnswer::SplitIds { region: region.id, ask, ids: None };
                self.tell_from_pd(store, life, answer);
            }
            return;
        }
        let now = ms(self.now);
        let answer = match request {
            PdRequest::RegionHeartbeat(heartbeat) => {
                let region = heartbeat.region.id.get();
                match self.pd.core.region_heartbeat(now, heartbeat) {
                    Ok(Some(order)) => {
                        self.counters.hit(Sometimes::PdOrders);
                        self.transcript.event(
                            self.now,
                            store,
                            region,
                            format_args!("PD orders {:?}", order.action),
                        );
                        Some(PdAnswer::Order(order))
                    }
                    Ok(None) | Err(_) => None,
                }
            }
            PdRequest::StoreHeartbeat { lane, stats } => {
                let report = self.pd.reports.entry(store).or_default();
                if report.0 != life {
                    *report = (life, StoreReport::default());
                }
                if let Some(mut stats) = report.1.add(lane, stats) {
                    stats.capacity_bytes = CAPACITY;
                    stats.available_bytes = CAPACITY / 2;
                    stats.used_bytes = CAPACITY / 2;
                    // A store PD does not know yet comes back with its next start.
                    let _ = self.pd.core.store_heartbeat(now, stats);
                }
                None
            }
            PdRequest::AskSplit { ask, region, count } => {
                let ids = self.pd.core.ask_split(&region, count).ok();
                Some(PdAnswer::SplitIds { region: region.id, ask, ids })
            }
            PdRequest::ReportSplit(regions) => {
                // Informational: the regions report themselves too.
                let _ = self.pd.core.report_split(regions);
                None
            }
            PdRequest::ValidatePeer { region, peer } => {
                self.pd.validations += 1;
                let route = self.pd.core.region_by_id(region);
                Some(PdAnswer::Validated { region, peer, route })
            }
        };
        if let Some(answer) = answer {
            self.tell_from_pd(store, life, answer);
        }
    }

    fn tell_from_pd(&mut self, store: u64, life: u64, answer: PdAnswer) {
        if self.nodes.get(&store).is_none_or(|node| node.life != life) {
            return;
        }
        let weather = self.plan.pd_weather;
        if self.pace_rng.chance(weather.repeat) {
            self.counters.hit(Sometimes::PdRepeats);
            let delay = self.pace_rng.below(LATE);
            self.node_after(delay, store, NodeStep::Event(Event::Pd(answer.clone())));
        }
        let delay = if self.pace_rng.chance(weather.late) {
            self.counters.hit(Sometimes::PdLate);
            self.pace_rng.below(LATE)
        } else {
            300 * MICRO + self.pace_rng.exponential(weather.mean_delay)
        };
        self.node_after(delay, store, NodeStep::Event(Event::Pd(answer)));
    }

    /// Hands an order to a store as if PD had just given it.
    pub fn order(&mut self, store: u64, order: Order) {
        self.node_after(0, store, NodeStep::Event(Event::Pd(PdAnswer::Order(order))));
    }
}
