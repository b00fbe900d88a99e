//! A disk in memory under redb: it knows what was synced, and loses the rest on command.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

/// The unit that a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// What a power cut leaves of the writes since the last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Everything,
    /// A prefix of them, drawn from the seed; the last one may be torn between sectors.
    Suffix {
        /// Picks the prefix.
        seed: u64,
    },
    /// Any of their sectors, drawn from the seed, in no order: what a disk cache does.
    Scattered {
        /// Picks the sectors.
        seed: u64,
    },
}

/// A small generator for choices that a seed must replay.
#[derive(Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next of a splitmix64 sequence.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..=most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        let drawn = self.next() % (most as u64 + 1);
        usize::try_from(drawn).unwrap_or(most)
    }
}

/// A change since the last sync.
#[derive(Debug)]
pub(crate) enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

/// A part of a change that a power cut leaves.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Write { offset: usize, data: &'a [u8] },
    SetLen(usize),
}

/// What is left of `changes`, in the order in which to apply it.
pub(crate) fn survivors(changes: &[Change], loss: Loss) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    match loss {
        Loss::Everything => {}
        Loss::Suffix { seed } => {
            let mut draw = Draw::new(seed);
            let kept = draw.up_to(changes.len());
            pieces.extend(changes[..kept].iter().map(whole));
            if let Some(Change::Write { offset, data }) = changes.get(kept) {
                let sectors = draw.up_to(data.len() / SECTOR_BYTES);
                let data = &data[..sectors * SECTOR_BYTES];
                pieces.push(Piece::Write { offset: *offset, data });
            }
        }
        Loss::Scattered { seed } => {
            let mut draw = Draw::new(seed);
            // Lengths first: they are the file system's, and it keeps them in order.
            let lengths = changes.iter().filter(|change| matches!(change, Change::SetLen(_)));
            pieces.extend(lengths.map(whole));
            for change in changes {
                let Change::Write { offset, data } = change else { continue };
                for (number, data) in data.chunks(SECTOR_BYTES).enumerate() {
                    if draw.up_to(1) == 1 {
                        pieces.push(Piece::Write { offset: offset + number * SECTOR_BYTES, data });
                    }
                }
            }
        }
    }
    pieces
}

pub(crate) fn whole(change: &Change) -> Piece<'_> {
    match change {
        Change::Write { offset, data } => Piece::Write { offset: *offset, data },
        Change::SetLen(len) => Piece::SetLen(*len),
    }
}

fn apply(bytes: &mut Vec<u8>, piece: &Piece<'_>) {
    match piece {
        Piece::Write { offset, data } => {
            // What lies inside: a later change may have shortened the file.
            let Some(room) = bytes.get_mut(*offset..) else { return };
            let len = room.len().min(data.len());
            room[..len].copy_from_slice(&data[..len]);
        }
        Piece::SetLen(len) => bytes.resize(*len, 0),
    }
}

#[derive(Default)]
struct State {
    /// As a program sees it.
    current: Vec<u8>,
    /// As of the last sync.
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Number of the backend that holds the disk; older ones are dead.
    generation: u64,
    held: bool,
    capacity_bytes: Option<usize>,
    /// Changes and syncs left before the power is cut by itself.
    cut_after: Option<u64>,
    cut_loss: Option<Loss>,
    failing_syncs: bool,
    operations: u64,
    syncs: u64,
    written_bytes: u64,
}

