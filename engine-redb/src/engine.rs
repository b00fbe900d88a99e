//! The engine: opening, writing, syncing, and which moment a read sees.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use crate::cut_file::{CutFile, CutSwitch};
use crate::error::{NAME, during, invalid_state, io};
use crate::guard::{Guard, GuardHandle};
use crate::options::RedbOptions;
use crate::sums::{BLOCK_BYTES, SumsFile, sync_folder};
use crate::sweep::{SweepPosition, SweepProgress};
use crate::view::{RedbSnapshot, View, table};

/// Holds what kind of file this is.
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("raftstore.meta");
/// The row of [`META`] that names format and version.
const FORMAT_KEY: &str = "format";
/// The only format so far: one table per family, rows as `record` stores them.
const FORMAT: &[u8] = b"raftstore rows 1";
/// The row of [`META`] that tells what the rows are for.
const KIND_KEY: &str = "kind";

/// What a file is used for. One opened as the other would be taken for a new store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    RaftLog,
}

impl Kind {
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Data => b"data",
            Self::RaftLog => b"raft log",
        }
    }
}

struct Inner {
    /// Taken only when the last handle is dropped.
    db: Option<Database>,
    guard: Arc<Guard>,
    /// Device syncs that opening took.
    syncs_to_open: u64,
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
    sweep: Mutex<SweepPosition>,
}

impl Inner {
    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is taken only when the last handle is dropped")
    }

    fn close(&mut self) -> Result<()> {
        *self.latest.get_mut() = None;
        let Some(db) = self.db.take() else { return Ok(()) };
        contain("closing the file", || db.close().map_err(during("closing the file")))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a clean close the next open checks the whole file; nobody is here to be told.
        let _ = self.close();
    }
}

