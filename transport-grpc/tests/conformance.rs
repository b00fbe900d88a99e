//! The gRPC transport keeps the contract of all transports.

#![expect(unreachable_pub, reason = "what several tests share")]

mod common;

use common::GrpcFixture;
use transport_grpc::GrpcConfig;
use transport_traits::transport_conformance;

transport_conformance!(GrpcFixture::new(GrpcConfig::default()));
