//! Whether a command to cut the log is obeyed. Entries are removed elsewhere, and later.

use raftstore_proto::{ApplyState, RegionError, Truncated};

/// The new start of the log; `None` if it begins there already.
///
/// *Order*: `state` is that before this entry. A correct leader never asks for more.
///
/// # Errors
/// `InvalidCommand` for a term of 0, and for an index that is not yet applied.
pub(super) fn truncate(
    state: &ApplyState,
    index: u64,
    term: u64,
) -> Result<Option<Truncated>, RegionError> {
    let first_index = state.truncated.index + 1;
    if index <= first_index {
        return Ok(None);
    }
    if term == 0 {
        return Err(RegionError::InvalidCommand { why: "cut of the log names no term" });
    }
    if index > state.applied {
        return Err(RegionError::InvalidCommand { why: "cut of the log beyond what is applied" });
    }
    Ok(Some(Truncated { index, term }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: ApplyState =
        ApplyState { applied: 20, applied_term: 6, truncated: Truncated { index: 5, term: 5 } };

    #[test]
    fn nothing_to_cut_is_a_success() {
        assert_eq!(truncate(&STATE, 5, 5), Ok(None));
        assert_eq!(truncate(&STATE, 6, 6), Ok(None));
        assert_eq!(truncate(&STATE, 0, 0), Ok(None));
    }

    #[test]
    fn cuts_up_to_the_applied_index() {
        assert_eq!(truncate(&STATE, 7, 6), Ok(Some(Truncated { index: 7, term: 6 })));
        assert_eq!(truncate(&STATE, 20, 6), Ok(Some(Truncated { index: 20, term: 6 })));
    }

    #[test]
    fn refuses_what_it_cannot_know() {
        for (index, term) in [(7, 0), (21, 6), (u64::MAX, 6)] {
            let refused = truncate(&STATE, index, term);
            assert!(matches!(refused, Err(RegionError::InvalidCommand { .. })), "{index} {term}");
        }
    }
}
