//! What the engine costs over bare redb, measured side by side in one run:
//! `cargo run --release -p engine-redb --example overhead [rounds [case]]`.
//!
//! Both hold the same rows (16 B keys, 256 B values) in a file of their own and do the same
//! work; rounds alternate between them, and the median of the rounds' ratios is printed.
//! Above 1 the engine is the faster one. Bare redb checks nothing that it reads.
#![expect(clippy::unwrap_used, reason = "a measurement that fails has no result")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use engine_redb::{RedbEngine, RedbOptions};
use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, WriteBatch};
use redb::{Database, ReadableDatabase, TableDefinition};

const ROWS: u64 = 200_000;
const CACHE_BYTES: usize = 256 << 20;
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("default");

fn key(number: u64) -> [u8; 16] {
    let mixed = (number % ROWS).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    key[8..].copy_from_slice(&(number % ROWS).to_be_bytes());
    key
}

fn value(number: u64) -> [u8; 256] {
    let mut value = [0; 256];
    for (at, part) in value.chunks_mut(8).enumerate() {
        part.copy_from_slice(&(number ^ (at as u64) << 40).wrapping_mul(0xD6E8_FEB8).to_le_bytes());
    }
    value
}

/// What the reader of a scan does with a row: copies it.
fn take_in(key: &[u8], value: &[u8], row: &mut Vec<u8>) -> usize {
    row.clear();
    row.extend_from_slice(key);
    row.extend_from_slice(value);
    black_box(row.as_slice()).len()
}

/// The same work by the engine and by bare redb.
trait Subject {
    fn put(&self, first: u64, rows: u64, durability: Durability);
    /// Each opens what it needs for itself.
    fn get(&self, number: u64) -> Bytes;
    /// From one view held open.
    fn get_many(&self, first: u64, gets: u64);
    fn scan(&self, from: u64, rows: usize) -> usize;
}

impl Subject for RedbEngine {
    fn put(&self, first: u64, rows: u64, durability: Durability) {
        let mut batch = self.write_batch();
        for number in first..first + rows {
            batch.put(Cf::Default, &key(number * 7919), &value(number));
        }
        self.write(batch, durability).unwrap();
    }

    fn get(&self, number: u64) -> Bytes {
        Reader::get(self, Cf::Default, &key(number)).unwrap().unwrap()
    }

    fn get_many(&self, first: u64, gets: u64) {
        let snapshot = self.snapshot().unwrap();
        for number in first..first + gets {
            black_box(snapshot.get(Cf::Default, &key(number * 7919)).unwrap().unwrap());
        }
    }

    fn scan(&self, from: u64, rows: usize) -> usize {
        let start = key(from);
        let range = Range::new(&start, b"");
        let mut cursor = self.cursor(Cf::Default, range, Direction::Forward).unwrap();
        let (mut bytes, mut row) = (0, Vec::new());
        for _ in 0..rows {
            let Some((key, value)) = cursor.next().unwrap() else { break };
            bytes += take_in(key, value, &mut row);
        }
        bytes
    }
}

