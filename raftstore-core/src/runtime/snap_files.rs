//! Decides how region snapshots rest in a directory: one file each, whole or absent (H5).
//!
//! A snapshot is written to a name ending in `.tmp`, synced, renamed, and the directory
//! synced, before anybody is told of it. Names are made of numbers alone
//! (`gen_7_3_12.snap`: made here, region 7, term 3, index 12). What a dead process left
//! unfinished is removed when the directory is opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use raftstore_proto::RegionId;
use transport_traits::{SnapDirection, SnapError, SnapKey, SnapReader, SnapStore, SnapWriter};

const SUFFIX: &str = ".snap";
const UNFINISHED: &str = ".tmp";
/// Most bytes read at once, whatever is asked for.
const READ_BYTES_MAX: usize = 1 << 20;

type Name = (SnapDirection, SnapKey);

/// Region snapshots as files of one directory, which nothing else uses.
#[derive(Clone, Debug)]
pub struct FileSnapStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    limit_bytes: u64,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    /// Finished ones with their sizes in bytes.
    at_rest: BTreeMap<Name, u64>,
    /// Invariant: one live writer per name (H44).
    writing: BTreeSet<Name>,
    /// Bytes of `at_rest` and of what live writers have written.
    used_bytes: u64,
}

impl FileSnapStore {
    /// Opens or creates the directory, to hold at most `limit_bytes`.
    ///
    /// # Errors
    /// If it cannot be created or listed, or leftovers cannot be removed.
    pub fn open(directory: impl Into<PathBuf>, limit_bytes: u64) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        let mut registry = Registry::default();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.strip_suffix(UNFINISHED).is_some_and(|finished| parse(finished).is_some()) {
                fs::remove_file(entry.path())?;
            } else if let Some(name) = parse(name) {
                let size_bytes = entry.metadata()?.len();
                registry.at_rest.insert(name, size_bytes);
                registry.used_bytes += size_bytes;
            } else {
                tracing::warn!(file = name, "not a region snapshot, left alone");
            }
        }
        let inner = Inner { directory, limit_bytes, registry: Mutex::new(registry) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Bytes of all snapshots, finished or being written.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.inner.registry.lock().used_bytes
    }
}

impl Inner {
    fn path(&self, name: Name) -> PathBuf {
        self.directory.join(file_name(name))
    }

    fn unfinished_path(&self, name: Name) -> PathBuf {
        self.directory.join(file_name(name) + UNFINISHED)
    }
}

fn file_name((direction, key): Name) -> String {
    let direction = match direction {
        SnapDirection::Generated => "gen",
        SnapDirection::Received => "rev",
    };
    format!("{direction}_{key}{SUFFIX}")
}

/// The snapshot whose file has this name; only names as we write them.
fn parse(file: &str) -> Option<Name> {
    let mut parts = file.strip_suffix(SUFFIX)?.split('_');
    let direction = match parts.next()? {
        "gen" => SnapDirection::Generated,
        "rev" => SnapDirection::Received,
        _ => return None,
    };
    let mut number = || parts.next()?.parse::<u64>().ok();
    let key = SnapKey { region: RegionId::new(number()?)?, term: number()?, index: number()? };
    let name = (direction, key);
    (parts.next().is_none() && file_name(name) == file).then_some(name)
}

fn io_error(key: SnapKey, op: &'static str) -> impl FnOnce(io::Error) -> SnapError {
    move |source| SnapError::Io { key, op, source }
}

/// Makes renames in `directory` durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

