//! The request to cut a region.

use engine_traits::KvEngine;
use raftstore_grpc::pb::kvrpcpb::{KeyError, SplitRegionRequest, SplitRegionResponse};
use raftstore_proto::{AdminResponse, Region, RegionError, ResponseBody, wire::region_to_pb};

use super::{
    RawService,
    commands::some,
    context::{self, Refusal},
};

impl<K: KvEngine> RawService<K> {
    pub(super) async fn split(&self, request: SplitRegionRequest) -> SplitRegionResponse {
        let mut answer = SplitRegionResponse::default();
        match self.split_into(request).await {
            Ok(parts) => {
                if let [left, right] = parts.as_slice() {
                    answer.set_left(region_to_pb(left));
                    answer.set_right(region_to_pb(right));
                }
                answer.regions = parts.iter().map(region_to_pb).collect();
            }
            Err(Refusal::Region(error)) => answer.region_error = some(error),
            Err(Refusal::Request(abort)) => {
                answer.errors.push(KeyError { abort, ..Default::default() });
            }
        }
        answer
    }

    /// The parts in key order. Keys are taken as they are: there are none but raw ones.
    async fn split_into(&self, request: SplitRegionRequest) -> Result<Vec<Region>, Refusal> {
        let header = context::header(request.get_context())?;
        self.check_store(&header)?;
        let epoch = header.epoch.ok_or(RegionError::MissingEpoch)?;
        let mut keys = request.split_keys;
        if keys.is_empty() {
            keys.push(request.split_key);
        }
        match self.node.split_region(header.region, epoch, keys).await.body? {
            ResponseBody::Admin(AdminResponse::Split(parts)) => Ok(parts),
            // A store answers a split with its parts; a retry is the worst of it.
            _ => Err(RegionError::ReadNotReady.into()),
        }
    }
}
