//! What is due at a tick: a pure schedule, and the duties themselves.

use std::{collections::BTreeSet, time::Duration};

use engine_traits::{KvEngine, RaftEngine};
use pd_client::StoreStats;
use raftstore_proto::{AdminCommand, DiskUsage, RegionId};

use super::{
    Store,
    log_gc::{self, LogProgress},
};
use crate::{Config, PdRequest, hooks::Hooks, peer::Peer};

/// A duty that comes round every so many base ticks. Zero is never.
#[derive(Clone, Copy, Debug)]
struct Every {
    ticks: u64,
    left: u64,
}

impl Every {
    const fn new(ticks: u64) -> Self {
        Self { ticks, left: ticks }
    }

    fn is_due(&mut self) -> bool {
        if self.ticks == 0 {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        let due = self.left == 0;
        if due {
            self.left = self.ticks;
        }
        due
    }
}

/// Which duties are due at the next base tick.
#[derive(Clone, Debug)]
pub(super) struct TickSchedule {
    log_gc: Every,
    pd_heartbeat: Every,
    pd_store_heartbeat: Every,
    kv_sync: Every,
    flush_commits: Every,
    split_check: Every,
    compact_check: Every,
    compact_locks: Every,
    snap_gc: Every,
    consistency: Every,
    lead_elsewhere: Every,
}

/// See [`TickSchedule::tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) log_gc: bool,
    pub(super) pd_heartbeat: bool,
    pub(super) pd_store_heartbeat: bool,
    pub(super) kv_sync: bool,
    pub(super) flush_commits: bool,
    pub(super) split_check: bool,
    pub(super) compact_check: bool,
    pub(super) compact_locks: bool,
    pub(super) snap_gc: bool,
    pub(super) consistency: bool,
    pub(super) lead_elsewhere: bool,
}

impl TickSchedule {
    pub(super) fn new(config: &Config) -> Self {
        let at_least_one = |interval: Duration| Every::new(config.ticks(interval).max(1));
        Self {
            log_gc: Every::new(config.ticks(config.raft_log_gc_tick_interval)),
            pd_heartbeat: Every::new(config.ticks(config.pd_heartbeat_tick_interval)),
            pd_store_heartbeat: Every::new(config.ticks(config.pd_store_heartbeat_tick_interval)),
            kv_sync: at_least_one(config.kv_sync_interval),
            flush_commits: Every::new(config.raft_election_timeout_ticks as u64),
            split_check: Every::new(config.ticks(config.split_region_check_tick_interval)),
            compact_check: Every::new(config.ticks(config.region_compact_check_interval)),
            compact_locks: Every::new(config.ticks(config.lock_cf_compact_interval)),
            snap_gc: Every::new(config.ticks(config.snap_mgr_gc_tick_interval)),
            // One region of the store at a time: lanes take turns.
            consistency: Every::new(
                config.ticks(config.consistency_check_interval) * u64::from(config.lanes),
            ),
            // An attempt takes up to one election timeout, in which nothing is proposed.
            lead_elsewhere: Every::new(4 * config.raft_election_timeout_ticks as u64),
        }
    }

    /// One base tick has passed.
    pub(super) fn tick(&mut self) -> Due {
        Due {
            log_gc: self.log_gc.is_due(),
            pd_heartbeat: self.pd_heartbeat.is_due(),
            pd_store_heartbeat: self.pd_store_heartbeat.is_due(),
            kv_sync: self.kv_sync.is_due(),
            flush_commits: self.flush_commits.is_due(),
            split_check: self.split_check.is_due(),
            compact_check: self.compact_check.is_due(),
            compact_locks: self.compact_locks.is_due(),
            snap_gc: self.snap_gc.is_due(),
            consistency: self.consistency.is_due(),
            lead_elsewhere: self.lead_elsewhere.is_due(),
        }
    }
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    pub(super) fn on_tick(&mut self) {
        if self.stopping {
            return;
        }
        let due = self.schedule.tick();
        self.tick_raft();
        self.end_joint_configurations();
        if due.log_gc {
            self.cut_logs();
        }
        if due.split_check {
            self.check_splits();
        }
        if due.compact_check {
            self.compact_region();
        }
        if due.compact_locks {
            self.compact_locks();
        }
        if due.snap_gc {
            self.collect_snapshots();
        }
        if due.consistency {
            self.check_consistency();
        }
        if due.pd_heartbeat {
            self.heartbeat_regions();
        }
        if due.pd_store_heartbeat {
            self.heartbeat_store();
        }
        if due.kv_sync
            && let Some((number, _)) = self.ctx.kv_waiters.last_key_value()
        {
            let number = *number;
            self.ctx.want_kv_durable(number);
        }
        if due.lead_elsewhere && self.ctx.disk != DiskUsage::Normal {
            self.lead_elsewhere();
        }
        self.flush_commits_due |= due.flush_commits;
    }

