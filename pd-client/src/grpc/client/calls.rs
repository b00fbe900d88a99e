//! The questions of stores and routers, as calls.

use std::{future::poll_fn, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use raftstore_grpc::pb::pdpb;
use raftstore_proto::{
    ClusterId, DecodeError, PeerId, Region, RegionId, StoreId, wire::region_to_pb,
};

use super::GrpcPdClient;
use crate::{
    ClusterConfig, Error, OperatorState, OperatorStatus, Order, PdClient, PdCluster,
    RegionHeartbeat, RegionRoute, Result, StoreInfo, StoreLifecycle, StoreStats,
    grpc::convert::{heartbeat_to_pb, route_from_pb, stats_to_pb, store_from_pb, store_to_pb},
};

/// A request of one call with its header.
macro_rules! request {
    ($name:ident, $header:expr, $($field:ident = $value:expr),* $(,)?) => {{
        let mut request = pdpb::$name::new();
        request.set_header($header);
        $(request.$field = $value.into();)*
        request
    }};
}

/// An answer that cannot be.
fn senseless(error: &DecodeError) -> Error {
    Error::Refused(format!("the answer makes no sense: {error}"))
}

/// PD says of a store that it is gone or never was, each in its own way.
fn about_store<T>(store: StoreId, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|error| match error {
        Error::Refused(why) if why.contains("tombstone") || why.contains("not found") => {
            Error::StoreNotFound(store)
        }
        // The server here says both of such a store.
        Error::Refused(why) if why.contains("unknown to PD") => Error::StoreNotFound(store),
        error => error,
    })
}

/// Before there is a first region there is none to find.
fn about_regions<T: Default>(outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(Error::NotBootstrapped) => Ok(T::default()),
        outcome => outcome,
    }
}

impl GrpcPdClient {
    async fn route(&self, outcome: Result<pdpb::GetRegionResponse>) -> Result<Option<RegionRoute>> {
        let Some(mut answer) = about_regions(outcome.map(Some))? else { return Ok(None) };
        let region = answer.has_region().then(|| answer.take_region());
        let leader = answer.has_leader().then(|| answer.get_leader());
        route_from_pb(region, leader).map_err(|error| senseless(&error))
    }

    /// Who else has the address that PD does not give to a store.
    async fn twin(&self, store: &StoreInfo) -> Option<StoreId> {
        let stores = self.stores().await.ok()?;
        let twin = stores.into_iter().find(|other| {
            other.address == store.address
                && other.id != store.id
                && other.lifecycle != StoreLifecycle::Tombstone
        });
        twin.map(|twin| twin.id)
    }

    /// Tells apart why PD does not take a store in.
    async fn about_admission(&self, store: &StoreInfo, outcome: Result<()>) -> Result<()> {
        let outcome = about_store(store.id, outcome);
        if matches!(&outcome, Err(Error::Refused(_)))
            && let Some(other) = self.twin(store).await
        {
            return Err(Error::DuplicateAddress { address: store.address.clone(), other });
        }
        outcome
    }
}

#[async_trait]
impl PdClient for GrpcPdClient {
    fn cluster_id(&self) -> ClusterId {
        self.owner.inner.cluster
    }

    async fn bootstrap_cluster(&self, store: StoreInfo, region: Region) -> Result<()> {
        let (info, region) = (store_to_pb(&store), region_to_pb(&region));
        let outcome = self
            .ask(move |mut pd, header| {
                let mut request = request!(BootstrapRequest, header,);
                request.set_store(info.clone());
                request.set_region(region.clone());
                async move { pd.bootstrap(request).await }
            })
            .await;
        self.about_admission(&store, outcome.map(drop)).await
    }

    async fn is_cluster_bootstrapped(&self) -> Result<bool> {
        let answer = self
            .ask(|mut pd, header| async move {
                pd.is_bootstrapped(request!(IsBootstrappedRequest, header,)).await
            })
            .await?;
        Ok(answer.bootstrapped)
    }

