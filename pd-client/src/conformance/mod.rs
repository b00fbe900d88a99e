//! The suite a placement driver and its client must pass: what stores count on.
//!
//! Each case is one sentence of what [`PdClient`](crate::PdClient) and
//! [`PdCluster`] say. A fixture gives clients of one PD; the cases find
//! out what is there already and make their own stores and regions, so that they also run
//! against a PD that others have used, as long as no one else uses it meanwhile and no store
//! is connected to it. What a fixture cannot do is skipped, with the reason.
//!
//! ```
//! # mod tests {
//! use std::sync::Arc;
//! use pd_client::{conformance::PdFixture, mock::{MockPd, PdConfig}, PdCluster};
//! use raftstore_proto::ClusterId;
//!
//! struct InProcess(MockPd);
//!
//! impl PdFixture for InProcess {
//!     fn client(&self) -> Arc<dyn PdCluster> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! // One `#[test]` per case.
//! pd_client::pd_conformance!(InProcess(MockPd::new(ClusterId::must(7), PdConfig::manual())));
//! # }
//! ```

mod case;
mod identity;
mod orders;
mod regions;
mod stores;
mod world;

use std::sync::Arc;

use raftstore_proto::RegionId;

use crate::{OrderAction, PdCluster};

pub use self::case::{CaseReport, Outcome, run, run_case};

/// A PD under test.
pub trait PdFixture {
    /// A client of it; each call may give another.
    fn client(&self) -> Arc<dyn PdCluster>;

    /// Whether nobody has asked this PD for anything before the case began.
    fn is_new(&self) -> bool {
        false
    }

    /// Has PD order this of the region's leader until it has happened. Gives whether it can.
    fn force_order(&self, region: RegionId, action: OrderAction) -> bool {
        let _ = (region, action);
        false
    }

    /// Ends PD without a warning and starts it again. Gives whether it can.
    fn restart(&self) -> bool {
        false
    }
}

/// One `#[test]` per case of the suite.
///
/// The expression gives a fresh [`PdFixture`] for each. The
/// tests are named after the cases, so a module should hold one use of this macro.
#[macro_export]
macro_rules! pd_conformance {
    ($make:expr) => {
        $crate::__pd_cases! { tests $make }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __pd_cases {
    ($mode:ident $($make:expr)?) => {
        $crate::__pd_conformance! { $mode $($make)?;
            identity:
                ids_are_new_to_every_client
                one_of_many_bootstraps
                bootstrap_happens_once
                the_first_region_is_one_voter_with_every_key
                promises_hold_over_a_restart
                the_cluster_has_a_configuration;
            stores:
                a_store_is_found_as_it_was_put
                a_store_moves_to_another_address
                an_address_belongs_to_one_living_store
                a_store_that_nobody_put_is_not_found
                stores_report_and_strangers_are_refused;
            regions:
                a_region_is_found_by_any_key_and_by_its_id
                what_nobody_reported_is_not_found
                older_reports_change_nothing
                split_ids_are_new_and_fit_the_region
                a_split_is_seen_once_its_parts_report
                scans_are_bounded_by_keys_and_count;
            orders:
                every_kind_of_order_arrives_as_it_was_given
                an_order_is_repeated_until_it_has_happened
                what_cannot_be_spread_is_named;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __pd_conformance {
    (tests $make:expr; $($group:ident: $($name:ident)*;)*) => {
        $($(
            #[test]
            fn $name() {
                $crate::conformance::run_case(stringify!($name), &$make);
            }
        )*)*
    };
    (list; $($group:ident: $($name:ident)*;)*) => {
        [$($($crate::conformance::case::Case {
            name: stringify!($name),
            run: $crate::conformance::$group::$name,
        }),*),*]
    };
}
