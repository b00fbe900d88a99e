//! The regions at one moment: who leads and who follows, on stores counted from 1, and
//! whether leaders and replicas are spread evenly.

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use raftstore_core::{PeerPhase, PeerStatus};
use raftstore_proto::{Epoch, PeerRole, Region, RegionId, StoreId};

use crate::report::size;

/// Bytes of a key that are shown.
const SHOWN_BYTES_MAX: usize = 24;

/// One region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegionView {
    /// Range and members, as the leader has them.
    pub(crate) region: Region,
    /// The store that leads it, if one does.
    pub(crate) leader: Option<u64>,
    /// Up to where the leader knows the log to be committed.
    pub(crate) committed: u64,
    /// Stores of the members, ascending.
    pub(crate) stores: Vec<u64>,
    /// Rough bytes of keys and values; `None` if nobody has looked yet.
    pub(crate) size_bytes: Option<u64>,
}

impl RegionView {
    fn has_voters(&self, replicas: usize) -> bool {
        let peers = &self.region.peers;
        peers.len() == replicas && peers.iter().all(|peer| peer.role == PeerRole::Voter)
    }
}

/// All regions, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegionMap(Vec<RegionView>);

/// What must not change while a cluster is at rest.
pub(crate) type Shape = Vec<(RegionId, Epoch, Option<u64>)>;

impl RegionMap {
    /// Puts together what stores say of their peers. `numbers` counts the stores, also
    /// those that do not run.
    pub(crate) fn new(
        peers: impl IntoIterator<Item = PeerStatus>,
        numbers: &BTreeMap<StoreId, u64>,
        sizes: &BTreeMap<RegionId, u64>,
    ) -> Self {
        let mut best: BTreeMap<RegionId, PeerStatus> = BTreeMap::new();
        for status in peers {
            if matches!(status.phase, PeerPhase::Uninitialized | PeerPhase::GoingAway) {
                continue;
            }
            // The leader knows best, of two who think they lead the one of the later term;
            // without any, whoever knows the newest members and range.
            let worth = |status: &PeerStatus| {
                let Epoch { version, conf_ver } = status.region.epoch;
                let term = if status.is_leader { status.term } else { 0 };
                (status.is_leader, term, version, conf_ver)
            };
            let known = best.get(&status.region.id);
            if known.is_none_or(|known| worth(known) < worth(&status)) {
                best.insert(status.region.id, status);
            }
        }
        let number = |store: StoreId| numbers.get(&store).copied().unwrap_or_default();
        let view = |status: PeerStatus| {
            let PeerStatus { region, peer, is_leader, committed, .. } = status;
            let mut stores: Vec<u64> = region.peers.iter().map(|it| number(it.store)).collect();
            stores.sort_unstable();
            let size_bytes = sizes.get(&region.id).copied().filter(|bytes| *bytes > 0);
            let leader = is_leader.then(|| number(peer.store));
            RegionView { region, leader, committed, stores, size_bytes }
        };
        let mut regions: Vec<RegionView> = best.into_values().map(view).collect();
        regions.sort_by(|a, b| a.region.start_key.cmp(&b.region.start_key));
        Self(regions)
    }

    /// The regions, in key order.
    pub(crate) fn regions(&self) -> &[RegionView] {
        &self.0
    }

    /// Whether every key is in one region, and every region is led.
    pub(crate) fn is_whole(&self) -> bool {
        let ends = self.0.windows(2).all(|pair| {
            let [left, right] = pair else { return false };
            !left.region.end_key.is_empty() && left.region.end_key == right.region.start_key
        });
        let outer = |edge: Option<&Bytes>| edge.is_some_and(Bytes::is_empty);
        ends && outer(self.0.first().map(|it| &it.region.start_key))
            && outer(self.0.last().map(|it| &it.region.end_key))
            && self.0.iter().all(|it| it.leader.is_some())
    }

    /// Whether every region has so many voters, and nobody else is a member.
    pub(crate) fn has_voters(&self, replicas: usize) -> bool {
        self.0.iter().all(|it| it.has_voters(replicas))
    }

