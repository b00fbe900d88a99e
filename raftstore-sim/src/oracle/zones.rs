//! Decides whether a register history with unique values is linearizable, by zones.
//!
//! The operations on one value (its write and the reads that saw it) form a cluster. Its
//! zone lies between the earliest end and the latest start of its operations. If the
//! earliest end comes first, the register must have held the value for the whole zone
//! (*forward*); otherwise any one moment of the zone will do (*backward*). A history is
//! linearizable exactly if no read ends before its write starts, no two forward zones
//! overlap, and no backward zone lies inside a forward one (Gibbons and Korach, "Testing
//! shared memories", 1997). That takes O(n log n), with any number of clients; a write of
//! unknown outcome that nobody read drops out.

use std::collections::BTreeMap;

use super::{Action, KeyHistory, Operation, Outcome, Value};
use crate::queue::Nanos;

struct Cluster<'a> {
    write: Option<&'a Operation>,
    reads: u32,
    earliest_end: Nanos,
    latest_start: Nanos,
    /// The operations that set the two bounds, for the report.
    ends_first: Option<&'a Operation>,
    starts_last: Option<&'a Operation>,
}

impl<'a> Cluster<'a> {
    const fn empty() -> Self {
        Self {
            write: None,
            reads: 0,
            earliest_end: Nanos::MAX,
            latest_start: 0,
            ends_first: None,
            starts_last: None,
        }
    }

    fn add(&mut self, operation: &'a Operation) {
        if operation.end() < self.earliest_end {
            self.earliest_end = operation.end();
            self.ends_first = Some(operation);
        }
        if operation.start >= self.latest_start {
            self.latest_start = operation.start;
            self.starts_last = Some(operation);
        }
    }

    const fn is_forward(&self) -> bool {
        self.earliest_end < self.latest_start
    }

    fn describe(&self) -> String {
        let show = |operation: Option<&Operation>| {
            operation.map_or_else(|| "the start".to_owned(), ToString::to_string)
        };
        format!("[{}; {}]", show(self.ends_first), show(self.starts_last))
    }
}

/// Checks one key without deletes.
///
/// # Errors
/// Says which operations cannot be brought into one order.
pub fn check_zones(history: &KeyHistory) -> Result<(), String> {
    let clusters = clusters(history)?;
    let mut forward: Vec<&Cluster<'_>> =
        clusters.values().filter(|cluster| cluster.is_forward()).collect();
    forward.sort_unstable_by_key(|cluster| cluster.earliest_end);
    for pair in forward.windows(2) {
        if pair[1].earliest_end < pair[0].latest_start {
            return Err(format!(
                "two values held at the same time: {} and {}",
                pair[0].describe(),
                pair[1].describe()
            ));
        }
    }
    for cluster in clusters.values().filter(|cluster| !cluster.is_forward()) {
        // The last forward zone that starts before this one; the zones do not overlap.
        let after = forward.partition_point(|zone| zone.earliest_end < cluster.latest_start);
        let Some(zone) = after.checked_sub(1).map(|at| forward[at]) else { continue };
        if cluster.earliest_end < zone.latest_start {
            return Err(format!(
                "a value came and went while another was held: {} inside {}",
                cluster.describe(),
                zone.describe()
            ));
        }
    }
    Ok(())
}

