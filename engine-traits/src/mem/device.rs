//! What both reference engines share: which handles are alive, and what fails next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{Error, Result};

/// Why a reference engine refused; the source of its [`Error::Backend`] and [`Error::Full`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultCause {
    /// [`Faults`] asked for it.
    #[error("failure on command")]
    Commanded,
    /// An earlier write or sync failed; nothing is written any more.
    #[error("an earlier write failed")]
    Wedged,
    /// The handle is from before a crash or a reopen.
    #[error("the handle is dead")]
    Dead,
    /// [`Faults::set_full`] is on.
    #[error("the device is full")]
    Full,
}

/// What a write that fails on command leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing of it happened.
    Nothing,
    /// All of it happened, unsynced, though its caller got an error.
    Everything,
}

/// Makes calls of one reference engine fail. Clones control the same engine; faults stay
/// armed over crash and reopen until they strike or [`Faults::clear`] is called.
///
/// A failed write or sync wedges the engine: every later write and sync fails too, reads go
/// on, until it is reopened.
#[derive(Clone, Default)]
pub struct Faults {
    cells: Arc<Cells>,
}

#[derive(Default)]
struct Cells {
    // Countdowns: 0 is off, 1 strikes at the next call.
    write: AtomicU64,
    sync: AtomicU64,
    read: AtomicU64,
    leaves_everything: AtomicBool,
    full: AtomicBool,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("write", &self.cells.write.load(Ordering::SeqCst))
            .field("sync", &self.cells.sync.load(Ordering::SeqCst))
            .field("read", &self.cells.read.load(Ordering::SeqCst))
            .field("full", &self.cells.full.load(Ordering::SeqCst))
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Fails the `nth` write from now (1 is the next; 0 takes the order back). Empty
    /// batches count, whatever their durability.
    pub fn fail_write(&self, nth: u64, leaves: Leaves) {
        self.cells.leaves_everything.store(leaves == Leaves::Everything, Ordering::SeqCst);
        self.cells.write.store(nth, Ordering::SeqCst);
    }

    /// Fails the `nth` sync from now (1 is the next; 0 takes the order back). A synced write
    /// contains a sync: if that fails the write is visible, unsynced, and its caller gets
    /// the error.
    pub fn fail_sync(&self, nth: u64) {
        self.cells.sync.store(nth, Ordering::SeqCst);
    }

    /// Fails the `nth` read from now (1 is the next; 0 takes the order back), once. A read is
    /// one call of `get`, `cursor`, `snapshot`, `next`, `seek`, or of a log's read methods.
    pub fn fail_read(&self, nth: u64) {
        self.cells.read.store(nth, Ordering::SeqCst);
    }

    /// While on, every write that brings bytes fails with [`Error::Full`] and leaves nothing.
    pub fn set_full(&self, full: bool) {
        self.cells.full.store(full, Ordering::SeqCst);
    }

    /// Takes back everything that has not struck.
    pub fn clear(&self) {
        self.fail_write(0, Leaves::Nothing);
        self.fail_sync(0);
        self.fail_read(0);
        self.set_full(false);
    }
}

/// Counts down and says whether this call is the one.
fn strikes(cell: &AtomicU64) -> bool {
    if cell.load(Ordering::SeqCst) == 0 {
        return false;
    }
    let before = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    before == Ok(1)
}

/// How a write goes on after the checks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteFate {
    Succeed,
    /// Carry it out, then report the failure.
    FailAfter,
}

/// The part of an engine that outlives its handles.
#[derive(Debug)]
pub(super) struct Device {
    engine: &'static str,
    generation: AtomicU64,
    wedged: AtomicBool,
    pub(super) faults: Faults,
}

impl Device {
    pub(super) fn new(engine: &'static str) -> Arc<Self> {
        Arc::new(Self {
            engine,
            generation: AtomicU64::new(0),
            wedged: AtomicBool::new(false),
            faults: Faults::default(),
        })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Kills all handles; gives the generation whose handles are alive from now on.
    pub(super) fn kill_handles(&self) -> u64 {
        self.wedged.store(false, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn backend(&self, op: &'static str, cause: FaultCause) -> Error {
        Error::Backend { engine: self.engine, op, source: Box::new(cause) }
    }

    pub(super) fn invalid(&self, detail: String) -> Error {
        Error::InvalidBatch { engine: self.engine, detail }
    }

    fn alive(&self, generation: u64, op: &'static str) -> Result<()> {
        if self.generation() == generation {
            Ok(())
        } else {
            Err(self.backend(op, FaultCause::Dead))
        }
    }

    /// Whether a read of a handle of this generation may go on.
    pub(super) fn admit_read(&self, generation: u64, op: &'static str) -> Result<()> {
        self.alive(generation, op)?;
        if strikes(&self.faults.cells.read) {
            return Err(self.backend(op, FaultCause::Commanded));
        }
        Ok(())
    }

    /// Whether a write may be carried out, and whether it must be reported as failed.
    pub(super) fn admit_write(&self, generation: u64, brings_bytes: bool) -> Result<WriteFate> {
        const OP: &str = "write";
        self.alive(generation, OP)?;
        if self.wedged.load(Ordering::SeqCst) {
            return Err(self.backend(OP, FaultCause::Wedged));
        }
        if brings_bytes && self.faults.cells.full.load(Ordering::SeqCst) {
            self.wedged.store(true, Ordering::SeqCst);
            let source = Box::new(FaultCause::Full);
            return Err(Error::Full { engine: self.engine, op: OP, source });
        }
        if strikes(&self.faults.cells.write) {
            self.wedged.store(true, Ordering::SeqCst);
            if self.faults.cells.leaves_everything.load(Ordering::SeqCst) {
                return Ok(WriteFate::FailAfter);
            }
            return Err(self.backend(OP, FaultCause::Commanded));
        }
        Ok(WriteFate::Succeed)
    }

    /// Whether a sync may be carried out.
    pub(super) fn admit_sync(&self, generation: u64) -> Result<()> {
        const OP: &str = "sync";
        self.alive(generation, OP)?;
        if self.wedged.load(Ordering::SeqCst) {
            return Err(self.backend(OP, FaultCause::Wedged));
        }
        if strikes(&self.faults.cells.sync) {
            self.wedged.store(true, Ordering::SeqCst);
            return Err(self.backend(OP, FaultCause::Commanded));
        }
        Ok(())
    }
}
