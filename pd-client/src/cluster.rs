//! What routers and tools ask, and a store does not.

use async_trait::async_trait;
use bytes::Bytes;
use raftstore_proto::RegionId;

use crate::{ClusterConfig, Error, OperatorStatus, PdClient, RegionRoute, Result, StoreInfo};

/// Questions about the cluster as a whole. A store runs without them, so a PD that serves
/// stores alone needs to answer only the first two.
#[async_trait]
pub trait PdCluster: PdClient {
    /// Every store known.
    async fn stores(&self) -> Result<Vec<StoreInfo>>;

    /// What PD aims for.
    async fn cluster_config(&self) -> Result<ClusterConfig>;

    /// Regions in key order that share keys with `[start, end)`; an empty `end` is after
    /// every key. At most `limit`, perhaps fewer: go on at the end key of the last one. Keys
    /// that no known region holds are passed over.
    ///
    /// Unless overridden, it asks for one region after the other and ends before the first
    /// key that no known region holds.
    async fn scan_regions(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<RegionRoute>> {
        let mut found = Vec::new();
        let mut next = start;
        while found.len() < limit {
            let Some(route) = self.region_by_key(next).await? else { break };
            next = route.region.end_key.clone();
            found.push(route);
            if next.is_empty() || (!end.is_empty() && next >= end) {
                break;
            }
        }
        Ok(found)
    }

    /// Has the replicas and leaders of `regions` spread over stores, evenly among all
    /// regions of the same `group`: for regions that will soon be written to alike, and that
    /// the usual balance would spread only when they already are. Gives those that cannot be
    /// now: unknown, in bad health, or changing in another way.
    ///
    /// # Errors
    /// `Unsupported`, unless overridden.
    async fn scatter_regions(
        &self,
        regions: Vec<RegionId>,
        group: String,
    ) -> Result<Vec<RegionId>> {
        let _ = (regions, group);
        Err(Error::Unsupported("scattering regions"))
    }

    /// What becomes of the change of a region that PD makes, or made last, as far as it
    /// remembers.
    ///
    /// # Errors
    /// `Unsupported`, unless overridden.
    async fn operator_status(&self, region: RegionId) -> Result<Option<OperatorStatus>> {
        let _ = region;
        Err(Error::Unsupported("what becomes of changes"))
    }
}
