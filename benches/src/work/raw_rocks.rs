//! The work of a data engine on RocksDB itself, with the same options as the layer above it.

use std::hint::black_box;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions,
};
use tempfile::TempDir;
use transport_traits::BoxError;

use super::{
    Case, Run, Values,
    kv::{KEY_SPACE, ROWS, SCANNED, all_there, found},
};
use crate::{Numbers, key, temporary_folder};

/// Puts, gets and scans, named as those of engines.
#[must_use]
pub fn raw_rocks_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, synced) in [("synced", true), ("buffered", false)] {
        for size in [1, 16, 256] {
            let name = format!("put/{kind}/{size}");
            cases.push(Case::new(name, size, move || puts(size, synced)));
        }
    }
    cases.push(Case::new("get", 1, gets));
    cases.push(Case::new(format!("scan/{SCANNED}"), SCANNED, scans));
    cases
}

fn make() -> Result<(DB, TempDir), BoxError> {
    let folder = temporary_folder();
    let chosen = engine_rocks::RocksOptions::default();
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(chosen.cache_bytes));
    blocks.set_bloom_filter(f64::from(chosen.filter_bits), false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(chosen.write_buffer_bytes);
    options.set_max_background_jobs(i32::from(chosen.background_jobs));
    options.set_compression_type(DBCompressionType::Lz4);
    options.create_if_missing(true);
    let db = DB::open(&options, folder.path().join("data"))?;
    Ok((db, folder))
}

/// Rows in one sorted file, where an ingest of the layer above puts them.
fn filled() -> Result<(DB, TempDir), BoxError> {
    let (db, folder) = make()?;
    let mut values = Values::new();
    let mut batch = WriteBatch::default();
    for number in 0..ROWS {
        batch.put(key(number), values.next());
    }
    db.write(batch)?;
    db.flush()?;
    Ok((db, folder))
}

fn puts(size: u64, synced: bool) -> Result<Run, BoxError> {
    let (db, folder) = make()?;
    let (mut numbers, mut values) = (Numbers::new(1), Values::new());
    let mut options = WriteOptions::default();
    options.set_sync(synced);
    Ok(Box::new(move || {
        let _kept = &folder;
        let mut batch = WriteBatch::default();
        for _ in 0..size {
            batch.put(key(numbers.draw() % KEY_SPACE), values.next());
        }
        Ok(db.write_opt(batch, &options)?)
    }))
}

fn gets() -> Result<Run, BoxError> {
    let (db, folder) = filled()?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let wanted = key(numbers.draw() % ROWS);
        found(db.get(black_box(&wanted))?)
    }))
}

fn scans() -> Result<Run, BoxError> {
    let (db, folder) = filled()?;
    let mut numbers = Numbers::new(3);
    Ok(Box::new(move || {
        let _kept = &folder;
        let first = numbers.draw() % (ROWS - SCANNED);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(key(first).to_vec());
        options.set_iterate_upper_bound(key(first + SCANNED).to_vec());
        let mut iterator = db.raw_iterator_opt(options);
        iterator.seek_to_first();
        let mut rows = 0;
        while let Some(row) = iterator.item() {
            black_box(row);
            rows += 1;
            iterator.next();
        }
        iterator.status()?;
        all_there(rows, SCANNED)
    }))
}
