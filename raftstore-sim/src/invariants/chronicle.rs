//! What a store's observers are told is in order and complete: whoever believes it knows the
//! store's regions at every moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use raftstore_core::observe::{
    AppliedBatch, Observer, RegionChange, RegionEvent, Role, RoleChange, SnapshotApplied,
};
use raftstore_proto::{Peer, Region};

use super::Violation;

/// The name of the sentence.
const SENTENCE: &str = "observers are told everything, in order";

/// An observer that believes what it is told.
#[derive(Clone, Debug, Default)]
pub struct Chronicle(Arc<Mutex<Told>>);

/// What was told of one life of a store.
#[derive(Debug, Default)]
struct Told {
    lines: Vec<Line>,
    regions: BTreeMap<u64, (Region, Peer)>,
    /// Role, term and leader of each region's peer.
    roles: BTreeMap<u64, (Role, u64, u64)>,
    /// What cannot follow what was told before.
    fault: Option<String>,
}

/// One change of a region, as told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What happened.
    pub event: RegionEvent,
    /// The region after it.
    pub region: Region,
    /// The peer here.
    pub peer: Peer,
}

impl Chronicle {
    /// The changes of regions in this life, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.told().lines.clone()
    }

    /// Whether something was told that cannot follow what was told before.
    ///
    /// # Errors
    /// If so.
    pub fn check_order(&self) -> Result<(), Violation> {
        match self.told().fault.take() {
            None => Ok(()),
            Some(fault) => Err(Violation::new(SENTENCE, fault)),
        }
    }

    /// Whether `region` is as was told last.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_region(&self, region: &Region) -> Result<(), Violation> {
        let told = self.told();
        let known = told.regions.get(&region.id.get()).map(|(region, _)| region);
        if known == Some(region) {
            return Ok(());
        }
        Err(Violation::new(SENTENCE, format!("{region:?} is here, told was {known:?}")))
    }

    /// Whether there are `count` regions.
    ///
    /// # Errors
    /// If there are not.
    pub fn check_count(&self, count: usize) -> Result<(), Violation> {
        let told = self.told();
        if told.regions.len() == count {
            return Ok(());
        }
        let known: Vec<&u64> = told.regions.keys().collect();
        Err(Violation::new(SENTENCE, format!("{count} regions are here, told was {known:?}")))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl Told {
    fn wrong(&mut self, detail: String) {
        self.fault.get_or_insert(detail);
    }

    fn take_in(&mut self, change: &RegionChange<'_>) {
        let RegionChange { region, peer, event } = *change;
        let id = region.id.get();
        let before = self.regions.get(&id).cloned();
        let fits = match (event, &before) {
            (RegionEvent::Created(_), None) => region.peer(peer.id).is_some(),
            (RegionEvent::Updated(_), Some((known, own))) => {
                !region.epoch.is_stale_against(&known.epoch) && region != known && own.id == peer.id
            }
            (RegionEvent::Destroyed(_), Some((known, own))) => region == known && own.id == peer.id,
            _ => false,
        };
        if !fits {
            self.wrong(format!("{change:?} after {before:?}"));
        }
        if matches!(event, RegionEvent::Destroyed(_)) {
            self.regions.remove(&id);
            self.roles.remove(&id);
        } else {
            self.regions.insert(id, (region.clone(), peer));
        }
        self.lines.push(Line { event, region: region.clone(), peer });
    }
}

impl Observer for Chronicle {
    fn name(&self) -> &'static str {
        "chronicle"
    }

    fn start(&self) {
        *self.told() = Told::default();
    }

    fn role_changed(&self, change: &RoleChange<'_>) {
        let RoleChange { region, role, term, leader, .. } = *change;
        let mut told = self.told();
        if !told.regions.contains_key(&region.id.get()) {
            // Without data it may be replaced by another, of which no region tells.
            return;
        }
        let before = told.roles.insert(region.id.get(), (role, term, leader));
        let is_news = before != Some((role, term, leader));
        let leads_itself = role != Role::Leader || leader == change.peer.id.get();
        if !is_news || !leads_itself {
            told.wrong(format!("{change:?} after {before:?}"));
        }
    }

    fn region_changed(&self, change: &RegionChange<'_>) {
        self.told().take_in(change);
    }

    fn snapshot_applied(&self, snapshot: &SnapshotApplied<'_>) {
        let mut told = self.told();
        let known = told.regions.get(&snapshot.region.id.get()).map(|(region, _)| region);
        if known != Some(snapshot.region) {
            let detail = format!("{snapshot:?} of {known:?}");
            told.wrong(detail);
        }
    }

    fn applied(&self, batch: &AppliedBatch<'_>) {
        let indexes = batch.commands.iter().map(|command| command.index);
        let last = indexes.clone().next_back();
        if !indexes.is_sorted_by(|a, b| a < b) || last.is_none_or(|it| it > batch.state.applied) {
            self.told().wrong(format!("{batch:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use raftstore_core::observe::Cause;
    use raftstore_proto::{Epoch, PeerId, RegionId, StoreId};

    use super::*;

    const OWN: Peer = Peer::voter(PeerId::must(2), StoreId::must(1));

    fn region(version: u64) -> Region {
        let epoch = Epoch { conf_ver: 1, version };
        Region { epoch, peers: vec![OWN], ..Region::uninitialized(RegionId::must(1)) }
    }

    fn after(events: &[(RegionEvent, u64)]) -> Chronicle {
        let chronicle = Chronicle::default();
        for (event, version) in events {
            let region = region(*version);
            chronicle.region_changed(&RegionChange { region: &region, peer: OWN, event: *event });
        }
        chronicle
    }

    #[test]
    fn a_life_in_order_is_believed() {
        let created = RegionEvent::Created(Cause::Opened);
        let updated = RegionEvent::Updated(Cause::Split);
        let chronicle = after(&[(created, 1), (updated, 2)]);
        assert_eq!(chronicle.check_order(), Ok(()));
        assert_eq!(chronicle.check_region(&region(2)), Ok(()));
        assert!(chronicle.check_region(&region(1)).is_err());
        assert_eq!(chronicle.check_count(1), Ok(()));
        assert!(chronicle.check_count(2).is_err());
        chronicle.start();
        assert_eq!(chronicle.check_count(0), Ok(()));
    }

    #[test]
    fn what_cannot_follow_is_a_fault() {
        let created = RegionEvent::Created(Cause::Opened);
        let updated = RegionEvent::Updated(Cause::Split);
        let destroyed = RegionEvent::Destroyed(Cause::Removed);
        for events in [
            &[(updated, 1)][..],
            &[(destroyed, 1)],
            &[(created, 1), (created, 1)],
            &[(created, 1), (updated, 1)],
            &[(created, 2), (updated, 1)],
            &[(created, 1), (destroyed, 2)],
            &[(created, 1), (destroyed, 1), (updated, 2)],
        ] {
            assert!(after(events).check_order().is_err(), "{events:?}");
        }
    }
}
