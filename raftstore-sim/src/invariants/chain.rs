//! Truncated <= applied <= commit <= last index, on every peer (behaviour I1), and a log
//! without holes between truncated and last index (I2).

use engine_traits::RaftEngine;

use super::{Seen, Violation, log_matching::region_id};

/// Looks at a peer. `durable_last` is the last index that is certainly in the log engine.
///
/// # Errors
/// If one of the numbers is out of order.
pub fn check_chain(seen: &Seen) -> Result<(), Violation> {
    if seen.truncated <= seen.applied
        && seen.applied <= seen.commit
        && seen.commit <= seen.last_index
    {
        return Ok(());
    }
    Err(Violation::new(
        "truncated <= applied <= commit <= last index",
        format!(
            "store {}: region {} has {} <= {} <= {} <= {}",
            seen.store, seen.region, seen.truncated, seen.applied, seen.commit, seen.last_index
        ),
    ))
}

/// Looks at the log of a store that has just died: of an initialised region, what lies
/// between `truncated` and `last` must all be there.
///
/// # Errors
/// Names the hole.
pub(super) fn check_no_hole<R: RaftEngine>(
    store: u64,
    region: u64,
    truncated: u64,
    last: u64,
    log: &R,
) -> Result<(), Violation> {
    for index in truncated + 1..=last {
        if !matches!(log.entry(region_id(region), index), Ok(Some(_))) {
            return Err(Violation::new(
                "no hole in a log",
                format!(
                    "store {store}: region {region} lacks entry {index} of {truncated}..={last}"
                ),
            ));
        }
    }
    Ok(())
}
