//! Decides whether a small history with deletes is linearizable, by search.
//!
//! Every delete leaves the same value behind, so zones do not apply. The search goes
//! through calls and returns in the order of time and keeps every configuration that is
//! still possible: the register's value, and which of the open calls have taken effect
//! (Wing and Gong 1993, with Lowe's memory of configurations seen). At a return only the
//! configurations remain in which that call has taken effect.

use std::collections::BTreeSet;

use super::{Action, KeyHistory, Operation, Outcome, Value};
use crate::queue::Nanos;

/// Most configurations followed at the same time.
const MOST_CONFIGURATIONS: usize = 20_000;

/// Result of [`search`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchVerdict {
    /// There is an order.
    Linearizable,
    /// There is none; why.
    Not(String),
    /// Too many orders are possible to look at all.
    GaveUp,
}

/// The register's value, and the open calls that have taken effect.
type Configuration = (Value, Vec<usize>);

/// Checks one key.
#[must_use]
pub fn search(history: &KeyHistory) -> SearchVerdict {
    let operations = relevant(history);
    let mut moments: Vec<(Nanos, bool, usize)> = Vec::with_capacity(operations.len() * 2);
    for (at, operation) in operations.iter().enumerate() {
        // Calls before returns of the same moment: such operations overlap.
        moments.push((operation.start, false, at));
        if let Outcome::Done(end) = operation.outcome {
            moments.push((end, true, at));
        }
    }
    moments.sort_unstable();
    let mut open: Vec<usize> = Vec::new();
    let mut possible: BTreeSet<Configuration> = BTreeSet::from([(0, Vec::new())]);
    for (_, is_return, at) in moments {
        if !is_return {
            open.push(at);
            continue;
        }
        let Some(closure) = close(&possible, &open, &operations) else {
            return SearchVerdict::GaveUp;
        };
        possible = closure
            .into_iter()
            .filter_map(|(value, mut taken)| {
                let position = taken.binary_search(&at).ok()?;
                taken.remove(position);
                Some((value, taken))
            })
            .collect();
        open.retain(|other| *other != at);
        if possible.is_empty() {
            return SearchVerdict::Not(format!("no order explains {}", operations[at]));
        }
    }
    SearchVerdict::Linearizable
}

/// Operations that can matter: a refused one must not have happened, a read without an
/// answer says nothing, a write of unknown outcome that nobody saw need not have happened.
fn relevant(history: &KeyHistory) -> Vec<Operation> {
    let seen: BTreeSet<Value> = history
        .operations
        .iter()
        .filter_map(|operation| match (operation.action, operation.outcome) {
            (Action::Read(value), Outcome::Done(_)) => Some(value),
            _ => None,
        })
        .collect();
    history
        .operations
        .iter()
        .filter(|operation| match (operation.outcome, operation.action) {
            (Outcome::Done(_), _) => true,
            (Outcome::Refused, _) | (Outcome::Unknown, Action::Read(_)) => false,
            (Outcome::Unknown, Action::Write(value)) => seen.contains(&value),
            (Outcome::Unknown, Action::Delete) => seen.contains(&0),
        })
        .copied()
        .collect()
}

