//! The engine: opening, writing, syncing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, Error, KvEngine, Range, Reader, Result,
    WriteBatch as _,
};
use parking_lot::Mutex;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, ReadOptions, WriteBatch, WriteOptions,
};

use crate::batch::{Operation, RocksWriteBatch};
use crate::cursor::{RocksCursor, bounded};
use crate::error::{NAME, during, opening};
use crate::folder::{Kind, is_made, is_new};
use crate::options::RocksOptions;
use crate::snapshot::RocksSnapshot;

pub(crate) struct Inner {
    pub(crate) db: Arc<DB>,
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) options: RocksOptions,
    /// One writer at a time: where a range without an end ends depends on the last key.
    writer: Mutex<()>,
    /// Set by the first failed write or sync, which is final.
    failed: AtomicBool,
    syncs: AtomicU64,
    written_bytes: AtomicU64,
    /// Number of the next file to be ingested.
    pub(crate) next_ingested: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is in files needs no log, whose end nothing vouches for. Nobody is here to be told
        // if it fails; synced writes are safe in any case.
        if !self.failed.load(Ordering::Acquire) {
            let _ = flush(&self.db);
        }
    }
}

/// Writes the rows of all families to files, as one if there is no log.
fn flush(db: &DB) -> Result<()> {
    let families = Cf::ALL.iter().map(|cf| family(db, *cf)).collect::<Result<Vec<_>>>()?;
    let mut options = FlushOptions::default();
    options.set_wait(true);
    db.flush_cfs_opt(&families, &options).map_err(during("flush"))
}

/// An ordered map per column family in one RocksDB database. Clones name the same database.
#[derive(Clone)]
pub struct RocksEngine {
    pub(crate) inner: Arc<Inner>,
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
    /// Opens the database in the folder `path`, or makes one, with its folder if that is missing.
    ///
    /// After a crash, the end of the write-ahead log may be torn, and is cut off. An end that was
    /// synced and later cut off by somebody else looks the same; a checksum that does not fit is
    /// damage wherever it is.
    ///
    /// # Errors
    /// `Locked` if it is open elsewhere; `Format` if the folder is another program's, of a newer
    /// format, or used for something else; `Corrupt` if it is damaged or files are missing; `Full`
    /// if the device is; `Backend` for options out of range and otherwise.
    pub fn open(path: impl AsRef<Path>, options: &RocksOptions) -> Result<Self> {
        Self::open_kind(path.as_ref(), Kind::Data, options)
    }

    pub(crate) fn open_kind(path: &Path, kind: Kind, options: &RocksOptions) -> Result<Self> {
        let mut native = options.to_native()?;
        let new = is_new(path, kind)?;
        native.create_if_missing(new);
        let families = Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), native.clone()));
        let db = DB::open_cf_descriptors(&native, path, families).map_err(opening(path))?;
        if new {
            is_made(path)?;
        }
        let engine = Self {
            inner: Arc::new(Inner {
                db: Arc::new(db),
                path: path.to_owned(),
                kind,
                options: options.clone(),
                writer: Mutex::new(()),
                failed: AtomicBool::new(false),
                syncs: AtomicU64::new(0),
                written_bytes: AtomicU64::new(0),
                next_ingested: AtomicU64::new(0),
            }),
        };
        engine.clear_ingested()?;
        Ok(engine)
    }

    /// Closes the database and tells whether that went well. What is not durable yet becomes so.
    ///
    /// # Errors
    /// If a write failed before, or as [`KvEngine::sync`]. Other handles and snapshots keep the
    /// database open. Synced writes are safe in any case.
    pub fn close(self) -> Result<()> {
        self.change(true, flush)
    }

    /// Runs one write or sync, and lets none follow one that failed.
    pub(crate) fn change(&self, synced: bool, work: impl FnOnce(&DB) -> Result<()>) -> Result<()> {
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
        let logged = self.inner.options.write_ahead_log;
        self.change(synced, |db| {
            let native = translate(db, &batch)?;
            let bytes = native.size_in_bytes() as u64;
            let mut options = WriteOptions::default();
            options.disable_wal(!logged);
            options.set_sync(synced && logged);
            db.write_opt(native, &options).map_err(during("write"))?;
            self.inner.written_bytes.fetch_add(bytes, Ordering::Relaxed);
            if synced && !logged { flush(db) } else { Ok(()) }
        })
    }

    /// One sync of the write-ahead log; without one, a flush of all families as one.
    fn sync(&self) -> Result<()> {
        let logged = self.inner.options.write_ahead_log;
        self.change(true, |db| {
            if logged { db.flush_wal(true).map_err(during("sync")) } else { flush(db) }
        })
    }

    /// Bytes in files if those alone reach `limit`, without reading a row; else what a walk counts,
    /// which also sees rows that are in memory.
    fn approximate_size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        self.size(cf, range, limit)
    }

    /// Writes files beside the database and adds them to it as they are. Ascending order is
    /// demanded: a row out of it is refused, and nothing is stored then.
    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        self.ingest_files(cf, rows)
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

    /// `written_bytes` counts what writes brought, not what flushes and compactions write.
    /// `stalled` is true while RocksDB slows writes down or lets them wait.
    fn stats(&self) -> EngineStats {
        let db = &self.inner.db;
        let used = Cf::ALL.iter().filter_map(|cf| {
            let family = db.cf_handle(cf.name())?;
            db.property_int_value_cf(family, "rocksdb.live-sst-files-size").ok().flatten()
        });
        let is_set =
            |name: &str| db.property_int_value(name).ok().flatten().is_some_and(|value| value > 0);
        EngineStats {
            used_bytes: used.sum(),
            written_bytes: self.inner.written_bytes.load(Ordering::Relaxed),
            syncs: self.inner.syncs.load(Ordering::Relaxed),
            stalled: is_set("rocksdb.is-write-stopped")
                || is_set("rocksdb.actual-delayed-write-rate"),
        }
    }
}
