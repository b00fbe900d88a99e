//! What a snapshot of one engine holds is taken in by every other, row for row.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use engine_redb::{RedbEngine, RedbOptions};
use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::mem::MemEngine;
use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, WriteBatch};

type Rows = BTreeMap<(Cf, Bytes), Bytes>;

/// Rows whose keys and values are of all lengths and bytes, the same ones in each run.
fn rows() -> Rows {
    let mut seed = 7_u64;
    let mut draw = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33).to_le_bytes()
    };
    let mut rows = Rows::new();
    for number in 0..400_usize {
        let cf = Cf::ALL[number % Cf::ALL.len()];
        let key: Vec<u8> = (0..number % 40).flat_map(|_| draw()).take(number % 40).collect();
        let value: Vec<u8> = (0..number).flat_map(|_| draw()).take(number).collect();
        rows.insert((cf, key.into()), value.into());
    }
    rows
}

fn read(reader: &impl Reader) -> Rows {
    let mut rows = Rows::new();
    for cf in Cf::ALL {
        let mut cursor = reader.cursor(cf, Range::ALL, Direction::Forward).unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            rows.insert((cf, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
        }
    }
    rows
}

/// Fills one engine, takes a snapshot, changes the engine, and moves the snapshot to the other.
fn moves(from: &impl KvEngine, to: &impl KvEngine) {
    let rows = rows();
    let mut batch = from.write_batch();
    for ((cf, key), value) in &rows {
        batch.put(*cf, key, value);
    }
    from.write(batch, Durability::Buffered).unwrap();
    let snapshot = from.snapshot().unwrap();
    let mut batch = from.write_batch();
    batch.delete_range(Cf::Default, Range::ALL);
    batch.put(Cf::Lock, b"", b"later");
    from.write(batch, Durability::Buffered).unwrap();
    for cf in Cf::ALL {
        let mut cursor = snapshot.cursor(cf, Range::ALL, Direction::Forward).unwrap();
        let mut moved = std::iter::from_fn(|| {
            let (key, value) = cursor.next().unwrap()?;
            Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
        });
        to.ingest(cf, &mut moved).unwrap();
    }
    to.sync().unwrap();
    assert_eq!(read(to), rows, "from {} to {}", from.name(), to.name());
}

#[test]
fn every_pair_of_engines_agrees_on_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut folder = || {
        number += 1;
        dir.path().join(number.to_string())
    };
    macro_rules! pairs {
        ($(($from:expr, [$($to:expr),*])),*) => { $($( moves(&$from, &$to); )*)* };
    }
    macro_rules! from_each {
        ($($to:tt)*) => {
            pairs! {
                (MemEngine::new(), $($to)*),
                (RedbEngine::open(folder(), &RedbOptions::default()).unwrap(), $($to)*),
                (RocksEngine::open(folder(), &RocksOptions::default()).unwrap(), $($to)*),
                (RocksEngine::open(folder(), &unlogged()).unwrap(), $($to)*)
            }
        };
    }
    from_each! { [
        MemEngine::new(),
        RedbEngine::open(folder(), &RedbOptions::default()).unwrap(),
        RocksEngine::open(folder(), &RocksOptions::default()).unwrap(),
        RocksEngine::open(folder(), &unlogged()).unwrap()
    ] }
}

fn unlogged() -> RocksOptions {
    RocksOptions::default().with_write_ahead_log(false)
}
