//! What was sent and what was acknowledged, kept beside the stores so that a later run can
//! tell whether anything acknowledged is missing.
//!
//! An append-only file. Before a write is sent, its key and the print of its value go in (an
//! *intent*); when it is acknowledged, the number of the intent does. Both are handed to the
//! operating system before they are relied on, so they survive the end of this process at any
//! moment. A power failure may cost the tail, and with it knowledge about the last writes:
//! fewer are then checked, and a key that was being overwritten may be reported with a value
//! the manifest does not know any more.
//!
//! A torn tail ends the reading; the next run cuts it off.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::input::KEY_BYTES_MAX;

/// First bytes of the file: what it is, and the version of its form.
const MAGIC: &[u8; 16] = b"raftkv-acked-01\n";

const RUN: u8 = 1;
const INTENT: u8 = 2;
const ACKNOWLEDGED: u8 = 3;

/// Old intents are dropped from the file when it holds this many times more than needed.
const COMPACT_FACTOR: u64 = 2;

/// Enough of a value to recognise it: its length and two checksums of different make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    bytes: u64,
    crc: u32,
    mixed: u64,
}

impl Print {
    /// The print of a value.
    pub(crate) fn of(value: &[u8]) -> Self {
        // FNV-1a.
        let mixed = value.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self { bytes: value.len() as u64, crc: crc32c::crc32c(value), mixed }
    }
}

/// What may be found under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The value last acknowledged; without one the key may be absent.
    acknowledged: Option<Print>,
    /// Values sent since, of which each may have been stored.
    uncertain: Vec<(u64, Print)>,
}

impl Expected {
    /// Whether finding `value` contradicts what was acknowledged.
    pub(crate) fn allows(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return self.acknowledged.is_none() };
        let print = Print::of(value);
        self.acknowledged == Some(print) || self.uncertain.iter().any(|(_, sent)| *sent == print)
    }

    /// Whether more than one value may be found.
    pub(crate) fn is_uncertain(&self) -> bool {
        !self.uncertain.is_empty()
    }

    fn acknowledge(&mut self, number: u64) {
        if let Some(at) = self.uncertain.iter().position(|(sent, _)| *sent == number) {
            self.acknowledged = Some(self.uncertain[at].1);
            self.uncertain.drain(..=at);
        }
    }

    fn records(&self) -> u64 {
        2 * u64::from(self.acknowledged.is_some()) + self.uncertain.len() as u64
    }
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It cannot be read or written.
    #[error("cannot {doing} {}: {source}: check the disk's space and permissions", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no manifest of this program: name another --dir", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// The keys that were written, and what may be found under each.
///
/// Held in memory: some 150 bytes per key.
#[derive(Debug)]
pub(crate) struct Manifest {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    keys: BTreeMap<Bytes, Expected>,
    /// Keys of intents that are not acknowledged.
    open: BTreeMap<u64, Bytes>,
    next_number: u64,
    run: u64,
}

