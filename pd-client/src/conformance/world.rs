//! What the cases have in common: waiting, and stores and regions of their own.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use raftstore_proto::{Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use super::{
    PdFixture,
    case::{Failure, Verdict},
};
use crate::{
    Error, PdCluster, RegionHeartbeat, RegionRoute, StoreInfo, StoreLifecycle, StoreStats,
};

/// How long anything may take. Only what is broken takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer; a client must not need a particular executor.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> Verdict<T> {
    let deadline = Instant::now() + PATIENCE;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Ok(value);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Failed("no answer in a minute".to_owned()));
        }
        thread::park_timeout(left);
    }
}

/// Waits for an answer that is no refusal.
pub(super) fn ask<T>(future: impl Future<Output = crate::Result<T>>) -> Verdict<T> {
    Ok(wait(future)??)
}

pub(super) fn info(id: StoreId, address: String) -> StoreInfo {
    let labels = vec![("zone".to_owned(), "z1".to_owned()), ("host".to_owned(), id.to_string())];
    StoreInfo { id, address, labels, lifecycle: StoreLifecycle::Up }
}

/// A store without room, regions or flow.
pub(super) fn stats(store: StoreId) -> StoreStats {
    StoreStats {
        store,
        capacity_bytes: 1 << 40,
        available_bytes: 1 << 39,
        used_bytes: 1 << 38,
        region_count: 1,
        sending_snapshots: 0,
        receiving_snapshots: 0,
        applying_snapshots: 0,
        start_time_seconds: 1_700_000_000,
        is_busy: false,
        written_bytes: 0,
        written_keys: 0,
        damaged_regions: Vec::new(),
    }
}

pub(super) fn heartbeat(region: Region, leader: Peer, term: u64) -> RegionHeartbeat {
    RegionHeartbeat {
        region,
        leader,
        term,
        down_peers: Vec::new(),
        pending_peers: Vec::new(),
        written_bytes: 1,
        written_keys: 1,
        approximate_size: 1 << 20,
    }
}

/// A bootstrapped PD.
pub(super) struct World {
    pub(super) pd: Arc<dyn PdCluster>,
    /// The region that holds the empty key.
    pub(super) region: Region,
    /// A voter of it whose store lives.
    pub(super) leader: Peer,
    /// Later than every term that was reported before.
    term: u64,
}

impl World {
    /// Bootstraps, unless somebody has.
    pub(super) fn enter(fixture: &dyn PdFixture) -> Verdict<Self> {
        let pd = fixture.client();
        if !ask(pd.is_cluster_bootstrapped())? {
            let (store, region) = first(&*pd)?;
            match wait(pd.bootstrap_cluster(store, region))? {
                Ok(()) | Err(Error::AlreadyBootstrapped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let route = ask(pd.region_by_key(Bytes::new()))?;
        let region = route.ok_or_else(|| {
            Failure::Failed("a bootstrapped cluster has no region for the empty key".to_owned())
        })?;
        let region = region.region;
        let voter = region.peers.iter().find(|peer| peer.role == PeerRole::Voter).copied();
        let leader = voter.ok_or_else(|| Failure::Failed("the region has no voter".to_owned()))?;
        // An earlier case, and an earlier run, used earlier terms.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let term = u64::try_from(since.as_micros()).unwrap_or(1);
        Ok(Self { pd, region, leader, term })
    }

    /// A number that no store, region or peer has.
    pub(super) fn id(&self) -> Verdict<u64> {
        ask(self.pd.alloc_id())
    }

    pub(super) fn store_id(&self) -> Verdict<StoreId> {
        Ok(StoreId::must(self.id()?))
    }

    /// A new store, known to PD.
    pub(super) fn store(&self) -> Verdict<StoreInfo> {
        let id = self.store_id()?;
        let info = info(id, format!("store-{id}.invalid:20160"));
        ask(self.pd.put_store(info.clone()))?;
        Ok(info)
    }

    pub(super) fn next_term(&mut self) -> u64 {
        self.term += 1;
        self.term
    }

    /// Reports on a region and waits until PD shows it so.
    pub(super) fn report(&mut self, region: &Region, leader: Peer) -> Verdict<RegionRoute> {
        let term = self.next_term();
        ask(self.pd.region_heartbeat(heartbeat(region.clone(), leader, term)))?;
        let expected = RegionRoute { region: region.clone(), leader: Some(leader) };
        self.until_seen(&expected)?;
        Ok(expected)
    }

    /// Reports travel on a stream: PD may answer a question before it has read one that was
    /// sent earlier.
    pub(super) fn until_seen(&self, expected: &RegionRoute) -> Verdict {
        let deadline = Instant::now() + PATIENCE;
        let mut found = None;
        while Instant::now() < deadline {
            found = ask(self.pd.region_by_id(expected.region.id))?;
            if found.as_ref() == Some(expected) {
                return Ok(());
            }
            thread::yield_now();
        }
        Err(Failure::Failed(format!("PD shows {found:?} and not {expected:?}")))
    }

    /// The same region after a change of its members that brings in `peer`.
    pub(super) fn with_peer(&self, peer: Peer) -> Region {
        let mut region = self.region.clone();
        region.peers.push(peer);
        region.epoch.conf_ver += 1;
        region
    }
}

/// A store and a first region of new ids.
pub(super) fn first(pd: &dyn PdCluster) -> Verdict<(StoreInfo, Region)> {
    let store = StoreId::must(ask(pd.alloc_id())?);
    let region = Region {
        id: RegionId::must(ask(pd.alloc_id())?),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(ask(pd.alloc_id())?), store)],
    };
    Ok((info(store, format!("store-{store}.invalid:20160")), region))
}
