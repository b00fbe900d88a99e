//! Records what clients asked and saw, key by key, and has it judged.

use std::{collections::BTreeMap, fmt};

use super::{SearchVerdict, check_zones, search};
use crate::queue::{MILLI, Nanos, SECOND};

/// What a write stored: a number that no other write of the run stores. 0 is the value of
/// a key that was never written.
pub type Value = u64;

/// What a client wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store a value.
    Write(Value),
    /// Remove the key.
    Delete,
    /// Look; what was seen, 0 for nothing. Unknown until the answer has come.
    Read(Value),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, or seen, at this time.
    Done(Nanos),
    /// Nobody knows: no answer, or one that leaves it open.
    Unknown,
    /// Refused: it must never take effect.
    Refused,
}

/// One call of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called.
    pub client: u32,
    /// When.
    pub start: Nanos,
    /// What for.
    pub action: Action,
    /// With what outcome.
    pub outcome: Outcome,
}

impl Operation {
    /// When it had certainly happened; never, if that is unknown.
    #[must_use]
    pub const fn end(&self) -> Nanos {
        match self.outcome {
            Outcome::Done(at) => at,
            Outcome::Unknown | Outcome::Refused => Nanos::MAX,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Value| format!("{}:{}", value >> 40, value & ((1 << 40) - 1));
        match self.action {
            Action::Write(value) => write!(f, "write {}", show(value))?,
            Action::Delete => write!(f, "delete")?,
            Action::Read(value) => write!(f, "read {}", show(value))?,
        }
        write!(
            f,
            " by client {} at {}.{:03}",
            self.client,
            self.start / SECOND,
            self.start % SECOND / MILLI
        )?;
        match self.outcome {
            Outcome::Done(at) => write!(f, " to {}.{:03}", at / SECOND, at % SECOND / MILLI),
            Outcome::Unknown => write!(f, ", outcome unknown"),
            Outcome::Refused => write!(f, ", refused"),
        }
    }
}

/// All operations on one key.
#[derive(Clone, Debug, Default)]
pub struct KeyHistory {
    /// In the order of their starts.
    pub operations: Vec<Operation>,
}

/// A history that no register can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFault {
    /// The key.
    pub key: Vec<u8>,
    /// What does not fit.
    pub detail: String,
}

impl fmt::Display for HistoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "history of key {} is not linearizable: {}", self.key.escape_ascii(), self.detail)
    }
}

/// The histories of all keys.
#[derive(Debug, Default)]
pub struct History {
    keys: BTreeMap<Vec<u8>, KeyHistory>,
    /// Searches that ended without a verdict.
    inconclusive: u64,
}

/// Names one recorded operation.
pub type OperationId = (Vec<u8>, usize);

impl History {
    /// A client calls. Until told otherwise the outcome is unknown.
    pub fn begin(&mut self, key: &[u8], client: u32, start: Nanos, action: Action) -> OperationId {
        let history = self.keys.entry(key.to_vec()).or_default();
        history.operations.push(Operation { client, start, action, outcome: Outcome::Unknown });
        (key.to_vec(), history.operations.len() - 1)
    }

    /// A write was acknowledged or refused.
    pub fn end(&mut self, id: &OperationId, outcome: Outcome) {
        if let Some(operation) = self.operation(id) {
            operation.outcome = outcome;
        }
    }

    /// A read has seen `value`.
    pub fn end_read(&mut self, id: &OperationId, value: Value, at: Nanos) {
        if let Some(operation) = self.operation(id) {
            operation.action = Action::Read(value);
            operation.outcome = Outcome::Done(at);
        }
    }

    /// What became of an operation.
    #[must_use]
    pub fn outcome(&self, (key, at): &OperationId) -> Option<Outcome> {
        self.keys.get(key)?.operations.get(*at).map(|operation| operation.outcome)
    }

    fn operation(&mut self, (key, at): &OperationId) -> Option<&mut Operation> {
        self.keys.get_mut(key)?.operations.get_mut(*at)
    }

    /// Judges every key: by zones where values are never removed, by search elsewhere.
    ///
    /// # Errors
    /// The first key whose history fits no register.
    pub fn check(&mut self) -> Result<(), HistoryFault> {
        for (key, history) in &self.keys {
            let has_deletes =
                history.operations.iter().any(|operation| operation.action == Action::Delete);
            let verdict = if has_deletes {
                match search(history) {
                    SearchVerdict::Linearizable => Ok(()),
                    SearchVerdict::GaveUp => {
                        self.inconclusive += 1;
                        Ok(())
                    }
                    SearchVerdict::Not(detail) => Err(detail),
                }
            } else {
                check_zones(history)
            };
            verdict.map_err(|detail| HistoryFault { key: key.clone(), detail })?;
        }
        Ok(())
    }

    /// Operations recorded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.values().map(|history| history.operations.len()).sum()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys whose search was given up.
    #[must_use]
    pub const fn inconclusive(&self) -> u64 {
        self.inconclusive
    }

    /// Each key with the operations on it.
    pub fn keys(&self) -> impl Iterator<Item = (&[u8], &KeyHistory)> {
        self.keys.iter().map(|(key, history)| (key.as_slice(), history))
    }
}
