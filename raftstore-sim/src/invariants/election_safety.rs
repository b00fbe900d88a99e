//! At most one leader per term (Raft dissertation 3.2, "Election Safety").

use std::collections::BTreeMap;

use super::{Seen, Violation};

/// Who led in which term of which region.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(u64, u64), u64>,
}

impl ElectionSafety {
    /// Looks at a leader. Gives whether it is a new one.
    ///
    /// # Errors
    /// If another peer led in the same term.
    pub fn check(&mut self, seen: &Seen) -> Result<bool, Violation> {
        if !seen.leads {
            return Ok(false);
        }
        match self.leaders.insert((seen.region, seen.term), seen.peer) {
            None => Ok(true),
            Some(peer) if peer == seen.peer => Ok(false),
            Some(other) => Err(Violation::new(
                "election safety",
                format!(
                    "peers {other} and {} both lead region {} in term {}",
                    seen.peer, seen.region, seen.term
                ),
            )),
        }
    }
}
