//! Key ranges of the regions of one store never overlap (behaviour I5).

use raftstore_proto::Region;

use super::Violation;

/// Looks at the regions registered on a store, in key order.
///
/// # Errors
/// Names two that share a key, or one that does not list its store.
pub fn check_ranges(store: u64, regions: &[Region]) -> Result<(), Violation> {
    for pair in regions.windows(2) {
        if pair[0].overlaps(&pair[1]) {
            return Err(Violation::new(
                "regions never overlap",
                format!("store {store}: {:?} and {:?}", pair[0], pair[1]),
            ));
        }
    }
    Ok(())
}
