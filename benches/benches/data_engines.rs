//! Data engines side by side: puts, durable and buffered, in batches; gets; scans.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, Result, WriteBatch};
use raftstore_benches::{KvFactory, Memory, Numbers, Redb, VALUE_BYTES, key};

/// Keys that puts are spread over.
const KEY_SPACE: u64 = 10_000_000;

/// Rows stored before reads are measured.
const ROWS: u64 = 100_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    all::<Memory>(&mut criterion);
    all::<Redb>(&mut criterion);
    criterion.final_summary();
}

fn all<F: KvFactory>(criterion: &mut Criterion) {
    puts::<F>(criterion).expect("the engine takes puts");
    reads::<F>(criterion).expect("the engine can be read");
}

fn puts<F: KvFactory>(criterion: &mut Criterion) -> Result<()> {
    for (kind, durability) in [("synced", Durability::Synced), ("buffered", Durability::Buffered)] {
        for size in [1, 16, 256] {
            let (engine, _folder) = F::make()?;
            let mut numbers = Numbers::new(1);
            let mut group = criterion.benchmark_group(format!("put/{kind}/{size}"));
            group.throughput(Throughput::Elements(size));
            group.bench_function(F::NAME, |bencher| {
                let batch = || {
                    let mut batch = engine.write_batch();
                    for _ in 0..size {
                        let value = numbers.bytes(VALUE_BYTES);
                        batch.put(Cf::Default, &key(numbers.draw() % KEY_SPACE), &value);
                    }
                    batch
                };
                let write = |batch| engine.write(batch, durability).expect("the disk takes it");
                bencher.iter_batched(batch, write, BatchSize::SmallInput);
            });
        }
    }
    Ok(())
}

fn reads<F: KvFactory>(criterion: &mut Criterion) -> Result<()> {
    let (engine, _folder) = F::make()?;
    let mut numbers = Numbers::new(2);
    let mut rows = (0..ROWS).map(|number| (key(number), numbers.bytes(VALUE_BYTES)));
    engine.ingest(Cf::Default, &mut rows)?;
    engine.sync()?;

    let mut numbers = Numbers::new(3);
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    group.bench_function(F::NAME, |bencher| {
        bencher.iter(|| {
            let wanted = key(numbers.draw() % ROWS);
            engine.get(Cf::Default, black_box(&wanted)).expect("it can be read")
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("scan/1000");
    group.throughput(Throughput::Elements(1000));
    group.bench_function(F::NAME, |bencher| {
        bencher.iter(|| {
            let first = numbers.draw() % (ROWS - 1000);
            scan(&engine, first).expect("it can be read")
        });
    });
    group.finish();
    Ok(())
}

/// Bytes of the thousand rows from `first` on.
fn scan(engine: &impl Reader, first: u64) -> Result<usize> {
    let (start, end) = (key(first), key(first + 1000));
    let range = Range::new(&start, &end);
    let mut cursor = engine.cursor(Cf::Default, range, Direction::Forward)?;
    let mut bytes = 0;
    while let Some((key, value)) = cursor.next()? {
        bytes += key.len() + value.len();
    }
    Ok(bytes)
}
