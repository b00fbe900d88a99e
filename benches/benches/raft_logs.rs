//! Raft logs side by side: one entry and one state for each of many regions in one batch,
//! which is what a round of a busy store looks like, durable and buffered; and reading back.

use criterion::Criterion;
use raftstore_benches::{
    LogFactory, Memory, RaftLogFiles, Redb,
    work::{log_cases, under_criterion},
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    all::<Memory>(&mut criterion);
    all::<Redb>(&mut criterion);
    all::<RaftLogFiles>(&mut criterion);
    #[cfg(feature = "rocksdb")]
    all::<raftstore_benches::Rocks>(&mut criterion);
    criterion.final_summary();
}

fn all<F: LogFactory>(criterion: &mut Criterion) {
    under_criterion(criterion, F::NAME, log_cases::<F>());
}
