//! Decides what tests can stop, delay or fail in a running node: points by name, switched on
//! with the crate `fail`. Without the feature `failpoints` nothing of it is compiled in.
//!
//! | name | where |
//! | --- | --- |
//! | `raft_before_save`, `raft_after_save` | around the writes of a group of rounds |
//! | `raft_between_save` | after its data part, before its log part |
//! | `raft_before_leader_send` | before messages of a leader leave |
//! | `raft_before_follower_send` | before messages of another peer leave, after its write |
//! | `raft_before_apply_snap`, `raft_after_apply_snap` | around the installation of a snapshot |
//! | `before_split`, `before_destroy` | before the store takes in a split, ends a peer |
//! | `apply_before_run` | before an apply thread takes its tasks |
//! | `pd_before_ask` | before PD is asked anything |

use crate::hooks::{Bug, Hooks, Point};

/// A point outside of the core's values.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        fail::fail_point!($name);
    };
}
pub(super) use fail_point;

/// No planted bugs, and the points of the core under their names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FailPoints;

impl Hooks for FailPoints {
    #[inline]
    fn planted(&self, _: Bug) -> bool {
        false
    }

    #[inline]
    fn reach(&self, point: Point) {
        match point {
            Point::BetweenSave => {
                fail_point!("raft_between_save");
            }
            Point::BeforeLeaderSend => {
                fail_point!("raft_before_leader_send");
            }
            Point::BeforeFollowerSend => {
                fail_point!("raft_before_follower_send");
            }
            Point::BeforeApplySnapshot => {
                fail_point!("raft_before_apply_snap");
            }
            Point::AfterApplySnapshot => {
                fail_point!("raft_after_apply_snap");
            }
            Point::BeforeSplit => {
                fail_point!("before_split");
            }
            Point::BeforeDestroy => {
                fail_point!("before_destroy");
            }
        }
    }
}