/// An ordered map per column family in one redb file. Clones name the same open file.
///
/// Dropping the last clone closes the file, which makes all its writes durable and leaves the
/// next open nothing to check; [`RedbEngine::close`] does the same and tells how it went.
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
    /// Beside it lies `path` + `.sums` while the file is closed: the checksums of its blocks.
    /// After an unclean stop that is missing, and the whole file is read and checked. Checksums
    /// without a file tell that the file was removed: whoever wants a new one removes both.
    ///
    /// # Errors
    /// `Locked` if it is open elsewhere, `Format` if it is another program's file or a folder,
    /// `Corrupt` if it is damaged, `Full` if the device is, `Backend` for other I/O errors.
    pub fn open(path: impl AsRef<Path>, options: &RedbOptions) -> Result<Self> {
        Self::open_kind(path.as_ref(), Kind::Data, options)
    }

    /// As [`RedbEngine::open`], with a switch that cuts the power: what was not synced is then
    /// lost, all later calls fail, and the file can be opened again at once, while old handles
    /// still exist. For tests and demonstrations; syncs are as durable as with `open`.
    ///
    /// # Errors
    /// As [`RedbEngine::open`].
    pub fn open_with_cut(
        path: impl AsRef<Path>,
        options: &RedbOptions,
    ) -> Result<(Self, CutSwitch)> {
        Self::open_kind_with_cut(path.as_ref(), Kind::Data, options)
    }

    pub(crate) fn open_kind(path: &Path, kind: Kind, options: &RedbOptions) -> Result<Self> {
        Self::open_file(path, kind, options, |file| {
            let backend = FileBackend::new(file).map_err(during("opening the file"))?;
            Ok(Box::new(backend))
        })
    }

    pub(crate) fn open_kind_with_cut(
        path: &Path,
        kind: Kind,
        options: &RedbOptions,
    ) -> Result<(Self, CutSwitch)> {
        let mut switch = None;
        let engine = Self::open_file(path, kind, options, |file| {
            let backend = CutFile::new(file).map_err(io("opening the file"))?;
            switch = Some(backend.switch());
            Ok(Box::new(backend))
        })?;
        let switch =
            switch.ok_or_else(|| invalid_state("the file was opened without a backend"))?;
        Ok((engine, switch))
    }

    /// Opens the bytes that `backend` stores, or makes a new database in it if it is empty.
    ///
    /// There is no place for checksums at rest, so the whole of it is read and checked.
    ///
    /// # Errors
    /// As [`RedbEngine::open`].
    pub fn open_with_backend(backend: impl StorageBackend, options: &RedbOptions) -> Result<Self> {
        Self::open_kind_with_backend(Box::new(backend), Kind::Data, options)
    }

    pub(crate) fn open_kind_with_backend(
        backend: Box<dyn StorageBackend>,
        kind: Kind,
        options: &RedbOptions,
    ) -> Result<Self> {
        Self::open_guarded(backend, None, "the given backend".to_owned(), kind, options)
    }

    fn open_file(
        path: &Path,
        kind: Kind,
        options: &RedbOptions,
        backend: impl FnOnce(File) -> Result<Box<dyn StorageBackend>>,
    ) -> Result<Self> {
        let shown = path.display().to_string();
        if path.is_dir() {
            return Err(format_error(shown, "it is a folder, not a file"));
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io("creating the folder of the file"))?;
        }
        let at_rest = SumsFile::beside(path);
        let is_new = !path.try_exists().map_err(io("looking for the file"))?;
        if is_new && at_rest.path().try_exists().map_err(io("looking for checksums"))? {
            let detail = "the file is gone, its checksums are there".to_owned();
            return Err(Error::Corrupt { engine: NAME, place: shown, detail });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("opening the file"))?;
        if is_new {
            sync_folder(path).map_err(io("syncing the folder of the file"))?;
        }
        Self::open_guarded(backend(file)?, Some(at_rest), shown, kind, options)
    }

    fn open_guarded(
        backend: Box<dyn StorageBackend>,
        at_rest: Option<SumsFile>,
        path: String,
        kind: Kind,
        options: &RedbOptions,
    ) -> Result<Self> {
        let guard = Arc::new(Guard::new(backend, at_rest));
        let opened = contain("opening the file", || {
            let db = open_checked(&guard, path.clone(), options)?;
            prepare(&db, path.clone(), kind)?;
            Ok(db)
        });
        let db = opened.map_err(|error| explain(error, &guard, path))?;
        guard.set_opened();
        Ok(Self {
            inner: Arc::new(Inner {
                db: Some(db),
                syncs_to_open: guard.syncs(),
                guard,
                writer: Mutex::new(()),
                failed: AtomicBool::new(false),
                latest: RwLock::new(None),
                sweep: Mutex::new(SweepPosition::default()),
            }),
        })
    }

    /// Closes the file and tells whether that went well.
    ///
    /// # Errors
    /// If other clones or snapshots are alive, which then keep it open; or as a synced write. Synced
    /// writes are safe in any case.
    pub fn close(self) -> Result<()> {
        let mut inner =
            Arc::into_inner(self.inner).ok_or_else(|| invalid_state("other handles are alive"))?;
        inner.close()
    }

    /// Whether the whole file was read and checked when it was opened, as it is after an
    /// unclean stop.
    #[must_use]
    pub fn was_checked_at_open(&self) -> bool {
        !self.inner.guard.vouched()
    }

    /// Compares the next `budget_pages` pages of the file (4 KiB each) with what was written.
    ///
    /// Finds damage wherever it lies: in a value, in what leads to a key and so would hide it,
    /// and in pages in use by nothing. It goes past the cache, blocks nobody and holds no
    /// snapshot. A caller that wants the file checked once a week calls it with small budgets
    /// at long intervals; positions go on where the last call ended, and start again at the end.
    ///
    /// # Errors
    /// `Corrupt` at the first damaged page of the slice, or if reads met one since the last
    /// call. The next call goes on behind it.
    pub fn sweep(&self, budget_pages: u64) -> Result<SweepProgress> {
        self.inner.sweep.lock().advance(&self.inner.guard, budget_pages)
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
        let view = Arc::new(contain("opening a snapshot", || View::open(self.inner.db()))?);
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
        let result = contain("write", || replay(inner.db(), batch, durability));
        *inner.latest.write() = None;
        if result.is_err() {
            inner.failed.store(true, Ordering::Release);
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

/// Opens the database and, unless something vouches for the file, checks all of it.
fn open_checked(guard: &Arc<Guard>, path: String, options: &RedbOptions) -> Result<Database> {
    let recovered = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&recovered);
    let mut db = Builder::new()
        .set_cache_size(options.cache_bytes)
        .set_repair_callback(move |_| noticed.store(true, Ordering::Release))
        .create_with_backend(GuardHandle(Arc::clone(guard)))
        .map_err(|error| open_error(path.clone(), error))?;
    // Recovery has just compared every page with redb's own checksums.
    if !guard.vouched() && !recovered.load(Ordering::Acquire) {
        let intact = db.check_integrity().map_err(|error| open_error(path.clone(), error))?;
        if !intact {
            return Err(Error::Corrupt {
                engine: NAME,
                place: path,
                detail: "its pages do not match redb's checksums".to_owned(),
            });
        }
    }
    Ok(db)
}

/// Damage that the guard met is why an open failed, whatever redb made of it.
fn explain(error: Error, guard: &Guard, path: String) -> Error {
    let Some(block) = guard.first_damage() else { return error };
    let mut detail = format!("page {block} is not what was written");
    if let Some(at_rest) = guard.at_rest() {
        detail = format!(
            "{detail}; if the file was replaced on purpose, remove {} and it is checked in full",
            at_rest.path().display()
        );
    }
    Error::Corrupt { engine: NAME, place: path, detail }
}

/// Makes the tables of a new file; checks those of an old one.
fn prepare(db: &Database, path: String, kind: Kind) -> Result<()> {
    let op = "checking the format";
    let transaction = db.begin_read().map_err(during(op))?;
    let names: Vec<String> = transaction
        .list_tables()
        .map_err(during(op))?
        .map(|table| table.name().to_owned())
        .collect();
    if names.is_empty() {
        return create(db, kind);
    }
    if !names.iter().any(|name| name == META.name()) {
        return Err(format_error(path, "it is a redb file of another program"));
    }
    let meta = transaction.open_table(META).map_err(during(op))?;
    for (key, want) in [(FORMAT_KEY, FORMAT), (KIND_KEY, kind.mark())] {
        let Some(found) = meta.get(key).map_err(during(op))? else {
            return Err(Error::Corrupt {
                engine: NAME,
                place: path,
                detail: format!("its {key} is gone"),
            });
        };
        if found.value() != want {
            let (found, want) = (found.value().escape_ascii(), want.escape_ascii());
            return Err(format_error(path, &format!("its {key} is {found}, not {want}")));
        }
    }
    View::open(db).map(drop)
}

/// All tables in one transaction: a file has either none of them or all.
fn create(db: &Database, kind: Kind) -> Result<()> {
    let op = "creating the tables";
    let transaction = db.begin_write().map_err(during(op))?;
    for cf in Cf::ALL {
        transaction.open_table(table(cf)).map_err(during(op))?;
    }
    {
        let mut meta = transaction.open_table(META).map_err(during(op))?;
        for (key, value) in [(FORMAT_KEY, FORMAT), (KIND_KEY, kind.mark())] {
            meta.insert(key, value).map_err(during(op))?;
        }
    }
    transaction.commit().map_err(during(op))
}

fn format_error(path: String, detail: &str) -> Error {
    Error::Format { engine: NAME, path, detail: detail.to_owned() }
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
        Ok(Box::new(RedbCursor::open(self.view()?, cf, range, direction)?))
    }
}

impl KvEngine for RedbEngine {
    type Snapshot = RedbSnapshot;
    type WriteBatch = RedbWriteBatch;

    fn name(&self) -> &'static str {
        NAME
    }

    fn snapshot(&self) -> Result<RedbSnapshot> {
        Ok(RedbSnapshot::new(self.view()?, self.clone()))
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
        let guard = &self.inner.guard;
        EngineStats {
            used_bytes: guard.blocks().unwrap_or(0) * BLOCK_BYTES as u64,
            written_bytes: guard.written_bytes(),
            syncs: guard.syncs().saturating_sub(self.inner.syncs_to_open),
            stalled: false,
        }
    }
}
