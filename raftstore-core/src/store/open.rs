//! Opening a store: what recovery found, turned into peers on their lanes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{DiskUsage, StoreId};
use transport_traits::{SnapDirection, SnapKey};

use super::{
    Store,
    duties::TickSchedule,
    split::FirstMessages,
    start::{self, RecoveredPeer, Recovery},
};
use crate::{
    Config, Effects, FatalError, MonoTime, StoreMeta, StoreMetrics, Task,
    context::{Attention, Context},
    hooks::Hooks,
    meta::LaneId,
    observe::{Cause, Observers, RegionEvent},
    peer::{Birth, Peer, TracingDrain},
    view::Views,
};

/// What a store is opened with.
#[derive(Debug)]
pub struct StoreOptions<K, R, H> {
    /// Validated settings.
    pub config: Arc<Config>,
    /// Whose engines these are; bootstrap has found out.
    pub store: StoreId,
    /// The data engine.
    pub kv: K,
    /// The raft logs.
    pub raft: R,
    /// Shared by the lanes, fresh for each opening.
    pub meta: Arc<StoreMeta>,
    /// Read views, fresh for each opening.
    pub views: Arc<Views>,
    /// Received region snapshots at rest, with their sizes in bytes.
    pub received: Vec<(SnapKey, u64)>,
    /// Planted bugs, or [`NoHooks`](crate::NoHooks).
    pub hooks: H,
    /// Who else is told and asked. The apply workers get the same.
    pub observers: Observers,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// Recovers what the engines hold and gives one value per lane, as many as
    /// `config.lanes` says. Writes to the engines what recovery has to repair, synced.
    ///
    /// # Errors
    /// If an engine fails, or its records contradict each other so that the store as a
    /// whole cannot be trusted.
    pub fn open(options: StoreOptions<K, R, H>, now: MonoTime) -> Result<Vec<Self>, FatalError> {
        let recovery = start::recover(&options.kv, &options.raft, options.store, &options.hooks)?;
        let mut lanes: Vec<Self> = (0..options.config.lanes)
            .map(|lane| Self::empty(&options, LaneId(lane), now))
            .collect();
        let unneeded = unneeded_snapshots(&options.received, &recovery);
        let Recovery { peers, applying, quarantined, tombstones, votes, gaps } = recovery;
        for (region, peer) in votes {
            options.meta.remember_vote(region, peer);
        }
        tracing::info!(
            store = %options.store,
            peers = peers.len(),
            applying = applying.len(),
            quarantined = quarantined.len(),
            tombstones,
            "store opened"
        );
        let first = &mut lanes[0];
        first.unreadable = quarantined.iter().map(|(region, _)| *region).collect();
        for (start, end) in gaps {
            first.ctx.effects.tasks.push(Task::DeleteRange { start, end, left_by: None });
        }
        for key in unneeded {
            let direction = SnapDirection::Received;
            first.ctx.effects.tasks.push(Task::DeleteSnapshot { direction, key });
        }
        for recovered in peers {
            Self::lane_of(&mut lanes, &recovered).adopt(recovered, false)?;
        }
        for recovered in applying {
            Self::lane_of(&mut lanes, &recovered).adopt(recovered, true)?;
        }
        Ok(lanes)
    }

    fn lane_of<'a>(lanes: &'a mut [Self], recovered: &RecoveredPeer) -> &'a mut Self {
        let count = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
        &mut lanes[usize::from(LaneId::of(recovered.region.id, count).0)]
    }

    fn empty(options: &StoreOptions<K, R, H>, lane: LaneId, now: MonoTime) -> Self {
        let numbers = &options.meta.numbers;
        let ctx = Context {
            config: Arc::clone(&options.config),
            store: options.store,
            lane,
            kv: options.kv.clone(),
            raft: options.raft.clone(),
            meta: Arc::clone(&options.meta),
            views: Arc::clone(&options.views),
            hooks: options.hooks.clone(),
            observers: options.observers.clone(),
            logger: slog::Logger::root(TracingDrain, slog::o!()),
            now,
            started: now,
            effects: Effects::default(),
            dirty: BTreeSet::new(),
            received: options.received.iter().copied().collect(),
            kv_durable: numbers.durable(),
            kv_sync_asked: false,
            kv_waiters: BTreeMap::new(),
            kv_unsynced_bytes: 0,
            kv_sync_wanted: 0,
            in_flight_bytes: 0,
            rounds_in_flight: 0,
            attention: Attention::default(),
            looks_under_way: 0,
            lock_cf_bytes: 0,
            was_slow: false,
            disk: DiskUsage::Normal,
            apply_backlog_bytes: 0,
            metrics: StoreMetrics::default(),
        };
        Self {
            schedule: TickSchedule::new(&options.config),
            ctx,
            peers: BTreeMap::new(),
            destroying: BTreeMap::new(),
            rounds: VecDeque::new(),
            last_round: 0,
            spent: Vec::new(),
            quarantine_records: Vec::new(),
            quarantine_round: 0,
            unreadable: Vec::new(),
            reported_written: (0, 0),
            stopping: false,
            hashing: 0,
            first_messages: FirstMessages::default(),
            leftovers: Vec::new(),
            flush_commits_due: false,
        }
    }

    /// Builds a recovered peer.
    fn adopt(&mut self, recovered: RecoveredPeer, applying: bool) -> Result<(), FatalError> {
        let ctx = &mut self.ctx;
        let RecoveredPeer { region, peer, local, apply, last_term } = recovered;
        let id = region.id;
        ctx.meta.register(&region);
        let birth = Birth { region, replica: peer, local, applied: apply, last_term };
        let mut peer = Peer::new(ctx, birth)?;
        peer.tell_region(ctx, RegionEvent::Created(Cause::Opened));
        if applying {
            peer.resume_intake(ctx);
        } else {
            peer.find_open_splits(ctx)?;
            peer.register_applier(ctx);
            if peer.group.is_sole_voter() {
                // Nobody else can have been promised anything.
                peer.group.campaign();
                ctx.metrics.campaigns += 1;
            }
        }
        peer.sync_role(ctx);
        ctx.mark(id);
        self.peers.insert(id, peer);
        Ok(())
    }
}

/// Received snapshots that no interrupted installation needs.
fn unneeded_snapshots(received: &[(SnapKey, u64)], recovery: &Recovery) -> Vec<SnapKey> {
    let needed: BTreeSet<SnapKey> = recovery
        .applying
        .iter()
        .map(|peer| SnapKey {
            region: peer.region.id,
            term: peer.apply.truncated.term,
            index: peer.apply.truncated.index,
        })
        .collect();
    received.iter().map(|(key, _)| *key).filter(|key| !needed.contains(key)).collect()
}
