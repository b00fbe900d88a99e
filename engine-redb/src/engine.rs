//! The engine: opening, writing, syncing, and which moment a read sees.

use std::fmt;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, Error, KvEngine, Range, Reader, Result,
};
use parking_lot::{Mutex, RwLock};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadableDatabase, StorageBackend, Table, TableDefinition, TableHandle,
};

use crate::batch::{Operation, RedbWriteBatch};
use crate::contain::contain;
use crate::cursor::RedbCursor;
use crate::error::{NAME, during, invalid_state, io};
use crate::options::RedbOptions;
use crate::view::{RedbSnapshot, View, table};

/// Holds what kind of file this is.
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("raftstore.meta");
/// The row of [`META`] that names format and version.
const FORMAT_KEY: &str = "format";
/// The only format so far: one table per family, rows as `record` stores them.
const FORMAT: &[u8] = b"raftstore rows 1";

struct Inner {
    db: Database,
    /// One writer at a time, as in redb. Held over a whole write, so that what follows the
    /// commit happens in commit order.
    writer: Mutex<()>,
    /// Set by the first failed write or sync: the state in memory is unknown from then on,
    /// and a failed sync must never be followed by one that seems to succeed.
    failed: AtomicBool,
    /// The latest committed state, kept open for reads between two writes.
    ///
    /// Invariant: after a write has returned, this is empty or holds a state that has it.
    latest: RwLock<Option<Arc<View>>>,
    syncs: AtomicU64,
}

/// An ordered map per column family in one redb file. Clones name the same open file.
#[derive(Clone)]
pub struct RedbEngine {
    inner: Arc<Inner>,
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbEngine").finish_non_exhaustive()
    }
}

