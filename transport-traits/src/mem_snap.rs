//! Region snapshots in memory: the simulator's and the tests' medium, which can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{SnapDirection, SnapError, SnapKey, SnapReader, SnapStore, SnapWriter};

/// What a [`MemSnapStore`] can be told to fail at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapOp {
    /// [`SnapStore::create`].
    Create,
    /// [`SnapWriter::write`].
    Write,
    /// [`SnapWriter::finish`].
    Finish,
    /// [`SnapStore::open`].
    Open,
    /// [`SnapReader::read`].
    Read,
    /// [`SnapStore::delete`].
    Delete,
    /// [`SnapStore::list`].
    List,
}

impl SnapOp {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Finish => "finish",
            Self::Open => "open",
            Self::Read => "read",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

type Name = (SnapDirection, SnapKey);

/// The medium. What is finished survives [`MemSnapStore::crash`], what is not does not.
#[derive(Debug, Default)]
struct Medium {
    finished: BTreeMap<Name, Bytes>,
    /// Invariant: one live writer per name, all of the present `life`.
    writing: BTreeSet<Name>,
    /// Bytes of `finished` and of live writers together.
    used_bytes: u64,
    limit_bytes: u64,
    /// Counts crashes. Handles of an earlier life are dead.
    life: u64,
    failures: BTreeMap<SnapOp, u32>,
}

impl Medium {
    fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }

    /// Fails if that was commanded, or if the handle outlived a crash.
    fn check(&mut self, op: SnapOp, key: SnapKey, life: u64) -> Result<(), SnapError> {
        if life != self.life {
            return Err(io_error(key, op, "the handle is older than a crash"));
        }
        match self.failures.get_mut(&op) {
            Some(count) if *count > 0 => {
                *count -= 1;
                Err(io_error(key, op, "failed on command"))
            }
            _ => Ok(()),
        }
    }

    fn remove(&mut self, name: &Name) {
        if let Some(bytes) = self.finished.remove(name) {
            self.used_bytes -= size_of(&bytes);
        }
    }
}

/// A [`SnapStore`] in memory, deterministic, with failures on command.
///
/// Clones share one medium. The byte limit counts what is finished and what is being
/// written. Finished snapshots survive [`MemSnapStore::crash`].
#[derive(Clone)]
pub struct MemSnapStore {
    medium: Arc<Mutex<Medium>>,
}

impl MemSnapStore {
    /// An empty one that holds at most `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        let medium = Medium { limit_bytes, ..Medium::default() };
        Self { medium: Arc::new(Mutex::new(medium)) }
    }

    /// Bytes of all snapshots, finished or being written.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.medium.lock().used_bytes
    }

    /// Changes the byte limit. What is there stays.
    pub fn set_limit_bytes(&self, limit_bytes: u64) {
        self.medium.lock().limit_bytes = limit_bytes;
    }

    /// Makes the next `times` calls of `op` fail.
    pub fn fail_next(&self, op: SnapOp, times: u32) {
        self.medium.lock().failures.insert(op, times);
    }

    /// Takes back every failure that was commanded and did not happen.
    pub fn clear_failures(&self) {
        self.medium.lock().failures.clear();
    }

    /// Inverts the bits of `mask` in the byte at `offset` of a finished snapshot. Gives
    /// whether there is such a byte. Open readers keep what they opened.
    #[must_use]
    pub fn corrupt(&self, direction: SnapDirection, key: SnapKey, offset: usize, mask: u8) -> bool {
        let mut medium = self.medium.lock();
        let Some(bytes) = medium.finished.get_mut(&(direction, key)) else {
            return false;
        };
        let mut changed = bytes.to_vec();
        let Some(byte) = changed.get_mut(offset) else {
            return false;
        };
        *byte ^= mask;
        *bytes = changed.into();
        true
    }

    /// The process that uses the store dies: what is unfinished is gone, and every reader
    /// and writer made before fails from now on.
    pub fn crash(&self) {
        let mut medium = self.medium.lock();
        medium.life += 1;
        medium.writing.clear();
        medium.used_bytes = medium.finished.values().map(size_of).sum();
    }
}

impl fmt::Debug for MemSnapStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let medium = self.medium.lock();
        f.debug_struct("MemSnapStore")
            .field("finished", &medium.finished.len())
            .field("writing", &medium.writing.len())
            .field("used_bytes", &medium.used_bytes)
            .finish()
    }
}

