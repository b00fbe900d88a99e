//! What all answers of PD's protocol have in common: a header.

use raftstore_grpc::pb::pdpb;

/// A response of PD's protocol.
pub(super) trait Answer: Default {
    fn header(&self) -> &pdpb::ResponseHeader;

    fn put_header(&mut self, header: pdpb::ResponseHeader);
}

macro_rules! answers_have_headers {
    ($($name:ident),* $(,)?) => {
        $(impl Answer for pdpb::$name {
            fn header(&self) -> &pdpb::ResponseHeader {
                self.get_header()
            }

            fn put_header(&mut self, header: pdpb::ResponseHeader) {
                self.set_header(header);
            }
        })*
    };
}

answers_have_headers!(
    AllocIDResponse,
    AskBatchSplitResponse,
    AskSplitResponse,
    BatchScanRegionsResponse,
    BootstrapResponse,
    GetAllStoresResponse,
    GetClusterConfigResponse,
    GetClusterInfoResponse,
    GetGCSafePointResponse,
    GetMembersResponse,
    GetOperatorResponse,
    GetRegionResponse,
    GetStoreResponse,
    IsBootstrappedResponse,
    PutClusterConfigResponse,
    PutStoreResponse,
    ReportBatchSplitResponse,
    ReportSplitResponse,
    ScanRegionsResponse,
    ScatterRegionResponse,
    StoreHeartbeatResponse,
    UpdateGCSafePointResponse,
    UpdateServiceGCSafePointResponse,
);
