//! Looks at a store after each of its steps.

use raftstore_core::{PeerPhase, PeerStatus};
use raftstore_proto::{Entry, RegionId};

use super::{World, node::SeenPeer};
use crate::{
    counters::Sometimes,
    invariants::{
        Recorded, Seen, check_chain, check_durable, check_leader_votes, check_new_leader,
        check_ranges,
    },
};

/// How many steps pass between two looks at all key ranges of a store.
const RANGES_EVERY: u64 = 64;

impl World {
    /// Looks at the peers of a lane that a turn can have changed: those of the regions
    /// `touched`, or all.
    pub(super) fn watch_lane(&mut self, store: u64, lane: usize, touched: Option<&[RegionId]>) {
        let Some(running) = self.nodes.get(&store).and_then(|node| node.running.as_ref()) else {
            return;
        };
        let of_lane = &running.lanes[lane];
        let peers = match touched {
            Some(regions) if of_lane.seen.is_some() => {
                regions.iter().filter_map(|region| of_lane.store.inspect_region(*region)).collect()
            }
            _ => {
                let peers = of_lane.store.inspect();
                self.watch_births(store, lane, &peers);
                peers
            }
        };
        for status in &peers {
            self.watch_peer(store, status);
        }
        let told = self.nodes[&store].chronicle.check_order();
        self.require(told);
        if self.steps.is_multiple_of(RANGES_EVERY) {
            let meta = self.nodes[&store].running.as_ref().map(|running| &running.meta);
            let regions = meta.map(|meta| meta.regions()).unwrap_or_default();
            let checked = check_ranges(store, &regions);
            self.require(checked);
            let here = self.peers(store);
            let here = here.iter().filter(|peer| peer.region.is_initialized()).count();
            let told = self.nodes[&store].chronicle.check_count(here);
            self.require(told);
        }
    }

    /// Counts peers that came and went since the last look.
    fn watch_births(&mut self, store: u64, lane: usize, peers: &[PeerStatus]) {
        let now: Vec<SeenPeer> = peers
            .iter()
            .map(|peer| SeenPeer {
                region: peer.region.id.get(),
                peer: peer.peer.id.get(),
                truncated: peer.applied.truncated.index,
            })
            .collect();
        let Some(running) = self.nodes.get_mut(&store).and_then(|node| node.running.as_mut())
        else {
            return;
        };
        let seen = &mut running.lanes[lane].seen;
        let same = |a: &SeenPeer, b: &SeenPeer| (a.region, a.peer) == (b.region, b.peer);
        let before = match seen.replace(now.clone()) {
            None => return,
            Some(before)
                if before.len() == now.len()
                    && before.iter().zip(&now).all(|(a, b)| same(a, b)) =>
            {
                return;
            }
            Some(before) => before,
        };
        for born in now.iter().filter(|peer| !before.iter().any(|other| same(other, peer))) {
            self.counters.hit(Sometimes::PeersCreated);
            let SeenPeer { region, peer, .. } = *born;
            self.transcript.event(self.now, store, region, format_args!("peer {peer} is born"));
        }
        for gone in before.iter().filter(|peer| !now.iter().any(|other| same(other, peer))) {
            self.counters.hit(Sometimes::PeersDestroyed);
            let SeenPeer { region, peer, .. } = *gone;
            let shape = self.checks.ledger.newest_shape(region);
            let checked = self.checks.silence.ended(store, region, peer, shape);
            self.require(checked);
            self.transcript.event(self.now, store, region, format_args!("peer {peer} is gone"));
        }
    }

    fn watch_peer(&mut self, store: u64, status: &PeerStatus) {
        let seen = seen(store, status);
        if status.phase == PeerPhase::GoingAway {
            return;
        }
        let checked = self.checks.silence.check_peer(&seen);
        self.require(checked);
        let checked = self.checks.monotonic.check(&seen);
        self.require(checked);
        if seen.initialized {
            self.require(check_leader_votes(store, status));
            if !seen.installing {
                self.require(check_chain(&seen));
            }
            let checked = self.checks.epochs.check(store, &status.region);
            self.require(checked);
            let told = self.nodes[&store].chronicle.check_region(&status.region);
            self.require(told);
        }
        match self.checks.elections.check(&seen) {
            Ok(false) => {}
            Ok(true) => self.watch_new_leader(&seen),
            Err(violation) => self.fail(violation),
        }
    }

    fn watch_new_leader(&mut self, seen: &Seen) {
        self.counters.hit(Sometimes::Elections);
        self.transcript.event(
            self.now,
            seen.store,
            seen.region,
            format_args!("peer {} leads in term {}", seen.peer, seen.term),
        );
        let log = &self.nodes[&seen.store].disk.log;
        let checked = check_new_leader(seen, &self.checks.ledger, log);
        self.require(checked);
    }

    /// An entry is handed to be executed: it is committed.
    pub(super) fn watch_committed(&mut self, store: u64, region: u64, entry: &Entry) {
        match self.checks.ledger.record(store, region, entry) {
            Ok(Recorded::Known) => {}
            Ok(Recorded::New(made)) => {
                for region in &made {
                    self.checks.members.note(region);
                }
                let nodes = &self.nodes;
                let checked = check_durable(&self.checks.members, region, entry, |store| {
                    nodes.get(&store).map(|node| &node.disk.log)
                });
                self.require(checked);
            }
            Err(violation) => self.fail(violation),
        }
    }
}

fn seen(store: u64, status: &PeerStatus) -> Seen {
    Seen {
        store,
        region: status.region.id.get(),
        peer: status.peer.id.get(),
        leads: status.is_leader,
        leader: status.leader,
        term: status.term,
        commit: status.committed,
        applied: status.applied.applied,
        last_index: status.last_index,
        truncated: status.applied.truncated.index,
        initialized: status.region.is_initialized(),
        installing: status.phase == PeerPhase::Applying,
    }
}