impl SnapStore for FileSnapStore {
    fn create(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapWriter>, SnapError> {
        let name = (direction, key);
        // Registered first: the file of a writer that lives is never touched by another.
        if !self.inner.registry.lock().writing.insert(name) {
            return Err(SnapError::Busy(key));
        }
        let path = self.inner.unfinished_path(name);
        let mut writer = FileWriter {
            inner: Arc::clone(&self.inner),
            name,
            file: None,
            written_bytes: 0,
            is_broken: false,
        };
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
        writer.file = Some(file.map_err(io_error(key, "creating"))?);
        Ok(Box::new(writer))
    }

    fn open(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapReader>, SnapError> {
        match File::open(self.inner.path((direction, key))) {
            Ok(file) => Ok(Box::new(FileReader { key, file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SnapError::NotFound(key)),
            Err(error) => Err(io_error(key, "opening")(error)),
        }
    }

    fn delete(&self, direction: SnapDirection, key: SnapKey) -> Result<(), SnapError> {
        let name = (direction, key);
        let mut registry = self.inner.registry.lock();
        match fs::remove_file(self.inner.path(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(key, "deleting")(error)),
        }
        if let Some(size_bytes) = registry.at_rest.remove(&name) {
            registry.used_bytes -= size_bytes;
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<(SnapDirection, SnapKey, u64)>, SnapError> {
        let registry = self.inner.registry.lock();
        Ok(registry
            .at_rest
            .iter()
            .map(|(name, size_bytes)| (name.0, name.1, *size_bytes))
            .collect())
    }
}

struct FileWriter {
    inner: Arc<Inner>,
    name: Name,
    /// `None` once it is finished, or if it could not be created.
    file: Option<File>,
    written_bytes: u64,
    is_broken: bool,
}

impl FileWriter {
    fn reserve(&mut self, more: u64) -> Result<(), SnapError> {
        let mut registry = self.inner.registry.lock();
        let limit_bytes = self.inner.limit_bytes.saturating_sub(registry.used_bytes);
        if more > limit_bytes {
            return Err(SnapError::NoSpace { key: self.name.1, limit_bytes });
        }
        registry.used_bytes += more;
        self.written_bytes += more;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SnapError> {
        let key = self.name.1;
        self.reserve(bytes.len() as u64)?;
        let file = self.open_file()?;
        file.write_all(bytes).map_err(io_error(key, "writing"))
    }

    fn open_file(&mut self) -> Result<&mut File, SnapError> {
        let key = self.name.1;
        let file = if self.is_broken { None } else { self.file.as_mut() };
        file.ok_or_else(|| {
            io_error(key, "writing")(io::Error::other("an earlier write has failed"))
        })
    }

    fn publish(&mut self) -> Result<u64, SnapError> {
        let (name, key) = (self.name, self.name.1);
        self.open_file()?.sync_all().map_err(io_error(key, "syncing"))?;
        let path = self.inner.path(name);
        // One lock over rename and entry: a deletion sees both or neither.
        let mut registry = self.inner.registry.lock();
        fs::rename(self.inner.unfinished_path(name), &path).map_err(io_error(key, "renaming"))?;
        if let Err(source) = sync_directory(&self.inner.directory) {
            let _ = fs::remove_file(&path);
            registry.used_bytes -= registry.at_rest.remove(&name).unwrap_or(0);
            return Err(io_error(key, "syncing the directory of")(source));
        }
        let replaced = registry.at_rest.insert(name, self.written_bytes);
        registry.used_bytes -= replaced.unwrap_or(0);
        // At rest from now on; the writer takes nothing back when it goes.
        let size_bytes = std::mem::take(&mut self.written_bytes);
        drop(registry);
        self.file = None;
        Ok(size_bytes)
    }
}

impl SnapWriter for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapError> {
        let result = self.append(bytes);
        self.is_broken |= result.is_err();
        result
    }

    fn finish(mut self: Box<Self>) -> Result<u64, SnapError> {
        self.publish()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = fs::remove_file(self.inner.unfinished_path(self.name))
        {
            // Removed by the next opening.
            tracing::debug!(key = %self.name.1, %error, "unfinished region snapshot stays");
        }
        let mut registry = self.inner.registry.lock();
        registry.used_bytes -= self.written_bytes;
        registry.writing.remove(&self.name);
    }
}

struct FileReader {
    key: SnapKey,
    file: File,
}

impl SnapReader for FileReader {
    fn read(&mut self, max_bytes: usize) -> Result<Bytes, SnapError> {
        let limit = max_bytes.min(READ_BYTES_MAX);
        let mut bytes = Vec::with_capacity(limit);
        Read::by_ref(&mut self.file)
            .take(limit as u64)
            .read_to_end(&mut bytes)
            .map_err(io_error(self.key, "reading"))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests;
