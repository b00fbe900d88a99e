//! Writes the stubs of the gRPC service of a store. The messages are generated elsewhere.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let unary = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("raftstore_grpc::pb::kvrpcpb::{input}"))
            .output_type(format!("raftstore_grpc::pb::kvrpcpb::{output}"))
            .codec_path("raftstore_grpc::ProtobufCodec")
            .build()
    };
    let batch_commands = Method::builder()
        .name("batch_commands")
        .route_name("BatchCommands")
        .input_type("raftstore_grpc::pb::tikvpb::BatchCommandsRequest")
        .output_type("raftstore_grpc::pb::tikvpb::BatchCommandsResponse")
        .codec_path("raftstore_grpc::ProtobufCodec")
        .client_streaming()
        .server_streaming()
        .build();
    let mut service = Service::builder().name("Tikv").package("tikvpb").method(batch_commands);
    for (name, route, input, output) in [
        ("raw_get", "RawGet", "RawGetRequest", "RawGetResponse"),
        ("raw_batch_get", "RawBatchGet", "RawBatchGetRequest", "RawBatchGetResponse"),
        ("raw_put", "RawPut", "RawPutRequest", "RawPutResponse"),
        ("raw_batch_put", "RawBatchPut", "RawBatchPutRequest", "RawBatchPutResponse"),
        ("raw_delete", "RawDelete", "RawDeleteRequest", "RawDeleteResponse"),
        ("raw_batch_delete", "RawBatchDelete", "RawBatchDeleteRequest", "RawBatchDeleteResponse"),
        ("raw_scan", "RawScan", "RawScanRequest", "RawScanResponse"),
        ("raw_batch_scan", "RawBatchScan", "RawBatchScanRequest", "RawBatchScanResponse"),
        ("raw_delete_range", "RawDeleteRange", "RawDeleteRangeRequest", "RawDeleteRangeResponse"),
        ("raw_compare_and_swap", "RawCompareAndSwap", "RawCASRequest", "RawCASResponse"),
        ("raw_checksum", "RawChecksum", "RawChecksumRequest", "RawChecksumResponse"),
        ("raw_get_key_ttl", "RawGetKeyTTL", "RawGetKeyTTLRequest", "RawGetKeyTTLResponse"),
        ("split_region", "SplitRegion", "SplitRegionRequest", "SplitRegionResponse"),
        ("read_index", "ReadIndex", "ReadIndexRequest", "ReadIndexResponse"),
    ] {
        service = service.method(unary(name, route, input, output));
    }
    Builder::new().compile(&[service.build()]);
}