impl SnapStore for MemSnapStore {
    fn create(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapWriter>, SnapError> {
        let mut medium = self.medium.lock();
        let life = medium.life;
        medium.check(SnapOp::Create, key, life)?;
        if medium.writing.contains(&(direction, key)) {
            return Err(SnapError::Busy(key));
        }
        if medium.left_bytes() == 0 {
            return Err(SnapError::NoSpace { key, limit_bytes: 0 });
        }
        medium.writing.insert((direction, key));
        Ok(Box::new(MemWriter {
            medium: Arc::clone(&self.medium),
            name: (direction, key),
            life,
            bytes: Vec::new(),
            is_broken: false,
        }))
    }

    fn open(
        &self,
        direction: SnapDirection,
        key: SnapKey,
    ) -> Result<Box<dyn SnapReader>, SnapError> {
        let mut medium = self.medium.lock();
        let life = medium.life;
        medium.check(SnapOp::Open, key, life)?;
        let bytes =
            medium.finished.get(&(direction, key)).cloned().ok_or(SnapError::NotFound(key))?;
        Ok(Box::new(MemReader { medium: Arc::clone(&self.medium), key, life, rest: bytes }))
    }

    fn delete(&self, direction: SnapDirection, key: SnapKey) -> Result<(), SnapError> {
        let mut medium = self.medium.lock();
        let life = medium.life;
        medium.check(SnapOp::Delete, key, life)?;
        medium.remove(&(direction, key));
        Ok(())
    }

    fn list(&self) -> Result<Vec<(SnapDirection, SnapKey, u64)>, SnapError> {
        let mut medium = self.medium.lock();
        let life = medium.life;
        // An error of the whole list is told of its first name.
        if let Some((_, key)) = medium.finished.keys().next().copied() {
            medium.check(SnapOp::List, key, life)?;
        }
        Ok(medium.finished.iter().map(|((d, k), bytes)| (*d, *k, size_of(bytes))).collect())
    }
}

struct MemWriter {
    medium: Arc<Mutex<Medium>>,
    name: Name,
    life: u64,
    bytes: Vec<u8>,
    is_broken: bool,
}

impl MemWriter {
    fn reserve(&self, size_bytes: u64) -> Result<(), SnapError> {
        let mut medium = self.medium.lock();
        medium.check(SnapOp::Write, self.name.1, self.life)?;
        let limit_bytes = medium.left_bytes();
        if size_bytes > limit_bytes {
            return Err(SnapError::NoSpace { key: self.name.1, limit_bytes });
        }
        medium.used_bytes += size_bytes;
        Ok(())
    }
}

impl SnapWriter for MemWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapError> {
        if self.is_broken {
            return Err(io_error(self.name.1, SnapOp::Write, "an earlier write failed"));
        }
        if let Err(error) = self.reserve(bytes.len() as u64) {
            self.is_broken = true;
            return Err(error);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, SnapError> {
        if self.is_broken {
            return Err(io_error(self.name.1, SnapOp::Finish, "an earlier write failed"));
        }
        let mut medium = self.medium.lock();
        medium.check(SnapOp::Finish, self.name.1, self.life)?;
        medium.remove(&self.name);
        let size_bytes = self.bytes.len() as u64;
        medium.finished.insert(self.name, std::mem::take(&mut self.bytes).into());
        Ok(size_bytes)
    }
}

impl Drop for MemWriter {
    fn drop(&mut self) {
        let mut medium = self.medium.lock();
        // After a crash the name may belong to a writer of the next life.
        if medium.life == self.life {
            medium.writing.remove(&self.name);
            medium.used_bytes -= self.bytes.len() as u64;
        }
    }
}

struct MemReader {
    medium: Arc<Mutex<Medium>>,
    key: SnapKey,
    life: u64,
    rest: Bytes,
}

impl SnapReader for MemReader {
    fn read(&mut self, max_bytes: usize) -> Result<Bytes, SnapError> {
        self.medium.lock().check(SnapOp::Read, self.key, self.life)?;
        Ok(self.rest.split_to(max_bytes.min(self.rest.len())))
    }
}

fn size_of(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

fn io_error(key: SnapKey, op: SnapOp, why: &'static str) -> SnapError {
    SnapError::Io { key, op: op.name(), source: io::Error::other(why) }
}

#[cfg(test)]
mod tests {
    use raftstore_proto::RegionId;

    use super::*;

    const GENERATED: SnapDirection = SnapDirection::Generated;
    const RECEIVED: SnapDirection = SnapDirection::Received;

    fn key(index: u64) -> SnapKey {
        SnapKey { region: RegionId::must(1), term: 5, index }
    }

    fn put(store: &MemSnapStore, direction: SnapDirection, key: SnapKey, bytes: &[u8]) {
        let mut writer = store.create(direction, key).unwrap();
        writer.write(bytes).unwrap();
        assert_eq!(writer.finish().unwrap(), bytes.len() as u64);
    }

    fn read_all(reader: &mut dyn SnapReader) -> Result<Vec<u8>, SnapError> {
        let mut all = Vec::new();
        loop {
            let chunk = reader.read(3)?;
            if chunk.is_empty() {
                return Ok(all);
            }
            assert!(chunk.len() <= 3);
            all.extend_from_slice(&chunk);
        }
    }

    #[test]
    fn finished_is_read_back_and_listed_in_order() {
        let store = MemSnapStore::new(100);
        put(&store, RECEIVED, key(1), b"four");
        put(&store, GENERATED, key(2), b"seconds");
        put(&store, GENERATED, key(1), b"");
        assert_eq!(
            store.list().unwrap(),
            [(GENERATED, key(1), 0), (GENERATED, key(2), 7), (RECEIVED, key(1), 4)]
        );
        let mut reader = store.open(GENERATED, key(2)).unwrap();
        assert_eq!(read_all(reader.as_mut()).unwrap(), b"seconds");
        assert!(matches!(store.open(RECEIVED, key(2)), Err(SnapError::NotFound(_))));
    }

    #[test]
    fn unfinished_is_invisible_exclusive_and_leaves_nothing() {
        let store = MemSnapStore::new(100);
        let mut writer = store.create(RECEIVED, key(1)).unwrap();
        writer.write(b"half").unwrap();
        assert!(store.list().unwrap().is_empty());
        assert!(matches!(store.create(RECEIVED, key(1)), Err(SnapError::Busy(_))));
        assert!(store.create(GENERATED, key(1)).is_ok(), "the other direction is another name");
        drop(writer);
        assert_eq!(store.used_bytes(), 0);
        put(&store, RECEIVED, key(1), b"whole");
        assert_eq!(store.used_bytes(), 5);
    }

    #[test]
    fn a_newer_one_replaces_and_a_reader_survives_delete() {
        let store = MemSnapStore::new(100);
        put(&store, GENERATED, key(1), b"older one");
        let mut reader = store.open(GENERATED, key(1)).unwrap();
        put(&store, GENERATED, key(1), b"new");
        assert_eq!(store.used_bytes(), 3);
        store.delete(GENERATED, key(1)).unwrap();
        store.delete(GENERATED, key(1)).unwrap();
        assert_eq!(read_all(reader.as_mut()).unwrap(), b"older one");
        assert_eq!(store.used_bytes(), 0);
    }

    #[test]
    fn over_the_limit_nothing_is_kept() {
        let store = MemSnapStore::new(10);
        put(&store, GENERATED, key(1), b"123456");
        let mut writer = store.create(RECEIVED, key(1)).unwrap();
        writer.write(b"123").unwrap();
        assert!(matches!(writer.write(b"45"), Err(SnapError::NoSpace { limit_bytes: 1, .. })));
        assert!(writer.write(b"4").is_err(), "a broken writer stays broken");
        assert!(writer.finish().is_err());
        assert_eq!(store.used_bytes(), 6);
        put(&store, RECEIVED, key(1), b"1234");
        assert!(matches!(
            store.create(RECEIVED, key(2)),
            Err(SnapError::NoSpace { limit_bytes: 0, .. })
        ));
    }

    #[test]
    fn crash_forgets_the_unfinished_and_kills_handles() {
        let store = MemSnapStore::new(100);
        put(&store, GENERATED, key(1), b"kept");
        let mut reader = store.open(GENERATED, key(1)).unwrap();
        let mut writer = store.create(RECEIVED, key(2)).unwrap();
        writer.write(b"lost").unwrap();
        store.crash();
        assert_eq!(store.used_bytes(), 4);
        assert!(reader.read(1).is_err());
        let next_life = store.create(RECEIVED, key(2)).unwrap();
        assert!(writer.write(b"more").is_err());
        drop(writer);
        assert!(matches!(store.create(RECEIVED, key(2)), Err(SnapError::Busy(_))));
        drop(next_life);
        assert_eq!(store.list().unwrap(), [(GENERATED, key(1), 4)]);
    }

    #[test]
    fn every_operation_fails_on_command_once() {
        let store = MemSnapStore::new(100);
        put(&store, GENERATED, key(1), b"bytes");
        for op in [SnapOp::Create, SnapOp::Open, SnapOp::Delete, SnapOp::List] {
            store.fail_next(op, 1);
        }
        assert!(store.create(GENERATED, key(2)).is_err());
        assert!(store.open(GENERATED, key(1)).is_err());
        assert!(store.delete(GENERATED, key(1)).is_err());
        assert!(store.list().is_err());
        let mut reader = store.open(GENERATED, key(1)).unwrap();
        store.fail_next(SnapOp::Read, 1);
        assert!(reader.read(2).is_err());
        assert_eq!(read_all(reader.as_mut()).unwrap(), b"bytes");
        let mut writer = store.create(GENERATED, key(2)).unwrap();
        store.fail_next(SnapOp::Write, 1);
        assert!(writer.write(b"x").is_err());
        drop(writer);
        let writer = store.create(GENERATED, key(2)).unwrap();
        store.fail_next(SnapOp::Finish, 1);
        assert!(writer.finish().is_err());
        assert_eq!(store.list().unwrap(), [(GENERATED, key(1), 5)]);
    }

    #[test]
    fn corruption_changes_the_bits_asked_for() {
        let store = MemSnapStore::new(100);
        put(&store, RECEIVED, key(1), b"abc");
        assert!(store.corrupt(RECEIVED, key(1), 1, 0x01));
        assert!(!store.corrupt(RECEIVED, key(1), 3, 0x01));
        assert!(!store.corrupt(GENERATED, key(1), 0, 0x01));
        let mut reader = store.open(RECEIVED, key(1)).unwrap();
        assert_eq!(read_all(reader.as_mut()).unwrap(), b"acc");
    }
}
