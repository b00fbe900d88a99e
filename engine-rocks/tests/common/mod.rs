//! A power cut for RocksDB: an engine that notes what of its log is synced, and a fixture that
//! takes the rest away.
//!
//! RocksDB has no way to lose what was not synced within one process. But it only ever appends to
//! its log, and makes its other files durable before it relies on them. So what a cut leaves is a
//! copy of the folder with the last log cut off behind what was synced, taken while the database
//! is open.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use engine_rocks::{RocksEngine, RocksOptions, RocksSnapshot, RocksWriteBatch};
use engine_traits::conformance::{KvFixture, Support};
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, KvEngine, Range, Reader, Result,
};
use tempfile::TempDir;

/// The engine, with the length of its log at the last sync.
#[derive(Clone)]
pub(crate) struct Watched {
    engine: RocksEngine,
    folder: PathBuf,
    /// Number and length of the log that was last at the last sync.
    log: Arc<AtomicU64>,
    synced: Arc<AtomicU64>,
}

/// The last of the log's files.
fn last_log(folder: &Path) -> Option<(u64, PathBuf)> {
    let items = fs::read_dir(folder).expect("the folder is there");
    let logs = items.filter_map(|item| {
        let path = item.expect("the folder can be read").path();
        let name = path.file_name()?.to_str()?;
        let number = name.strip_suffix(".log")?.parse().ok()?;
        Some((number, path))
    });
    logs.max()
}

/// Files and their lengths.
fn listed(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let items = fs::read_dir(folder).expect("the folder is there").map_while(|item| item.ok());
    let files = items.filter_map(|item| Some((item.path(), item.metadata().ok()?)));
    files.filter(|(_, data)| data.is_file()).map(|(path, data)| (path, data.len())).collect()
}

/// Copies a folder; gives whether nothing in it changed meanwhile.
fn copied(folder: &Path, to: &Path) -> bool {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("there is room");
    let before = listed(folder);
    let all = before.iter().all(|(path, len)| {
        let copy = path.file_name().map(|name| fs::copy(path, to.join(name)));
        copy.is_some_and(|copied| copied.is_ok_and(|bytes| bytes == *len))
    });
    all && listed(folder) == before
}

impl Watched {
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_ok()
            && let Some((number, path)) = last_log(&self.folder)
        {
            self.log.store(number, Ordering::SeqCst);
            let len = fs::metadata(path).expect("the log is there").len();
            self.synced.store(len, Ordering::SeqCst);
        }
        result
    }
}

impl Reader for Watched {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.engine.get(cf, key)
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        self.engine.cursor(cf, range, direction)
    }
}

impl KvEngine for Watched {
    type Snapshot = RocksSnapshot;
    type WriteBatch = RocksWriteBatch;

    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn snapshot(&self) -> Result<RocksSnapshot> {
        self.engine.snapshot()
    }

    fn write_batch(&self) -> RocksWriteBatch {
        self.engine.write_batch()
    }

    fn write(&self, batch: RocksWriteBatch, durability: Durability) -> Result<()> {
        let result = self.engine.write(batch, durability);
        if durability == Durability::Synced { self.noted(result) } else { result }
    }

    fn sync(&self) -> Result<()> {
        self.noted(self.engine.sync())
    }

    fn approximate_size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        self.engine.approximate_size(cf, range, limit)
    }

    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        self.engine.ingest(cf, rows)
    }

    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()> {
        self.engine.compact(cf, range)
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}

/// A folder of one database.
pub(crate) struct InFolder {
    dir: TempDir,
    options: RocksOptions,
    folder: PathBuf,
}

impl InFolder {
    pub(crate) fn new(options: RocksOptions) -> Self {
        let dir = tempfile::tempdir().expect("the system has a folder for temporary files");
        Self { folder: dir.path().join("data"), dir, options }
    }
}

impl KvFixture for InFolder {
    type Engine = Watched;

    fn open(&mut self) -> Result<Watched> {
        let folder = self.folder.clone();
        let engine = RocksEngine::open(&folder, &self.options)?;
        let (log, synced) = (Arc::default(), Arc::default());
        Watched { engine, folder, log, synced }.noted_open()
    }

    fn power_cut(&mut self, engine: Watched, keep: usize) -> Support {
        let (folder, left) = (self.folder.clone(), self.dir.path().join("left"));
        // Once more as long as compactions make and remove files meanwhile.
        while !copied(&folder, &left) {}
        if let Some((number, path)) = last_log(&left) {
            let len = fs::metadata(&path).expect("it was copied").len();
            let synced = match engine.log.load(Ordering::SeqCst) {
                log if log == number => engine.synced.load(Ordering::SeqCst),
                _ => 0,
            };
            // Some of what was not synced, cut off anywhere.
            let more = (len - synced).min(keep as u64 * 37);
            let file = fs::File::options().write(true).open(&path).expect("it was copied");
            file.set_len(synced + more).expect("it was copied");
        }
        drop(engine);
        fs::remove_dir_all(&folder).expect("the database is closed");
        fs::rename(&left, &folder).expect("it was copied");
        Support::Done
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.folder = folder.join("data");
        Support::Done
    }

    /// Flips a bit of the value wherever a file has it.
    fn damage(&mut self, _cf: Cf, _key: &[u8], value: &[u8]) -> Support {
        let mut found = false;
        for item in fs::read_dir(&self.folder).expect("the folder is there") {
            let path = item.expect("the folder can be read").path();
            let Ok(mut bytes) = fs::read(&path) else { continue };
            let places: Vec<usize> = bytes
                .windows(value.len().max(1))
                .enumerate()
                .filter_map(|(at, window)| (window == value).then_some(at))
                .collect();
            for at in &places {
                bytes[*at] ^= 1;
            }
            if !places.is_empty() {
                found = true;
                fs::write(&path, bytes).expect("there is room");
            }
        }
        if found { Support::Done } else { Support::Unsupported("the value is not in a file") }
    }

    fn model_seeds(&self) -> u64 {
        5
    }

    /// With a log and without.
    fn cuts(&self) -> u64 {
        150
    }

    fn kills(&self) -> u64 {
        100
    }
}

impl Watched {
    /// What there is when a database is opened is durable.
    fn noted_open(self) -> Result<Self> {
        self.noted(Ok(()))?;
        Ok(self)
    }
}
