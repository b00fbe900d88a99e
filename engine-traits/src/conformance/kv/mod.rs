//! The data engine's suite: shorthand for its cases, and the runs over them.

mod batches;
mod capabilities;
mod crash;
mod cursors;
mod durability;
mod model;
mod reads;
mod snapshots;

pub(super) use model::over_seeds;

use bytes::Bytes;
use raftstore_proto::Cf;

use super::case::{Case, CaseReport, Failure, Report, Verdict, run_named};
use super::fixture::{KvFixture, Support};
use super::patient::Patient;
use crate::{Cursor, Direction, Durability, KvEngine, Range, Reader, Result, WriteBatch};

/// Runs every case of the data engine suite. `make` gives a fresh fixture at each call.
pub fn run_kv<F: KvFixture>(make: impl Fn() -> F) -> Report {
    let reports: Vec<CaseReport> =
        cases().iter().map(|case| case.report(&|| Patient(make()))).collect();
    Report { cases: reports }
}

/// Runs one case of the data engine suite, as the tests of
/// [`kv_conformance!`](crate::kv_conformance) do. `path` is the case's name, alone or as the
/// last part of the full path of the test that calls this: only with that can the case start
/// its test in another process.
///
/// # Panics
/// If the case fails, or if there is none of this name.
pub fn run_kv_case<F: KvFixture>(path: &str, make: impl Fn() -> F) {
    run_named(&cases(), path, &|| Patient(make()));
}

fn cases<F: KvFixture>() -> Vec<Case<F>> {
    crate::__kv_cases!(list)
}

/// A key and its value.
type Row = (Bytes, Bytes);

/// Makes a case out of a body that needs one open engine.
fn with_engine<F: KvFixture>(
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

fn put<E: KvEngine>(engine: &E, cf: Cf, key: &[u8], value: &[u8]) -> Result<()> {
    write(engine, Durability::Buffered, |batch| batch.put(cf, key, value))
}

fn write<E: KvEngine>(
    engine: &E,
    durability: Durability,
    fill: impl FnOnce(&mut E::WriteBatch),
) -> Result<()> {
    let mut batch = engine.write_batch();
    fill(&mut batch);
    engine.write(batch, durability)
}

/// Writes rows with keys and values of one letter each: `"abd"` gives a, b and d.
fn put_letters<E: KvEngine>(engine: &E, cf: Cf, letters: &str) -> Result<()> {
    write(engine, Durability::Buffered, |batch| {
        for letter in letters.bytes() {
            batch.put(cf, &[letter], &[letter.to_ascii_uppercase()]);
        }
    })
}

/// Reads what is left of a cursor.
fn drain(cursor: &mut dyn Cursor) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    while let Some((key, value)) = cursor.next()? {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }
    Ok(rows)
}

fn scan(reader: &impl Reader, cf: Cf, range: Range<'_>, direction: Direction) -> Result<Vec<Row>> {
    drain(&mut *reader.cursor(cf, range, direction)?)
}

/// The keys of a range as text, for letters.
fn keys(reader: &impl Reader, cf: Cf, range: Range<'_>, direction: Direction) -> Result<String> {
    Ok(letters(&scan(reader, cf, range, direction)?))
}

fn letters(rows: &[Row]) -> String {
    rows.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect()
}
