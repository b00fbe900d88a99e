//! The log: opening, reading, writing, syncing, purging, closing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

use engine_traits::{Durability, Error, LogStats, RaftEngine, RaftLogBatch as _, Result};
use parking_lot::{Mutex, RwLock};
use raft_engine::{Command, Config, Engine, LogBatch, ReadableSize, RecoveryMode};
use raftstore_proto::wire::record::decode_local_state;
use raftstore_proto::{Entry, LocalState, RegionId};

use crate::batch::RaftLogWrites;
use crate::check::{Prepared, prepare};
use crate::contain::{Trouble, contain};
use crate::disk::Disk;
use crate::error::{NAME, during, foreign, invalid_state, io};
use crate::format::{MARK_KEY, Mark, OWN};
use crate::options::RaftLogOptions;
use crate::shape::{Entries, FLOOR_KEY, STATE_KEY, Shape, Translated, translate};
use crate::switch::{LogSwitch, Loss};

/// Memory that the index takes for one entry.
const INDEX_BYTES_PER_ENTRY: u64 = 40;

/// Regions named when the index is over its size.
const LONGEST_NAMED: usize = 16;

type Native = Engine<Disk>;

/// Writes so far.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Number of the last one.
    number: u64,
    /// Number of the last one that is known to be durable.
    durable: u64,
    /// [`Disk::files_made`] when the purging thread was woken last.
    files_seen: u64,
}

/// What handles, the switch and the purging thread share.
pub(crate) struct Core {
    pub(crate) disk: Disk,
    /// `None` after a close or cut.
    native: RwLock<Option<Native>>,
    /// Released when the log is closed.
    lock: Mutex<Option<File>>,
    regions: RwLock<BTreeMap<RegionId, Shape>>,
    /// One writer at a time: a batch is judged by what is stored before it. It also keeps writes
    /// from waiting for each other inside raft-engine, which a panic would leave waiting.
    writer: Mutex<Progress>,
    /// Set by the first failed write or sync, which is final.
    failed: AtomicBool,
    /// Held over a purge: while one runs, raft-engine takes the next for done, with nobody named.
    purging: Mutex<()>,
    /// What the last purge named.
    named: Mutex<Vec<RegionId>>,
    /// Wakes the purging thread. Dropped when the log is closed.
    wake: Mutex<Option<Sender<()>>>,
    index_bytes: u64,
    /// Whether the log was not closed in order before.
    unclean: bool,
    /// Entries stored, for the size of the index.
    entries: AtomicU64,
}

/// Closes the log with the last handle.
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A log that was not closed in order is checked by the next open; nobody is here to be
        // told.
        let _ = self.core.close();
    }
}

/// The raft logs of a store in one folder. Clones name the same open log.
///
/// Dropping the last clone closes it, which makes all its writes durable;
/// [`RaftLog::close`] does the same and tells how it went.
#[derive(Clone)]
pub struct RaftLog {
    owner: Arc<Owner>,
}

impl fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").finish_non_exhaustive()
    }
}

impl RaftLog {
    /// Opens the log in the folder `path`, or makes one, with its folder if that is missing.
    ///
    /// # Errors
    /// `Locked` if it is open elsewhere; `Format` if the folder is another program's, or of a newer
    /// format; `Corrupt` if a file is missing or damaged, `CorruptLog` if a region's state is;
    /// `Full` if the device is; `Backend` for other I/O errors and for options out of range. What
    /// is refused is left as it was found.
    pub fn open(path: impl AsRef<Path>, options: &RaftLogOptions) -> Result<Self> {
        Self::open_core(path.as_ref(), options).map(|core| Self { owner: Arc::new(Owner { core }) })
    }

    /// As [`RaftLog::open`], with a switch that cuts the power, fills the device and fails its
    /// syncs. For tests and demonstrations; syncs are as durable as with `open`.
    ///
    /// # Errors
    /// As [`RaftLog::open`].
    pub fn open_with_switch(
        path: impl AsRef<Path>,
        options: &RaftLogOptions,
    ) -> Result<(Self, LogSwitch)> {
        let log = Self::open(path, options)?;
        let switch = LogSwitch { core: Arc::clone(&log.owner.core) };
        Ok((log, switch))
    }

