//! What a case is, how it fails, and the report over many.

use std::{
    error::Error as _,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::PdFixture;
use crate::Error;

/// Why a case did not pass.
#[derive(Debug)]
pub(super) enum Failure {
    /// The fixture cannot do what the case needs.
    Skipped(&'static str),
    /// PD, or its client, broke its word.
    Failed(String),
}

/// What a case gives.
pub(super) type Verdict<T = ()> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut text = format!("unexpected error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
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
pub(super) use ensure;

/// Ends the case with both values if they differ.
pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, got: &T, want: &T) -> Verdict {
    if got == want {
        return Ok(());
    }
    Err(Failure::Failed(format!("{what}: got {got:?}, want {want:?}")))
}

/// Ends the case if PD did not refuse.
pub(super) fn refused<T: fmt::Debug>(what: &str, outcome: crate::Result<T>) -> Verdict<Error> {
    match outcome {
        Ok(answer) => Err(Failure::Failed(format!("{what}: accepted with {answer:?}"))),
        Err(Error::Unavailable { .. }) => Err(Failure::Failed(format!("{what}: no answer"))),
        Err(error) => Ok(error),
    }
}

/// One sentence of the contract.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) run: fn(&dyn PdFixture) -> Verdict,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// The fixture cannot do what it needs.
    Skipped(&'static str),
    /// Not as it should.
    Failed(String),
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// Which.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
}

fn cases() -> Vec<Case> {
    crate::__pd_cases! { list }.into()
}

fn outcome(case: &Case, fixture: &dyn PdFixture) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| (case.run)(fixture))) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(Failure::Skipped(reason))) => Outcome::Skipped(reason),
        Ok(Err(Failure::Failed(message))) => Outcome::Failed(message),
        Err(_) => Outcome::Failed("panicked".to_owned()),
    }
}

/// Runs every case, each with a fixture of its own.
pub fn run<F: PdFixture>(make: impl Fn() -> F) -> Vec<CaseReport> {
    let report = |case: Case| CaseReport { name: case.name, outcome: outcome(&case, &make()) };
    cases().into_iter().map(report).collect()
}

/// Runs one case.
///
/// # Panics
/// If it fails, or there is no such case.
#[expect(clippy::panic, reason = "that is how a test fails")]
pub fn run_case(name: &str, fixture: &dyn PdFixture) {
    let Some(case) = cases().into_iter().find(|case| case.name == name) else {
        panic!("there is no case {name}");
    };
    if let Outcome::Failed(message) = outcome(&case, fixture) {
        panic!("{name}: {message}");
    }
}
