//! Who else wants to know, or to have a say: the embedder's observers of a store.
//!
//! Observers are called by the machines themselves, synchronously and with borrowed data, on
//! whatever thread drives the machine. They must not block: a lane or an apply worker waits
//! for them. A store without observers asks one question per place.
//!
//! Three hooks have a say. [`Observer::pre_admin`] and [`Observer::pre_query`] are asked by
//! the leader before it proposes, and may change or refuse what is proposed.
//! [`Observer::pre_apply_query`] is asked by *every* replica before it executes, and must do
//! the same on all of them, whatever their version: like the rules of execution themselves it
//! is a frozen format.
//!
//! The others are told what has happened. Of one region, what a lane tells ([`RoleChange`],
//! [`RegionChange`], [`SnapshotApplied`]) comes in its order, and so does what apply tells
//! ([`AppliedBatch`]). Between the two there is no order but that of indexes and epochs.
//!
//! A panic of an observer is one of the machine's: a node stops as after an engine failure.

mod memcomparable;
mod rows;

use std::{fmt, sync::Arc};

use raftstore_proto::{AdminCommand, ApplyState, Operation, Peer, Region, RegionError};

pub use memcomparable::{decode_bytes, encode_bytes};
pub use rows::RowSplits;
pub(crate) use rows::keep_rows_whole;

/// Called by a store's machines. Every hook does nothing unless it is overridden.
///
/// One value serves all lanes and apply workers of a store at once.
#[expect(unused_variables, reason = "the names say what the hooks get")]
pub trait Observer: Send + Sync + 'static {
    /// One word for logs.
    fn name(&self) -> &'static str;

    /// A store is about to be opened with this observer.
    fn start(&self) {}

    /// The store has stopped, or failed: nothing more is called.
    fn stop(&self) {}

    /// A leader is about to propose an admin command, be it the store's own. Whatever is made
    /// of it is checked as if it had been asked for.
    ///
    /// Not called for the transfer of leadership, which is not proposed.
    ///
    /// # Errors
    /// Nothing is proposed; the caller gets the error.
    fn pre_admin(
        &self,
        asked: &mut Asked<'_>,
        command: &mut AdminCommand,
    ) -> Result<(), RegionError> {
        Ok(())
    }

    /// A leader is about to propose writes. They must stay writes; keys outside of the region
    /// are refused when they are executed, as ever.
    ///
    /// # Errors
    /// Nothing is proposed; the caller gets the error.
    fn pre_query(
        &self,
        asked: &mut Asked<'_>,
        operations: &mut Vec<Operation>,
    ) -> Result<(), RegionError> {
        Ok(())
    }

    /// A replica is about to execute writes whose epoch fits. Everything that is done here must
    /// follow from the arguments alone, or replicas diverge. The rules of execution are
    /// applied to what comes out.
    fn pre_apply_query(&self, asked: &mut Asked<'_>, operations: &mut Vec<Operation>) {}

    /// A peer has another role, term or leader.
    fn role_changed(&self, change: &RoleChange<'_>) {}

    /// A region has come to this store, has changed, or has gone.
    fn region_changed(&self, change: &RegionChange<'_>) {}

    /// The data of an accepted snapshot is in the engine: it has replaced all data of the
    /// region.
    fn snapshot_applied(&self, snapshot: &SnapshotApplied<'_>) {}

    /// Writes of a region are in the engine, and their callers are not yet answered. After a
    /// restart those that were not durable come again: indexes tell.
    fn applied(&self, batch: &AppliedBatch<'_>) {}
}

/// What a hook that has a say may know and do besides.
#[derive(Debug)]
pub struct Asked<'a> {
    region: &'a Region,
    bypass: bool,
}

impl Asked<'_> {
    /// The region as of the last entry that was applied.
    #[must_use]
    pub const fn region(&self) -> &Region {
        self.region
    }

    /// Observers behind this one are not asked.
    pub const fn bypass(&mut self) {
        self.bypass = true;
    }
}

/// What a peer is in its raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It follows, or knows no leader.
    Follower,
    /// It asks whether it would be given votes.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// A peer has another role, term or leader. Told of every peer when it is built, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange<'a> {
    /// Range and members as far as applied.
    pub region: &'a Region,
    /// The peer here.
    pub peer: Peer,
    /// What it is now.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Id of the leader it knows; 0 for none.
    pub leader: u64,
}

/// A region has come to this store, has changed, or has gone.
///
/// Of each region there is one `Created`, any number of `Updated`, one `Destroyed`; then
/// perhaps a `Created` of a larger peer id. What a peer without data is told of is no region
/// yet: it is created with its first snapshot. When a store stops nothing is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionChange<'a> {
    /// Range and members after the change; for a region that has gone, as last known.
    ///
    /// The epoch of a region that changes is never less than before.
    pub region: &'a Region,
    /// The peer here. In the update that removes it, as it was.
    pub peer: Peer,
    /// What has happened.
    pub event: RegionEvent,
}

