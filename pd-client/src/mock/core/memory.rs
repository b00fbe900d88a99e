//! Saving PD, and waking it up again.

use super::PdCore;
use crate::{
    StoreLifecycle,
    mock::{
        PdConfig, check,
        directory::RegionRecord,
        save::{self, LoadError, Saved, Writer},
    },
};

/// How many ids may be given out before PD has to be saved again.
const IDS_PER_SAVE: u64 = 1000;

impl PdCore {
    /// All of it that must survive, as bytes with checksums.
    ///
    /// A server saves and syncs them before it sends an answer while [`PdCore::is_unsaved`],
    /// and now and then besides, for the regions' sake. Everything it ever said then holds
    /// after a crash.
    #[must_use]
    pub fn save(&mut self) -> Vec<u8> {
        self.id_limit = self.next_id.saturating_add(IDS_PER_SAVE);
        self.must_save = false;
        let mut writer = Writer::new();
        writer.put(&Saved::Cluster {
            cluster: self.cluster,
            next_id: self.id_limit,
            is_bootstrapped: self.is_bootstrapped,
        });
        for store in self.stores.iter() {
            writer.put(&Saved::Store(store.info.clone()));
        }
        for record in self.directory.iter() {
            writer.put(&Saved::Region {
                region: record.region.clone(),
                term: record.term,
                leader: record.leader.map(|leader| leader.id),
                approximate_size: record.approximate_size,
            });
        }
        for (region, (epoch, term)) in self.directory.pushed_out() {
            writer.put(&Saved::PushedOut { region, epoch, term });
        }
        writer.finish()
    }

    /// Whether something was promised that the last saved state does not contain: an id, a
    /// store, the first region. A new PD is unsaved.
    #[must_use]
    pub const fn is_unsaved(&self) -> bool {
        self.must_save || self.next_id > self.id_limit
    }

    /// A PD with the memory of the one that was saved. Its stores count as heard of now.
    ///
    /// # Errors
    /// If the bytes are not what [`PdCore::save`] gave, whole and unchanged.
    pub fn load(now_ms: u64, bytes: &[u8], config: PdConfig) -> Result<Self, LoadError> {
        let mut saved = save::read(bytes)?.into_iter();
        let Some(Saved::Cluster { cluster, next_id, is_bootstrapped }) = saved.next() else {
            return Err(LoadError::Malformed { record: 0, why: "it is not about the cluster" });
        };
        let mut core = Self::new(cluster, config);
        for (number, saved) in (1..).zip(saved) {
            core.remember(now_ms, number, saved)?;
        }
        core.next_id = core.next_id.max(next_id);
        // The first id that is given out has to be saved.
        core.id_limit = core.next_id;
        core.is_bootstrapped = is_bootstrapped;
        core.latest_ms = now_ms;
        core.must_save = false;
        Ok(core)
    }

    fn remember(&mut self, now_ms: u64, record: u32, saved: Saved) -> Result<(), LoadError> {
        let outcome = match saved {
            Saved::Cluster { .. } | Saved::End { .. } => {
                return Err(LoadError::Malformed { record, why: "it stands in the wrong place" });
            }
            Saved::Store(info) if info.lifecycle == StoreLifecycle::Tombstone => {
                self.observe_id(info.id.get());
                self.stores.bury(info);
                Ok(())
            }
            Saved::Store(info) => self.admit_store(now_ms, info),
            Saved::Region { region, term, leader, approximate_size } => check::region(&region)
                .and_then(|()| {
                    let leader = leader.and_then(|id| region.peer(id)).copied();
                    let record = RegionRecord {
                        leader,
                        term,
                        approximate_size,
                        ..RegionRecord::unled(region)
                    };
                    self.update(record)
                }),
            Saved::PushedOut { region, epoch, term } => {
                self.directory.push_out(region, epoch, term);
                self.observe_id(region.get());
                Ok(())
            }
        };
        outcome.map_err(LoadError::Contradiction)
    }
}
