//! Term, commit index and applied index of a peer only grow (Raft dissertation 3.3;
//! behaviour I8), as long as its store lives.

use std::collections::BTreeMap;

use super::{Seen, Violation};

/// What every peer has reached.
#[derive(Debug, Default)]
pub struct Monotonic {
    reached: BTreeMap<(u64, u64), Seen>,
}

impl Monotonic {
    /// Looks at a peer.
    ///
    /// # Errors
    /// If one of its numbers has gone back.
    pub fn check(&mut self, seen: &Seen) -> Result<(), Violation> {
        let Some(before) = self.reached.insert((seen.store, seen.region), *seen) else {
            return Ok(());
        };
        if before.peer > seen.peer {
            return Err(Violation::new(
                "peer ids only grow",
                format!(
                    "store {}: region {} had peer {} and now has peer {}",
                    seen.store, seen.region, before.peer, seen.peer
                ),
            ));
        }
        if before.peer < seen.peer {
            return Ok(());
        }
        let numbers = [
            ("term", before.term, seen.term),
            ("commit", before.commit, seen.commit),
            ("applied", before.applied, seen.applied),
            ("truncated", before.truncated, seen.truncated),
        ];
        for (name, old, new) in numbers {
            if new < old {
                return Err(Violation::new(
                    "monotonic term, commit and applied",
                    format!(
                        "store {}: {name} of region {} went from {old} to {new}",
                        seen.store, seen.region
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The store has died: what it had not written it may have forgotten.
    pub fn store_died(&mut self, store: u64) {
        self.reached.retain(|(of, _), _| *of != store);
    }
}
