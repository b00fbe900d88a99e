//! Parts of a store's work that a scenario can have stand still, as a slow device would, only
//! longer. What comes to such a part waits there, in order, until it goes on. And how full its
//! disk is.

use raftstore_core::Event;
use raftstore_proto::DiskUsage;

use super::{NodeStep, World, node::Input};

/// A part of a store's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Executing committed entries.
    Apply,
    /// Writing rounds.
    Write,
    /// Making the data engine durable.
    KvSync,
    /// Installing region snapshots and removing ranges.
    RegionWork,
    /// Building region snapshots.
    Build,
}

impl Stage {
    /// Where a step begins its work, if it does.
    const fn of(step: &NodeStep) -> Option<Self> {
        match step {
            NodeStep::Apply(_) => Some(Self::Apply),
            NodeStep::Write => Some(Self::Write),
            NodeStep::SyncKv(_) => Some(Self::KvSync),
            NodeStep::Region => Some(Self::RegionWork),
            NodeStep::Build => Some(Self::Build),
            NodeStep::Tick(_)
            | NodeStep::Turn(_)
            | NodeStep::Proofs(_)
            | NodeStep::Applied(..)
            | NodeStep::RegionDone(_)
            | NodeStep::Check
            | NodeStep::Hash
            | NodeStep::KvDurable(_)
            | NodeStep::Event(_) => None,
        }
    }
}

impl World {
    /// Has a part of a store's work stand still until it is told to go on, or the store ends.
    pub fn stand_still(&mut self, store: u64, stage: Stage) {
        self.transcript.event(self.now, store, 0, format_args!("{stage:?} stands still"));
        if let Some(node) = self.nodes.get_mut(&store) {
            node.still.insert(stage);
        }
    }

    /// Lets a part of a store's work go on.
    pub fn go_on(&mut self, store: u64, stage: Stage) {
        self.transcript.event(self.now, store, 0, format_args!("{stage:?} goes on"));
        let Some(node) = self.nodes.get_mut(&store) else { return };
        node.still.remove(&stage);
        let (go, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut node.waiting_steps)
            .into_iter()
            .partition(|step| Stage::of(step).is_some_and(|of| of == stage));
        node.waiting_steps = wait;
        for step in go {
            self.node_after(0, store, step);
        }
    }

    /// Tells a store how full it is, in its present life.
    pub fn fill(&mut self, store: u64, usage: DiskUsage) {
        self.transcript.event(self.now, store, 0, format_args!("room: {usage:?}"));
        let lanes = self.nodes[&store].running.as_ref().map_or(0, |running| running.lanes.len());
        for lane in 0..lanes {
            self.push(store, lane, Input::Event(Event::DiskUsage(usage)));
        }
    }

    /// Whether something waits where a part of a store's work stands still.
    #[must_use]
    pub fn waits_at(&self, store: u64, stage: Stage) -> bool {
        self.nodes[&store].waiting_steps.iter().any(|step| Stage::of(step) == Some(stage))
    }

    /// A store that is to stop in order must be able to end what it has begun.
    pub(super) fn let_all_go_on(&mut self, store: u64) {
        let still = self.nodes.get(&store).map(|node| node.still.clone()).unwrap_or_default();
        for stage in still {
            self.go_on(store, stage);
        }
    }

    /// Keeps a step back if its part of the store's work stands still.
    pub(super) fn keep_back(&mut self, store: u64, step: NodeStep) -> Option<NodeStep> {
        let Some(node) = self.nodes.get_mut(&store).filter(|node| !node.still.is_empty()) else {
            return Some(step);
        };
        if Stage::of(&step).is_some_and(|stage| node.still.contains(&stage)) {
            node.waiting_steps.push(step);
            return None;
        }
        Some(step)
    }
}
