//! What a case is, how it fails, and the report over many.

use std::error::Error as _;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::killed::set_test;
use crate::Error;

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The fixture cannot do what the case needs.
    Skipped(&'static str),
    /// The engine broke its contract.
    Failed(String),
}

/// What a case gives.
pub(crate) type Verdict = Result<(), Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut text = format!("unexpected error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::Failed(text)
    }
}

/// Ends the case with a message if the condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::case::Failure::Failed(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// Ends the case with both values if they differ.
pub(crate) fn same<T: PartialEq + fmt::Debug>(what: &str, got: &T, want: &T) -> Verdict {
    if got == want {
        return Ok(());
    }
    Err(Failure::Failed(format!("{what}: got {got:?}, want {want:?}")))
}

/// One sentence of a contract. `F` is the fixture.
pub(crate) struct Case<F> {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) run: fn(&dyn Fn() -> F) -> Verdict,
}

impl<F> Case<F> {
    /// Runs the case; a panic of the engine is a failure.
    pub(crate) fn outcome(&self, make: &dyn Fn() -> F) -> Outcome {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(make))) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Failure::Skipped(reason))) => Outcome::Skipped(reason),
            Ok(Err(Failure::Failed(message))) => Outcome::Failed(message),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                Outcome::Failed(format!("panicked: {}", text.unwrap_or("without a message")))
            }
        }
    }

    pub(crate) fn report(&self, make: &dyn Fn() -> F) -> CaseReport {
        CaseReport { group: self.group, name: self.name, outcome: self.outcome(make) }
    }
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The contract held.
    Passed,
    /// The fixture cannot do what the case needs; the reason.
    Skipped(&'static str),
    /// The contract did not hold; how.
    Failed(String),
}

/// One case of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// What the case is about.
    pub group: &'static str,
    /// Its name, which is also its test's.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// All cases of a suite, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The cases.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Whether nothing failed. Skipped cases do not count as failures.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed().is_empty()
    }

    /// Names of the cases that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// Names of the cases that were skipped.
    #[must_use]
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }

    fn names(&self, wanted: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        self.cases.iter().filter(|case| wanted(&case.outcome)).map(|case| case.name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CaseReport { group, name, outcome } in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "ok      {group}::{name}")?,
                Outcome::Skipped(reason) => writeln!(f, "skipped {group}::{name}: {reason}")?,
                Outcome::Failed(message) => writeln!(f, "FAILED  {group}::{name}: {message}")?,
            }
        }
        let (failed, skipped) = (self.failed().len(), self.skipped().len());
        let passed = self.cases.len() - failed - skipped;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The body of one generated test. `path` names the test, and the case with its last part.
pub(crate) fn run_named<F>(cases: &[Case<F>], path: &str, make: &dyn Fn() -> F) {
    let name = path.rsplit("::").next().unwrap_or(path);
    if name != path {
        set_test(path);
    }
    let case = cases.iter().find(|case| case.name == name).expect("macro and list are one text");
    match case.outcome(make) {
        Outcome::Passed => {}
        Outcome::Skipped(reason) => eprintln!("skipped {name}: {reason}"),
        Outcome::Failed(message) => {
            // The hook that prints a panic has run for those of engines only.
            eprintln!("{name}: {message}");
            std::panic::resume_unwind(Box::new(message))
        }
    }
}