    async fn alloc_id(&self) -> Result<u64> {
        let answer = self
            .ask(|mut pd, header| async move {
                pd.alloc_id(request!(AllocIDRequest, header, count = 1_u32)).await
            })
            .await?;
        if answer.id == 0 {
            Err(Error::Refused("PD gives 0 as an id".to_owned()))
        } else {
            Ok(answer.id)
        }
    }

    async fn put_store(&self, store: StoreInfo) -> Result<()> {
        let info = store_to_pb(&store);
        let outcome = self
            .ask(move |mut pd, header| {
                let mut request = request!(PutStoreRequest, header,);
                request.set_store(info.clone());
                async move { pd.put_store(request).await }
            })
            .await;
        self.about_admission(&store, outcome.map(drop)).await
    }

    async fn store(&self, id: StoreId) -> Result<StoreInfo> {
        let outcome = self
            .ask(move |mut pd, header| async move {
                pd.get_store(request!(GetStoreRequest, header, store_id = id.get())).await
            })
            .await;
        let mut answer = about_store(id, outcome)?;
        let store = store_from_pb(answer.take_store()).map_err(|error| senseless(&error))?;
        if store.lifecycle == StoreLifecycle::Tombstone {
            return Err(Error::StoreNotFound(id));
        }
        Ok(store)
    }

    async fn region_by_key(&self, key: Bytes) -> Result<Option<RegionRoute>> {
        let outcome = self
            .ask(move |mut pd, header| {
                let request = request!(GetRegionRequest, header, region_key = key.clone());
                async move { pd.get_region(request).await }
            })
            .await;
        self.route(outcome).await
    }

    async fn region_by_id(&self, id: RegionId) -> Result<Option<RegionRoute>> {
        let outcome = self
            .ask(move |mut pd, header| async move {
                pd.get_region_by_id(request!(GetRegionByIDRequest, header, region_id = id.get()))
                    .await
            })
            .await;
        self.route(outcome).await
    }

    /// Ends when the report is on its way. Of what PD thinks of it nothing comes back but
    /// orders; refusals are counted.
    async fn region_heartbeat(&self, heartbeat: RegionHeartbeat) -> Result<()> {
        self.run(|inner| async move {
            let region = heartbeat.region.id;
            let mut report = heartbeat_to_pb(heartbeat);
            report.set_header(inner.header());
            let patience = inner.options.attempt_timeout;
            let sent = tokio::time::timeout(patience, inner.reports.reserve()).await;
            let Ok(Ok(place)) = sent else { return Err(Error::Unavailable { source: None }) };
            report.set_interval(inner.region_interval(region));
            place.send(report);
            Ok(())
        })
        .await
    }

    async fn store_heartbeat(&self, stats: StoreStats) -> Result<()> {
        let store = stats.store;
        let mut stats = stats_to_pb(&stats);
        stats.set_interval(self.owner.inner.store_interval(store));
        let outcome = self
            .ask(move |mut pd, header| {
                let mut request = request!(StoreHeartbeatRequest, header,);
                request.set_stats(stats.clone());
                async move { pd.store_heartbeat(request).await }
            })
            .await;
        about_store(store, outcome).map(drop)
    }

    async fn next_order(&self, store: StoreId) -> Result<Order> {
        let inner = Arc::clone(&self.owner.inner);
        Ok(poll_fn(|context| inner.orders.poll_pop(store, context)).await)
    }

    async fn ask_split(
        &self,
        region: Region,
        count: usize,
    ) -> Result<Vec<(RegionId, Vec<PeerId>)>> {
        let members = region.peers.len();
        let region = region_to_pb(&region);
        let wanted = u32::try_from(count).map_err(|_| Error::Invalid("too many new regions"))?;
        let answer = self
            .ask(move |mut pd, header| {
                let mut request = request!(AskBatchSplitRequest, header, split_count = wanted);
                request.set_region(region.clone());
                async move { pd.ask_batch_split(request).await }
            })
            .await?;
        let mut ids = Vec::with_capacity(answer.ids.len());
        for id in &answer.ids {
            let peers = id.new_peer_ids.iter().map(|peer| PeerId::try_from(*peer));
            let new = RegionId::try_from(id.new_region_id)
                .and_then(|region| Ok((region, peers.collect::<Result<Vec<_>, _>>()?)));
            ids.push(new.map_err(|error| senseless(&error))?);
        }
        if ids.len() != count || ids.iter().any(|(_, peers)| peers.len() != members) {
            return Err(Error::Refused("PD gives another number of ids".to_owned()));
        }
        Ok(ids)
    }

