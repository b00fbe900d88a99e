//! Stands between redb and its storage: decides whether a block read is the block written.
//!
//! redb checks its page checksums only in recovery. A flipped bit in a page would otherwise
//! be served; in a page pointer it may even lead to an intact but *older* page, where a
//! checksum per record holds and the value is stale all the same. So every block has a
//! checksum here, compared at each read:
//!
//! - While the file is being opened a damaged block is an I/O error, and the open fails.
//! - Later it is handed to redb as zeros, which are no valid page: each call that needs it
//!   fails, from the cache too, and calls that do not need it go on. An I/O error instead
//!   would make redb refuse everything from then on, for one bad block.
//!
//! It also *seals* commits. redb's one-phase commit lets recovery choose between the last
//! two commits, which is right for a torn write and wrong for damage: a flipped bit in the
//! last commit would silently bring the one before back. After a sync has succeeded the
//! newest commit is known to be whole, so the header bit that says so is set in the file,
//! without a sync of its own. If a power loss undoes the bit, recovery chooses as before.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use redb::{BackendError, StorageBackend};

use crate::sums::{BLOCK_BYTES, SumsFile};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// redb's file header: its first bytes, and the byte of flags that follows them.
const REDB_MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
const FLAGS_OFFSET: usize = REDB_MAGIC.len();
/// Flag: recovery must take the primary commit and never fall back.
const PRIMARY_IS_WHOLE: u8 = 4;
/// A file that redb was still making is at most this long. Longer ones that begin with
/// zeros were once a database.
const UNFINISHED_BYTES: u64 = 4 << 20;

/// What guard and engine share.
#[derive(Debug)]
pub(crate) struct Guard {
    inner: Box<dyn StorageBackend>,
    at_rest: Option<SumsFile>,
    /// Set when the backend is first used, which is after redb has locked it.
    loaded: OnceLock<Loaded>,
    loading: Mutex<()>,
    /// Set once the engine is open: damage no longer fails a read, and syncs seal.
    opened: AtomicBool,
    /// Whether the list at rest is gone, as it must be while the file changes.
    changing: AtomicBool,
    /// Whether any call failed: what the file holds is then unknown.
    failed: AtomicBool,
    closed: AtomicBool,
    /// One more than the first damaged block met; 0 for none.
    first_damage: AtomicU64,
    damaged_reads: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
}

#[derive(Debug)]
struct Loaded {
    /// One per block. Held shared while blocks are read or written, exclusively to change
    /// the length, or to look at a block that nobody is writing.
    sums: RwLock<Vec<AtomicU32>>,
    /// The first block as last written: redb rewrites a part of it at each commit.
    head: Mutex<Vec<u8>>,
    /// Whether the list at rest vouched for the file.
    vouched: bool,
}

/// The guard as redb owns it.
#[derive(Debug)]
pub(crate) struct GuardHandle(pub(crate) Arc<Guard>);

/// What a look at one block found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockCheck {
    Intact,
    Damaged,
    /// Past the end of the file.
    Absent,
}

fn damage(block: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("block {block} is not what was written"))
}

fn zero_sum() -> u32 {
    static SUM: OnceLock<u32> = OnceLock::new();
    *SUM.get_or_init(|| crc32c::crc32c(&[0; BLOCK_BYTES]))
}

fn block_index(block: u64) -> io::Result<usize> {
    usize::try_from(block).map_err(io::Error::other)
}

impl Guard {
    pub(crate) fn new(inner: Box<dyn StorageBackend>, at_rest: Option<SumsFile>) -> Self {
        Self {
            inner,
            at_rest,
            loaded: OnceLock::new(),
            loading: Mutex::new(()),
            opened: AtomicBool::new(false),
            changing: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            first_damage: AtomicU64::new(0),
            damaged_reads: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        }
    }

    /// Whether the file needs no integrity check: it is new, or the list at rest covered it.
    pub(crate) fn vouched(&self) -> bool {
        self.loaded.get().is_some_and(|loaded| loaded.vouched)
    }

    /// The first damaged block met, if any.
    pub(crate) fn first_damage(&self) -> Option<u64> {
        self.first_damage.load(Ordering::Acquire).checked_sub(1)
    }

