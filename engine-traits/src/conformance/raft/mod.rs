//! The log engine's suite: shorthand for its cases, and the runs over them.

mod log_capabilities;
mod log_crash;
mod log_durability;
mod log_model;
mod log_reads;
mod log_writes;

use raftstore_proto::{Entry, HardState, LocalState, PeerId, RegionId};

use super::case::{Case, CaseReport, Failure, Report, Verdict, run_named};
use super::fixture::{RaftLogFixture, Support};
use super::patient::Patient;
use crate::{Durability, RaftEngine, RaftLogBatch, Result};

/// Runs every case of the log engine suite. `make` gives a fresh fixture at each call.
pub fn run_raft_log<F: RaftLogFixture>(make: impl Fn() -> F) -> Report {
    let reports: Vec<CaseReport> =
        cases().iter().map(|case| case.report(&|| Patient(make()))).collect();
    Report { cases: reports }
}

/// Runs one case of the log engine suite, as the tests of
/// [`raft_log_conformance!`](crate::raft_log_conformance) do. `path` is the case's name, alone or as the
/// last part of the full path of the test that calls this: only with that can the case start
/// its test in another process.
///
/// # Panics
/// If the case fails, or if there is none of this name.
pub fn run_raft_log_case<F: RaftLogFixture>(path: &str, make: impl Fn() -> F) {
    run_named(&cases(), path, &|| Patient(make()));
}

fn cases<F: RaftLogFixture>() -> Vec<Case<F>> {
    crate::__raft_log_cases!(list)
}

const ONE: RegionId = RegionId::must(1);
const TWO: RegionId = RegionId::must(2);
const THREE: RegionId = RegionId::must(3);

/// Makes a case out of a body that needs one open engine.
fn with_engine<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
    body: impl FnOnce(&F::Engine) -> Verdict,
) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    body(&engine)
}

fn supported(support: Support) -> Verdict {
    match support {
        Support::Done => Ok(()),
        Support::Unsupported(reason) => Err(Failure::Skipped(reason)),
    }
}

/// An entry whose payload tells where it stands and in which term.
fn entry(index: u64, term: u64) -> Entry {
    entry_with(index, term, format!("entry {index} of term {term}").as_bytes())
}

fn entry_with(index: u64, term: u64, data: &[u8]) -> Entry {
    let mut raw = Entry::default().into_raft();
    raw.index = index;
    raw.term = term;
    raw.data = data.to_vec().into();
    Entry::from_raft(raw)
}

/// Entries `low..high` of a term.
fn entries(low: u64, high: u64, term: u64) -> Vec<Entry> {
    (low..high).map(|index| entry(index, term)).collect()
}

/// A state that no other number gives.
fn state(number: u64) -> LocalState {
    LocalState {
        peer: PeerId::must(number + 1),
        hard_state: HardState { term: number, vote: number + 2, commit: number + 3 },
        last_index: number + 4,
    }
}

fn write<E: RaftEngine>(
    engine: &E,
    durability: Durability,
    fill: impl FnOnce(&mut E::LogBatch),
) -> Result<()> {
    let mut batch = engine.log_batch();
    fill(&mut batch);
    engine.write(batch, durability)
}

fn append<E: RaftEngine>(engine: &E, region: RegionId, entries: &[Entry]) -> Result<()> {
    write(engine, Durability::Buffered, |batch| batch.append(region, entries))
}

/// Reads `low..high` without a limit.
fn read<E: RaftEngine>(engine: &E, region: RegionId, low: u64, high: u64) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    engine.entries(region, low, high, u64::MAX, &mut out)?;
    Ok(out)
}