/// A disk that outlives the engines opened on it. Clones name the same disk.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("MemDisk")
            .field("len", &state.current.len())
            .field("syncs", &state.syncs)
            .finish_non_exhaustive()
    }
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with these bytes, all synced.
    #[must_use]
    pub fn with_bytes(bytes: Vec<u8>) -> Self {
        let state = State { current: bytes.clone(), durable: bytes, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// What to open an engine on. Only one at a time can hold the disk: a second engine gets
    /// `Locked` until the first is closed or cut off.
    #[must_use]
    pub fn backend(&self) -> MemBackend {
        MemBackend { state: Arc::clone(&self.state), generation: Mutex::new(None) }
    }

    /// Cuts the power: unsynced changes are lost as `loss` says, all calls of the engine on
    /// it fail from now on, and the disk is free for the next one.
    pub fn cut(&self, loss: Loss) {
        self.state.lock().cut(loss);
    }

    /// Cuts the power by itself at the `operations`-th change or sync from now, counted from
    /// 0; that one no longer takes place.
    pub fn cut_after(&self, operations: u64, loss: Loss) {
        let mut state = self.state.lock();
        state.cut_after = Some(operations);
        state.cut_loss = Some(loss);
    }

    /// From now on there is room for so many bytes; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Whether syncs fail from now on.
    pub fn set_failing_syncs(&self, failing: bool) {
        self.state.lock().failing_syncs = failing;
    }

    /// Flips one bit, on the device and in what programs read.
    pub fn flip(&self, byte: usize, bit: u8) {
        let state = &mut *self.state.lock();
        for bytes in [&mut state.current, &mut state.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The bytes as programs see them.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().current.clone()
    }

    /// The bytes as of the last sync.
    #[must_use]
    pub fn durable_bytes(&self) -> Vec<u8> {
        self.state.lock().durable.clone()
    }

    /// Changes and syncs so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.state.lock().written_bytes
    }
}

impl State {
    fn cut(&mut self, loss: Loss) {
        for piece in survivors(&self.changes, loss) {
            apply(&mut self.durable, &piece);
        }
        self.changes.clear();
        self.current.clone_from(&self.durable);
        self.generation += 1;
        self.held = false;
        self.cut_after = None;
    }

    /// Counts a change or sync, and cuts the power if this is the one.
    fn count(&mut self) -> io::Result<()> {
        self.operations += 1;
        if let Some(left) = &mut self.cut_after {
            if *left == 0 {
                let loss = self.cut_loss.unwrap_or(Loss::Everything);
                self.cut(loss);
                return Err(gone());
            }
            *left -= 1;
        }
        Ok(())
    }
}

/// What every call gets after the power was cut.
pub(crate) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the power was cut")
}

fn position(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}

/// One opening of a [`MemDisk`].
pub struct MemBackend {
    state: Arc<Mutex<State>>,
    /// Set while this one holds the disk.
    generation: Mutex<Option<u64>>,
}

impl fmt::Debug for MemBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemBackend").finish_non_exhaustive()
    }
}

impl MemBackend {
    /// Runs `work` if this backend still holds the disk.
    fn held<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let generation = *self.generation.lock();
        let mut state = self.state.lock();
        if generation != Some(state.generation) {
            return Err(gone());
        }
        work(&mut state)
    }
}

impl StorageBackend for MemBackend {
    fn len(&self) -> io::Result<u64> {
        self.held(|state| Ok(state.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.held(|state| {
            let start = position(offset)?;
            let bytes = state.current.get(start..).and_then(|bytes| bytes.get(..out.len()));
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.held(|state| {
            state.count()?;
            let len = position(len)?;
            if state.capacity_bytes.is_some_and(|most| len > most && len > state.current.len()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.current.resize(len, 0);
            state.changes.push(Change::SetLen(len));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.held(|state| {
            state.count()?;
            if state.failing_syncs {
                return Err(io::Error::other("the device failed to sync"));
            }
            for change in state.changes.drain(..) {
                apply(&mut state.durable, &whole(&change));
            }
            state.syncs += 1;
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.held(|state| {
            state.count()?;
            let start = position(offset)?;
            let room = state.current.get_mut(start..).and_then(|room| room.get_mut(..data.len()));
            room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
            state.changes.push(Change::Write { offset: start, data: data.to_vec() });
            state.written_bytes += data.len() as u64;
            Ok(())
        })
    }

    fn close(&self) -> io::Result<()> {
        if let Some(generation) = self.generation.lock().take() {
            let mut state = self.state.lock();
            if state.generation == generation {
                state.held = false;
            }
        }
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if start != Bound::Unbounded && start != Bound::Included(0) || end != Bound::Unbounded {
            return Err(BackendError::Unsupported);
        }
        let mut generation = self.generation.lock();
        let mut state = self.state.lock();
        if state.held {
            return Ok(false);
        }
        state.held = true;
        state.generation += 1;
        *generation = Some(state.generation);
        Ok(true)
    }
}
