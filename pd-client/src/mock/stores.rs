//! Which stores there are, what they said of themselves, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use raftstore_proto::{RegionId, StoreId};

use crate::{Error, Result, StoreInfo, StoreLifecycle, StoreStats};

/// What PD knows of a store.
#[derive(Clone, Debug)]
pub struct StoreRecord {
    /// What it said of itself when it started, and what became of it.
    pub info: StoreInfo,
    /// Its last report.
    pub stats: Option<StoreStats>,
    /// When it was last heard of.
    pub heard_ms: u64,
    /// Regions whose replica on it was damaged when it last reported.
    pub damaged_regions: BTreeSet<RegionId>,
}

/// Every store there ever was.
#[derive(Clone, Debug, Default)]
pub(super) struct Stores {
    stores: BTreeMap<StoreId, StoreRecord>,
}

impl Stores {
    pub(super) fn get(&self, store: StoreId) -> Option<&StoreRecord> {
        self.stores.get(&store)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &StoreRecord> {
        self.stores.values()
    }

    /// One that may still take part.
    pub(super) fn living(&self, store: StoreId) -> Result<&StoreRecord> {
        self.get(store)
            .filter(|record| record.info.lifecycle != StoreLifecycle::Tombstone)
            .ok_or(Error::StoreNotFound(store))
    }

    fn living_mut(&mut self, store: StoreId) -> Result<&mut StoreRecord> {
        self.stores
            .get_mut(&store)
            .filter(|record| record.info.lifecycle != StoreLifecycle::Tombstone)
            .ok_or(Error::StoreNotFound(store))
    }

    /// A label of a store; none is the empty one.
    pub(super) fn label(&self, store: StoreId, key: &str) -> &str {
        let labels = self.get(store).map_or(&[][..], |record| &record.info.labels);
        labels.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }

    /// Makes a store known, or updates what is known. Gives whether that is news.
    pub(super) fn admit(&mut self, now_ms: u64, mut info: StoreInfo) -> Result<bool> {
        if info.lifecycle == StoreLifecycle::Tombstone {
            return Err(Error::Invalid("a store does not bury itself"));
        }
        if info.address.is_empty() {
            return Err(Error::Invalid("a store without an address"));
        }
        let twin = self
            .iter()
            .filter(|other| other.info.lifecycle != StoreLifecycle::Tombstone)
            .find(|other| other.info.id != info.id && other.info.address == info.address);
        if let Some(twin) = twin {
            return Err(Error::DuplicateAddress { address: info.address, other: twin.info.id });
        }
        let Some(known) = self.stores.get_mut(&info.id) else {
            let record = StoreRecord {
                info,
                stats: None,
                heard_ms: now_ms,
                damaged_regions: BTreeSet::new(),
            };
            self.stores.insert(record.info.id, record);
            return Ok(true);
        };
        match known.info.lifecycle {
            StoreLifecycle::Tombstone => return Err(Error::StoreNotFound(info.id)),
            StoreLifecycle::Offline => info.lifecycle = StoreLifecycle::Offline,
            StoreLifecycle::Up => {}
        }
        let is_news = known.info != info;
        known.info = info;
        known.heard_ms = now_ms;
        Ok(is_news)
    }

    /// Enters a store that was buried in an earlier life of PD. Its address may be another's.
    pub(super) fn bury(&mut self, mut info: StoreInfo) {
        info.lifecycle = StoreLifecycle::Tombstone;
        let record =
            StoreRecord { info, stats: None, heard_ms: 0, damaged_regions: BTreeSet::new() };
        self.stores.insert(record.info.id, record);
    }

    pub(super) fn set_lifecycle(
        &mut self,
        store: StoreId,
        lifecycle: StoreLifecycle,
    ) -> Result<()> {
        self.living_mut(store)?.info.lifecycle = lifecycle;
        Ok(())
    }

    /// Takes a store's report.
    pub(super) fn report(&mut self, now_ms: u64, mut stats: StoreStats) -> Result<()> {
        let record = self.living_mut(stats.store)?;
        // What is free is a part of all, whatever the store says.
        stats.available_bytes = stats.available_bytes.min(stats.capacity_bytes);
        record.heard_ms = now_ms;
        record.damaged_regions = stats.damaged_regions.iter().copied().collect();
        record.stats = Some(stats);
        Ok(())
    }
}