/// All configurations that open calls can lead to from `possible`; `None` if too many.
fn close(
    possible: &BTreeSet<Configuration>,
    open: &[usize],
    operations: &[Operation],
) -> Option<BTreeSet<Configuration>> {
    let mut reached = possible.clone();
    let mut fresh: Vec<Configuration> = possible.iter().cloned().collect();
    while let Some((value, taken)) = fresh.pop() {
        for call in open {
            let Err(position) = taken.binary_search(call) else { continue };
            let after = match operations[*call].action {
                Action::Write(new) => new,
                Action::Delete => 0,
                Action::Read(seen) if seen == value => value,
                Action::Read(_) => continue,
            };
            let mut taken = taken.clone();
            taken.insert(position, *call);
            let next = (after, taken);
            if reached.insert(next.clone()) {
                fresh.push(next);
            }
        }
        if reached.len() > MOST_CONFIGURATIONS {
            return None;
        }
    }
    Some(reached)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rng::Rng;

    /// A history in which anything may happen, good or bad.
    pub(crate) fn random_history(rng: &mut Rng, most: u64, deletes: bool) -> KeyHistory {
        let count = rng.between(2, most);
        let mut operations = Vec::new();
        let mut written = vec![0];
        let mut time = 1;
        for number in 1..=count {
            time += rng.below(5);
            let action = match rng.below(if deletes { 7 } else { 5 }) {
                0 | 1 => {
                    written.push(number);
                    Action::Write(number)
                }
                2..=4 => Action::Read(*rng.pick(&written)),
                _ => Action::Delete,
            };
            let outcome = if rng.chance(100) && !matches!(action, Action::Read(_)) {
                Outcome::Unknown
            } else {
                Outcome::Done(time + rng.between(1, 4))
            };
            operations.push(Operation { client: 0, start: time, action, outcome });
        }
        KeyHistory { operations }
    }

    /// A long history of a real register: every operation takes effect at one moment of its
    /// span.
    pub(crate) fn register_history(rng: &mut Rng, count: u64) -> KeyHistory {
        let mut effects: Vec<(Nanos, usize)> = Vec::new();
        let mut operations = Vec::new();
        for number in 0..count {
            let start = 1 + number * 10 + rng.below(10);
            let length = rng.between(2, 60);
            let action = if rng.chance(500) { Action::Write(number + 1) } else { Action::Read(0) };
            effects.push((start + rng.below(length), operations.len()));
            let outcome = if matches!(action, Action::Write(_)) && rng.chance(10) {
                Outcome::Unknown
            } else {
                Outcome::Done(start + length)
            };
            operations.push(Operation { client: 0, start, action, outcome });
        }
        effects.sort_unstable();
        let mut register = 0;
        for (_, at) in effects {
            match &mut operations[at].action {
                Action::Write(value) => register = *value,
                Action::Delete => register = 0,
                Action::Read(seen) => *seen = register,
            }
        }
        KeyHistory { operations }
    }

    /// Tries every order of the operations that are not contradicted by time.
    pub(crate) fn brute_force(history: &KeyHistory) -> bool {
        fn go(left: &[Operation], value: Value) -> bool {
            if left.iter().all(|operation| operation.outcome == Outcome::Unknown) {
                return true;
            }
            (0..left.len()).any(|at| {
                let next = left[at];
                if left.iter().any(|other| other.end() < next.start) {
                    return false;
                }
                let after = match next.action {
                    Action::Write(new) => new,
                    Action::Delete => 0,
                    Action::Read(seen) if seen == value => value,
                    Action::Read(_) => return false,
                };
                let mut rest = left.to_vec();
                rest.remove(at);
                go(&rest, after)
            })
        }
        go(&history.operations, 0)
    }

    #[test]
    fn agrees_with_brute_force() {
        let mut bad = 0;
        for seed in 0..3_000 {
            let history = random_history(&mut Rng::new(seed), 7, true);
            let expected = brute_force(&history);
            bad += u32::from(!expected);
            let found = search(&history);
            assert_eq!(found == SearchVerdict::Linearizable, expected, "seed {seed}: {history:?}");
        }
        assert!((300..2_700).contains(&bad), "{bad} of 3000 histories are bad");
    }

    #[test]
    fn a_deleted_value_that_returns_is_found() {
        let done = |start, end, action| Operation {
            client: 0,
            start,
            action,
            outcome: Outcome::Done(end),
        };
        let mut operations = vec![
            done(1, 2, Action::Write(1)),
            done(3, 4, Action::Delete),
            done(5, 6, Action::Read(0)),
        ];
        assert_eq!(
            search(&KeyHistory { operations: operations.clone() }),
            SearchVerdict::Linearizable
        );
        operations.push(done(7, 8, Action::Read(1)));
        assert!(matches!(search(&KeyHistory { operations }), SearchVerdict::Not(_)));
    }

    #[test]
    fn a_thousand_operations_are_searched() {
        let history = register_history(&mut Rng::new(9), 1_000);
        assert_eq!(search(&history), SearchVerdict::Linearizable);
    }
}
