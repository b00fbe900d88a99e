//! Data engines side by side: puts, durable and buffered, in batches; gets, scans, snapshots,
//! ranges replaced, sorted runs taken in.

use criterion::Criterion;
use raftstore_benches::{
    KvFactory, Memory, Redb,
    work::{kv_cases, under_criterion},
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    all::<Memory>(&mut criterion);
    all::<Redb>(&mut criterion);
    #[cfg(feature = "rocksdb")]
    all::<raftstore_benches::Rocks>(&mut criterion);
    criterion.final_summary();
}

fn all<F: KvFactory>(criterion: &mut Criterion) {
    under_criterion(criterion, F::NAME, kv_cases::<F>());
}
