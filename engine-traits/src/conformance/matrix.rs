//! Both suites at once, and the reports of several engines side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::case::{CaseReport, Outcome, Report};
use super::fixture::{KvFixture, RaftLogFixture};
use super::{run_kv, run_raft_log};

/// Runs every case of both suites. The functions give a fresh fixture at each call.
pub fn run_all<K: KvFixture, L: RaftLogFixture>(
    make_kv: impl Fn() -> K,
    make_log: impl Fn() -> L,
) -> Report {
    let mut report = run_kv(make_kv);
    report.cases.extend(run_raft_log(make_log).cases);
    report
}

/// What engines can do, as a Markdown table: a row per group of cases, a column per engine.
///
/// A cell says how many cases of the group passed, and how many there are if not all did. What
/// was skipped or has failed is listed below the table with its reason: a capability that nothing
/// has shown is never counted as one.
#[must_use]
pub fn capability_matrix(engines: &[(&str, &Report)]) -> String {
    let mut groups: Vec<&'static str> = Vec::new();
    for (_, report) in engines {
        for case in &report.cases {
            if !groups.contains(&case.group) {
                groups.push(case.group);
            }
        }
    }
    let mut text = "| cases |".to_owned();
    for (name, _) in engines {
        let _ = write!(text, " {} |", cell(name));
    }
    let _ = write!(text, "\n|{}\n", " --- |".repeat(engines.len() + 1));
    for group in groups {
        let _ = write!(text, "| {group} |");
        for (_, report) in engines {
            let cases: Vec<_> = report.cases.iter().filter(|case| case.group == group).collect();
            let passed = cases.iter().filter(|case| case.outcome == Outcome::Passed).count();
            let _ = match (passed, cases.len()) {
                (_, 0) => write!(text, " - |"),
                (passed, all) if passed == all => write!(text, " {passed} |"),
                (passed, all) => write!(text, " {passed} of {all} |"),
            };
        }
        text.push('\n');
    }
    text.push_str(&remarks(engines));
    text
}

/// What did not pass, by engine and reason.
fn remarks(engines: &[(&str, &Report)]) -> String {
    let mut text = String::new();
    for (name, report) in engines {
        let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for CaseReport { name: case, outcome, .. } in &report.cases {
            let reason = match outcome {
                Outcome::Passed => continue,
                Outcome::Skipped(reason) => format!("not shown, {reason}"),
                Outcome::Failed(message) => format!("FAILED, {message}"),
            };
            reasons.entry(reason).or_default().push(case);
        }
        for (reason, cases) in reasons {
            if text.is_empty() {
                text.push('\n');
            }
            let (name, reason) = (cell(name), cell(&reason));
            let _ = writeln!(text, "- {name}: {reason}: {}", cases.join(", "));
        }
    }
    text
}

/// Words that stay in their cell.
fn cell(words: &str) -> String {
    words.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::{MemFixture, MemLogFixture};
    use super::*;

    fn report(outcomes: &[(&'static str, &'static str, Outcome)]) -> Report {
        let case = |(group, name, outcome): &(&'static str, &'static str, Outcome)| CaseReport {
            group,
            name,
            outcome: outcome.clone(),
        };
        Report { cases: outcomes.iter().map(case).collect() }
    }

    #[test]
    fn what_is_not_shown_is_not_counted() {
        let whole = report(&[("reads", "a", Outcome::Passed), ("reads", "b", Outcome::Passed)]);
        let part = report(&[
            ("reads", "a", Outcome::Passed),
            ("reads", "b", Outcome::Skipped("it has no disk")),
            ("cuts", "c", Outcome::Failed("got 1\nwant | 2".to_owned())),
        ]);
        let text = capability_matrix(&[("whole", &whole), ("part", &part)]);
        let want = "| cases | whole | part |\n\
                    | --- | --- | --- |\n\
                    | reads | 2 | 1 of 2 |\n\
                    | cuts | - | 0 of 1 |\n\
                    \n\
                    - part: FAILED, got 1 want \\| 2: c\n\
                    - part: not shown, it has no disk: b\n";
        assert_eq!(text, want);
    }

    #[test]
    fn both_suites_run_at_once() {
        let report = run_all(MemFixture::new, MemLogFixture::new);
        assert!(report.passed(), "{report}");
        let skipped = report.skipped();
        let of_processes = ["killed_process_leaves_a_prefix", "killed_process_leaves_a_log_prefix"];
        assert_eq!(skipped, of_processes, "memory ends with its process");
        let groups: Vec<_> = report.cases.iter().map(|case| case.group).collect();
        assert!(groups.contains(&"snapshots") && groups.contains(&"log_durability"));
        let text = capability_matrix(&[("memory", &report)]);
        assert!(
            text.contains("| durability | 15 |") && text.contains("| crash | 2 of 3 |"),
            "{text}"
        );
        assert!(text.contains("not shown, the engine keeps nothing beyond its process"), "{text}");
    }
}
