//! What a server answers to each call of PD's protocol.

use std::sync::{Arc, atomic::Ordering};

use raftstore_grpc::pb::{metapb, pdpb, pdpb::ErrorType};
use raftstore_proto::{ClusterId, DecodeError, RegionId, StoreId};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Counters, answers, state::State, state::wall_s, streams::Streams};
use crate::{
    Error,
    grpc::{
        answer::Answer,
        convert::{regions_from_pb, stats_from_pb, stats_to_pb, store_from_pb, store_to_pb},
        stubs::p_d_server::PD,
    },
    mock::{PdCore, RegionRecord},
};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Told in the header of an empty answer.
    Told(ErrorType, String),
    /// Told instead of an answer.
    Failed(Status),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::AlreadyBootstrapped => ErrorType::ALREADY_BOOTSTRAPPED,
            Error::NotBootstrapped => ErrorType::NOT_BOOTSTRAPPED,
            Error::StoreNotFound(_) => ErrorType::STORE_TOMBSTONE,
            Error::DuplicateAddress { .. } => {
                // The words are those of other PDs, for clients that look for them.
                return Self::Told(
                    ErrorType::UNKNOWN,
                    format!("duplicated store address: {error}"),
                );
            }
            Error::Invalid(_) => ErrorType::INVALID_VALUE,
            Error::Unavailable { .. } => return Self::Failed(Status::unavailable("PD is away")),
            _ => ErrorType::UNKNOWN,
        };
        Self::Told(kind, error.to_string())
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::Told(ErrorType::INVALID_VALUE, error.to_string())
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

fn invalid(why: &str) -> Refusal {
    Refusal::Told(ErrorType::INVALID_VALUE, why.to_owned())
}

/// The service. Clones are the same one.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) state: Arc<State>,
    pub(super) counters: Arc<Counters>,
    pub(super) streams: Arc<Streams>,
    /// Where clients reach this server.
    pub(super) url: Arc<str>,
    pub(super) stopping: watch::Receiver<bool>,
}

impl Service {
    /// Refuses who means another cluster.
    pub(super) fn check(&self, header: &pdpb::RequestHeader) -> Result<(), Status> {
        let ours = self.state.cluster.get();
        if header.cluster_id == ours {
            return Ok(());
        }
        self.counters.wrong_cluster.fetch_add(1, Ordering::Relaxed);
        let theirs = header.cluster_id;
        Err(Status::failed_precondition(format!(
            "mismatch cluster id, need {ours} but got {theirs}"
        )))
    }

    pub(super) fn header(&self) -> pdpb::ResponseHeader {
        let mut header = pdpb::ResponseHeader::new();
        header.cluster_id = self.state.cluster.get();
        header
    }

    pub(super) fn refusal(&self, kind: ErrorType, message: String) -> pdpb::ResponseHeader {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let mut error = pdpb::Error::new();
        error.set_field_type(kind);
        error.message = message;
        let mut header = self.header();
        header.set_error(error);
        header
    }

    fn reply<A: Answer>(&self, outcome: Result<A, Refusal>) -> Result<Response<A>, Status> {
        let (mut answer, header) = match outcome {
            Ok(answer) => (answer, self.header()),
            Err(Refusal::Told(kind, message)) => (A::default(), self.refusal(kind, message)),
            Err(Refusal::Failed(status)) => return Err(status),
        };
        answer.put_header(header);
        Ok(Response::new(answer))
    }

    /// Asks for one region.
    async fn region(
        &self,
        pick: impl FnOnce(&PdCore) -> Option<&RegionRecord>,
    ) -> Result<pdpb::GetRegionResponse, Refusal> {
        self.state
            .ask(|core| {
                if !core.is_bootstrapped() {
                    return Err(Error::NotBootstrapped.into());
                }
                Ok(pick(core).map(answers::region).unwrap_or_default())
            })
            .await
    }

    async fn split_ids(
        &self,
        region: metapb::Region,
        count: u32,
    ) -> Result<Vec<pdpb::SplitID>, Refusal> {
        let region = raftstore_proto::wire::region_from_pb(region)?;
        let ids = self.state.change(|core, _| core.ask_split(&region, count as usize)).await??;
        Ok(ids
            .into_iter()
            .map(|(region, peers)| {
                let mut id = pdpb::SplitID::new();
                id.new_region_id = region.get();
                id.new_peer_ids = peers.into_iter().map(|peer| peer.get()).collect();
                id
            })
            .collect())
    }