    async fn report_split(&self, regions: Vec<Region>) -> Result<()> {
        let regions: Vec<_> = regions.iter().map(region_to_pb).collect();
        let answer = self
            .ask(move |mut pd, header| {
                let request = request!(ReportBatchSplitRequest, header, regions = regions.clone());
                async move { pd.report_batch_split(request).await }
            })
            .await;
        answer.map(drop)
    }
}

#[async_trait]
impl PdCluster for GrpcPdClient {
    async fn stores(&self) -> Result<Vec<StoreInfo>> {
        let answer = self
            .ask(|mut pd, header| async move {
                pd.get_all_stores(request!(GetAllStoresRequest, header,)).await
            })
            .await?;
        let stores = answer.stores.into_iter().map(store_from_pb);
        stores.collect::<Result<_, _>>().map_err(|error| senseless(&error))
    }

    async fn cluster_config(&self) -> Result<ClusterConfig> {
        let answer = self
            .ask(|mut pd, header| async move {
                pd.get_cluster_config(request!(GetClusterConfigRequest, header,)).await
            })
            .await?;
        let max_replicas = answer.get_cluster().max_peer_count as usize;
        Ok(ClusterConfig { cluster: self.owner.inner.cluster, max_replicas })
    }

    async fn scan_regions(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<RegionRoute>> {
        // To PD no limit is 0.
        if limit == 0 {
            return Ok(Vec::new());
        }
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let outcome = self
            .ask(move |mut pd, header| {
                let request = request!(
                    ScanRegionsRequest,
                    header,
                    start_key = start.clone(),
                    end_key = end.clone(),
                    limit = limit,
                );
                async move { pd.scan_regions(request).await }
            })
            .await;
        let Some(answer) = about_regions(outcome.map(Some))? else { return Ok(Vec::new()) };
        let mut found = Vec::with_capacity(answer.regions.len());
        for mut entry in answer.regions {
            let region = Some(entry.take_region());
            let leader = entry.has_leader().then(|| entry.get_leader());
            found.extend(route_from_pb(region, leader).map_err(|error| senseless(&error))?);
        }
        Ok(found)
    }

    async fn scatter_regions(
        &self,
        regions: Vec<RegionId>,
        group: String,
    ) -> Result<Vec<RegionId>> {
        if regions.is_empty() {
            return Ok(Vec::new());
        }
        let regions: Vec<u64> = regions.into_iter().map(RegionId::get).collect();
        let answer = self
            .ask(move |mut pd, header| {
                let request = request!(
                    ScatterRegionRequest,
                    header,
                    regions_id = regions.clone(),
                    group = group.clone(),
                );
                async move { pd.scatter_region(request).await }
            })
            .await?;
        let left_out = answer.failed_regions_id.iter().map(|id| RegionId::try_from(*id));
        left_out.collect::<Result<_, _>>().map_err(|error| senseless(&error))
    }

    async fn operator_status(&self, region: RegionId) -> Result<Option<OperatorStatus>> {
        let outcome = self
            .ask(move |mut pd, header| async move {
                pd.get_operator(request!(GetOperatorRequest, header, region_id = region.get()))
                    .await
            })
            .await;
        let answer = match outcome {
            Err(Error::Refused(why)) if why.eq_ignore_ascii_case("not found") => return Ok(None),
            outcome => outcome?,
        };
        Ok(Some(OperatorStatus {
            reason: String::from_utf8_lossy(&answer.desc).into_owned(),
            state: match answer.status {
                pdpb::OperatorStatus::RUNNING => OperatorState::Running,
                pdpb::OperatorStatus::SUCCESS => OperatorState::Finished,
                pdpb::OperatorStatus::CANCEL => OperatorState::Cancelled,
                pdpb::OperatorStatus::TIMEOUT => OperatorState::TimedOut,
                pdpb::OperatorStatus::REPLACE => OperatorState::Replaced,
            },
        }))
    }
}