impl RedbEngine {
    /// Opens the file at `path`, or makes one, with its folder if that is missing.
    ///
    /// # Errors
    /// `Locked` if it is open elsewhere, `Format` if it is another program's file or a folder,
    /// `Corrupt` if it is damaged, `Full` if the device is, `Backend` for other I/O errors.
    pub fn open(path: impl AsRef<Path>, options: &RedbOptions) -> Result<Self> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        if path.is_dir() {
            return Err(format_error(shown, "it is a directory, not a file"));
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).map_err(io("creating the folder of the file"))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("opening the file"))?;
        let backend = FileBackend::new(file).map_err(during("opening the file"))?;
        Self::open_named(backend, shown, options)
    }

    /// Opens the bytes that `backend` stores, or makes a new file in it if it is empty.
    ///
    /// # Errors
    /// As [`RedbEngine::open`].
    pub fn open_with_backend(backend: impl StorageBackend, options: &RedbOptions) -> Result<Self> {
        Self::open_named(backend, "the given backend".to_owned(), options)
    }

    fn open_named(
        backend: impl StorageBackend,
        path: String,
        options: &RedbOptions,
    ) -> Result<Self> {
        let db = contain("opening the file", || {
            Builder::new()
                .set_cache_size(options.cache_bytes)
                .create_with_backend(backend)
                .map_err(|error| open_error(path.clone(), error))
        })?;
        contain("opening the file", || prepare(&db, path))?;
        Ok(Self {
            inner: Arc::new(Inner {
                db,
                writer: Mutex::new(()),
                failed: AtomicBool::new(false),
                latest: RwLock::new(None),
                syncs: AtomicU64::new(0),
            }),
        })
    }

    /// The state as of now, from the kept one if no write came between.
    fn view(&self) -> Result<Arc<View>> {
        if let Some(view) = &*self.inner.latest.read() {
            return Ok(Arc::clone(view));
        }
        // Opened under the lock: a write that commits meanwhile clears it afterwards.
        let mut latest = self.inner.latest.write();
        if let Some(view) = &*latest {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(contain("opening a snapshot", || {
            View::open(&self.inner.db)
        })?);
        *latest = Some(Arc::clone(&view));
        Ok(view)
    }

    fn commit(&self, batch: &RedbWriteBatch, durability: Durability) -> Result<()> {
        let inner = &*self.inner;
        let _writer = inner.writer.lock();
        if inner.failed.load(Ordering::Acquire) {
            return Err(invalid_state("an earlier write or sync failed"));
        }
        // A view kept open would keep the pages that this write replaces from being reused.
        *inner.latest.write() = None;
        let result = contain("write", || replay(&inner.db, batch, durability));
        *inner.latest.write() = None;
        match &result {
            Ok(()) if durability == Durability::Synced => {
                inner.syncs.fetch_add(1, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(_) => inner.failed.store(true, Ordering::Release),
        }
        result
    }
}

/// Carries out a batch as one transaction.
fn replay(db: &Database, batch: &RedbWriteBatch, durability: Durability) -> Result<()> {
    let mut transaction = db.begin_write().map_err(during("beginning a write"))?;
    transaction
        .set_durability(match durability {
            Durability::Buffered => redb::Durability::None,
            Durability::Synced => redb::Durability::Immediate,
        })
        .map_err(during("beginning a write"))?;
    {
        let mut tables: [Option<Table<'_, &[u8], &[u8]>>; 4] = [None, None, None, None];
        for (cf, operation) in batch.operations() {
            let slot = &mut tables[cf.index()];
            let open = match slot {
                Some(open) => open,
                None => {
                    let open = transaction.open_table(table(cf));
                    slot.insert(open.map_err(during("opening a table"))?)
                }
            };
            let done = match operation {
                Operation::Put { key, stored } => open.insert(key, stored).map(drop),
                Operation::Delete { key } => open.remove(key).map(drop),
                Operation::DeleteRange { range } => {
                    open.retain_in::<&[u8], _>(range.bounds(), |_, _| false)
                }
            };
            done.map_err(during("write"))?;
        }
    }
    transaction.commit().map_err(during("commit"))
}

/// Makes the tables of a new file; checks those of an old one.
fn prepare(db: &Database, path: String) -> Result<()> {
    let op = "checking the format";
    let transaction = db.begin_read().map_err(during(op))?;
    let names: Vec<String> = transaction
        .list_tables()
        .map_err(during(op))?
        .map(|table| table.name().to_owned())
        .collect();
    if names.is_empty() {
        return create(db);
    }
    if !names.iter().any(|name| name == META.name()) {
        return Err(format_error(path, "it is a redb file of another program"));
    }
    let meta = transaction.open_table(META).map_err(during(op))?;
    let Some(format) = meta.get(FORMAT_KEY).map_err(during(op))? else {
        return Err(Error::Corrupt {
            engine: NAME,
            place: path,
            detail: "the row that names its format is gone".to_owned(),
        });
    };
    if format.value() != FORMAT {
        let found = format!("found \"{}\"", format.value().escape_ascii());
        return Err(format_error(path, &found));
    }
    View::open(db).map(drop)
}

/// All tables in one transaction: a file has either none of them or all.
fn create(db: &Database) -> Result<()> {
    let op = "creating the tables";
    let transaction = db.begin_write().map_err(during(op))?;
    for cf in Cf::ALL {
        transaction.open_table(table(cf)).map_err(during(op))?;
    }
    transaction
        .open_table(META)
        .map_err(during(op))?
        .insert(FORMAT_KEY, FORMAT)
        .map_err(during(op))?;
    transaction.commit().map_err(during(op))
}

fn format_error(path: String, detail: &str) -> Error {
    Error::Format {
        engine: NAME,
        path,
        detail: detail.to_owned(),
    }
}

fn open_error(path: String, error: redb::DatabaseError) -> Error {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch => {
            Error::Locked { engine: NAME, path }
        }
        redb::DatabaseError::UpgradeRequired(version) => {
            format_error(path, &format!("it has redb file format {version}"))
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::InvalidData =>
        {
            format_error(path, &error.to_string())
        }
        error => during("opening the file")(error),
    }
}

impl Reader for RedbEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.view()?.get(cf, key)
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        Ok(Box::new(RedbCursor::open(
            self.view()?,
            cf,
            range,
            direction,
        )?))
    }
}

impl KvEngine for RedbEngine {
    type Snapshot = RedbSnapshot;
    type WriteBatch = RedbWriteBatch;

    fn name(&self) -> &'static str {
        NAME
    }

    fn snapshot(&self) -> Result<RedbSnapshot> {
        Ok(RedbSnapshot::new(self.view()?))
    }

    fn write_batch(&self) -> RedbWriteBatch {
        RedbWriteBatch::default()
    }

    fn write(&self, batch: RedbWriteBatch, durability: Durability) -> Result<()> {
        self.commit(&batch, durability)
    }

    fn sync(&self) -> Result<()> {
        self.commit(&RedbWriteBatch::default(), Durability::Synced)
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            syncs: self.inner.syncs.load(Ordering::Relaxed),
            ..EngineStats::default()
        }
    }
}