impl Manifest {
    /// One that is kept in memory only, for stores that are.
    pub(crate) fn in_memory() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
            keys: BTreeMap::new(),
            open: BTreeMap::new(),
            next_number: 1,
            run: 1,
        }
    }

    /// Opens the one at `path`, or makes one, and begins a run.
    pub(crate) fn open(path: &Path) -> Result<Self, ManifestError> {
        let mut this = Self { path: path.to_path_buf(), run: 0, ..Self::in_memory() };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| this.io("open", source))?;
        let mut records = 0;
        let whole = this.load(&mut file, &mut records)?;
        file.set_len(whole).map_err(|source| this.io("cut", source))?;
        file.seek(SeekFrom::End(0)).map_err(|source| this.io("write", source))?;
        this.file = Some(BufWriter::with_capacity(64 << 10, file));
        if whole == 0 {
            this.write(|out| out.write_all(MAGIC))?;
        }
        let needed: u64 = this.keys.values().map(Expected::records).sum();
        if records > COMPACT_FACTOR * needed + 1000 {
            this.compact()?;
        }
        this.run += 1;
        let run = this.run;
        this.record(RUN, run, &[], None)?;
        // Numbers are given out by run: no two runs may have the same.
        this.sync()?;
        Ok(this)
    }

    /// Which run over this directory it is, from 1.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Every key ever acknowledged, with what may be found under it.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (&Bytes, &Expected)> {
        self.keys.iter().filter(|(_, expected)| expected.acknowledged.is_some())
    }

    /// Bytes of their keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.acknowledged()
            .map(|(key, expected)| {
                key.len() as u64 + expected.acknowledged.map_or(0, |print| print.bytes)
            })
            .sum()
    }

    /// How many there are.
    pub(crate) fn acknowledged_len(&self) -> u64 {
        self.acknowledged().count() as u64
    }

    /// Notes that a write is about to be sent, and gives its number. It is not yet in the
    /// hands of the operating system: see [`Manifest::flush`].
    pub(crate) fn intend(&mut self, key: &Bytes, value: &[u8]) -> Result<u64, ManifestError> {
        let number = self.next_number;
        self.next_number += 1;
        let print = Print::of(value);
        self.record(INTENT, number, key, Some(print))?;
        self.keys.entry(key.clone()).or_default().uncertain.push((number, print));
        self.open.insert(number, key.clone());
        Ok(number)
    }

    /// Notes that the write of this number was acknowledged.
    pub(crate) fn acknowledge(&mut self, number: u64) -> Result<(), ManifestError> {
        let Some(key) = self.open.remove(&number) else { return Ok(()) };
        if let Some(expected) = self.keys.get_mut(&key) {
            expected.acknowledge(number);
        }
        self.record(ACKNOWLEDGED, number, &[], None)
    }

    /// Hands everything noted so far to the operating system.
    pub(crate) fn flush(&mut self) -> Result<(), ManifestError> {
        self.write(Write::flush)
    }

    /// Makes everything noted so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), ManifestError> {
        self.flush()?;
        let synced = self.file.as_ref().map_or(Ok(()), |file| file.get_ref().sync_data());
        synced.map_err(|source| self.io("sync", source))
    }

    /// Forgets that values other than those acknowledged may be found: they were looked for.
    pub(crate) fn settle(&mut self, key: &Bytes, value: Option<&[u8]>) {
        let Some(expected) = self.keys.get_mut(key) else { return };
        let Some(print) = value.map(Print::of) else { return };
        if let Some((number, _)) = expected.uncertain.iter().find(|(_, sent)| *sent == print) {
            let number = *number;
            expected.acknowledge(number);
        }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> ManifestError {
        ManifestError::Io { doing, path: self.path.clone(), source }
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), ManifestError> {
        let written = self.file.as_mut().map_or(Ok(()), write);
        written.map_err(|source| self.io("write", source))
    }

    fn record(
        &mut self,
        kind: u8,
        number: u64,
        key: &[u8],
        print: Option<Print>,
    ) -> Result<(), ManifestError> {
        let bytes = encode(kind, number, key, print);
        self.write(|out| out.write_all(&bytes))
    }

    /// Reads the file, and gives the length of its whole part.
    fn load(&mut self, file: &mut File, records: &mut u64) -> Result<u64, ManifestError> {
        let mut reader = BufReader::with_capacity(256 << 10, &*file);
        let mut magic = Vec::new();
        reader
            .by_ref()
            .take(MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(|source| self.io("read", source))?;
        if !MAGIC.starts_with(&magic) {
            return Err(ManifestError::Foreign { path: self.path.clone() });
        }
        if magic.len() < MAGIC.len() {
            return Ok(0);
        }
        let mut whole = MAGIC.len() as u64;
        while let Some((entry, bytes)) =
            decode(&mut reader).map_err(|source| self.io("read", source))?
        {
            whole += bytes;
            *records += 1;
            match entry {
                Entry::Run(run) => self.run = run,
                Entry::Intent(number, key, print) => {
                    self.next_number = self.next_number.max(number + 1);
                    self.keys.entry(key.clone()).or_default().uncertain.push((number, print));
                    self.open.insert(number, key);
                }
                Entry::Acknowledged(number) => {
                    if let Some(key) = self.open.remove(&number) {
                        self.keys.entry(key).or_default().acknowledge(number);
                    }
                }
            }
        }
        Ok(whole)
    }

    /// Writes the file anew with what is needed of it, and puts it in the old one's place.
    fn compact(&mut self) -> Result<(), ManifestError> {
        let path = self.path.with_extension("new");
        let file = File::create(&path).map_err(|source| self.io("compact", source))?;
        let mut out = BufWriter::with_capacity(64 << 10, file);
        let mut open = BTreeMap::new();
        let mut number = 0;
        let write = || -> io::Result<File> {
            out.write_all(MAGIC)?;
            out.write_all(&encode(RUN, self.run, &[], None))?;
            for (key, expected) in &mut self.keys {
                if let Some(print) = expected.acknowledged {
                    number += 1;
                    out.write_all(&encode(INTENT, number, key, Some(print)))?;
                    out.write_all(&encode(ACKNOWLEDGED, number, &[], None))?;
                }
                for (sent, print) in &mut expected.uncertain {
                    number += 1;
                    *sent = number;
                    open.insert(number, key.clone());
                    out.write_all(&encode(INTENT, number, key, Some(*print)))?;
                }
            }
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&path, &self.path)?;
            Ok(file)
        };
        let file = write().map_err(|source| self.io("compact", source))?;
        self.open = open;
        self.next_number = number + 1;
        self.file = Some(BufWriter::with_capacity(64 << 10, file));
        Ok(())
    }
}

