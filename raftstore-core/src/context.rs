//! What every part of a store may use while it handles one event.

mod attention;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{DiskUsage, RegionError, RegionId, Response, StoreId};

pub(crate) use self::attention::Attention;
use crate::{
    Config, Dropped, Effects, MonoTime, ReplyId, StoreMeta, StoreMetrics, Task, hooks::Hooks,
    meta::LaneId, observe::Observers, view::Views,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Context<K, R, H> {
    pub(crate) config: Arc<Config>,
    pub(crate) store: StoreId,
    pub(crate) lane: LaneId,
    pub(crate) kv: K,
    pub(crate) raft: R,
    pub(crate) meta: Arc<StoreMeta>,
    pub(crate) views: Arc<Views>,
    pub(crate) hooks: H,
    pub(crate) observers: Observers,
    pub(crate) logger: slog::Logger,
    /// The newest moment the driver told of.
    pub(crate) now: MonoTime,
    /// When this store was opened.
    pub(crate) started: MonoTime,
    /// What the events since the last `ready` ask for.
    pub(crate) effects: Effects,
    /// Peers that a message, a tick or a result touched.
    pub(crate) dirty: BTreeSet<RegionId>,
    /// Received snapshots at rest, with their sizes.
    pub(crate) received: BTreeMap<transport_traits::SnapKey, u64>,
    /// Every KV write up to this number is durable.
    pub(crate) kv_durable: u64,
    /// A sync was asked for and has not come back.
    pub(crate) kv_sync_asked: bool,
    /// Peers to visit once the KV engine is durable up to a number.
    pub(crate) kv_waiters: BTreeMap<u64, Vec<RegionId>>,
    /// Bytes applied since the last sync was asked for.
    pub(crate) kv_unsynced_bytes: u64,
    /// The largest KV number somebody waits for.
    pub(crate) kv_sync_wanted: u64,
    /// Bytes of log writes that have no proof yet.
    pub(crate) in_flight_bytes: u64,
    /// Rounds that have no proof yet.
    pub(crate) rounds_in_flight: usize,
    /// Which regions each duty has to look at.
    pub(crate) attention: Attention,
    /// Looks that have not ended.
    pub(crate) looks_under_way: usize,
    /// Bytes written to the lock family since it was last compacted.
    pub(crate) lock_cf_bytes: u64,
    /// A round has lasted as long as an election timeout since the last report.
    pub(crate) was_slow: bool,
    /// How full the store is.
    pub(crate) disk: DiskUsage,
    /// Bytes of committed entries given to apply and not yet applied.
    pub(crate) apply_backlog_bytes: u64,
    pub(crate) metrics: StoreMetrics,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Context<K, R, H> {
    /// Has `region` visited by the next `ready`.
    pub(crate) fn mark(&mut self, region: RegionId) {
        self.dirty.insert(region);
    }

    /// Answers a caller.
    pub(crate) fn answer(&mut self, reply: ReplyId, response: Response) {
        self.effects.answers.push((reply, response));
    }

    /// Refuses a caller.
    pub(crate) fn refuse(&mut self, reply: ReplyId, term: u64, error: RegionError) {
        self.answer(reply, Response::error(term, error));
    }

    /// Counts a message that is not acted on.
    pub(crate) fn drop_message(&mut self, region: Option<RegionId>, reason: Dropped) {
        self.metrics.count_dropped(reason);
        tracing::debug!(?region, ?reason, "message dropped");
    }

    /// Somebody waits until the KV engine is durable up to `number`.
    pub(crate) fn want_kv_durable(&mut self, number: u64) {
        self.kv_sync_wanted = self.kv_sync_wanted.max(number);
        self.ask_kv_sync();
    }

    /// Has `region` visited once the KV engine is durable up to `number`. Nobody is in a
    /// hurry: the periodic sync will do.
    pub(crate) fn visit_when_durable(&mut self, region: RegionId, number: u64) {
        self.kv_waiters.entry(number).or_default().push(region);
    }

    /// Asks for a sync unless one is on its way or nothing waits.
    pub(crate) fn ask_kv_sync(&mut self) {
        if !self.kv_sync_asked && self.kv_sync_wanted > self.kv_durable {
            self.kv_sync_asked = true;
            self.effects.tasks.push(Task::SyncKv);
        }
    }

    /// Whether the disk or apply is too far behind to take more proposals or entries (R30).
    pub(crate) fn over_budget(&self) -> Option<raftstore_proto::BusyReason> {
        if self.in_flight_bytes > self.config.max_in_flight_bytes
            || self.rounds_in_flight > self.config.max_rounds_in_flight
        {
            return Some(raftstore_proto::BusyReason::Writes);
        }
        if self.apply_backlog_bytes > self.config.apply_backlog_bytes {
            return Some(raftstore_proto::BusyReason::Apply);
        }
        None
    }
}
