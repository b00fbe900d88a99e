//! A data engine on fjall, and a raft log on the same: the code of `docs/write-an-engine.md`.
#![expect(missing_debug_implementations, reason = "nothing here tells more than its name")]

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, Error, KvEngine, KvRaftLog, Range, Reader,
    Result, Snapshot, WriteBatch,
};
use fjall::{Database, Error as E, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _};
use parking_lot::Mutex;

const NAME: &str = "fjall";

/// One database with a keyspace per column family. Clones name the same one.
#[derive(Clone)]
pub struct FjallEngine {
    db: Database,
    families: [Keyspace; Cf::ALL.len()],
    /// Held while a batch is made of what is stored, and written. Counts the syncs.
    syncs: Arc<Mutex<u64>>,
    _mark: Arc<File>,
}

/// A file beside the database, which says whose it is, once it is made.
const MARK: &str = "RAFTSTORE-FJALL";
const FORMAT: &str = "format 1\n";

impl FjallEngine {
    /// Opens the database in the folder `path`, or makes one.
    ///
    /// # Errors
    /// `Locked` if it is open elsewhere; `Format` if the folder is another program's or of a newer
    /// format; `Corrupt` for damage; `Full`, `Backend` for what the device says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut mark, made) = claim(path)?;
        let folder = path.join("data");
        // What fjall writes last when it makes a database.
        let whole = folder.join("version").exists();
        if made && !whole {
            let (place, detail) = (path.display().to_string(), "a file is missing".to_owned());
            return Err(Error::Corrupt { engine: NAME, place, detail });
        }
        if !whole && folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed("removing a half-made database"))?;
        }
        let builder = Database::builder(&folder).journal_compression(fjall::CompressionType::None);
        let db = builder.open().map_err(failed("opening the database"))?;
        let [a, b, c, d] = Cf::ALL.map(|cf| db.keyspace(cf.name(), KeyspaceCreateOptions::default));
        let opened = || -> fjall::Result<_> { Ok([a?, b?, c?, d?]) };
        let families = opened().map_err(failed("opening a keyspace"))?;
        if !made {
            let marked = mark.write_all(FORMAT.as_bytes()).and_then(|()| mark.sync_all());
            marked.map_err(failed("writing the mark"))?;
        }
        Ok(Self { db, families, syncs: Arc::default(), _mark: Arc::new(mark) })
    }
}

/// Opens a raft log: any data engine can be one.
///
/// # Errors
/// As [`FjallEngine::open`].
pub fn open_raft_log(path: impl AsRef<Path>) -> Result<KvRaftLog<FjallEngine>> {
    FjallEngine::open(path).map(KvRaftLog::new)
}

/// Locks our mark, and tells whether the database was made in full before. Refuses a folder that
/// is not empty and does not bear the mark.
fn claim(path: &Path) -> Result<(File, bool)> {
    let place = || path.display().to_string();
    let foreign = |detail: String| Error::Format { engine: NAME, path: place(), detail };
    if path.is_file() {
        return Err(foreign("it is a file".to_owned()));
    }
    fs::create_dir_all(path).map_err(failed("creating the folder"))?;
    let is_empty = fs::read_dir(path).map_err(failed("listing the folder"))?.next().is_none();
    if !is_empty && !path.join(MARK).exists() {
        return Err(foreign("it holds something else".to_owned()));
    }
    let options = File::options().create(true).truncate(false).read(true).write(true).to_owned();
    let mut mark = options.open(path.join(MARK)).map_err(failed("opening the mark"))?;
    match mark.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::Locked { engine: NAME, path: place() }),
        Err(TryLockError::Error(error)) => return Err(failed("locking the mark")(error)),
        Ok(()) => {}
    }
    let mut text = String::new();
    mark.read_to_string(&mut text).map_err(failed("reading the mark"))?;
    match text.as_str() {
        FORMAT => Ok((mark, true)),
        "" => Ok((mark, false)),
        _ => Err(foreign(format!("its mark says {text:?}"))),
    }
}

/// What of fjall's errors, and of the system's, a store has to tell apart.
fn failed<T: Into<E>>(op: &'static str) -> impl FnOnce(T) -> Error {
    move |error| match error.into() {
        E::InvalidVersion(found) => {
            let detail = format!("the database says {found:?}");
            Error::Format { engine: NAME, path: op.to_owned(), detail }
        }
        error @ (E::JournalRecovery(_) | E::InvalidTrailer | E::InvalidTag(_)) => {
            Error::Corrupt { engine: NAME, place: op.to_owned(), detail: error.to_string() }
        }
        E::Io(io) | E::Storage(fjall::LsmError::Io(io)) if io.kind() == ErrorKind::StorageFull => {
            Error::Full { engine: NAME, op, source: Box::new(io) }
        }
        error => Error::Backend { engine: NAME, op, source: Box::new(error) },
    }
}

/// fjall has no empty keys, so all begin with a byte of ours.
const FIRST: u8 = 0;

fn stored(key: &[u8]) -> Vec<u8> {
    [&[FIRST], key].concat()
}

/// A moment of all keyspaces.
pub struct FjallSnapshot {
    moment: fjall::Snapshot,
    families: [Keyspace; Cf::ALL.len()],
}

impl Snapshot for FjallSnapshot {}

impl FjallSnapshot {
    fn walk(&self, cf: Cf, range: Range<'_>, direction: Direction) -> FjallCursor {
        let mut cursor = FjallCursor {
            moment: self.moment.clone(),
            family: self.families[cf.index()].clone(),
            low: stored(range.start),
            high: if range.end.is_empty() { vec![FIRST + 1] } else { stored(range.end) },
            direction,
            rows: None,
            row: None,
        };
        let (low, high) = (cursor.low.clone(), cursor.high.clone());
        cursor.walk(low, high);
        cursor
    }
}

