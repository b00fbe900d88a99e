//! The engine: opening, writing, syncing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, Error, KvEngine, Range, Reader, Result,
    WriteBatch as _,
};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use crate::batch::{Operation, RocksWriteBatch};
use crate::cursor::{RocksCursor, bounded};
use crate::error::{NAME, during, opening};
use crate::snapshot::RocksSnapshot;

/// Settings of a [`RocksEngine`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RocksOptions {
    /// Memory for blocks read, in bytes, shared by all families.
    pub cache_bytes: usize,
    /// Memory for rows not yet in files, in bytes per family.
    pub write_buffer_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, write_buffer_bytes: 32 << 20 }
    }
}

struct Inner {
    db: Arc<DB>,
    /// One writer at a time: where a range without an end ends depends on the last key.
    writer: Mutex<()>,
    /// Set by the first failed write or sync, which is final.
    failed: AtomicBool,
    syncs: AtomicU64,
    written_bytes: AtomicU64,
}

/// An ordered map per column family in one RocksDB database. Clones name the same database.
#[derive(Clone)]
pub struct RocksEngine {
    inner: Arc<Inner>,
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine").finish_non_exhaustive()
    }
}

/// RocksDB's handle of a family.
pub(crate) fn family(db: &DB, cf: Cf) -> Result<&ColumnFamily> {
    db.cf_handle(cf.name()).ok_or_else(|| Error::Corrupt {
        engine: NAME,
        place: format!("column family {}", cf.name()),
        detail: "it was opened and is gone".to_owned(),
    })
}

impl RocksEngine {
    /// Opens the database in the folder `path`, or makes one.
    ///
    /// # Errors
    /// `Locked` if it is open elsewhere, `Format` if it is of a newer format or has other
    /// families, `Corrupt` if it is damaged, `Full` if the device is, `Backend` otherwise.
    pub fn open(path: impl AsRef<Path>, options: &RocksOptions) -> Result<Self> {
        let path = path.as_ref();
        let mut database = Options::default();
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        // A torn last record was never acknowledged. Damage before it is damage: the mode
        // that RocksDB has by default would drop all that follows it without a word.
        database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(options.cache_bytes));
        let mut rows = Options::default();
        rows.set_block_based_table_factory(&blocks);
        rows.set_write_buffer_size(options.write_buffer_bytes);
        let families = Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), rows.clone()));
        let db = DB::open_cf_descriptors(&database, path, families).map_err(opening(path))?;
        Ok(Self {
            inner: Arc::new(Inner {
                db: Arc::new(db),
                writer: Mutex::new(()),
                failed: AtomicBool::new(false),
                syncs: AtomicU64::new(0),
                written_bytes: AtomicU64::new(0),
            }),
        })
    }

    /// Runs one write or sync, and lets none follow one that failed.
    fn change(&self, synced: bool, work: impl FnOnce(&DB) -> Result<()>) -> Result<()> {
        let inner = &*self.inner;
        let _writer = inner.writer.lock();
        if inner.failed.load(Ordering::Acquire) {
            return Err(Error::Backend {
                engine: NAME,
                op: "write",
                source: "an earlier write or sync failed".into(),
            });
        }
        let result = work(&inner.db);
        if result.is_err() {
            inner.failed.store(true, Ordering::Release);
        } else if synced {
            inner.syncs.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

/// The batch in RocksDB's form.
fn translate(db: &DB, batch: &RocksWriteBatch) -> Result<WriteBatch> {
    let mut native = WriteBatch::default();
    // The largest key put so far in each family: a later range without an end covers it.
    let mut largest: [Option<&[u8]>; 4] = [None; 4];
    for (cf, operation) in batch.operations() {
        let family = family(db, cf)?;
        match operation {
            Operation::Put { key, value } => {
                native.put_cf(family, key, value);
                let largest = &mut largest[cf.index()];
                *largest = (*largest).max(Some(key));
            }
            Operation::Delete { key } => native.delete_cf(family, key),
            Operation::DeleteRange { range } if !range.end.is_empty() => {
                native.delete_range_cf(family, range.start, range.end);
            }
            Operation::DeleteRange { range } => {
                let mut rows = db.raw_iterator_cf_opt(family, ReadOptions::default());
                rows.seek_to_last();
                rows.status().map_err(during("write"))?;
                if let Some(last) = rows.key().max(largest[cf.index()])
                    && last >= range.start
                {
                    let mut end = last.to_vec();
                    end.push(0);
                    native.delete_range_cf(family, range.start, &end);
                }
            }
        }
    }
    Ok(native)
}

impl Reader for RocksEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let db = &self.inner.db;
        let found = db.get_pinned_cf(family(db, cf)?, key).map_err(during("get"))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        let db = &self.inner.db;
        let family = family(db, cf)?;
        let rows = (!range.is_empty()).then(|| db.raw_iterator_cf_opt(family, bounded(range)));
        Ok(Box::new(RocksCursor::new(rows, range, direction)))
    }
}

impl KvEngine for RocksEngine {
    type Snapshot = RocksSnapshot;
    type WriteBatch = RocksWriteBatch;

    fn name(&self) -> &'static str {
        NAME
    }

    fn snapshot(&self) -> Result<RocksSnapshot> {
        Ok(RocksSnapshot::new(Arc::clone(&self.inner.db)))
    }

    fn write_batch(&self) -> RocksWriteBatch {
        RocksWriteBatch::default()
    }

    fn write(&self, batch: RocksWriteBatch, durability: Durability) -> Result<()> {
        let synced = durability == Durability::Synced;
        if batch.is_empty() {
            return if synced { self.sync() } else { Ok(()) };
        }
        self.change(synced, |db| {
            let native = translate(db, &batch)?;
            let bytes = native.size_in_bytes() as u64;
            let mut options = WriteOptions::default();
            options.set_sync(synced);
            db.write_opt(native, &options).map_err(during("write"))?;
            self.inner.written_bytes.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        self.change(true, |db| db.flush_wal(true).map_err(during("sync")))
    }

    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let db = &self.inner.db;
        let end = (!range.end.is_empty()).then_some(range.end);
        db.compact_range_cf(family(db, cf)?, Some(range.start), end);
        Ok(())
    }

    /// `written_bytes` counts the write-ahead log, not what flushes and compactions write.
    fn stats(&self) -> EngineStats {
        let db = &self.inner.db;
        let used = Cf::ALL.iter().filter_map(|cf| {
            let family = db.cf_handle(cf.name())?;
            db.property_int_value_cf(family, "rocksdb.live-sst-files-size").ok().flatten()
        });
        let stopped = db.property_int_value("rocksdb.is-write-stopped").ok().flatten();
        EngineStats {
            used_bytes: used.sum(),
            written_bytes: self.inner.written_bytes.load(Ordering::Relaxed),
            syncs: self.inner.syncs.load(Ordering::Relaxed),
            stalled: stopped.is_some_and(|stopped| stopped > 0),
        }
    }
}
