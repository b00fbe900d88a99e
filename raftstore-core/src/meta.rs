//! What the lanes of a store must agree on: key ranges, creations in flight, KV numbers.
//!
//! One lock, short sections, never held while an engine is called. Decisions about a
//! region's birth, replacement and end are made under it (architecture rule: by peer id,
//! never by conf_ver alone).

use std::collections::BTreeMap;

use bytes::Bytes;
use raftstore_proto::{PeerId, Region, RegionId};

use crate::sync::{AtomicU64, Mutex, Ordering};

/// One of the threads that share a store's regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u16);

impl LaneId {
    /// The lane of `region` when there are `lanes` of them. A fixed function of the id (W9).
    ///
    /// # Panics
    /// If `lanes` is 0.
    #[must_use]
    pub fn of(region: RegionId, lanes: u16) -> Self {
        assert!(lanes > 0, "a store has at least one lane");
        // Fibonacci hashing, so that ids allocated in steps still spread.
        let mixed = region.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        Self(u16::try_from(mixed % u64::from(lanes)).expect("less than lanes"))
    }
}

/// Numbers of the KV engine's writes (W4): each write takes its number after it returned;
/// a sync samples the counter before it calls the engine and publishes that sample.
#[derive(Debug, Default)]
pub struct KvNumbers {
    written: AtomicU64,
    durable: AtomicU64,
}

impl KvNumbers {
    /// The number of a write that has just returned. The first is 1.
    pub fn next_written(&self) -> u64 {
        self.written.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The number of the last write that has returned.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Records that a sync which sampled `number` has succeeded.
    pub fn publish_durable(&self, number: u64) {
        self.durable.fetch_max(number, Ordering::AcqRel);
    }

    /// Every write up to this number is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }
}

/// Shared by the lanes of one store.
#[derive(Debug, Default)]
pub struct StoreMeta {
    /// KV write numbers.
    pub numbers: KvNumbers,
    inner: Mutex<Inner>,
    incarnations: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Initialised regions by where they end; the key after every key stands for no end.
    by_end: BTreeMap<RangeEnd, RegionId>,
    /// The same regions by id.
    regions: BTreeMap<RegionId, Region>,
    /// Peers being created, or created and not yet recorded on disk.
    creating: BTreeMap<RegionId, Creation>,
    /// Ranges of snapshots that were admitted and are not yet registered (H17).
    pending_snapshots: BTreeMap<RegionId, Region>,
    /// Peers without data whose vote was on disk when the store was opened. They bind a
    /// split that would create an earlier incarnation.
    votes: BTreeMap<RegionId, PeerId>,
    /// Ranges that a split has left to nobody here, and whose data is not yet removed.
    leftovers: BTreeMap<RegionId, Region>,
}

/// A peer that exists, or is about to, before its region is recorded.
#[derive(Clone, Copy, Debug)]
struct Creation {
    peer: PeerId,
    stage: CreationStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CreationStage {
    /// It waits for its first snapshot.
    Waiting,
    /// It waits no more: its end has begun.
    Ending,
    /// A split has put it on disk, its lane has not built it yet. `replaces` says whether a
    /// peer that waits is there already.
    SplitBorn { replaces: bool },
}

/// End of a range in key order: an empty end is after every key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RangeEnd {
    Key(Bytes),
    Infinity,
}

impl RangeEnd {
    fn of(region: &Region) -> Self {
        if region.end_key.is_empty() { Self::Infinity } else { Self::Key(region.end_key.clone()) }
    }
}

impl StoreMeta {
    /// For one opening of a store. `life` is another number at each of them, in its low 32
    /// bits: incarnations are told apart over restarts too, since answers to what a former life
    /// had asked may still be on their way (R20).
    #[must_use]
    pub fn of_life(life: u64) -> Self {
        let this = Self::default();
        this.incarnations.fetch_max(life << 32, Ordering::AcqRel);
        this
    }

