//! Decides which regions are cut, where, and how badly they are asked.
//!
//! Most askers know the region and let PD give the ids. Some know it as it was, ask for a
//! cut where none can be, ask twice, or bring ids of their own, as a tool or an old PD would.

use bytes::Bytes;
use raftstore_proto::{AdminCommand, Epoch, Peer, PeerId, Region, RegionId, SplitRequest, StoreId};

use crate::{
    client::{letter, workload_keys},
    counters::Sometimes,
    queue::MILLI,
    world::{Step, World},
};

/// With more regions than this nobody wants another one.
const REGIONS_MAX: usize = 24;

/// A wish that is uttered a second time.
#[derive(Debug)]
pub(crate) enum Again {
    /// To PD's ids.
    Ask { store: u64, region: RegionId, epoch: Epoch, keys: Vec<Bytes> },
    /// With the very same ids.
    Command { store: u64, region: Box<Region>, peer: Peer, admin: AdminCommand },
}

impl World {
    pub(crate) fn strike_split(&mut self) {
        let regions: Vec<Region> = self.regions().into_values().collect();
        if regions.is_empty() || regions.len() >= REGIONS_MAX {
            return;
        }
        let mut region = self.fault_rng.pick(&regions).clone();
        let keys = self.draw_cuts(&region);
        let Some(store) = self.draw_split_store(&region) else { return };
        if keys.is_empty() {
            return;
        }
        match self.fault_rng.below(20) {
            0 => region.epoch.version = region.epoch.version.saturating_sub(1),
            1 => region.epoch.version += 1,
            2 => region.epoch.conf_ver = region.epoch.conf_ver.saturating_sub(1),
            _ => {}
        }
        self.counters.hit(Sometimes::SplitsAsked);
        let wish = if self.fault_rng.chance(700) {
            Again::Ask { store, region: region.id, epoch: region.epoch, keys }
        } else {
            let Some(peer) = region.peer_on(StoreId::must(store)).copied() else { return };
            let admin = self.draw_command(&region, keys);
            Again::Command { store, region: Box::new(region), peer, admin }
        };
        if self.fault_rng.chance(250) {
            let again = match &wish {
                Again::Ask { store, region, epoch, keys } => {
                    Again::Ask { store: *store, region: *region, epoch: *epoch, keys: keys.clone() }
                }
                Again::Command { region, admin, .. } => {
                    // Perhaps another store leads by then.
                    let peer = *self.fault_rng.pick(&region.peers);
                    let store = peer.store.get();
                    Again::Command { store, region: region.clone(), peer, admin: admin.clone() }
                }
            };
            let delay = self.fault_rng.below(300 * MILLI);
            self.after(delay, Step::Split(Box::new(again)));
        }
        self.utter(wish);
    }

    pub(crate) fn utter(&mut self, wish: Again) {
        match wish {
            Again::Ask { store, region, epoch, keys } => {
                self.ask_split(store, region, epoch, keys);
            }
            Again::Command { store, region, peer, admin } => {
                self.ask_admin(store, &region, peer, admin);
            }
        }
    }

    /// Usually the leader's store, sometimes another one.
    fn draw_split_store(&mut self, region: &Region) -> Option<u64> {
        let leader = self.leader_store(region.id.get());
        if self.fault_rng.chance(900) {
            return leader;
        }
        Some(self.fault_rng.pick(&region.peers).store.get())
    }

    /// Between one and three keys to cut at; now and then such that cannot be.
    fn draw_cuts(&mut self, region: &Region) -> Vec<Bytes> {
        let mut candidates = workload_keys(&self.plan);
        for table in 1..=self.plan.regions {
            let letter = letter(table);
            for end in ["", "q", "z"] {
                candidates.push(format!("{letter}{end}").into());
            }
            for key in 0..self.plan.load.keys {
                // A region that begins right behind a key.
                candidates.push(format!("{letter}r{key}\0").into());
            }
        }
        let borders = [region.start_key.clone(), region.end_key.clone()];
        if self.fault_rng.chance(900) {
            candidates.retain(|key| region.contains(key) && *key != region.start_key);
        } else {
            candidates.extend(borders);
        }
        if candidates.is_empty() {
            return candidates;
        }
        let count = *self.fault_rng.pick(&[1, 1, 1, 2, 3]);
        let mut keys: Vec<Bytes> =
            (0..count).map(|_| self.fault_rng.pick(&candidates).clone()).collect();
        if self.fault_rng.chance(970) {
            keys.sort_unstable();
            keys.dedup();
        }
        keys
    }

    /// A command with ids that fit the members as they are believed to be.
    fn draw_command(&mut self, region: &Region, keys: Vec<Bytes>) -> AdminCommand {
        let strange = self.fault_rng.chance(50);
        let requests = keys
            .into_iter()
            .map(|key| {
                let mut new_peers: Vec<PeerId> =
                    region.peers.iter().map(|_| PeerId::must(self.pd.alloc_id())).collect();
                if strange {
                    new_peers.pop();
                }
                SplitRequest { key, new_region: RegionId::must(self.pd.alloc_id()), new_peers }
            })
            .collect();
        let right_derive = self.fault_rng.chance(500);
        AdminCommand::BatchSplit { requests, right_derive }
    }
}