    fn tick_raft(&mut self) {
        let ctx = &mut self.ctx;
        for peer in self.peers.values_mut() {
            ctx.metrics.ticked_peers += 1;
            if peer.going_away {
                continue;
            }
            if peer.quarantined {
                // It hears nobody any more: PD has to say when it was replaced (W12).
                peer.check_stale(ctx);
                continue;
            }
            if peer.is_active() {
                peer.tick(ctx);
                peer.check_pending(ctx);
            } else {
                ctx.mark(peer.region_id());
            }
            peer.check_stale(ctx);
        }
    }

    /// Has leaders propose a cut of their logs where one is due.
    fn cut_logs(&mut self) {
        let config = std::sync::Arc::clone(&self.ctx.config);
        let limits = log_gc::Limits {
            threshold: config.raft_log_gc_threshold,
            count: config.raft_log_gc_count_limit,
            bytes: config.raft_log_gc_size_limit,
        };
        let mut cuts: Vec<(RegionId, u64)> = Vec::new();
        let metrics = &mut self.ctx.metrics;
        let mut grown = std::mem::take(&mut self.ctx.attention.logs);
        metrics.duty_visits += grown.len() as u64;
        grown.retain(|region| {
            let Some(peer) = self.peers.get(region).filter(|peer| peer.is_leader()) else {
                return false;
            };
            if !peer.is_active() {
                return true;
            }
            let storage = peer.group.storage();
            let log = LogProgress {
                first: storage.first(),
                applied: peer.applied.applied,
                persisted: storage.persisted_index,
                slowest: peer.group.progress().map(|(_, p)| p.matched).min().unwrap_or(0),
                bytes: peer.log_bytes,
                snapshot_underway: peer.group.progress().any(|(_, p)| p.in_snapshot),
            };
            let last = peer.group.last_index();
            metrics.log_lag.record(last.saturating_sub(log.slowest));
            if let Some(index) = log_gc::cut_at(&log, &limits) {
                cuts.push((*region, index));
            }
            !log_gc::is_short(&log, last, &limits)
        });
        self.ctx.attention.logs = grown;
        for (region, index) in cuts {
            self.propose_cut(region, index);
        }
    }

    fn propose_cut(&mut self, region: RegionId, index: u64) {
        let term = self.peers.get(&region).and_then(|peer| peer.group.term_at(index));
        if let Some(term) = term {
            self.propose_own(region, AdminCommand::CompactLog { index, term });
        }
    }

    /// Proposes a command of the store's own, which nobody waits for.
    pub(super) fn propose_own(&mut self, region: RegionId, admin: AdminCommand) {
        let Some(peer) = self.peers.get_mut(&region) else {
            return;
        };
        let command = peer.own_command(admin);
        if let Err(error) = peer.on_command(&mut self.ctx, None, command) {
            // Only a read can fail here, and this is none.
            tracing::error!(%region, %error, "the store's own command not proposed");
        }
    }

    /// Has leaders end joint configurations that were not left (R40).
    fn end_joint_configurations(&mut self) {
        let ctx = &mut self.ctx;
        let mut joint = std::mem::take(&mut ctx.attention.joint);
        ctx.metrics.duty_visits += joint.len() as u64;
        joint.retain(|region| {
            let Some(peer) = self.peers.get_mut(region) else { return false };
            if peer.is_active()
                && let Some(admin) = peer.end_of_joint(ctx)
            {
                let command = peer.own_command(admin);
                if let Err(error) = peer.on_command(ctx, None, command) {
                    // As above.
                    tracing::error!(%region, %error, "joint configuration not left");
                }
            }
            peer.is_leader() && peer.region().is_joint()
        });
        ctx.attention.joint.append(&mut joint);
    }