/// See [`RegionChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionEvent {
    /// It is here from now on.
    Created(Cause),
    /// Its range or its members have changed.
    Updated(Cause),
    /// Its peer here is gone; its data is being removed.
    Destroyed(Cause),
}

/// Why a region has come, has changed or has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It was found when the store was opened.
    Opened,
    /// A split, of it or of the region it was part of.
    Split,
    /// A membership change.
    Membership,
    /// A snapshot was accepted. Its data is not yet there.
    Snapshot,
    /// Its peer here has executed its own removal.
    Removed,
    /// Others, or PD, say that its peer here is no longer a member.
    NotListed,
    /// An accepted snapshot could not be installed.
    BadSnapshot,
}

/// The data of an accepted snapshot is in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotApplied<'a> {
    /// Range and members as of the snapshot.
    pub region: &'a Region,
    /// The peer here.
    pub peer: Peer,
    /// Where the data stands.
    pub state: ApplyState,
}

/// Writes that were executed, in order of their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedBatch<'a> {
    /// Range and members behind the last entry of the batch.
    pub region: &'a Region,
    /// Where the data stands.
    pub state: ApplyState,
    /// Commands that were executed. Those that were refused are not among them, nor are
    /// those of admins.
    pub commands: &'a [AppliedCommand],
}

/// One executed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// Index of its entry.
    pub index: u64,
    /// Term of its entry.
    pub term: u64,
    /// What was written.
    pub operations: Vec<Operation>,
}

/// The observers of a store, in the order in which they are called. Cheap to clone.
#[derive(Clone)]
pub struct Observers(Arc<[Registered]>);

#[derive(Clone)]
struct Registered {
    priority: u32,
    observer: Arc<dyn Observer>,
}

impl Default for Observers {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.0.iter().map(|it| (it.observer.name(), it.priority));
        f.debug_map().entries(named).finish()
    }
}

impl Observers {
    /// One more observer. Those of lower priority numbers are called first, those of the same
    /// in the order in which they were added.
    #[must_use]
    pub fn with(&self, priority: u32, observer: Arc<dyn Observer>) -> Self {
        let mut all = self.0.to_vec();
        let place = all.partition_point(|known| known.priority <= priority);
        all.insert(place, Registered { priority, observer });
        Self(all.into())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all that a store is about to be opened with them. The driver's to call, once.
    pub fn start(&self) {
        self.each(Observer::start);
    }

    /// Tells all that the store has ended. The driver's to call, once.
    pub fn stop(&self) {
        self.each(Observer::stop);
    }

    pub(crate) fn pre_admin(
        &self,
        region: &Region,
        command: &mut AdminCommand,
    ) -> Result<(), RegionError> {
        self.ask(region, |observer, asked| observer.pre_admin(asked, command))
    }

    pub(crate) fn pre_query(
        &self,
        region: &Region,
        operations: &mut Vec<Operation>,
    ) -> Result<(), RegionError> {
        self.ask(region, |observer, asked| observer.pre_query(asked, operations))
    }

    pub(crate) fn pre_apply_query(&self, region: &Region, operations: &mut Vec<Operation>) {
        let asked = self.ask(region, |observer, asked| {
            observer.pre_apply_query(asked, operations);
            Ok(())
        });
        debug_assert!(asked.is_ok(), "nobody can refuse here");
    }

    pub(crate) fn role_changed(&self, change: &RoleChange<'_>) {
        self.each(|observer| observer.role_changed(change));
    }

    pub(crate) fn region_changed(&self, region: &Region, peer: Peer, event: RegionEvent) {
        let change = RegionChange { region, peer, event };
        self.each(|observer| observer.region_changed(&change));
    }

    pub(crate) fn snapshot_applied(&self, snapshot: &SnapshotApplied<'_>) {
        self.each(|observer| observer.snapshot_applied(snapshot));
    }

    pub(crate) fn applied(&self, batch: &AppliedBatch<'_>) {
        self.each(|observer| observer.applied(batch));
    }

    fn each(&self, call: impl Fn(&dyn Observer)) {
        for registered in &*self.0 {
            call(&*registered.observer);
        }
    }

    /// In order, until one refuses or has those behind it left out.
    fn ask(
        &self,
        region: &Region,
        mut call: impl FnMut(&dyn Observer, &mut Asked<'_>) -> Result<(), RegionError>,
    ) -> Result<(), RegionError> {
        let mut asked = Asked { region, bypass: false };
        for registered in &*self.0 {
            call(&*registered.observer, &mut asked)?;
            if asked.bypass {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
