//! Writes the stubs of the gRPC service of a store. The messages are generated elsewhere.

use std::{env, error::Error, fs, path::Path};

use tonic_build::manual::{Builder, Method, Service};

/// What a server reads comes from outside: it is checked before it is decoded.
const SERVER_CODEC: &str = "crate::service::GuardedCodec";
const CLIENT_CODEC: &str = "raftstore_grpc::ProtobufCodec";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    let (server, client) = (Path::new(&out).join("server"), Path::new(&out).join("client"));
    fs::create_dir_all(&server)?;
    fs::create_dir_all(&client)?;
    Builder::new().build_client(false).out_dir(&server).compile(&[service(SERVER_CODEC)]);
    Builder::new().build_server(false).out_dir(&client).compile(&[service(CLIENT_CODEC)]);
    Ok(())
}

fn service(codec: &str) -> Service {
    let unary = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("raftstore_grpc::pb::kvrpcpb::{input}"))
            .output_type(format!("raftstore_grpc::pb::kvrpcpb::{output}"))
            .codec_path(codec)
            .build()
    };
    let batch_commands = Method::builder()
        .name("batch_commands")
        .route_name("BatchCommands")
        .input_type("raftstore_grpc::pb::tikvpb::BatchCommandsRequest")
        .output_type("raftstore_grpc::pb::tikvpb::BatchCommandsResponse")
        .codec_path(codec)
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
    service.build()
}
