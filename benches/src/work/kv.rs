//! Work of data engines.

use std::hint::black_box;

use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, WriteBatch};
use transport_traits::BoxError;

use super::{Case, Run, Values};
use crate::{KvFactory, Numbers, key};

/// Keys that puts are spread over.
pub(super) const KEY_SPACE: u64 = 10_000_000;

/// Rows stored before reads are measured.
pub const ROWS: u64 = 100_000;

/// Rows of one scan.
pub(super) const SCANNED: u64 = 1_000;

/// Rows of a range that is deleted and written again.
const REPLACED: u64 = 100;

/// Rows of one ingest.
const INGESTED: u64 = 10_000;

/// All of it, for one engine.
#[must_use]
pub fn kv_cases<F: KvFactory>() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, durability) in [("synced", Durability::Synced), ("buffered", Durability::Buffered)] {
        for size in [1, 16, 256] {
            let name = format!("put/{kind}/{size}");
            cases.push(Case::new(name, size, move || puts::<F>(size, durability)));
        }
    }
    cases.push(Case::new("get", 1, gets::<F>));
    cases.push(Case::new(format!("scan/{SCANNED}"), SCANNED, scans::<F>));
    cases.push(Case::new("snapshot and get", 1, snapshots::<F>));
    cases.push(Case::new(format!("replace range/{REPLACED}"), REPLACED, replaces::<F>));
    cases.push(Case::new(format!("ingest/{INGESTED}"), INGESTED, ingests::<F>));
    cases
}

fn puts<F: KvFactory>(size: u64, durability: Durability) -> Result<Run, BoxError> {
    let (engine, folder) = F::make()?;
    let (mut numbers, mut values) = (Numbers::new(1), Values::new());
    Ok(Box::new(move || {
        let _kept = &folder;
        let mut batch = engine.write_batch();
        for _ in 0..size {
            batch.put(Cf::Default, &key(numbers.draw() % KEY_SPACE), &values.next());
        }
        Ok(engine.write(batch, durability)?)
    }))
}

/// An engine with [`ROWS`] rows, on its way to files as far as it has files.
fn filled<F: KvFactory>() -> Result<(F::Engine, impl Sized + 'static), BoxError>
where
    F::Engine: 'static,
{
    let (engine, folder) = F::make()?;
    let mut values = Values::new();
    let mut rows = (0..ROWS).map(|number| (key(number), values.next()));
    engine.ingest(Cf::Default, &mut rows)?;
    engine.sync()?;
    Ok((engine, folder))
}

fn gets<F: KvFactory>() -> Result<Run, BoxError> {
    let (engine, folder) = filled::<F>()?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let wanted = key(numbers.draw() % ROWS);
        found(engine.get(Cf::Default, black_box(&wanted))?)
    }))
}

fn scans<F: KvFactory>() -> Result<Run, BoxError> {
    let (engine, folder) = filled::<F>()?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let first = numbers.draw() % (ROWS - SCANNED);
        let (start, end) = (key(first), key(first + SCANNED));
        let mut cursor =
            engine.cursor(Cf::Default, Range::new(&start, &end), Direction::Forward)?;
        let mut rows = 0;
        while let Some(row) = cursor.next()? {
            black_box(row);
            rows += 1;
        }
        all_there(rows, SCANNED)
    }))
}

fn snapshots<F: KvFactory>() -> Result<Run, BoxError> {
    let (engine, folder) = filled::<F>()?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let wanted = key(numbers.draw() % ROWS);
        found(engine.snapshot()?.get(Cf::Default, black_box(&wanted))?)
    }))
}

fn replaces<F: KvFactory>() -> Result<Run, BoxError> {
    let (engine, folder) = filled::<F>()?;
    let (mut numbers, mut values) = (Numbers::new(3), Values::new());
    Ok(Box::new(move || {
        let _kept = &folder;
        let first = numbers.draw() % (ROWS / REPLACED) * REPLACED;
        let (start, end) = (key(first), key(first + REPLACED));
        let mut batch = engine.write_batch();
        batch.delete_range(Cf::Default, Range::new(&start, &end));
        for number in first..first + REPLACED {
            batch.put(Cf::Default, &key(number), &values.next());
        }
        Ok(engine.write(batch, Durability::Buffered)?)
    }))
}

fn ingests<F: KvFactory>() -> Result<Run, BoxError> {
    let (engine, folder) = F::make()?;
    let (mut next, mut values) = (0, Values::new());
    Ok(Box::new(move || {
        let _kept = &folder;
        let first = next;
        next += INGESTED;
        let mut rows = (first..next).map(|number| (key(number), values.next()));
        Ok(engine.ingest(Cf::Default, &mut rows)?)
    }))
}

pub(super) fn found<T>(value: Option<T>) -> Result<(), BoxError> {
    black_box(value).map(drop).ok_or_else(|| "a row that was stored is not there".into())
}

pub(super) fn all_there(rows: u64, wanted: u64) -> Result<(), BoxError> {
    if rows == wanted { Ok(()) } else { Err(format!("{rows} rows of {wanted}").into()) }
}