    /// Reads that met a damaged block.
    pub(crate) fn damaged_reads(&self) -> u64 {
        self.damaged_reads.load(Ordering::Acquire)
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// The list at rest, for messages.
    pub(crate) fn at_rest(&self) -> Option<&SumsFile> {
        self.at_rest.as_ref()
    }

    /// The engine is open: from now on damage is contained, and syncs seal.
    pub(crate) fn set_opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Blocks of the file.
    pub(crate) fn blocks(&self) -> io::Result<u64> {
        Ok(self.loaded()?.sums.read().len() as u64)
    }

    /// Reads a block from the storage and compares it.
    pub(crate) fn check(&self, block: u64) -> io::Result<BlockCheck> {
        if self.closed.load(Ordering::Acquire) {
            return Err(io::Error::other("the file is closed"));
        }
        let loaded = self.loaded()?;
        let compare = |sums: &[AtomicU32]| -> io::Result<BlockCheck> {
            let Some(sum) = sums.get(block_index(block)?) else { return Ok(BlockCheck::Absent) };
            let mut bytes = [0; BLOCK_BYTES];
            self.inner.read(block * BLOCK, &mut bytes)?;
            let intact = crc32c::crc32c(&bytes) == sum.load(Ordering::Acquire);
            Ok(if intact { BlockCheck::Intact } else { BlockCheck::Damaged })
        };
        let mut found = compare(&loaded.sums.read())?;
        if found == BlockCheck::Damaged {
            // It may have been read while it was being written: look again alone.
            found = compare(&loaded.sums.write())?;
        }
        if found == BlockCheck::Damaged {
            self.note_damage(block);
        }
        Ok(found)
    }

    fn note_damage(&self, block: u64) {
        self.damaged_reads.fetch_add(1, Ordering::AcqRel);
        let _ =
            self.first_damage.compare_exchange(0, block + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    fn loaded(&self) -> io::Result<&Loaded> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let _loading = self.loading.lock();
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = self.load()?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    fn load(&self) -> io::Result<Loaded> {
        let stored = self.at_rest.as_ref().map(SumsFile::load).transpose()?.flatten();
        let mut len = self.inner.len()?;
        if stored.is_none() && len > 0 && len <= UNFINISHED_BYTES && self.is_unfinished(len)? {
            self.inner.set_len(0)?;
            self.inner.sync_data()?;
            len = 0;
        }
        let blocks = len.div_ceil(BLOCK);
        let (sums, vouched) = match stored {
            Some(sums) => {
                if sums.len() as u64 != blocks || !len.is_multiple_of(BLOCK) {
                    self.note_damage(blocks);
                    let detail =
                        format!("it has {len} bytes instead of {}", sums.len() as u64 * BLOCK);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
                }
                (sums, true)
            }
            None => (self.sum_up(len)?, len == 0),
        };
        let mut head = vec![0; block_index(len.min(BLOCK))?];
        self.inner.read(0, &mut head)?;
        head.resize(BLOCK_BYTES, 0);
        Ok(Loaded {
            sums: RwLock::new(sums.into_iter().map(AtomicU32::new).collect()),
            head: Mutex::new(head),
            vouched,
        })
    }

    /// Whether redb died while it made this file: it writes its first bytes last.
    fn is_unfinished(&self, len: u64) -> io::Result<bool> {
        let mut bytes = vec![0; block_index(len)?];
        self.inner.read(0, &mut bytes)?;
        let used = 64 + 2 * 128;
        let is_zero =
            |bytes: Option<&[u8]>| bytes.is_none_or(|bytes| bytes.iter().all(|b| *b == 0));
        Ok(is_zero(bytes.get(..FLAGS_OFFSET)) && is_zero(bytes.get(used..)))
    }

    fn sum_up(&self, len: u64) -> io::Result<Vec<u32>> {
        let mut sums = Vec::with_capacity(block_index(len.div_ceil(BLOCK))?);
        let mut bytes = vec![0; 64 * BLOCK_BYTES];
        let mut offset = 0;
        while offset < len {
            let step = block_index((len - offset).min(bytes.len() as u64))?;
            self.inner.read(offset, &mut bytes[..step])?;
            sums.extend(bytes[..step].chunks(BLOCK_BYTES).map(crc32c::crc32c));
            offset += step as u64;
        }
        Ok(sums)
    }

    /// To be called before each change of the storage.
    fn forget_list(&self) -> io::Result<()> {
        if !self.changing.load(Ordering::Acquire) {
            if let Some(at_rest) = &self.at_rest {
                at_rest.remove()?;
            }
            self.changing.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Compares whole blocks with their sums; gives the first that differs.
    fn first_different(
        sums: &[AtomicU32],
        first_block: u64,
        bytes: &[u8],
    ) -> io::Result<Option<u64>> {
        let start = block_index(first_block)?;
        for (at, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let sum = sums.get(start + at).map(|sum| sum.load(Ordering::Acquire));
            if sum != Some(crc32c::crc32c(block)) {
                return Ok(Some(first_block + at as u64));
            }
        }
        Ok(None)
    }

    fn read_checked(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let loaded = self.loaded()?;
        let sums = loaded.sums.read();
        let end = offset + out.len() as u64;
        let different = if offset.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK) {
            self.inner.read(offset, out)?;
            Self::first_different(&sums, offset / BLOCK, out)?
        } else {
            // A part of a block is read with the rest of it, which the sum covers too.
            let first = offset / BLOCK;
            let len = self.inner.len()?.min(end.div_ceil(BLOCK) * BLOCK);
            let mut whole = vec![0; block_index(len.saturating_sub(first * BLOCK))?];
            self.inner.read(first * BLOCK, &mut whole)?;
            let skipped = block_index(offset - first * BLOCK)?;
            let part = whole.get(skipped..skipped + out.len());
            out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Self::first_different(&sums, first, &whole)?
        };
        if let Some(block) = different {
            self.note_damage(block);
            if !self.opened.load(Ordering::Acquire) {
                return Err(damage(block));
            }
            out.fill(0);
        }
        Ok(())
    }

    fn write_summed(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let loaded = self.loaded()?;
        self.forget_list()?;
        self.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let sums = loaded.sums.read();
        let end = offset + data.len() as u64;
        if end > sums.len() as u64 * BLOCK {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write past the end"));
        }
        if end <= BLOCK {
            return self.write_head(loaded, &sums, offset, data);
        }
        if !offset.is_multiple_of(BLOCK) || !end.is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "write of a part of a page"));
        }
        self.inner.write(offset, data)?;
        let start = block_index(offset / BLOCK)?;
        for (sum, block) in sums[start..].iter().zip(data.chunks(BLOCK_BYTES)) {
            sum.store(crc32c::crc32c(block), Ordering::Release);
        }
        if offset == 0 {
            loaded.head.lock().copy_from_slice(&data[..BLOCK_BYTES]);
        }
        Ok(())
    }

    /// Writes within the first block, whose other bytes are known.
    fn write_head(
        &self,
        loaded: &Loaded,
        sums: &[AtomicU32],
        offset: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let start = block_index(offset)?;
        let mut head = loaded.head.lock();
        self.inner.write(offset, data)?;
        head[start..start + data.len()].copy_from_slice(data);
        sums[0].store(crc32c::crc32c(&head), Ordering::Release);
        Ok(())
    }

    /// Marks the newest commit as whole, see the head of this file.
    fn seal(&self) -> io::Result<()> {
        let loaded = self.loaded()?;
        let flags = {
            let head = loaded.head.lock();
            if !head.starts_with(REDB_MAGIC) || head[FLAGS_OFFSET] & PRIMARY_IS_WHOLE != 0 {
                return Ok(());
            }
            head[FLAGS_OFFSET] | PRIMARY_IS_WHOLE
        };
        self.write_head(loaded, &loaded.sums.read(), FLAGS_OFFSET as u64, &[flags])
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        if self.opened.load(Ordering::Acquire) { self.seal() } else { Ok(()) }
    }

    /// Stores the list if it describes what is durable.
    fn rest(&self) -> io::Result<()> {
        let (Some(at_rest), Some(loaded)) = (&self.at_rest, self.loaded.get()) else {
            return Ok(());
        };
        // A file whose open failed keeps its state, and an unchanged one its list.
        if self.failed.load(Ordering::Acquire)
            || !self.opened.load(Ordering::Acquire)
            || !self.changing.load(Ordering::Acquire)
        {
            return Ok(());
        }
        // Also proves that the storage is still ours: after a power cut somebody else may have
        // opened the file, and must not be given this list.
        self.inner.sync_data()?;
        let sums: Vec<u32> =
            loaded.sums.read().iter().map(|sum| sum.load(Ordering::Acquire)).collect();
        at_rest.save(&sums)
    }

    fn latch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

impl StorageBackend for GuardHandle {
    fn len(&self) -> io::Result<u64> {
        self.0.loaded()?;
        self.0.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_checked(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let change = || {
            let loaded = self.0.loaded()?;
            self.0.forget_list()?;
            let mut sums = loaded.sums.write();
            self.0.inner.set_len(len)?;
            sums.resize_with(block_index(len.div_ceil(BLOCK))?, || AtomicU32::new(zero_sum()));
            Ok(())
        };
        self.0.latch(change())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.latch(self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.latch(self.0.write_summed(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.0.closed.store(true, Ordering::Release);
        let rested = self.0.rest();
        self.0.inner.close()?;
        rested
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.query_lock_range(start, end)
    }
}