enum Entry {
    Run(u64),
    Intent(u64, Bytes, Print),
    Acknowledged(u64),
}

/// Length of an entry without a key: length of the key, kind, number, print, checksum.
const FIXED_BYTES: usize = 2 + 1 + 8 + 20 + 4;

/// *Shape*: key length (2 bytes), kind (1), number (8), print (20), key, CRC32C (4).
fn encode(kind: u8, number: u64, key: &[u8], print: Option<Print>) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + key.len());
    let key_bytes = u16::try_from(key.len()).expect("the input bounds keys");
    out.extend_from_slice(&key_bytes.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&number.to_le_bytes());
    let print = print.unwrap_or(Print { bytes: 0, crc: 0, mixed: 0 });
    out.extend_from_slice(&print.bytes.to_le_bytes());
    out.extend_from_slice(&print.crc.to_le_bytes());
    out.extend_from_slice(&print.mixed.to_le_bytes());
    out.extend_from_slice(key);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn crc_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// The next entry and its length; `None` at the end, which is where the first entry stands
/// that is not whole.
fn decode(reader: &mut impl Read) -> io::Result<Option<(Entry, u64)>> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + 64);
    reader.take(2).read_to_end(&mut bytes)?;
    let &[low, high] = bytes.as_slice() else { return Ok(None) };
    let key_bytes = usize::from(u16::from_le_bytes([low, high]));
    if key_bytes > KEY_BYTES_MAX {
        return Ok(None);
    }
    let length = FIXED_BYTES + key_bytes;
    reader.take(length as u64 - 2).read_to_end(&mut bytes)?;
    if bytes.len() < length || crc_at(&bytes, length - 4) != crc32c::crc32c(&bytes[..length - 4]) {
        return Ok(None);
    }
    let number = number_at(&bytes, 3);
    let print = Print {
        bytes: number_at(&bytes, 11),
        crc: crc_at(&bytes, 19),
        mixed: number_at(&bytes, 23),
    };
    let entry = match bytes[2] {
        RUN => Entry::Run(number),
        INTENT => Entry::Intent(number, Bytes::copy_from_slice(&bytes[31..length - 4]), print),
        ACKNOWLEDGED => Entry::Acknowledged(number),
        _ => return Ok(None),
    };
    Ok(Some((entry, length as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest");
        (folder, path)
    }

    fn allows(manifest: &Manifest, name: &str, value: Option<&[u8]>) -> bool {
        manifest.keys.get(&key(name)).is_none_or(|expected| expected.allows(value))
    }

    #[test]
    fn what_was_acknowledged_must_be_found() {
        let (_folder, path) = file();
        let mut manifest = Manifest::open(&path).unwrap();
        assert_eq!(manifest.run(), 1);
        let number = manifest.intend(&key("a"), b"one").unwrap();
        assert!(allows(&manifest, "a", None));
        manifest.acknowledge(number).unwrap();
        manifest.flush().unwrap();
        drop(manifest);

        let manifest = Manifest::open(&path).unwrap();
        assert_eq!((manifest.run(), manifest.acknowledged_len()), (2, 1));
        assert!(allows(&manifest, "a", Some(b"one")));
        assert!(!allows(&manifest, "a", Some(b"two")));
        assert!(!allows(&manifest, "a", None));
    }

    #[test]
    fn a_write_in_flight_may_or_may_not_be_there() {
        let (_folder, path) = file();
        let mut manifest = Manifest::open(&path).unwrap();
        let first = manifest.intend(&key("a"), b"one").unwrap();
        manifest.acknowledge(first).unwrap();
        manifest.intend(&key("a"), b"two").unwrap();
        manifest.flush().unwrap();
        drop(manifest);

        let mut manifest = Manifest::open(&path).unwrap();
        assert!(allows(&manifest, "a", Some(b"one")));
        assert!(allows(&manifest, "a", Some(b"two")));
        assert!(!allows(&manifest, "a", None));
        // Once seen, it has happened.
        manifest.settle(&key("a"), Some(b"two"));
        assert!(!allows(&manifest, "a", Some(b"one")));
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let (_folder, path) = file();
        let mut manifest = Manifest::open(&path).unwrap();
        let number = manifest.intend(&key("a"), b"one").unwrap();
        manifest.acknowledge(number).unwrap();
        manifest.flush().unwrap();
        drop(manifest);
        let whole = fs::metadata(&path).unwrap().len();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&encode(INTENT, 9, b"b", Some(Print::of(b"x")))[..20]).unwrap();
        drop(file);

        let mut manifest = Manifest::open(&path).unwrap();
        assert_eq!(manifest.acknowledged_len(), 1);
        manifest.sync().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), whole + FIXED_BYTES as u64);
    }

    #[test]
    fn every_cut_of_the_file_is_read_without_an_error() {
        let (_folder, path) = file();
        let mut manifest = Manifest::open(&path).unwrap();
        for name in ["a", "b", "c"] {
            let number = manifest.intend(&key(name), name.as_bytes()).unwrap();
            manifest.acknowledge(number).unwrap();
        }
        manifest.flush().unwrap();
        drop(manifest);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let manifest = Manifest::open(&path).unwrap();
            assert!(manifest.acknowledged_len() <= 3);
        }
    }

    #[test]
    fn many_runs_do_not_make_it_grow() {
        let (_folder, path) = file();
        let mut lengths = Vec::new();
        for run in 0..8_u8 {
            let mut manifest = Manifest::open(&path).unwrap();
            for name in 0..1000 {
                let number = manifest.intend(&key(&format!("{name}")), &[run]).unwrap();
                manifest.acknowledge(number).unwrap();
            }
            manifest.flush().unwrap();
            lengths.push(fs::metadata(&path).unwrap().len());
        }
        assert!(lengths[7] < 5 * lengths[0], "{lengths:?}");
        let manifest = Manifest::open(&path).unwrap();
        assert_eq!((manifest.run(), manifest.acknowledged_len()), (9, 1000));
        assert!(allows(&manifest, "999", Some(&[7])));
        assert!(!allows(&manifest, "999", Some(&[6])));
    }

    #[test]
    fn a_file_of_another_kind_is_refused_unharmed() {
        let (_folder, path) = file();
        fs::write(&path, "something else entirely").unwrap();
        assert!(matches!(Manifest::open(&path), Err(ManifestError::Foreign { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"something else entirely");
    }
}