    async fn report(
        &self,
        regions: impl IntoIterator<Item = metapb::Region>,
    ) -> Result<(), Refusal> {
        let regions = regions_from_pb(regions)?;
        Ok(self.state.change(|core, _| core.report_split(regions)).await??)
    }

    fn member(&self) -> pdpb::Member {
        let mut member = pdpb::Member::new();
        member.name = "pd".to_owned();
        member.member_id = self.state.cluster.get();
        for urls in [&mut member.peer_urls, &mut member.client_urls] {
            urls.push(self.url.as_ref().to_owned());
        }
        member
    }
}

/// Most ids that one question can get.
const IDS_MAX: u32 = 10_000;

#[tonic::async_trait]
impl PD for Service {
    async fn get_cluster_info(
        &self,
        _: Request<pdpb::GetClusterInfoRequest>,
    ) -> Result<Response<pdpb::GetClusterInfoResponse>, Status> {
        let mut answer = pdpb::GetClusterInfoResponse::new();
        answer.serviceModes = vec![pdpb::ServiceMode::PD_SVC_MODE];
        self.reply(Ok(answer))
    }

    /// Whoever asks this does not know the cluster yet.
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        let mut answer = pdpb::GetMembersResponse::new();
        answer.members.push(self.member());
        answer.set_leader(self.member());
        answer.set_etcd_leader(self.member());
        self.reply(Ok(answer))
    }

    async fn bootstrap(
        &self,
        request: Request<pdpb::BootstrapRequest>,
    ) -> Result<Response<pdpb::BootstrapResponse>, Status> {
        let mut request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let store = answers::admissible(store_from_pb(request.take_store())?)?;
            let region = raftstore_proto::wire::region_from_pb(request.take_region())?;
            self.state.change(|core, now_ms| core.bootstrap(now_ms, store, region)).await??;
            Ok(pdpb::BootstrapResponse::new())
        };
        self.reply(work.await)
    }

    async fn is_bootstrapped(
        &self,
        request: Request<pdpb::IsBootstrappedRequest>,
    ) -> Result<Response<pdpb::IsBootstrappedResponse>, Status> {
        self.check(request.get_ref().get_header())?;
        let mut answer = pdpb::IsBootstrappedResponse::new();
        answer.bootstrapped = self.state.ask(PdCore::is_bootstrapped).await;
        self.reply(Ok(answer))
    }

    /// Gives the last of so many ids in a row.
    async fn alloc_id(
        &self,
        request: Request<pdpb::AllocIDRequest>,
    ) -> Result<Response<pdpb::AllocIDResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let count = request.count.max(1);
            if count > IDS_MAX {
                return Err(invalid("too many ids at a time"));
            }
            let mut answer = pdpb::AllocIDResponse::new();
            let alloc = |core: &mut PdCore, _| (0..count).map(|_| core.alloc_id()).max();
            answer.id = self.state.change(alloc).await?.unwrap_or_default();
            answer.count = count;
            Ok(answer)
        };
        self.reply(work.await)
    }

    /// A store that was buried is shown as such.
    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let look = |core: &PdCore| {
            let id = StoreId::try_from(request.store_id)?;
            let record = core.stores().find(|record| record.info.id == id).ok_or_else(|| {
                Refusal::Told(ErrorType::UNKNOWN, format!("invalid store ID {id}, not found"))
            })?;
            let mut answer = pdpb::GetStoreResponse::new();
            answer.set_store(store_to_pb(&record.info));
            if let Some(stats) = &record.stats {
                answer.set_stats(stats_to_pb(stats));
            }
            Ok(answer)
        };
        self.reply(self.state.ask(look).await)
    }

    async fn put_store(
        &self,
        request: Request<pdpb::PutStoreRequest>,
    ) -> Result<Response<pdpb::PutStoreResponse>, Status> {
        let mut request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let store = answers::admissible(store_from_pb(request.take_store())?)?;
            self.state.change(|core, now_ms| core.put_store(now_ms, store)).await??;
            Ok(pdpb::PutStoreResponse::new())
        };
        self.reply(work.await)
    }

    async fn get_all_stores(
        &self,
        request: Request<pdpb::GetAllStoresRequest>,
    ) -> Result<Response<pdpb::GetAllStoresResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let mut answer = pdpb::GetAllStoresResponse::new();
        answer.stores = self
            .state
            .ask(|core| answers::stores(core, request.exclude_tombstone_stores))
            .await
            .into();
        self.reply(Ok(answer))
    }

    async fn store_heartbeat(
        &self,
        request: Request<pdpb::StoreHeartbeatRequest>,
    ) -> Result<Response<pdpb::StoreHeartbeatResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let stats = stats_from_pb(request.get_stats())?;
            let store = stats.store;
            let state = self
                .state
                .change(|core, now_ms| {
                    core.store_heartbeat(now_ms, stats)?;
                    Ok::<_, Error>(store_to_pb(&core.store(store)?.info).node_state)
                })
                .await??;
            let mut answer = pdpb::StoreHeartbeatResponse::new();
            answer.state = state;
            Ok(answer)
        };
        self.reply(work.await)
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        self.reply(self.region(|core| core.region_at(&request.region_key)).await)
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        self.reply(self.region(|core| core.region_before(&request.region_key)).await)
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIDRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let id = RegionId::new(request.region_id);
        self.reply(self.region(|core| id.and_then(|id| core.region(id))).await)
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Result<Response<pdpb::ScanRegionsResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        self.reply(self.state.ask(|core| answers::scan(core, &request)).await)
    }

    async fn batch_scan_regions(
        &self,
        request: Request<pdpb::BatchScanRegionsRequest>,
    ) -> Result<Response<pdpb::BatchScanRegionsResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        self.reply(self.state.ask(|core| answers::batch_scan(core, &request)).await)
    }

    async fn ask_split(
        &self,
        request: Request<pdpb::AskSplitRequest>,
    ) -> Result<Response<pdpb::AskSplitResponse>, Status> {
        let mut request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let mut answer = pdpb::AskSplitResponse::new();
            for id in self.split_ids(request.take_region(), 1).await? {
                answer.new_region_id = id.new_region_id;
                answer.new_peer_ids = id.new_peer_ids;
            }
            Ok(answer)
        };
        self.reply(work.await)
    }

    async fn ask_batch_split(
        &self,
        request: Request<pdpb::AskBatchSplitRequest>,
    ) -> Result<Response<pdpb::AskBatchSplitResponse>, Status> {
        let mut request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let mut answer = pdpb::AskBatchSplitResponse::new();
            answer.ids = self.split_ids(request.take_region(), request.split_count).await?.into();
            Ok(answer)
        };
        self.reply(work.await)
    }

    async fn report_split(
        &self,
        request: Request<pdpb::ReportSplitRequest>,
    ) -> Result<Response<pdpb::ReportSplitResponse>, Status> {
        let mut request = request.into_inner();
        self.check(request.get_header())?;
        let both = [request.take_left(), request.take_right()];
        self.reply(self.report(both).await.map(|()| pdpb::ReportSplitResponse::new()))
    }

    async fn report_batch_split(
        &self,
        request: Request<pdpb::ReportBatchSplitRequest>,
    ) -> Result<Response<pdpb::ReportBatchSplitResponse>, Status> {
        let mut request = request.into_inner();
        self.check(request.get_header())?;
        let outcome = self.report(request.take_regions()).await;
        self.reply(outcome.map(|()| pdpb::ReportBatchSplitResponse::new()))
    }

    async fn get_cluster_config(
        &self,
        request: Request<pdpb::GetClusterConfigRequest>,
    ) -> Result<Response<pdpb::GetClusterConfigResponse>, Status> {
        self.check(request.get_ref().get_header())?;
        let mut cluster = metapb::Cluster::new();
        cluster.id = self.state.cluster.get();
        let replicas = self.state.ask(|core| core.config().max_replicas).await;
        cluster.max_peer_count = u32::try_from(replicas).unwrap_or(u32::MAX);
        let mut answer = pdpb::GetClusterConfigResponse::new();
        answer.set_cluster(cluster);
        self.reply(Ok(answer))
    }

    async fn put_cluster_config(
        &self,
        request: Request<pdpb::PutClusterConfigRequest>,
    ) -> Result<Response<pdpb::PutClusterConfigResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let cluster = request.get_cluster();
            if ClusterId::new(cluster.id) != Some(self.state.cluster) {
                return Err(invalid("the configuration is another cluster's"));
            }
            let count = cluster.max_peer_count;
            let mut config = self.state.ask(|core| core.config().clone()).await;
            config.max_replicas = count as usize;
            config.validate()?;
            self.state.promise(move |promises| promises.max_replicas = Some(count)).await?;
            self.state.change(|core, _| core.set_config(config)).await?;
            Ok(pdpb::PutClusterConfigResponse::new())
        };
        self.reply(work.await)
    }

    async fn scatter_region(
        &self,
        request: Request<pdpb::ScatterRegionRequest>,
    ) -> Result<Response<pdpb::ScatterRegionResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let (regions, group) = answers::scattered(&request)?;
            let count = regions.len();
            let failed =
                self.state.change(|core, now_ms| core.scatter(now_ms, &regions, group)).await??;
            let mut answer = pdpb::ScatterRegionResponse::new();
            answer.finished_percentage = ((count - failed.len()) * 100 / count.max(1)) as u64;
            answer.failed_regions_id = failed.into_iter().map(RegionId::get).collect();
            Ok(answer)
        };
        self.reply(work.await)
    }

    async fn get_operator(
        &self,
        request: Request<pdpb::GetOperatorRequest>,
    ) -> Result<Response<pdpb::GetOperatorResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let region = RegionId::new(request.region_id);
        let status = self.state.ask(|core| core.operator_status(region?)).await;
        self.reply(
            status
                .map(|status| answers::operator(request.region_id, status))
                .ok_or_else(|| Refusal::Told(ErrorType::REGION_NOT_FOUND, "Not Found".to_owned())),
        )
    }

    async fn get_gc_safe_point(
        &self,
        request: Request<pdpb::GetGCSafePointRequest>,
    ) -> Result<Response<pdpb::GetGCSafePointResponse>, Status> {
        self.check(request.get_ref().get_header())?;
        let mut answer = pdpb::GetGCSafePointResponse::new();
        answer.safe_point = self.state.safe_point().await;
        self.reply(Ok(answer))
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGCSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateGCSafePointResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let safe_point = request.safe_point;
            let mut answer = pdpb::UpdateGCSafePointResponse::new();
            answer.new_safe_point =
                self.state.promise(move |promises| promises.raise_safe_point(safe_point)).await?;
            Ok(answer)
        };
        self.reply(work.await)
    }

    async fn update_service_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateServiceGCSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateServiceGCSafePointResponse>, Status> {
        let request = request.into_inner();
        self.check(request.get_header())?;
        let work = async {
            let now_s = wall_s();
            let (oldest, holder) = self
                .state
                .promise(move |promises| {
                    promises.hold(now_s, &request.service_id, request.TTL, request.safe_point)
                })
                .await?
                .map_err(invalid)?;
            let mut answer = pdpb::UpdateServiceGCSafePointResponse::new();
            answer.service_id = oldest;
            answer.TTL = holder.expires_s.saturating_sub(now_s);
            answer.min_safe_point = holder.safe_point;
            Ok(answer)
        };
        self.reply(work.await)
    }

    type TsoStream = ReceiverStream<Result<pdpb::TsoResponse, Status>>;

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Result<Response<Self::TsoStream>, Status> {
        Ok(Response::new(self.clone().serve_tso(request.into_inner())))
    }

    type RegionHeartbeatStream = ReceiverStream<Result<pdpb::RegionHeartbeatResponse, Status>>;

    async fn region_heartbeat(
        &self,
        request: Request<Streaming<pdpb::RegionHeartbeatRequest>>,
    ) -> Result<Response<Self::RegionHeartbeatStream>, Status> {
        Ok(Response::new(self.clone().serve_heartbeats(request.into_inner())))
    }
}
