//! Writes the service and the client of PD's protocol around the messages that
//! raftstore-proto generates; without feature `grpc` there is nothing to write.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "grpc")]
    stubs::write();
}

#[cfg(feature = "grpc")]
mod stubs {
    use tonic_build::manual::{Builder, Method, Service};

    /// Calls with one request and one answer: name, route, request, answer.
    const CALLS: [(&str, &str, &str, &str); 24] = [
        ("get_cluster_info", "GetClusterInfo", "GetClusterInfoRequest", "GetClusterInfoResponse"),
        ("get_members", "GetMembers", "GetMembersRequest", "GetMembersResponse"),
        ("bootstrap", "Bootstrap", "BootstrapRequest", "BootstrapResponse"),
        ("is_bootstrapped", "IsBootstrapped", "IsBootstrappedRequest", "IsBootstrappedResponse"),
        ("alloc_id", "AllocID", "AllocIDRequest", "AllocIDResponse"),
        ("get_store", "GetStore", "GetStoreRequest", "GetStoreResponse"),
        ("put_store", "PutStore", "PutStoreRequest", "PutStoreResponse"),
        ("get_all_stores", "GetAllStores", "GetAllStoresRequest", "GetAllStoresResponse"),
        ("store_heartbeat", "StoreHeartbeat", "StoreHeartbeatRequest", "StoreHeartbeatResponse"),
        ("get_region", "GetRegion", "GetRegionRequest", "GetRegionResponse"),
        ("get_prev_region", "GetPrevRegion", "GetRegionRequest", "GetRegionResponse"),
        ("get_region_by_id", "GetRegionByID", "GetRegionByIDRequest", "GetRegionResponse"),
        ("scan_regions", "ScanRegions", "ScanRegionsRequest", "ScanRegionsResponse"),
        (
            "batch_scan_regions",
            "BatchScanRegions",
            "BatchScanRegionsRequest",
            "BatchScanRegionsResponse",
        ),
        ("ask_split", "AskSplit", "AskSplitRequest", "AskSplitResponse"),
        ("report_split", "ReportSplit", "ReportSplitRequest", "ReportSplitResponse"),
        ("ask_batch_split", "AskBatchSplit", "AskBatchSplitRequest", "AskBatchSplitResponse"),
        (
            "report_batch_split",
            "ReportBatchSplit",
            "ReportBatchSplitRequest",
            "ReportBatchSplitResponse",
        ),
        (
            "get_cluster_config",
            "GetClusterConfig",
            "GetClusterConfigRequest",
            "GetClusterConfigResponse",
        ),
        (
            "put_cluster_config",
            "PutClusterConfig",
            "PutClusterConfigRequest",
            "PutClusterConfigResponse",
        ),
        ("scatter_region", "ScatterRegion", "ScatterRegionRequest", "ScatterRegionResponse"),
        ("get_operator", "GetOperator", "GetOperatorRequest", "GetOperatorResponse"),
        ("get_gc_safe_point", "GetGCSafePoint", "GetGCSafePointRequest", "GetGCSafePointResponse"),
        (
            "update_gc_safe_point",
            "UpdateGCSafePoint",
            "UpdateGCSafePointRequest",
            "UpdateGCSafePointResponse",
        ),
    ];

    pub(crate) fn write() {
        let stream = |name, route, request, answer| {
            method(name, route, request, answer).client_streaming().server_streaming().build()
        };
        let mut service = Service::builder().name("PD").package("pdpb");
        for (name, route, request, answer) in CALLS {
            service = service.method(method(name, route, request, answer).build());
        }
        let service = service
            .method(
                method(
                    "update_service_gc_safe_point",
                    "UpdateServiceGCSafePoint",
                    "UpdateServiceGCSafePointRequest",
                    "UpdateServiceGCSafePointResponse",
                )
                .build(),
            )
            .method(stream("tso", "Tso", "TsoRequest", "TsoResponse"))
            .method(stream(
                "region_heartbeat",
                "RegionHeartbeat",
                "RegionHeartbeatRequest",
                "RegionHeartbeatResponse",
            ));
        Builder::new().compile(&[service.build()]);
    }

    fn method(
        name: &str,
        route: &str,
        request: &str,
        answer: &str,
    ) -> tonic_build::manual::MethodBuilder {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("raftstore_grpc::pb::pdpb::{request}"))
            .output_type(format!("raftstore_grpc::pb::pdpb::{answer}"))
            .codec_path("raftstore_grpc::GuardedCodec")
    }
}