    fn open_core(path: &Path, options: &RaftLogOptions) -> Result<Arc<Core>> {
        options.check()?;
        if path.to_str().is_none() {
            return Err(foreign(path, "raft-engine takes only UTF-8 paths"));
        }
        let Prepared { manifest, number, unclean, lock } = prepare(path)?;
        let disk = Disk::new(path, &manifest, number).map_err(io("opening the files"))?;
        let config = config(path, options);
        let files = Arc::new(disk.clone());
        let native = contain(|| Engine::open_with_file_system(config, files))
            .map_err(|trouble| opening(path, trouble, &disk))?;
        let regions = regions(&native)?;
        let (wake, woken) = channel();
        let core = Arc::new(Core {
            entries: AtomicU64::new(regions.values().map(Shape::len).sum()),
            native: RwLock::new(Some(native)),
            lock: Mutex::new(Some(lock)),
            regions: RwLock::new(regions),
            writer: Mutex::new(Progress { number, durable: number, files_seen: 0 }),
            failed: AtomicBool::new(false),
            purging: Mutex::new(()),
            named: Mutex::new(Vec::new()),
            wake: Mutex::new(Some(wake)),
            index_bytes: options.index_bytes,
            unclean,
            disk,
        });
        core.remove_risen()?;
        let purged = Arc::downgrade(&core);
        thread::Builder::new()
            .name("raftlog-purge".to_owned())
            .spawn(move || purge_when_woken(&purged, &woken))
            .map_err(io("starting a thread"))?;
        Ok(core)
    }

    /// Closes the log and tells whether that went well. Other clones then fail.
    ///
    /// # Errors
    /// If a write failed before, or the files could not be made durable. Synced writes are safe in
    /// any case.
    pub fn close(self) -> Result<()> {
        self.owner.core.close()
    }

    /// Whether the end of the log was judged when it was opened, as it is after an unclean stop:
    /// where it ends, and whether that took nothing that was synced.
    #[must_use]
    pub fn was_checked_at_open(&self) -> bool {
        self.owner.core.unclean
    }

    /// Moves what little old files hold and removes files that hold nothing, if files are more
    /// than [`RaftLogOptions::purge_bytes`]. A thread of the log does this whenever a file is full.
    ///
    /// # Errors
    /// As a write: the log takes none after it. Damage in the way is `Corrupt`, and no reason not
    /// to go on.
    pub fn purge(&self) -> Result<()> {
        self.owner.core.purge()
    }
}

fn config(path: &Path, options: &RaftLogOptions) -> Config {
    Config {
        dir: path.to_string_lossy().into_owned(),
        // Torn ends are cut off before it opens its files: whatever it finds is damage.
        recovery_mode: RecoveryMode::AbsoluteConsistency,
        recovery_threads: options.recovery_threads,
        batch_compression_threshold: ReadableSize(
            options.compress_above_bytes.map_or(0, u64::from),
        ),
        target_file_size: ReadableSize(options.file_bytes),
        purge_threshold: ReadableSize(options.purge_bytes),
        // A place of a file is written once: see `Disk::rename`.
        enable_log_recycle: false,
        ..Config::default()
    }
}

fn opening(path: &Path, trouble: Trouble, disk: &Disk) -> Error {
    match (disk.take_error(), trouble) {
        (Some(error), _) => io("opening the log")(error),
        // Only bytes that it did not write make it panic here.
        (None, Trouble::Panic(message)) => Error::Corrupt {
            engine: NAME,
            place: path.display().to_string(),
            detail: format!("raft-engine panicked: {message}"),
        },
        (None, trouble) => during("opening the log", trouble, None),
    }
}

/// What raft-engine knows of each region.
fn regions(native: &Native) -> Result<BTreeMap<RegionId, Shape>> {
    let mut regions = BTreeMap::new();
    for id in native.raft_groups() {
        let Ok(region) = RegionId::try_from(id) else { continue };
        let damaged = |detail: String| Error::CorruptLog {
            engine: NAME,
            region,
            place: "raft state".to_owned(),
            detail,
        };
        let floor = match native.get(id, FLOOR_KEY) {
            Some(bytes) => u64::from_be_bytes(
                bytes.try_into().map_err(|_| damaged("a floor of odd length".to_owned()))?,
            ),
            None => 0,
        };
        let state = match native.get(id, STATE_KEY) {
            Some(record) => {
                let state = decode_local_state(region, &record);
                Some(state.map_err(|error| damaged(error.to_string()))?)
            }
            None => None,
        };
        let bounds = native.first_index(id).zip(native.last_index(id));
        regions.insert(region, Shape { bounds, floor, state });
    }
    Ok(regions)
}

fn purge_when_woken(core: &Weak<Core>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        while woken.try_recv().is_ok() {}
        let Some(core) = core.upgrade() else { return };
        // A failure lets the next write fail; damage is told to whoever reads it.
        let _ = core.purge();
    }
}