impl Subject for Database {
    fn put(&self, first: u64, rows: u64, durability: Durability) {
        let mut transaction = self.begin_write().unwrap();
        transaction
            .set_durability(match durability {
                Durability::Buffered => redb::Durability::None,
                Durability::Synced => redb::Durability::Immediate,
            })
            .unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for number in first..first + rows {
                table.insert(key(number * 7919).as_slice(), value(number).as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn get(&self, number: u64) -> Bytes {
        let table = self.begin_read().unwrap().open_table(TABLE).unwrap();
        let found = table.get(key(number).as_slice()).unwrap().unwrap();
        Bytes::copy_from_slice(found.value())
    }

    fn get_many(&self, first: u64, gets: u64) {
        let table = self.begin_read().unwrap().open_table(TABLE).unwrap();
        for number in first..first + gets {
            let found = table.get(key(number * 7919).as_slice()).unwrap().unwrap();
            black_box(Bytes::copy_from_slice(found.value()));
        }
    }

    fn scan(&self, from: u64, rows: usize) -> usize {
        let table = self.begin_read().unwrap().open_table(TABLE).unwrap();
        let (mut bytes, mut buffer) = (0, Vec::new());
        for row in table.range(key(from).as_slice()..).unwrap().take(rows) {
            let (key, value) = row.unwrap();
            bytes += take_in(key.value(), value.value(), &mut buffer);
        }
        bytes
    }
}

struct Case {
    name: &'static str,
    goal: f64,
    operations: u64,
    run: fn(&dyn Subject, u64),
}

fn puts(subject: &dyn Subject, from: u64, batches: u64, rows: u64, durability: Durability) {
    for batch in 0..batches {
        subject.put(from + batch * rows, rows, durability);
    }
}

const CASES: [Case; 7] = [
    Case {
        name: "synced put, batch 1",
        goal: 0.97,
        operations: 40,
        run: |subject, from| puts(subject, from, 40, 1, Durability::Synced),
    },
    Case {
        name: "synced put, batch 16",
        goal: 0.97,
        operations: 40 * 16,
        run: |subject, from| puts(subject, from, 40, 16, Durability::Synced),
    },
    Case {
        name: "synced put, batch 256",
        goal: 0.97,
        operations: 8 * 256,
        run: |subject, from| puts(subject, from, 8, 256, Durability::Synced),
    },
    Case {
        name: "unsynced put, batch 16",
        goal: 0.9,
        operations: 200 * 16,
        run: |subject, from| puts(subject, from, 200, 16, Durability::Buffered),
    },
    Case {
        name: "get, each by itself",
        goal: 0.9,
        operations: 20_000,
        run: |subject, from| {
            for number in from..from + 20_000 {
                black_box(subject.get(number * 7919));
            }
        },
    },
    Case {
        name: "get, from one snapshot",
        goal: 0.9,
        operations: 20_000,
        run: |subject, from| subject.get_many(from, 20_000),
    },
    Case {
        name: "scan of 1,000 rows",
        goal: 0.85,
        operations: 50_000,
        run: |subject, from| {
            for scan in 0..50 {
                black_box(subject.scan(from + scan * 31, 1_000));
            }
        },
    },
];

fn seconds(case: &Case, subject: &dyn Subject, from: u64) -> f64 {
    let start = Instant::now();
    (case.run)(subject, from);
    start.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn measure(dir: &Path, rounds: u64, only: &str) {
    let options = RedbOptions::default().with_cache_bytes(CACHE_BYTES);
    let engine = RedbEngine::open(dir.join("engine"), &options).unwrap();
    let bare = redb::Builder::new().set_cache_size(CACHE_BYTES).create(dir.join("bare")).unwrap();
    let subjects: [&dyn Subject; 2] = [&engine, &bare];
    for subject in subjects {
        puts(subject, 0, ROWS / 1000, 1000, Durability::Buffered);
        subject.put(0, 1, Durability::Synced);
    }
    println!(
        "{:<24} {:>12} {:>12} {:>7} {:>6}",
        "case", "engine op/s", "redb op/s", "ratio", "goal"
    );
    for case in CASES.iter().filter(|case| case.name.contains(only)) {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let from = round * case.operations;
            // Who goes first alternates, so that neither always finds the device busy.
            let (our, their) = if round % 2 == 0 {
                let our = seconds(case, &engine, from);
                (our, seconds(case, &bare, from))
            } else {
                let their = seconds(case, &bare, from);
                (seconds(case, &engine, from), their)
            };
            ours.push(case.operations as f64 / our);
            theirs.push(case.operations as f64 / their);
            ratios.push(their / our);
        }
        println!(
            "{:<24} {:>12.0} {:>12.0} {:>7.3} {:>6.2}",
            case.name,
            median(ours),
            median(theirs),
            median(ratios),
            case.goal
        );
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(15);
    let only = std::env::args().nth(2).unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    measure(dir.path(), rounds, &only);
}
