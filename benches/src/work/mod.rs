//! What engines are asked to do again and again, each piece of it by a name: measured by
//! criterion one engine at a time, and by the report engine against engine.

mod kv;
mod log;
mod raw_log;
mod raw_redb;
#[cfg(feature = "rocksdb")]
mod raw_rocks;

pub use kv::{ROWS, kv_cases};
pub use log::{log_cases, recovery};
pub use raw_log::raw_log_cases;
pub use raw_redb::raw_redb_cases;
#[cfg(feature = "rocksdb")]
pub use raw_rocks::raw_rocks_cases;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use transport_traits::BoxError;

use crate::{Numbers, VALUE_BYTES};

/// One call does the work once.
pub type Run = Box<dyn FnMut() -> Result<(), BoxError>>;

/// A piece of work, and how to make ready for it.
pub struct Case {
    /// Its name, the same for all engines.
    pub name: String,
    /// Rows or entries that one run moves.
    pub elements: u64,
    start: Box<dyn Fn() -> Result<Run, BoxError>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Case {
    fn new(
        name: impl Into<String>,
        elements: u64,
        start: impl Fn() -> Result<Run, BoxError> + 'static,
    ) -> Self {
        Self { name: name.into(), elements, start: Box::new(start) }
    }

    /// Makes an engine ready. Its files go when the result is dropped.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn start(&self) -> Result<Run, BoxError> {
        (self.start)()
    }
}

/// Has criterion measure cases of the engine called `engine`.
///
/// # Panics
/// If the engine fails.
pub fn under_criterion(criterion: &mut Criterion, engine: &str, cases: Vec<Case>) {
    for case in cases {
        let mut group = criterion.benchmark_group(&case.name);
        group.throughput(Throughput::Elements(case.elements));
        group.bench_function(engine, |bencher| {
            let mut run = case.start().expect("the engine can be made ready");
            bencher.iter(|| run().expect("the engine does its work"));
        });
        group.finish();
    }
}

/// Random values without the cost of drawing each: slices of one block.
#[derive(Debug)]
struct Values {
    block: Bytes,
    at: usize,
}

impl Values {
    fn new() -> Self {
        Self { block: Numbers::new(7).bytes(4 << 20), at: 0 }
    }

    fn next(&mut self) -> Bytes {
        // An odd step, so that no value comes again at the same place soon.
        self.at = (self.at + VALUE_BYTES + 13) % (self.block.len() - VALUE_BYTES);
        self.block.slice(self.at..self.at + VALUE_BYTES)
    }
}