fn clusters(history: &KeyHistory) -> Result<BTreeMap<Value, Cluster<'_>>, String> {
    let mut clusters: BTreeMap<Value, Cluster<'_>> = BTreeMap::new();
    // The key's absence was "written" before everything.
    let initial = clusters.entry(0).or_insert_with(Cluster::empty);
    initial.earliest_end = 0;
    for operation in &history.operations {
        if let Action::Write(value) = operation.action {
            let cluster = clusters.entry(value).or_insert_with(Cluster::empty);
            if value == 0 || cluster.write.replace(operation).is_some() {
                return Err(format!("value written twice: {operation}"));
            }
        }
    }
    for operation in &history.operations {
        if let (Action::Read(value), Outcome::Done(end)) = (operation.action, operation.outcome) {
            let Some(cluster) = clusters.get_mut(&value) else {
                return Err(format!("nobody wrote what was seen by {operation}"));
            };
            if let Some(write) = cluster.write {
                if write.outcome == Outcome::Refused {
                    return Err(format!("{operation} saw what was refused: {write}"));
                }
                if end < write.start {
                    return Err(format!("{operation} saw the future: {write}"));
                }
            }
            cluster.reads += 1;
            cluster.add(operation);
        }
    }
    // What nobody saw and nobody was promised has not happened.
    clusters.retain(|_, cluster| {
        cluster
            .write
            .is_none_or(|write| cluster.reads > 0 || matches!(write.outcome, Outcome::Done(_)))
    });
    for cluster in clusters.values_mut() {
        if let Some(write) = cluster.write {
            cluster.add(write);
        }
    }
    Ok(clusters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        oracle::search::tests::{brute_force, random_history, register_history},
        rng::Rng,
    };

    fn operation(start: Nanos, end: Nanos, action: Action) -> Operation {
        Operation { client: 0, start, action, outcome: Outcome::Done(end) }
    }

    fn unknown(start: Nanos, action: Action) -> Operation {
        Operation { client: 0, start, action, outcome: Outcome::Unknown }
    }

    fn check(operations: Vec<Operation>) -> Result<(), String> {
        check_zones(&KeyHistory { operations })
    }

    #[test]
    fn a_plain_history_is_fine() {
        let ok = check(vec![
            operation(1, 2, Action::Read(0)),
            operation(3, 9, Action::Write(1)),
            operation(4, 5, Action::Read(0)),
            operation(5, 8, Action::Read(1)),
            operation(10, 12, Action::Write(2)),
            operation(13, 14, Action::Read(2)),
        ]);
        assert_eq!(ok, Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = check(vec![
            operation(1, 2, Action::Write(1)),
            operation(3, 4, Action::Write(2)),
            operation(5, 6, Action::Read(1)),
        ]);
        assert!(stale.unwrap_err().contains("came and went"));
    }

    #[test]
    fn a_lost_write_is_found() {
        let lost = check(vec![operation(1, 2, Action::Write(1)), operation(3, 4, Action::Read(0))]);
        assert!(lost.is_err());
    }

    #[test]
    fn a_write_applied_twice_is_found() {
        // Write 1, overwritten by 2, comes back.
        let twice = check(vec![
            operation(1, 2, Action::Write(1)),
            operation(3, 4, Action::Write(2)),
            operation(5, 6, Action::Read(2)),
            operation(7, 8, Action::Read(1)),
        ]);
        assert!(twice.unwrap_err().contains("same time"));
    }

    #[test]
    fn reordered_reads_are_found() {
        let reorder = check(vec![
            operation(1, 20, Action::Write(1)),
            operation(2, 3, Action::Read(1)),
            operation(4, 5, Action::Read(0)),
        ]);
        assert!(reorder.is_err());
    }

    #[test]
    fn refused_and_unknown_writes() {
        let refused =
            Operation { client: 0, start: 1, action: Action::Write(1), outcome: Outcome::Refused };
        assert!(check(vec![refused]).is_ok());
        assert!(check(vec![refused, operation(5, 6, Action::Read(1))]).is_err());
        assert!(check(vec![unknown(1, Action::Write(1))]).is_ok());
        assert!(
            check(vec![unknown(1, Action::Write(1)), operation(50, 60, Action::Read(1))]).is_ok()
        );
        assert!(
            check(vec![unknown(7, Action::Write(1)), operation(5, 6, Action::Read(1))]).is_err()
        );
        assert!(check(vec![operation(5, 6, Action::Read(9))]).is_err());
    }

    #[test]
    fn agrees_with_brute_force() {
        let mut bad = 0;
        for seed in 0..3_000 {
            let history = random_history(&mut Rng::new(seed), 6, false);
            let expected = brute_force(&history);
            bad += u32::from(!expected);
            assert_eq!(check_zones(&history).is_ok(), expected, "seed {seed}: {history:?}");
        }
        assert!((300..2_700).contains(&bad), "{bad} of 3000 histories are bad");
    }

    #[test]
    fn long_good_histories_pass_and_each_planted_fault_is_found() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let history = register_history(&mut rng, 2_000);
            assert_eq!(check_zones(&history), Ok(()), "seed {seed}");
            // A read that ends long after its value was replaced sees it again.
            let mut stale = history.clone();
            let reads: Vec<usize> = (1_000..history.operations.len())
                .filter(|at| matches!(history.operations[*at].action, Action::Read(_)))
                .collect();
            let old = history.operations[..200]
                .iter()
                .find_map(|operation| match operation.action {
                    Action::Read(value) if value != 0 => Some(value),
                    _ => None,
                })
                .expect("one of 200 operations read something");
            stale.operations[*rng.pick(&reads)].action = Action::Read(old);
            assert!(check_zones(&stale).is_err(), "seed {seed}: stale read not found");
        }
    }
}
