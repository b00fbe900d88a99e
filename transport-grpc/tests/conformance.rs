//! The gRPC transport keeps the contract of all transports.

#![expect(unreachable_pub, reason = "what several tests share")]

mod common;

use common::GrpcFixture;
use transport_grpc::GrpcConfig;
use transport_traits::conformance;

macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                conformance::$case(GrpcFixture::new(GrpcConfig::default()));
            }
        )*
    };
}

cases! {
    delivers_in_order_to_the_store_named
    refuses_a_message_without_target
    serves_several_handles_of_one_process
    a_stalled_receiver_fills_a_queue_and_blocks_nobody
    an_unknown_store_is_unreachable
    a_stopped_store_is_unreachable_until_it_is_back
    a_closed_transport_refuses
}
