//! Every replica executes every committed entry once, in order (Raft dissertation 3.2,
//! "State Machine Safety"; raft fact R6).

use std::collections::BTreeMap;

use raftstore_proto::Entry;

use super::Violation;

/// How far each Applier was given entries.
#[derive(Debug, Default)]
pub struct StateMachine {
    /// By store and region: incarnation and last index handed over.
    handed: BTreeMap<(u64, u64), (u64, u64)>,
}

impl StateMachine {
    /// An Applier starts from `applied`.
    pub fn register(&mut self, store: u64, region: u64, incarnation: u64, applied: u64) {
        self.handed.insert((store, region), (incarnation, applied));
    }

    /// Entries are handed to an Applier.
    ///
    /// # Errors
    /// If one is missing, or comes again.
    pub fn hand(
        &mut self,
        store: u64,
        region: u64,
        incarnation: u64,
        entries: &[Entry],
    ) -> Result<(), Violation> {
        let Some((known, last)) = self.handed.get_mut(&(store, region)) else {
            return Err(Violation::new(
                "entries are executed once, in order",
                format!("store {store}: region {region} is handed entries before it is registered"),
            ));
        };
        if *known != incarnation {
            return Ok(());
        }
        for entry in entries {
            if entry.index() != *last + 1 {
                return Err(Violation::new(
                    "entries are executed once, in order",
                    format!(
                        "store {store}: region {region} is handed entry {} after {last}",
                        entry.index()
                    ),
                ));
            }
            *last = entry.index();
        }
        Ok(())
    }

    /// The store has died.
    pub fn store_died(&mut self, store: u64) {
        self.handed.retain(|(of, _), _| *of != store);
    }
}
