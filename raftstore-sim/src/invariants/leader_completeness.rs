//! A new leader holds every committed entry (Raft dissertation 3.2, "Leader
//! Completeness").

use engine_traits::RaftEngine;

use super::{Ledger, Seen, Violation, log_matching::region_id};

/// How many of the last committed entries are compared.
const LOOK_BACK: u64 = 32;

/// Looks at the log of a peer that has just become leader.
///
/// # Errors
/// If a committed entry of an earlier term is missing or different.
pub fn check_new_leader<R: RaftEngine>(
    seen: &Seen,
    ledger: &Ledger,
    log: &R,
) -> Result<(), Violation> {
    let last = ledger.last(seen.region);
    let from = last.saturating_sub(LOOK_BACK).max(seen.truncated) + 1;
    for index in from..=last {
        let Some(committed) = ledger.entry(seen.region, index) else { continue };
        if committed.term() >= seen.term {
            break;
        }
        let held = log.entry(region_id(seen.region), index).ok().flatten();
        let same = held.as_ref().is_some_and(|held| held.term() == committed.term());
        if index > seen.last_index || !same {
            return Err(Violation::new(
                "leader completeness",
                format!(
                    "peer {} leads region {} in term {}, but of committed index {index} (term {}) \
                     it holds {:?}",
                    seen.peer,
                    seen.region,
                    seen.term,
                    committed.term(),
                    held.map(|held| held.term())
                ),
            ));
        }
    }
    Ok(())
}
