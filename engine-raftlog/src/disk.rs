//! The files under raft-engine: keeps the manifest ahead of them, knows what of each is durable,
//! and fails on command.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use crate::format::FileId;
use crate::manifest::{Known, Manifest, sync_folder};
use crate::switch::{Draw, Loss, SECTOR_BYTES};

/// Bytes of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// Where what was written ends; beyond it are at most zeros.
    written: u64,
    /// Up to where that is durable.
    durable: u64,
}

struct OneFile {
    file: File,
    base: u64,
    ends: Mutex<Ends>,
}

struct Shared {
    folder: PathBuf,
    /// Held while the manifest is written.
    files: Mutex<BTreeMap<FileId, Arc<OneFile>>>,
    /// Nothing reaches the files any more: the power is cut, or a write has failed.
    dead: AtomicBool,
    /// The log is being closed: a sync that fails is remembered and not reported, since
    /// raft-engine would panic while it is dropped.
    closing: AtomicBool,
    first_error: Mutex<Option<io::Error>>,
    capacity: Mutex<Option<u64>>,
    failing_syncs: AtomicBool,
    /// Changes and syncs left before the power goes by itself.
    left: Mutex<Option<u64>>,
    /// Number of the last write that is whole, for the manifest.
    number: AtomicU64,
    syncs: AtomicU64,
    written_bytes: AtomicU64,
    files_made: AtomicU64,
}

/// The files of one open log. Clones name the same ones.
#[derive(Clone)]
pub(crate) struct Disk {
    shared: Arc<Shared>,
}

fn gone() -> io::Error {
    io::Error::other("the log is cut off from its files")
}

