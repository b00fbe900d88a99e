//! The gRPC transport keeps the contract of all transports.

use transport_grpc::GrpcConfig;
use transport_traits::transport_conformance;

use crate::common::GrpcFixture;

transport_conformance!(GrpcFixture::new(GrpcConfig::default()));