    /// A number no RawNode of this store was built under before (R20).
    pub(crate) fn next_incarnation(&self) -> u64 {
        self.incarnations.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Enters an initialised region, or moves it from its former range.
    ///
    /// # Panics
    /// If the range overlaps that of another region: the caller has admitted what it must not.
    pub(crate) fn register(&self, region: &Region) {
        let mut inner = self.inner.lock();
        let overlap = inner.first_overlap(region);
        assert!(overlap.is_none(), "region {region:?} overlaps {overlap:?}");
        inner.unregister(region.id);
        inner.by_end.insert(RangeEnd::of(region), region.id);
        inner.regions.insert(region.id, region.clone());
        inner.pending_snapshots.remove(&region.id);
        inner.creating.remove(&region.id);
    }

    /// Replaces what is known of a registered region whose range has not changed.
    pub(crate) fn update(&self, region: &Region) {
        if let Some(known) = self.inner.lock().regions.get_mut(&region.id) {
            debug_assert_eq!(
                (&known.start_key, &known.end_key),
                (&region.start_key, &region.end_key)
            );
            *known = region.clone();
        }
    }

    /// Forgets everything about a region.
    pub(crate) fn forget(&self, region: RegionId) {
        let mut inner = self.inner.lock();
        inner.unregister(region);
        inner.creating.remove(&region);
        inner.pending_snapshots.remove(&region);
    }

    /// Admits a snapshot of `region` (4.9): refused if its range overlaps a registered
    /// region or an admitted snapshot of another region. The newest of one region wins.
    ///
    /// Refused too while a split creates the region, and while data that the range still
    /// holds for nobody waits to be removed: it would be removed after the snapshot's.
    pub(crate) fn admit_snapshot(&self, region: &Region) -> Result<(), Region> {
        let mut inner = self.inner.lock();
        if let Some(other) = inner.first_overlap(region) {
            return Err(other.clone());
        }
        if inner.is_split_born(region.id) {
            return Err(region.clone());
        }
        if let Some(other) = inner.leftovers.values().find(|other| other.overlaps(region)) {
            return Err(other.clone());
        }
        let pending = inner
            .pending_snapshots
            .values()
            .find(|other| other.id != region.id && other.overlaps(region));
        if let Some(other) = pending {
            return Err(other.clone());
        }
        inner.pending_snapshots.insert(region.id, region.clone());
        Ok(())
    }

    /// Takes an admission back: raft refused the snapshot, or the peer is gone.
    pub(crate) fn withdraw_snapshot(&self, region: RegionId) {
        self.inner.lock().pending_snapshots.remove(&region);
    }

    /// Claims the creation of a peer from a message. Refused while another creation of the
    /// region is in flight, or when `range` overlaps a registered region.
    pub(crate) fn claim_creation(
        &self,
        region: RegionId,
        peer: PeerId,
        range: Option<&Region>,
    ) -> Result<(), ClaimRefused> {
        let mut inner = self.inner.lock();
        if inner.creating.contains_key(&region) || inner.regions.contains_key(&region) {
            return Err(ClaimRefused::InFlight);
        }
        if let Some(other) = range.and_then(|range| inner.first_overlap(range)) {
            return Err(ClaimRefused::Overlap(other.clone()));
        }
        inner.creating.insert(region, Creation { peer, stage: CreationStage::Waiting });
        Ok(())
    }

    /// Begins the end of a peer that waits for its first snapshot. Refused once a split has
    /// claimed its place: the peer is replaced in a moment.
    pub(crate) fn begin_end(&self, region: RegionId) -> bool {
        let mut inner = self.inner.lock();
        match inner.creating.get_mut(&region) {
            Some(Creation { stage: CreationStage::SplitBorn { .. }, .. }) => false,
            Some(creation) => {
                creation.stage = CreationStage::Ending;
                true
            }
            None => true,
        }
    }

    /// A peer without data has voted under this id before the store was opened (W2).
    pub(crate) fn remember_vote(&self, region: RegionId, peer: PeerId) {
        self.inner.lock().votes.insert(region, peer);
    }

    /// Claims the creation of `peer` by a split that is being applied (H12). Refused if this
    /// store has, or has had, a peer of the region other than this very one waiting for its
    /// data. The caller still looks for a record on disk, and gives the claim back with
    /// [`StoreMeta::release_split`] if there is one.
    pub(crate) fn claim_split(&self, region: RegionId, peer: PeerId) -> bool {
        let mut inner = self.inner.lock();
        if inner.regions.contains_key(&region)
            || inner.votes.get(&region).is_some_and(|voted| *voted > peer)
        {
            return false;
        }
        let replaces = match inner.creating.get(&region) {
            None => false,
            Some(Creation { peer: known, stage: CreationStage::Waiting }) if *known == peer => true,
            Some(_) => return false,
        };
        let stage = CreationStage::SplitBorn { replaces };
        inner.creating.insert(region, Creation { peer, stage });
        true
    }

    /// Gives a claim of [`StoreMeta::claim_split`] back.
    pub(crate) fn release_split(&self, region: RegionId) {
        let mut inner = self.inner.lock();
        let stage = inner.creating.get(&region).map(|creation| creation.stage);
        if let Some(CreationStage::SplitBorn { replaces }) = stage {
            if replaces {
                if let Some(creation) = inner.creating.get_mut(&region) {
                    creation.stage = CreationStage::Waiting;
                }
            } else {
                inner.creating.remove(&region);
            }
        }
    }

    /// Enters the result of a split in one section: the region shrinks, the regions born
    /// here take their ranges, those that are not are kept from everybody until their data
    /// is gone (W9, H14).
    ///
    /// # Panics
    /// If the parts overlap each other or another region.
    pub(crate) fn split(&self, derived: &Region, born: &[Region], skipped: &[Region]) {
        let mut inner = self.inner.lock();
        inner.unregister(derived.id);
        for region in std::iter::once(derived).chain(born) {
            let overlap = inner.first_overlap(region);
            assert!(overlap.is_none(), "split-born {region:?} overlaps {overlap:?}");
            inner.by_end.insert(RangeEnd::of(region), region.id);
            inner.regions.insert(region.id, region.clone());
        }
        for region in skipped {
            inner.leftovers.insert(region.id, region.clone());
        }
    }

    /// The peer that a split had put on disk is built.
    pub(crate) fn split_built(&self, region: RegionId) {
        let mut inner = self.inner.lock();
        inner.creating.remove(&region);
        inner.pending_snapshots.remove(&region);
    }

    /// The data that a split had left to nobody is gone.
    pub(crate) fn leftover_removed(&self, region: RegionId) {
        self.inner.lock().leftovers.remove(&region);
    }

    /// At most `count` registered neighbours of `region`, the nearest first: to its left, or
    /// to its right. Ends at the first gap.
    pub(crate) fn neighbours(&self, region: &Region, count: usize, left: bool) -> Vec<Region> {
        let inner = self.inner.lock();
        let mut found: Vec<Region> = Vec::new();
        while found.len() < count {
            let from = found.last().unwrap_or(region);
            let next = if left { inner.ends_at(&from.start_key) } else { inner.starts_at(from) };
            let Some(next) = next else { break };
            found.push(next.clone());
        }
        found
    }

    /// All initialised regions in key order.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let inner = self.inner.lock();
        inner.by_end.values().filter_map(|id| inner.regions.get(id)).cloned().collect()
    }