impl Core {
    /// Removes entries that a removal lost with its file left in raft-engine's index.
    fn remove_risen(&self) -> Result<()> {
        let mut native = LogBatch::default();
        for (region, shape) in &mut *self.regions.write() {
            let Some((first, last)) = shape.bounds.filter(|(first, _)| *first < shape.floor) else {
                continue;
            };
            debug_assert!(first <= last);
            native.add_command(region.get(), Command::Compact { index: shape.floor });
            shape.bounds = (shape.floor <= last).then_some((shape.floor, last));
        }
        if native.is_empty() {
            return Ok(());
        }
        self.write_native(&mut self.writer.lock(), native, false)
    }

    /// Writes a batch that was judged, as the next one. The mark has to be its first item.
    fn write_native(
        &self,
        progress: &mut Progress,
        mut rest: LogBatch,
        synced: bool,
    ) -> Result<()> {
        let number = progress.number + 1;
        let mark = Mark { number, durable: progress.durable };
        let mut native = LogBatch::default();
        let put = native.put(OWN, MARK_KEY.to_vec(), mark.encode());
        let merged = put.and_then(|()| native.merge(&mut rest));
        merged.map_err(|error| Error::InvalidBatch { engine: NAME, detail: error.to_string() })?;
        let engine = self.native.read();
        let engine = engine.as_ref().ok_or_else(|| invalid_state("the log is closed"))?;
        if let Err(trouble) = contain(|| engine.write(&mut native, synced)) {
            self.fail();
            return Err(during("write", trouble, self.disk.take_error()));
        }
        // A purge that failed meanwhile has stopped the files, whose syncs do nothing then.
        if self.disk.is_dead() {
            self.fail();
            return Err(invalid_state("the log was cut off from its files during the write"));
        }
        progress.number = number;
        if synced {
            progress.durable = number;
        }
        self.disk.set_number(number);
        if self.disk.files_made() != progress.files_seen {
            progress.files_seen = self.disk.files_made();
            if let Some(wake) = &*self.wake.lock() {
                let _ = wake.send(());
            }
        }
        Ok(())
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.disk.kill();
    }

    fn write(&self, batch: RaftLogWrites, synced: bool) -> Result<()> {
        let mut progress = self.writer.lock();
        if self.failed.load(Ordering::Acquire) {
            return Err(invalid_state("an earlier write or sync failed"));
        }
        let ops =
            batch.into_ops().map_err(|detail| Error::InvalidBatch { engine: NAME, detail })?;
        let mut native = LogBatch::default();
        let Translated { touched, replaces } = {
            let regions = self.regions.read();
            translate(ops, &mut native, |region| regions.get(&region).copied())?
        };
        if native.is_empty() && !synced {
            return Ok(());
        }
        // A purge that has read entries panics if others are in their place when it has moved them.
        let purging = replaces.then(|| self.purging.lock());
        self.write_native(&mut progress, native, synced)?;
        drop(purging);
        let mut regions = self.regions.write();
        for (region, shape) in touched {
            let before = match shape {
                Some(shape) => regions.insert(region, shape),
                None => regions.remove(&region),
            };
            let (before, after) =
                (before.map_or(0, |old| old.len()), shape.map_or(0, |new| new.len()));
            self.entries.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
        Ok(())
    }

    fn purge(&self) -> Result<()> {
        let _purging = self.purging.lock();
        let engine = self.native.read();
        let engine = engine.as_ref().ok_or_else(|| invalid_state("the log is closed"))?;
        match contain(|| engine.purge_expired_files()) {
            Ok(named) => {
                let mut named: Vec<_> =
                    named.into_iter().filter_map(|id| RegionId::try_from(id).ok()).collect();
                named.sort_unstable();
                *self.named.lock() = named;
                Ok(())
            }
            Err(trouble) if trouble.is_damage() => Err(during("purging", trouble, None)),
            Err(trouble) => {
                self.fail();
                Err(during("purging", trouble, self.disk.take_error()))
            }
        }
    }

    /// Takes raft-engine down, whose drop may panic.
    fn take_down(&self) -> Result<(), Trouble> {
        *self.wake.lock() = None;
        let native = self.native.write().take();
        contain(|| {
            drop(native);
            Ok(())
        })
    }

    fn close(&self) -> Result<()> {
        let _writer = self.writer.lock();
        self.disk.begin_to_close();
        if self.native.read().is_none() {
            return Ok(());
        }
        let down = self.take_down();
        let failed = self.failed.load(Ordering::Acquire);
        let result = match (self.disk.take_error(), down) {
            (Some(error), _) => Err(io("closing the log")(error)),
            (None, Err(trouble)) => Err(during("closing the log", trouble, None)),
            (None, Ok(())) if failed => Err(invalid_state("an earlier write or sync failed")),
            (None, Ok(())) => self.disk.seal().map_err(io("writing the manifest")),
        };
        self.disk.kill();
        *self.lock.lock() = None;
        result
    }

    pub(crate) fn cut(&self, loss: Loss) {
        self.disk.kill();
        let _writer = self.writer.lock();
        if self.native.read().is_none() {
            return;
        }
        let _ = self.take_down();
        // What cannot be taken away survives, as it may after a power cut.
        let _ = self.disk.lose(loss);
        *self.lock.lock() = None;
    }

    fn shape(&self, region: RegionId) -> Shape {
        self.regions.read().get(&region).copied().unwrap_or_default()
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        let damaged = |detail: String| Error::CorruptLog {
            engine: NAME,
            region,
            place: format!("entry {index}"),
            detail,
        };
        let engine = self.native.read();
        let engine = engine.as_ref().ok_or_else(|| invalid_state("the log is closed"))?;
        match contain(|| engine.get_entry::<Entries>(region.get(), index)) {
            Ok(Some(entry)) => Ok(Some(Entry::from_raft(entry))),
            // It may have been removed since its region was looked at.
            Ok(None) if self.shape(region).run(index, index + 1).is_empty() => Ok(None),
            Ok(None) => Err(damaged("raft-engine does not find it".to_owned())),
            Err(Trouble::Error(raft_engine::Error::Io(error))) => {
                Err(io("reading an entry")(error))
            }
            Err(trouble) => Err(damaged(trouble.text())),
        }
    }
}

impl RaftEngine for RaftLog {
    type LogBatch = RaftLogWrites;

