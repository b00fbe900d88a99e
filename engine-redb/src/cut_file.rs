//! A file under redb that can lose its unsynced writes on command, as a power cut does.
//!
//! Dropping a redb database writes everything out; killing the process leaves the writes in
//! the operating system's cache. To lose them within one process, writes stay in memory here
//! until a sync takes them to the file.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::mem_disk::{Change, Loss, Piece, gone, survivors, whole};
use crate::sums::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

struct State {
    /// `None` after a cut or close. Dropping it releases the lock.
    file: Option<FileBackend>,
    /// Writes since the last sync, in order.
    changes: Vec<Change>,
    /// Where in `changes` the newest bytes of a block are: which one, and from which byte.
    newest: HashMap<u64, (usize, usize)>,
    /// The first block as a program sees it; redb rewrites parts of it.
    head: Vec<u8>,
    cut: bool,
    syncs: u64,
}

/// The backend behind [`crate::RedbEngine::open_with_cut`].
pub(crate) struct CutFile {
    state: Arc<Mutex<State>>,
}

/// Cuts the power of one open file. Clones act on the same file.
#[derive(Clone)]
pub struct CutSwitch {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for CutFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutFile").finish_non_exhaustive()
    }
}

impl fmt::Debug for CutSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutSwitch").field("cut", &self.is_cut()).finish_non_exhaustive()
    }
}

impl CutSwitch {
    /// Loses what was not synced, as `loss` says, and releases the file. Every later call of
    /// the engine on it fails. Does nothing the second time, or after a close.
    ///
    /// What survives of the unsynced writes is written to the file; if that fails, less of it
    /// survives, which is a power cut as well.
    pub fn cut(&self, loss: Loss) {
        let mut state = self.state.lock();
        let Some(file) = state.file.take() else { return };
        state.cut = true;
        for piece in survivors(&state.changes, loss) {
            if apply(&file, &piece).is_err() {
                break;
            }
        }
        state.changes = Vec::new();
        state.newest = HashMap::new();
        // Dropping the file releases its lock even if this does not.
        let _ = file.close();
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state.lock().cut
    }

    /// Syncs of the device so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }
}

/// Lengths are not held back: redb shrinks a file only when nothing durable lies beyond.
fn apply(file: &FileBackend, piece: &Piece<'_>) -> io::Result<()> {
    match piece {
        Piece::Write { offset, data } => {
            let len = file.len()?.saturating_sub(*offset as u64);
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(data.len());
            if len == 0 { Ok(()) } else { file.write(*offset as u64, &data[..len]) }
        }
        Piece::SetLen(len) => file.set_len(*len as u64),
    }
}

impl State {
    fn file(&self) -> io::Result<&FileBackend> {
        self.file.as_ref().ok_or_else(gone)
    }

    /// Takes the changes to the file, without a sync.
    fn write_out(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(gone)?;
        for change in &self.changes {
            apply(file, &whole(change))?;
        }
        self.changes.clear();
        self.newest.clear();
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.file()?;
        file.read(offset, out)?;
        if self.changes.is_empty() {
            return Ok(());
        }
        let end = offset + out.len() as u64;
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            let bytes = if block == 0 {
                self.head.as_slice()
            } else {
                let Some((change, from)) = self.newest.get(&block) else { continue };
                let Some(Change::Write { data, .. }) = self.changes.get(*change) else { continue };
                &data[*from..]
            };
            let (from, to) = (offset.max(block * BLOCK), end.min((block + 1) * BLOCK));
            let part = in_memory(from - block * BLOCK)?..in_memory(to - block * BLOCK)?;
            out[in_memory(from - offset)?..in_memory(to - offset)?].copy_from_slice(&bytes[part]);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = in_memory(offset)?;
        let end = offset + data.len() as u64;
        if end > self.file()?.len()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write past the end"));
        }
        let number = self.changes.len();
        if offset < BLOCK {
            let len = data.len().min(BLOCK_BYTES - start);
            self.head[start..start + len].copy_from_slice(&data[..len]);
        } else if !offset.is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write of a part of a page"));
        }
        for (at, block) in (offset / BLOCK..end.div_ceil(BLOCK)).enumerate().filter(|(_, b)| *b > 0)
        {
            self.newest.insert(block, (number, at * BLOCK_BYTES));
        }
        self.changes.push(Change::Write { offset: start, data: data.to_vec() });
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file()?.set_len(len)?;
        self.newest.retain(|block, _| *block < len.div_ceil(BLOCK));
        if len == 0 {
            self.head.fill(0);
        }
        Ok(())
    }
}

fn in_memory(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}

impl CutFile {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        let mut head = vec![0; BLOCK_BYTES];
        let len = in_memory(file.len()?.min(BLOCK))?;
        file.read(0, &mut head[..len])?;
        let state = State {
            file: Some(file),
            changes: Vec::new(),
            newest: HashMap::new(),
            head,
            cut: false,
            syncs: 0,
        };
        Ok(Self { state: Arc::new(Mutex::new(state)) })
    }

    pub(crate) fn switch(&self) -> CutSwitch {
        CutSwitch { state: Arc::clone(&self.state) }
    }
}

impl StorageBackend for CutFile {
    fn len(&self) -> io::Result<u64> {
        self.state.lock().file()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.state.lock().read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.write_out()?;
        state.file()?.sync_data()?;
        state.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.lock().write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.file.is_none() {
            return Ok(());
        }
        state.write_out()?;
        state.file.take().map_or(Ok(()), |file| file.close())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.state.lock().file()?.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.state.lock().file()?.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.state.lock().file()?.query_lock_range(start, end)
    }
}