impl Reader for FjallSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let found = self.moment.get(&self.families[cf.index()], stored(key));
        Ok(found.map_err(failed("get"))?.map(Bytes::from_owner))
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        Ok(Box::new(self.walk(cf, range, direction)))
    }
}

/// A walk of its own moment, which is begun anew at each seek.
struct FjallCursor {
    moment: fjall::Snapshot,
    family: Keyspace,
    low: Vec<u8>,
    high: Vec<u8>,
    direction: Direction,
    rows: Option<fjall::Iter>,
    row: Option<fjall::KvPair>,
}

impl FjallCursor {
    /// From `low` up to but not including `high`.
    fn walk(&mut self, low: Vec<u8>, high: Vec<u8>) {
        self.rows = (low < high).then(|| self.moment.range(&self.family, low..high));
    }
}

impl Cursor for FjallCursor {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let row = self.rows.as_mut().and_then(|rows| match self.direction {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.next_back(),
        });
        let row = row.map(fjall::Guard::into_inner).transpose();
        self.row = row.map_err(failed("walk"))?;
        self.rows = self.rows.take().filter(|_| self.row.is_some());
        Ok(self.row.as_ref().map(|(key, value)| (&key[1..], &value[..])))
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let (low, high) = (self.low.clone(), self.high.clone());
        match self.direction {
            Direction::Forward => self.walk(low.max(stored(key)), high),
            // The first key behind `key` is that with a zero more.
            Direction::Backward => self.walk(low, high.min([&stored(key), &b"\0"[..]].concat())),
        }
        Ok(())
    }
}

impl Reader for FjallEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.snapshot()?.get(cf, key)
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        Ok(Box::new(self.snapshot()?.walk(cf, range, direction)))
    }
}

enum Op {
    Put(Bytes, Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
}

/// Operations, to be carried out in their order.
#[derive(Default)]
pub struct FjallBatch {
    ops: Vec<(Cf, Op)>,
    size_bytes: usize,
}

impl FjallBatch {
    fn push(&mut self, cf: Cf, first: &[u8], second: &[u8], op: fn(Bytes, Bytes) -> Op) {
        self.size_bytes += first.len() + second.len();
        let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
        self.ops.push((cf, op(first, second)));
    }
}

impl WriteBatch for FjallBatch {
    fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.push(cf, key, value, Op::Put);
    }

    fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.push(cf, key, b"", |key, _| Op::Delete(key));
    }

    fn delete_range(&mut self, cf: Cf, range: Range<'_>) {
        self.push(cf, range.start, range.end, Op::DeleteRange);
    }

    fn len(&self) -> usize {
        self.ops.len()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// What a batch comes to: for each key its value, or that it is gone.
type Rows = BTreeMap<(Cf, Bytes), Option<Bytes>>;

impl FjallEngine {
    /// fjall gives all operations of a batch one number, and does not delete ranges: what each key
    /// comes to is found out before.
    fn rows(&self, ops: Vec<(Cf, Op)>) -> Result<Rows> {
        let mut rows = Rows::new();
        for (cf, op) in ops {
            match op {
                Op::Put(key, value) => drop(rows.insert((cf, key), Some(value))),
                Op::Delete(key) => drop(rows.insert((cf, key), None)),
                Op::DeleteRange(start, end) => {
                    let range = Range::new(&start, &end);
                    for ((family, key), value) in &mut rows {
                        if *family == cf && range.contains(key) {
                            *value = None;
                        }
                    }
                    let mut doomed = self.cursor(cf, range, Direction::Forward)?;
                    while let Some((key, _)) = doomed.next()? {
                        rows.insert((cf, Bytes::copy_from_slice(key)), None);
                    }
                }
            }
        }
        Ok(rows)
    }
}

/// fjall panics on keys that are longer, with the byte in front.
const LONGEST_KEY: usize = 0xFFFE;

impl KvEngine for FjallEngine {
    type Snapshot = FjallSnapshot;
    type WriteBatch = FjallBatch;

    fn name(&self) -> &'static str {
        NAME
    }

    fn snapshot(&self) -> Result<FjallSnapshot> {
        Ok(FjallSnapshot { moment: self.db.snapshot(), families: self.families.clone() })
    }

    fn write_batch(&self) -> FjallBatch {
        FjallBatch::default()
    }

    fn write(&self, batch: FjallBatch, durability: Durability) -> Result<()> {
        let mut syncs = self.syncs.lock();
        let mut native = self.db.batch();
        for ((cf, key), value) in self.rows(batch.ops)? {
            if key.len() > LONGEST_KEY {
                let detail = format!("a key of {} bytes", key.len());
                return Err(Error::InvalidBatch { engine: NAME, detail });
            }
            match value {
                Some(value) => {
                    native.insert(&self.families[cf.index()], stored(&key), value.as_ref())
                }
                None => native.remove(&self.families[cf.index()], stored(&key)),
            }
        }
        native.commit().map_err(failed("write"))?;
        if durability == Durability::Synced {
            self.db.persist(PersistMode::SyncAll).map_err(failed("sync"))?;
            *syncs += 1;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.write(FjallBatch::default(), Durability::Synced)
    }

    fn stats(&self) -> EngineStats {
        let (used_bytes, syncs) = (self.db.disk_space().unwrap_or(0), *self.syncs.lock());
        EngineStats { used_bytes, syncs, ..EngineStats::default() }
    }
}
