//! 2,000 single bits are flipped, one at a time, in a file that was closed, in one whose
//! program was killed, and under an open engine. No wrong value ever comes back, and a flip
//! that hides a key is found by one sweep.
#![expect(clippy::unwrap_used, reason = "a run that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use engine_redb::{Loss, MemDisk, RedbEngine, RedbOptions};
use engine_traits::{
    Cf, Cursor, Direction, Durability, Error, KvEngine, Range, Reader, Result, WriteBatch,
};

const KEYS: u32 = 300;

type Rows = BTreeMap<(Cf, Vec<u8>), Vec<u8>>;

fn options() -> RedbOptions {
    RedbOptions::default().with_cache_bytes(128 << 10)
}

/// A deterministic sequence of numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Several versions of each row, so that the file is full of outdated pages, and a value
/// longer than a page.
fn fill(engine: &RedbEngine) -> Rows {
    let mut rows = Rows::new();
    for version in 0..5_u32 {
        for part in 0..6 {
            let mut batch = engine.write_batch();
            for number in (part..KEYS).step_by(6) {
                let cf = Cf::ALL[(number % 4) as usize];
                let key = format!("key {number:05}").into_bytes();
                let repeat = if number == 77 { 900 } else { 8 };
                let value = format!("{number} v{version} ").repeat(repeat).into_bytes();
                if (number + version).is_multiple_of(9) {
                    batch.delete(cf, &key);
                    rows.remove(&(cf, key));
                } else {
                    batch.put(cf, &key, &value);
                    rows.insert((cf, key), value);
                }
            }
            let durability = if part % 2 == 0 { Durability::Synced } else { Durability::Buffered };
            engine.write(batch, durability).unwrap();
        }
    }
    engine.sync().unwrap();
    rows
}

/// What reading everything came to.
#[derive(Debug, Default)]
struct Reading {
    /// Calls that answered with an error.
    errors: u32,
    /// Keys that were not there, or that a cursor left out.
    hidden: u32,
}

impl Reading {
    /// A wrong value or a key that was never stored fails the test at once.
    fn of(engine: &RedbEngine, rows: &Rows, at: &str) -> Self {
        let mut reading = Self::default();
        for ((cf, key), value) in rows {
            match engine.get(*cf, key) {
                Ok(Some(found)) => assert_eq!(found, value, "{at}: wrong value by get"),
                Ok(None) => reading.hidden += 1,
                Err(error) => reading.error(&error, at),
            }
        }
        for number in KEYS..KEYS + 20 {
            let key = format!("key {number:05}");
            if let Ok(found) = engine.get(Cf::Default, key.as_bytes()) {
                assert_eq!(found, None, "{at}: a key that was never stored");
            }
        }
        for cf in Cf::ALL {
            for direction in [Direction::Forward, Direction::Backward] {
                let mut found = 0;
                let walked = engine
                    .cursor(cf, Range::ALL, direction)
                    .and_then(|mut cursor| walk(cursor.as_mut(), cf, rows, &mut found, at));
                match walked {
                    Ok(()) => {
                        let stored = rows.keys().filter(|(of, _)| *of == cf).count();
                        reading.hidden += u32::try_from(stored - found).unwrap();
                    }
                    Err(error) => reading.error(&error, at),
                }
            }
        }
        reading
    }

    fn error(&mut self, error: &Error, at: &str) {
        assert!(matches!(error, Error::Corrupt { .. }), "{at}: not called damage: {error:?}");
        self.errors += 1;
    }
}

fn walk(cursor: &mut dyn Cursor, cf: Cf, rows: &Rows, found: &mut usize, at: &str) -> Result<()> {
    while let Some((key, value)) = cursor.next()? {
        let stored = rows.get(&(cf, key.to_vec())).map(Vec::as_slice);
        assert_eq!(stored, Some(value), "{at}: wrong row by cursor");
        *found += 1;
    }
    Ok(())
}

fn sweep(engine: &RedbEngine) -> Result<()> {
    while engine.sweep(64)?.passes == 0 {}
    Ok(())
}

/// Positions of flips: a quarter anywhere, the others where something is stored.
fn positions(bytes: &[u8], flips: usize, seed: u64) -> Vec<(usize, u8)> {
    let stored: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut numbers = Numbers(seed);
    let mut positions = Vec::new();
    for flip in 0..flips {
        let byte = match flip % 8 {
            0 | 1 => numbers.below(bytes.len()),
            // The header decides which commit counts.
            2 => numbers.below(320),
            _ => stored[numbers.below(stored.len())],
        };
        positions.push((byte, u8::try_from(numbers.below(8)).unwrap()));
    }
    positions
}