    /// Has leaders hand over to members on stores that have room.
    fn lead_elsewhere(&mut self) {
        let ctx = &mut self.ctx;
        for peer in self.peers.values_mut().filter(|peer| peer.is_active()) {
            let Some(admin) = peer.leads_better(ctx) else { continue };
            let (region, command) = (peer.region_id(), peer.own_command(admin));
            if let Err(error) = peer.on_command(ctx, None, command) {
                // As above.
                tracing::error!(%region, %error, "leadership not moved off a full store");
            }
        }
    }

    fn heartbeat_regions(&mut self) {
        let ctx = &mut self.ctx;
        for region in &ctx.attention.led {
            let Some(peer) = self.peers.get_mut(region).filter(|peer| peer.is_active()) else {
                continue;
            };
            ctx.metrics.region_reports += 1;
            let heartbeat = peer.heartbeat(ctx);
            ctx.effects.pd.push(PdRequest::RegionHeartbeat(heartbeat));
        }
    }

    /// The lane's share of the store's report; the driver adds up the lanes and what only
    /// it can know.
    fn heartbeat_store(&mut self) {
        self.check_attention();
        let attention = &mut self.ctx.attention;
        let region_count = (self.peers.len() - attention.uninitialized.len()) as u64;
        self.ctx.metrics.regions = region_count;
        self.ctx.metrics.leaders = attention.led.len() as u64;
        self.ctx.metrics.duty_visits += attention.sending.len() as u64;
        let mut sending = 0;
        attention.sending.retain(|region| {
            let now = self.peers.get(region).map_or(0, Peer::sending_snapshots);
            sending += now;
            now > 0
        });
        let applying = attention.taking_in.len() as u64;
        let quarantined = attention.quarantined.iter();
        let damaged_regions = quarantined.chain(&self.unreadable).copied().collect();
        let written = (self.ctx.metrics.applied_bytes, self.ctx.metrics.applied_keys);
        let stats = StoreStats {
            store: self.ctx.store,
            capacity_bytes: self.ctx.config.capacity,
            available_bytes: 0,
            used_bytes: 0,
            region_count,
            sending_snapshots: sending as u64,
            receiving_snapshots: 0,
            applying_snapshots: applying,
            start_time_seconds: 0,
            is_busy: std::mem::take(&mut self.ctx.was_slow) || self.ctx.over_budget().is_some(),
            written_bytes: written.0 - self.reported_written.0,
            written_keys: written.1 - self.reported_written.1,
            damaged_regions,
        };
        self.reported_written = written;
        self.ctx.effects.pd.push(PdRequest::StoreHeartbeat { lane: self.ctx.lane, stats });
    }

    /// What the reports count by is what a walk over all peers would find. Only builds with
    /// debug assertions walk.
    fn check_attention(&self) {
        let all = |holds: fn(&Peer<R>) -> bool| -> BTreeSet<RegionId> {
            self.peers.iter().filter(|(_, peer)| holds(peer)).map(|(id, _)| *id).collect()
        };
        let attention = &self.ctx.attention;
        debug_assert_eq!(attention.led, all(Peer::is_leader));
        debug_assert_eq!(attention.uninitialized, all(|peer| !peer.is_initialized()));
        debug_assert_eq!(attention.taking_in, all(|peer| peer.intake.is_some()));
        debug_assert_eq!(attention.quarantined, all(|peer| peer.quarantined));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_comes_round_and_zero_never_does() {
        let mut third = Every::new(3);
        let due: Vec<bool> = (0..7).map(|_| third.is_due()).collect();
        assert_eq!(due, [false, false, true, false, false, true, false]);
        let mut never = Every::new(0);
        assert!((0..7).all(|_| !never.is_due()));
    }
}
