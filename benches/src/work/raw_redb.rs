//! The work of a data engine on redb itself, for comparison with the layer above it.

use std::{hint::black_box, sync::Arc};

use redb::{Builder, Database, ReadableDatabase, TableDefinition};
use tempfile::TempDir;
use transport_traits::BoxError;

use super::{
    Case, Run, Values,
    kv::{KEY_SPACE, ROWS, SCANNED, all_there, found},
};
use crate::{Numbers, key, temporary_folder};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("default");

/// Puts, gets and scans, named as those of engines.
#[must_use]
pub fn raw_redb_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, durability) in
        [("synced", redb::Durability::Immediate), ("buffered", redb::Durability::None)]
    {
        for size in [1, 16, 256] {
            let name = format!("put/{kind}/{size}");
            cases.push(Case::new(name, size, move || puts(size, durability)));
        }
    }
    cases.push(Case::new("get", 1, gets));
    cases.push(Case::new(format!("scan/{SCANNED}"), SCANNED, scans));
    cases
}

fn make() -> Result<(Database, TempDir), BoxError> {
    let folder = temporary_folder();
    let cache = engine_redb::RedbOptions::DEFAULT_CACHE_BYTES;
    let db = Builder::new().set_cache_size(cache).create(folder.path().join("data"))?;
    let write = db.begin_write()?;
    write.open_table(TABLE)?;
    write.commit()?;
    Ok((db, folder))
}

fn filled() -> Result<(Database, TempDir), BoxError> {
    let (db, folder) = make()?;
    let mut values = Values::new();
    let write = db.begin_write()?;
    {
        let mut table = write.open_table(TABLE)?;
        for number in 0..ROWS {
            table.insert(&*key(number), &*values.next())?;
        }
    }
    write.commit()?;
    Ok((db, folder))
}

fn puts(size: u64, durability: redb::Durability) -> Result<Run, BoxError> {
    let (db, folder) = make()?;
    let (mut numbers, mut values) = (Numbers::new(1), Values::new());
    Ok(Box::new(move || {
        let _kept = &folder;
        let mut write = db.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut table = write.open_table(TABLE)?;
            for _ in 0..size {
                table.insert(&*key(numbers.draw() % KEY_SPACE), &*values.next())?;
            }
        }
        Ok(write.commit()?)
    }))
}

fn gets() -> Result<Run, BoxError> {
    let (db, folder) = filled()?;
    let db = Arc::new(db);
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let wanted = key(numbers.draw() % ROWS);
        let table = db.begin_read()?.open_table(TABLE)?;
        let value = table.get(black_box(&*wanted))?;
        found(value.map(|value| bytes::Bytes::copy_from_slice(value.value())))
    }))
}

fn scans() -> Result<Run, BoxError> {
    let (db, folder) = filled()?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let first = numbers.draw() % (ROWS - SCANNED);
        let (start, end) = (key(first), key(first + SCANNED));
        let table = db.begin_read()?.open_table(TABLE)?;
        let mut rows = 0;
        for row in table.range(&*start..&*end)? {
            let (key, value) = row?;
            black_box((key.value(), value.value()));
            rows += 1;
        }
        all_there(rows, SCANNED)
    }))
}