struct Closed {
    bytes: Vec<u8>,
    sums: Vec<u8>,
    rows: Rows,
}

fn sums_of(path: &Path) -> PathBuf {
    path.with_extension("redb.sums")
}

fn closed(path: &Path) -> Closed {
    let engine = RedbEngine::open(path, &options()).unwrap();
    let rows = fill(&engine);
    engine.close().unwrap();
    Closed { bytes: fs::read(path).unwrap(), sums: fs::read(sums_of(path)).unwrap(), rows }
}

#[test]
fn flips_in_a_closed_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.redb");
    let Closed { mut bytes, sums, rows } = closed(&path);
    let (mut refused, mut swept) = (0, 0);
    for (byte, bit) in positions(&bytes.clone(), 1000, 1) {
        let at = format!("byte {byte} bit {bit}");
        bytes[byte] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        fs::write(sums_of(&path), &sums).unwrap();
        match RedbEngine::open_with_cut(&path, &options()) {
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. }), "{at}: {error:?}");
                refused += 1;
            }
            Ok((engine, switch)) => {
                let reading = Reading::of(&engine, &rows, &at);
                assert_eq!(reading.hidden, 0, "{at}: a page that was read hid a key");
                assert!(sweep(&engine).is_err(), "{at}: not found by a sweep");
                swept += 1;
                switch.cut(Loss::Everything);
            }
        }
        bytes[byte] ^= 1 << bit;
    }
    // How many reads meet depends on the build: with debug assertions, opening reads all pages.
    assert!(refused > 0 && swept > 0, "{refused} {swept}");
}

#[test]
fn flips_after_a_kill() {
    let disk = MemDisk::new();
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    let rows = fill(&engine);
    // What a kill leaves: all that was given to the operating system.
    let mut bytes = disk.bytes();
    drop(engine);
    let (mut refused, mut harmless) = (0, 0);
    for (byte, bit) in positions(&bytes.clone(), 500, 2) {
        let at = format!("byte {byte} bit {bit}");
        bytes[byte] ^= 1 << bit;
        let disk = MemDisk::with_bytes(bytes.clone());
        match RedbEngine::open_with_backend(disk.backend(), &options()) {
            Err(error) => {
                let named = matches!(error, Error::Corrupt { .. } | Error::Format { .. });
                assert!(named, "{at}: {error:?}");
                refused += 1;
            }
            Ok(engine) => {
                let reading = Reading::of(&engine, &rows, &at);
                assert_eq!((reading.errors, reading.hidden), (0, 0), "{at}: passed the check");
                harmless += 1;
                disk.cut(Loss::Everything);
            }
        }
        bytes[byte] ^= 1 << bit;
    }
    assert!(refused > 0 && harmless > 0, "{refused} {harmless}");
}

#[test]
fn flips_under_an_open_engine() {
    let disk = MemDisk::new();
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    let rows = fill(&engine);
    engine.close().unwrap();
    let bytes = disk.bytes();
    let (mut failed, mut swept) = (0, 0);
    for (byte, bit) in positions(&bytes, 500, 3) {
        let at = format!("byte {byte} bit {bit}");
        let disk = MemDisk::with_bytes(bytes.clone());
        let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
        disk.flip(byte, bit);
        let found = sweep(&engine);
        assert!(found.is_err(), "{at}: not found by a sweep");
        swept += 1;
        let reading = Reading::of(&engine, &rows, &at);
        assert_eq!(reading.hidden, 0, "{at}: a page that was read hid a key");
        failed += u32::from(reading.errors > 0);
        // A write may meet the page too. It fails, or it is there.
        let mut batch = engine.write_batch();
        for number in 0..KEYS {
            let key = format!("key {number:05}");
            batch.put(Cf::ALL[(number % 4) as usize], key.as_bytes(), b"new");
        }
        if engine.write(batch, Durability::Synced).is_ok() {
            for number in 0..KEYS {
                let key = format!("key {number:05}");
                let found = engine.get(Cf::ALL[(number % 4) as usize], key.as_bytes());
                assert_eq!(found.unwrap().as_deref(), Some(&b"new"[..]), "{at}: {key}");
            }
        }
        disk.cut(Loss::Everything);
    }
    assert!(failed > 0 && swept > failed, "{failed} {swept}");
}