    /// The initialised region that holds `key`.
    #[must_use]
    pub fn region_of(&self, key: &[u8]) -> Option<Region> {
        let inner = self.inner.lock();
        let after = std::ops::Bound::Excluded(RangeEnd::Key(Bytes::copy_from_slice(key)));
        let (_, id) = inner.by_end.range((after, std::ops::Bound::Unbounded)).next()?;
        inner.regions.get(id).filter(|region| region.contains(key)).cloned()
    }
}

/// Why a peer cannot be created from a message now.
#[derive(Debug)]
pub(crate) enum ClaimRefused {
    /// It is being created, or exists.
    InFlight,
    /// Its range is held by this region.
    Overlap(#[expect(dead_code, reason = "shown in logs")] Region),
}

impl Inner {
    fn unregister(&mut self, region: RegionId) {
        if let Some(known) = self.regions.remove(&region) {
            self.by_end.remove(&RangeEnd::of(&known));
        }
    }

    fn is_split_born(&self, region: RegionId) -> bool {
        self.creating
            .get(&region)
            .is_some_and(|it| matches!(it.stage, CreationStage::SplitBorn { .. }))
    }

    /// The region that ends where a range starts.
    fn ends_at(&self, start_key: &Bytes) -> Option<&Region> {
        if start_key.is_empty() {
            return None;
        }
        let id = self.by_end.get(&RangeEnd::Key(start_key.clone()))?;
        self.regions.get(id)
    }

    /// The region that starts where `region` ends.
    fn starts_at(&self, region: &Region) -> Option<&Region> {
        if region.end_key.is_empty() {
            return None;
        }
        let after = std::ops::Bound::Excluded(RangeEnd::of(region));
        let (_, id) = self.by_end.range((after, std::ops::Bound::Unbounded)).next()?;
        self.regions.get(id).filter(|next| next.start_key == region.end_key)
    }

    fn first_overlap(&self, region: &Region) -> Option<&Region> {
        let start = if region.start_key.is_empty() {
            std::ops::Bound::Unbounded
        } else {
            std::ops::Bound::Excluded(RangeEnd::Key(region.start_key.clone()))
        };
        self.by_end
            .range((start, std::ops::Bound::Unbounded))
            .map(|(_, id)| id)
            .filter(|id| **id != region.id)
            .filter_map(|id| self.regions.get(id))
            .next()
            .filter(|other| other.overlaps(region))
    }
}

#[cfg(test)]
#[path = "meta/tests.rs"]
mod tests;
