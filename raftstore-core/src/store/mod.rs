//! All peers of one lane, and the three doors: `handle`, `ready`, `on_persisted`.

pub mod bootstrap;
pub mod debug;

mod admit;
mod applied;
mod batch;
mod consistency;
mod duties;
mod forged;
mod inspect;
mod lifecycle;
mod log_gc;
mod message;
mod open;
mod placement;
mod round;
#[cfg(feature = "test-support")]
pub mod seed;
mod split;
mod start;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{Body, Command, Header, RegionError, RegionId, Response};
use transport_traits::{SnapDirection, SnapKey};

use self::{
    duties::TickSchedule,
    lifecycle::Destroying,
    round::RoundInFlight,
    split::{FirstMessages, Leftover},
    upkeep::Looked,
};
pub use self::{
    inspect::{PeerPhase, PeerStatus},
    open::StoreOptions,
};
use crate::{
    BuiltSnapshot, Event, FatalError, MonoTime, PdAnswer, ReplyId, StoreMetrics, Task, TaskDone,
    context::Context,
    hooks::{Hooks, NoHooks},
    meta::LaneId,
    peer::Peer,
};

/// The regions of one lane of a store. See the crate's documentation for the loop.
#[derive(Debug)]
pub struct Store<K: KvEngine, R: RaftEngine, H: Hooks = NoHooks> {
    ctx: Context<K, R, H>,
    peers: BTreeMap<RegionId, Peer<R>>,
    /// Peers whose records are being removed. No new incarnation is built before (R26).
    destroying: BTreeMap<RegionId, Destroying>,
    /// Rounds without a proof, oldest first.
    rounds: VecDeque<RoundInFlight>,
    last_round: u64,
    schedule: TickSchedule,
    /// Installed snapshots whose bytes are kept until the write under this number, which
    /// records the installation, is durable.
    spent: Vec<(SnapKey, u64)>,
    /// Quarantined regions whose record has to be written, with the reason.
    quarantine_records: Vec<(RegionId, String)>,
    /// The last round that holds such a record.
    quarantine_round: u64,
    /// Regions whose records could not be read at start.
    unreadable: Vec<RegionId>,
    /// Volume already reported to PD: bytes, keys.
    reported_written: (u64, u64),
    stopping: bool,
    /// Regions of this lane that are being hashed.
    hashing: u64,
    /// Messages of regions that a split has not put here yet.
    first_messages: FirstMessages,
    /// Data that splits have left to nobody, and that has to go.
    leftovers: Vec<Leftover>,
    /// Commit indexes that moved alone are written with the next round.
    flush_commits_due: bool,
}

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// The lane this is.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.ctx.lane
    }

    /// What this lane has done.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.ctx.metrics
    }

    /// Takes in one event. May read engines; writes, sends and spawns nothing.
    ///
    /// # Errors
    /// The store must stop: it may not be used again.
    pub fn handle(&mut self, now: MonoTime, event: Event) -> Result<(), FatalError> {
        self.ctx.now = self.ctx.now.max(now);
        match event {
            Event::Message { message, snapshot } => self.on_message(*message, snapshot)?,
            Event::Command { reply, command } => self.on_command(reply, command)?,
            Event::SplitRegion { reply, region, epoch, keys } => {
                self.on_split_wanted(reply, region, epoch, keys);
            }
            Event::SplitBorn(born) => self.on_split_born(*born)?,
            Event::Tick => self.on_tick(),
            Event::Unreachable { region, to } => {
                if let Some(peer) = self.peers.get_mut(&region).filter(|peer| peer.is_active()) {
                    peer.group.report_unreachable(to);
                    self.ctx.mark(region);
                }
            }
            Event::SnapshotStatus { region, to, status } => {
                if let Some(peer) = self.peers.get_mut(&region).filter(|peer| peer.is_active()) {
                    let ok = status == transport_traits::SnapshotStatus::Finished;
                    peer.group.report_snapshot(to, ok);
                    peer.discard_generated(&mut self.ctx);
                    self.ctx.mark(region);
                }
            }
            Event::Applied(events) => self.on_applied(events)?,
            Event::KvDurable(number) => self.on_kv_durable(number),
            Event::TaskDone(TaskDone::Built { region, incarnation, built }) => {
                self.on_built(region, incarnation, built);
            }
            Event::TaskDone(TaskDone::Installed { region, incarnation, outcome }) => {
                self.on_installed(region, incarnation, outcome);
            }
            Event::TaskDone(TaskDone::SplitChecked {
                region,
                incarnation,
                version,
                goal: _,
                size_bytes,
                keys,
            }) => {
                self.on_looked(Looked { region, incarnation, version, size_bytes, keys });
            }
            Event::TaskDone(TaskDone::RangeDeleted { region }) => {
                self.ctx.meta.leftover_removed(region);
            }
            Event::TaskDone(TaskDone::Hashed { region, incarnation, index, hash }) => {
                self.on_hashed(region, incarnation, index, hash)?;
            }
            Event::Pd(PdAnswer::SplitIds { region, ask, ids }) => {
                self.on_split_ids(region, ask, ids)?;
            }
            Event::Pd(PdAnswer::Order(order)) => self.on_order(order)?,
            Event::Pd(PdAnswer::Validated { region, peer, route }) => {
                self.on_validated(region, peer, route);
            }
            Event::DiskUsage(usage) => self.ctx.disk = usage,
            Event::Stop => self.on_stop(),
            Event::BatchSnapshot { reply, commands } => self.on_batch_snapshot(reply, &commands)?,
        }
        Ok(())
    }

    /// A client's command: address first, then the peer decides.
    fn on_command(&mut self, reply: ReplyId, command: Command) -> Result<(), FatalError> {
        if let Err(error) = self.check_address(&command.header) {
            self.ctx.refuse(reply, 0, error);
            return Ok(());
        }
        let ctx = &mut self.ctx;
        let Some(peer) = self.peers.get_mut(&command.header.region) else {
            ctx.refuse(reply, 0, RegionError::RegionNotFound { region: command.header.region });
            return Ok(());
        };
        if let Body::Status(question) = &command.body {
            let response: Response = peer.status(*question);
            ctx.answer(reply, response);
            return Ok(());
        }
        peer.on_command(ctx, Some(reply), command)
    }

    /// Whether a command that came here was meant to.
    fn check_address(&self, header: &Header) -> Result<(), RegionError> {
        if self.stopping {
            return Err(RegionError::Stopping);
        }
        if header.peer.store != self.ctx.store {
            return Err(RegionError::StoreNotMatch {
                asked: header.peer.store,
                here: self.ctx.store,
            });
        }
        Ok(())
    }

    /// A region snapshot was built, or could not be.
    fn on_built(&mut self, region: RegionId, incarnation: u64, built: Option<BuiltSnapshot>) {
        let ctx = &mut self.ctx;
        let peer = self.peers.get_mut(&region).filter(|peer| peer.incarnation == incarnation);
        match (peer, built) {
            (Some(peer), built) => peer.on_built(ctx, built),
            (None, Some(nobodys)) => ctx.effects.tasks.push(Task::DeleteSnapshot {
                direction: SnapDirection::Generated,
                key: nobodys.key,
            }),
            (None, None) => {}
        }
    }

    /// Answers everybody and takes nothing more.
    fn on_stop(&mut self) {
        self.stopping = true;
        for peer in self.peers.values_mut() {
            peer.withdraw_view();
            peer.answer_all(&mut self.ctx, &RegionError::Stopping);
        }
    }

    /// Takes a peer out of service whose log could not be read (D15). The storage view has
    /// answered raft short; what raft made of that is less than it might, never wrong.
    fn check_damage(&mut self, region: RegionId) -> Result<(), FatalError> {
        let Some(peer) = self.peers.get(&region) else {
            return Ok(());
        };
        match peer.group.storage().take_damage() {
            None => Ok(()),
            Some(error @ engine_traits::Error::CorruptLog { .. }) => {
                self.quarantine(region, &error.to_string());
                Ok(())
            }
            Some(source) => Err(FatalError {
                doing: "reading the raft log",
                region: Some(region),
                source: source.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