impl Disk {
    /// The files of a folder that was checked. `manifest` is what lies in it, all of it durable.
    pub(crate) fn new(folder: &Path, manifest: &Manifest, number: u64) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for (id, known) in &manifest.files {
            let file = File::options().read(true).write(true).open(folder.join(id.name()))?;
            let ends = Mutex::new(Ends { written: known.durable, durable: known.durable });
            files.insert(*id, Arc::new(OneFile { file, base: known.base, ends }));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                folder: folder.to_owned(),
                files: Mutex::new(files),
                dead: AtomicBool::new(false),
                closing: AtomicBool::new(false),
                first_error: Mutex::new(None),
                capacity: Mutex::new(None),
                failing_syncs: AtomicBool::new(false),
                left: Mutex::new(None),
                number: AtomicU64::new(number),
                syncs: AtomicU64::new(0),
                written_bytes: AtomicU64::new(0),
                files_made: AtomicU64::new(0),
            }),
        })
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn files_made(&self) -> u64 {
        self.shared.files_made.load(Ordering::Relaxed)
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.shared.files.lock().values().map(|file| file.ends.lock().written).sum()
    }

    /// Takes in that all writes up to `number` are whole in the files.
    pub(crate) fn set_number(&self, number: u64) {
        self.shared.number.store(number, Ordering::Release);
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        *self.shared.capacity.lock() = bytes;
    }

    pub(crate) fn set_failing_syncs(&self, failing: bool) {
        self.shared.failing_syncs.store(failing, Ordering::Release);
    }

    /// Lets nothing through from the `operation`-th change or sync on.
    pub(crate) fn cut_before(&self, operation: u64) {
        *self.shared.left.lock() = Some(operation);
    }

    /// Lets nothing through from now on.
    pub(crate) fn kill(&self) {
        self.shared.dead.store(true, Ordering::Release);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }

    /// From now on failed syncs are only remembered.
    pub(crate) fn begin_to_close(&self) {
        self.shared.closing.store(true, Ordering::Release);
    }

    /// The first error of the device, once.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.shared.first_error.lock().take()
    }

    /// Writes the manifest of a log that is closed in order.
    pub(crate) fn seal(&self) -> io::Result<()> {
        let files = self.shared.files.lock();
        self.shared.manifest(&files, true).write(&self.shared.folder)
    }

    /// Loses what is not durable. Call it dead.
    pub(crate) fn lose(&self, loss: Loss) -> io::Result<()> {
        for one in self.shared.files.lock().values() {
            let Ends { written, durable } = *one.ends.lock();
            let tail = written.saturating_sub(durable);
            match loss {
                _ if tail == 0 => {}
                Loss::Everything => one.file.set_len(durable)?,
                Loss::Suffix { seed } => {
                    one.file.set_len(durable + Draw::new(seed).below(tail + 1))?;
                }
                Loss::Scattered { seed } => {
                    let mut draw = Draw::new(seed);
                    let mut at = durable;
                    while at < written {
                        let end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                        let end = end.min(written);
                        if draw.below(2) == 0 {
                            let zeros = vec![0; usize::try_from(end - at).unwrap_or(0)];
                            one.file.write_all_at(&zeros, at)?;
                        }
                        at = end;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    fn manifest(&self, files: &BTreeMap<FileId, Arc<OneFile>>, closed: bool) -> Manifest {
        let known = |one: &OneFile| Known { durable: one.ends.lock().durable, base: one.base };
        Manifest { files: files.iter().map(|(id, one)| (*id, known(one))).collect(), closed }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead.load(Ordering::Acquire) { Err(gone()) } else { Ok(()) }
    }

    /// Counts a change or sync, and lets the power go if it is the one.
    fn count(&self) -> io::Result<()> {
        self.alive()?;
        let mut left = self.left.lock();
        match left.as_mut() {
            None => {}
            Some(0) => {
                *left = None;
                self.dead.store(true, Ordering::Release);
                return Err(gone());
            }
            Some(left) => *left -= 1,
        }
        Ok(())
    }

    /// Keeps the first error: raft-engine hands on only words, or panics.
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let kept = match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            self.first_error.lock().get_or_insert(kept);
        }
        result
    }

    fn id(path: &Path) -> io::Result<FileId> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        FileId::parse(name).ok_or_else(|| io::Error::other(format!("{name} is no file of a log")))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<OneFile>> {
        self.count()?;
        let id = Self::id(path)?;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        sync_folder(&self.folder)?;
        let base = self.number.load(Ordering::Acquire);
        let one = Arc::new(OneFile { file, base, ends: Mutex::default() });
        // Only a file that lasts is named, so that a missing one is always damage.
        let mut files = self.files.lock();
        files.insert(id, Arc::clone(&one));
        self.manifest(&files, false).write(&self.folder)?;
        self.files_made.fetch_add(1, Ordering::Relaxed);
        Ok(one)
    }

    /// Makes a file durable, in which `written` bytes are written at least.
    fn sync(&self, one: &OneFile, written: u64) -> io::Result<()> {
        self.count()?;
        if self.failing_syncs.load(Ordering::Acquire) {
            return Err(io::Error::other("a sync failed on command"));
        }
        one.file.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let mut ends = one.ends.lock();
        ends.durable = ends.durable.max(written);
        Ok(())
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        self.count()?;
        let id = Self::id(path)?;
        let mut files = self.files.lock();
        // What the file held may have given way to writes that are only buffered: lost, they
        // must not take it with them.
        for (_, one) in files.iter().filter(|(other, _)| **other != id) {
            let written = {
                let ends = one.ends.lock();
                if ends.written <= ends.durable {
                    continue;
                }
                ends.written
            };
            self.sync(one, written)?;
        }
        files.remove(&id);
        self.manifest(&files, false).write(&self.folder)?;
        fs::remove_file(path)
    }
}

impl FileSystem for Disk {
    type Handle = LogFile;
    type Reader = Access;
    type Writer = Access;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogFile> {
        let one = self.shared.noted(self.shared.create(path.as_ref()))?;
        Ok(LogFile { shared: Arc::clone(&self.shared), one })
    }

    fn open<P: AsRef<Path>>(&self, path: P, _permission: Permission) -> io::Result<LogFile> {
        self.shared.alive()?;
        let id = Shared::id(path.as_ref())?;
        let one = self.shared.files.lock().get(&id).cloned();
        let one = one.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        Ok(LogFile { shared: Arc::clone(&self.shared), one })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.shared.noted(self.shared.delete(path.as_ref()))
    }

    fn rename<P: AsRef<Path>>(&self, _from: P, _to: P) -> io::Result<()> {
        // Only files in reserve are renamed, and there are none: a place that is written twice
        // would be mistaken in raft-engine's cache of blocks.
        Err(io::Error::from(ErrorKind::Unsupported))
    }

    fn new_reader(&self, handle: Arc<LogFile>) -> io::Result<Access> {
        Ok(Access { handle, at: 0 })
    }

    fn new_writer(&self, handle: Arc<LogFile>) -> io::Result<Access> {
        Ok(Access { handle, at: 0 })
    }
}

/// One file as raft-engine holds it.
pub(crate) struct LogFile {
    shared: Arc<Shared>,
    one: Arc<OneFile>,
}

impl LogFile {
    fn truncated(&self, to: usize) -> io::Result<()> {
        self.shared.count()?;
        let to = to as u64;
        self.one.file.set_len(to)?;
        let mut ends = self.one.ends.lock();
        ends.written = ends.written.min(to);
        ends.durable = ends.durable.min(to);
        Ok(())
    }

    fn synced(&self) -> io::Result<()> {
        // raft-engine holds its lock of the row, so that nothing is written meanwhile.
        let written = self.one.ends.lock().written;
        self.shared.sync(&self.one, written)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.shared.count()?;
        let end = at + bytes.len() as u64;
        if let Some(capacity) = *self.shared.capacity.lock() {
            let files = self.shared.files.lock();
            let used: u64 = files.values().map(|file| file.ends.lock().written).sum();
            if used + bytes.len() as u64 > capacity {
                return Err(io::Error::from(ErrorKind::StorageFull));
            }
        }
        self.one.file.write_all_at(bytes, at)?;
        self.shared.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut ends = self.one.ends.lock();
        ends.written = ends.written.max(end);
        Ok(())
    }
}

impl Handle for LogFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        if self.shared.alive().is_err() {
            return Ok(());
        }
        self.shared.noted(self.truncated(offset))
    }

    fn file_size(&self) -> io::Result<usize> {
        let len = self.one.file.metadata()?.len();
        usize::try_from(len).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        // raft-engine syncs when it is dropped and panics if that fails. A dead log is only ever
        // dropped: its writes were refused before they came here.
        if self.shared.alive().is_err() {
            return Ok(());
        }
        let result = self.shared.noted(self.synced());
        if self.shared.closing.load(Ordering::Acquire) { Ok(()) } else { result }
    }
}

/// A place in a file, for reading or writing.
pub(crate) struct Access {
    handle: Arc<LogFile>,
    at: u64,
}

impl Read for Access {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.handle.one.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Access {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.shared.alive()?;
        let done = self.handle.write_at(bytes, self.at);
        self.handle.shared.noted(done)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Access {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.at, by),
            SeekFrom::End(by) => (self.handle.one.file.metadata()?.len(), by),
        };
        let at = from.checked_add_signed(by);
        self.at = at.ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl WriteExt for Access {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.handle.truncate(offset)?;
        self.at = offset as u64;
        Ok(())
    }

    /// Room ahead of the writes, which makes syncs cheaper. The file grows by zeros.
    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.handle.shared.alive()?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::empty();
            match fallocate(&self.handle.one.file, flags, offset as u64, size as u64) {
                Err(error) if error != rustix::io::Errno::OPNOTSUPP => return Err(error.into()),
                _ => {}
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, size);
        Ok(())
    }
}