    /// How many regions a store leads.
    pub(crate) fn led_by(&self, store: u64) -> usize {
        self.0.iter().filter(|it| it.leader == Some(store)).count()
    }

    fn on(&self, store: u64) -> usize {
        self.0.iter().filter(|it| it.stores.contains(&store)).count()
    }

    /// The store that leads most regions.
    pub(crate) fn busiest(&self) -> Option<u64> {
        let leaders = self.0.iter().filter_map(|it| it.leader);
        leaders.max_by_key(|store| (self.led_by(*store), std::cmp::Reverse(*store)))
    }

    /// Whether leaders and replicas are spread over `stores` as evenly as PD makes them: no
    /// hand-over would make two stores more alike, and where a replica could go there are at
    /// most two fewer, since what they hold counts a little too.
    pub(crate) fn is_balanced(&self, stores: &[u64]) -> bool {
        self.0.iter().all(|it| {
            let Some(leader) = it.leader else { return false };
            let heirs = it.stores.iter().filter(|store| **store != leader);
            let leads = self.led_by(leader);
            let may_lead = heirs.map(|store| self.led_by(*store)).min();
            let others = stores.iter().filter(|store| !it.stores.contains(store));
            let may_hold = others.map(|store| self.on(*store)).min();
            let holds = it.stores.iter().map(|store| self.on(*store)).max();
            may_lead.is_none_or(|least| leads < least + 2)
                && may_hold.zip(holds).is_none_or(|(least, most)| most <= least + 2)
        })
    }

    /// How far each region's log is committed.
    pub(crate) fn committed(&self) -> impl Iterator<Item = (RegionId, u64)> {
        self.0.iter().map(|it| (it.region.id, it.committed))
    }

    /// Regions, members, ranges and leaders, for seeing whether they change.
    pub(crate) fn shape(&self) -> Shape {
        self.0.iter().map(|it| (it.region.id, it.region.epoch, it.leader)).collect()
    }

    /// A table of several columns.
    pub(crate) fn table(&self) -> String {
        let heads = ["region", "from", "up to", "epoch", "leader", "stores", "size"];
        let rows = self.0.iter().map(|it| {
            let Region { id, start_key, end_key, epoch, .. } = &it.region;
            let stores: Vec<String> = it.stores.iter().map(u64::to_string).collect();
            [
                id.to_string(),
                shown(start_key, "the first key"),
                shown(end_key, "the last key"),
                format!("{}/{}", epoch.conf_ver, epoch.version),
                it.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                stores.join(" "),
                it.size_bytes.map_or_else(|| "unknown".to_owned(), size),
            ]
        });
        let rows: Vec<[String; 7]> =
            std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        let mut out = String::new();
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "  {}", line.trim_end()).expect("writing to a string");
        }
        out
    }

    /// The same as a JSON array in one line; keys are whole, escaped like byte strings.
    pub(crate) fn json(&self) -> String {
        let regions = self.0.iter().map(|it| {
            let Region { id, start_key, end_key, epoch, .. } = &it.region;
            format!(
                "{{\"region\": {id}, \"start\": {}, \"end\": {}, \"conf_ver\": {}, \
                 \"version\": {}, \"leader\": {}, \"stores\": {:?}, \"bytes\": {}}}",
                quoted(start_key),
                quoted(end_key),
                epoch.conf_ver,
                epoch.version,
                it.leader.unwrap_or_default(),
                it.stores,
                it.size_bytes.unwrap_or_default(),
            )
        });
        format!("[{}]", regions.collect::<Vec<_>>().join(", "))
    }
}

/// A key, or its beginning, for a table.
fn shown(key: &[u8], without: &str) -> String {
    if key.is_empty() {
        return without.to_owned();
    }
    let start = &key[..key.len().min(SHOWN_BYTES_MAX)];
    let rest = if start.len() < key.len() { "..." } else { "" };
    format!("{}{rest}", start.escape_ascii())
}

/// A key as a JSON string.
fn quoted(key: &[u8]) -> String {
    let escaped = key.escape_ascii().to_string();
    format!("\"{}\"", escaped.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