    fn name(&self) -> &'static str {
        NAME
    }

    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        let core = &self.owner.core;
        if core.native.read().is_none() {
            return Err(invalid_state("the log is closed"));
        }
        Ok(core.shape(region).state)
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        let core = &self.owner.core;
        // The end of a run is exclusive, and no entry has the largest number.
        if index == u64::MAX || core.shape(region).run(index, index + 1).is_empty() {
            return Ok(None);
        }
        core.entry(region, index)
    }

    fn entries(
        &self,
        region: RegionId,
        low: u64,
        high: u64,
        max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize> {
        let core = &self.owner.core;
        let (mut pushed, mut bytes) = (0, 0_u64);
        for index in core.shape(region).run(low, high) {
            let Some(entry) = core.entry(region, index)? else { break };
            bytes = bytes.saturating_add(entry.payload_len() as u64);
            if pushed > 0 && bytes > max_bytes {
                break;
            }
            out.push(entry);
            pushed += 1;
        }
        Ok(pushed)
    }

    fn regions(&self) -> Result<Vec<RegionId>> {
        let regions = self.owner.core.regions.read();
        let listed = regions.iter().filter(|(_, shape)| shape.counts());
        Ok(listed.map(|(region, _)| *region).collect())
    }

    fn log_batch(&self) -> RaftLogWrites {
        RaftLogWrites::default()
    }

    fn write(&self, batch: RaftLogWrites, durability: Durability) -> Result<()> {
        if batch.is_empty() && durability == Durability::Buffered {
            return Ok(());
        }
        self.owner.core.write(batch, durability == Durability::Synced)
    }

    /// A record of its own with a sync: without a record raft-engine does nothing.
    fn sync(&self) -> Result<()> {
        self.owner.core.write(RaftLogWrites::default(), true)
    }

    /// Those that the last purge named, and the longest logs if the index is over its size.
    fn regions_pinning_space(&self) -> Vec<RegionId> {
        let core = &self.owner.core;
        let mut named = core.named.lock().clone();
        let index_bytes =
            core.entries.load(Ordering::Relaxed).saturating_mul(INDEX_BYTES_PER_ENTRY);
        if index_bytes > core.index_bytes {
            let regions = core.regions.read();
            let mut logs: Vec<_> = regions.iter().map(|(id, shape)| (shape.len(), *id)).collect();
            logs.sort_unstable_by(|a, b| b.cmp(a));
            named.extend(logs.iter().take(LONGEST_NAMED).map(|(_, region)| *region));
            named.sort_unstable();
            named.dedup();
        }
        named
    }

    fn stats(&self) -> LogStats {
        let disk = &self.owner.core.disk;
        LogStats {
            used_bytes: disk.used_bytes(),
            written_bytes: disk.written_bytes(),
            syncs: disk.syncs(),
        }
    }
}
