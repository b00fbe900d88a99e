//! What every transport must do, as named cases behind one factory and one macro.
//!
//! An implementer writes a [`Fixture`] and calls
//! [`transport_conformance!`](crate::transport_conformance) in a test file: each case
//! becomes a test of its own. The cases wait for events with generous deadlines and
//! measure no times.

mod fixture;
mod messages;
mod snapshots;

pub use fixture::{Fixture, Recorder};
pub use messages::*;
pub use snapshots::*;

/// Makes one test of each conformance case. The argument is an expression that gives a
/// new [`Fixture`].
#[macro_export]
macro_rules! transport_conformance {
    ($fixture:expr) => {
        $crate::transport_conformance! {
            @cases $fixture;
            delivers_in_order_to_the_store_named
            refuses_a_message_without_target
            serves_several_handles_of_one_process
            a_stalled_receiver_fills_a_queue_and_blocks_nobody
            an_unknown_store_is_unreachable
            a_stopped_store_is_unreachable_until_it_is_back
            a_closed_transport_refuses
            a_snapshot_comes_after_its_bytes_and_is_reported_once
            an_empty_snapshot_is_a_snapshot
            many_snapshots_arrive_each_reported_once
            a_snapshot_already_received_is_not_copied_again
            a_missing_snapshot_fails_once
            a_reader_that_breaks_fails_once
            a_receiver_without_space_fails_once_and_keeps_nothing
            a_snapshot_to_an_unknown_store_fails_once
            a_slow_snapshot_holds_up_no_other_message
            closing_ends_every_transfer_with_one_report
        }
    };
    (@cases $fixture:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::$case($fixture);
            }
        )*
    };
}
